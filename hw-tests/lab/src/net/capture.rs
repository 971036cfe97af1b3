//! The packet capture: pcapng (draft-ietf-opsawg-pcapng), as wireshark and tcpdump read it, one interface for each port.
//! A frame that goes from one port to another is in it twice, as sent and as received: between the two lie the faults.
//!
//! Bounded: when it is full it stops and says so in the statistics, and the network goes on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Options: an interface's name, its clock's resolution (a power of ten), a packet's flags.
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
/// A packet's flags, as the guest sees it.
const RECEIVED: u32 = 1;
const SENT: u32 = 2;

pub(super) const MAX_BYTES: u64 = 64 << 20;

pub(super) struct Capture {
    file: BufWriter<File>,
    interfaces: u32,
    /// Moments are counted from here.
    began: SystemTime,
    max: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    /// Why nothing is written any more.
    pub(super) stopped: Option<String>,
    pub(super) unflushed: bool,
}

impl Capture {
    pub(super) fn new(path: &Path, max: u64) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot make the capture {}", path.display()))?;
        let mut capture = Self {
            file: BufWriter::with_capacity(256 << 10, file),
            interfaces: 0,
            began: SystemTime::now(),
            max,
            bytes: 0,
            frames: 0,
            stopped: None,
            unflushed: false,
        };
        // Version 1.0, a section of unknown length.
        let head = [&BYTE_ORDER.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        capture.block(SECTION, &[&head]);
        Ok(capture)
    }

    /// Its number is the number of interfaces before it.
    pub(super) fn add_interface(&mut self, name: &str) -> u32 {
        let mut body = ETHERNET.to_le_bytes().to_vec();
        // Reserved, and frames of any length.
        body.extend([0; 6]);
        option(&mut body, NAME, name.as_bytes());
        option(&mut body, RESOLUTION, &[9]);
        option(&mut body, 0, &[]);
        self.block(INTERFACE, &[&body]);
        self.interfaces += 1;
        self.interfaces - 1
    }

    pub(super) fn packet(&mut self, interface: u32, sent: bool, at: Duration, frame: &[u8]) {
        if self.stopped.is_some() {
            return;
        }
        let since = self.began.duration_since(UNIX_EPOCH).unwrap_or_default() + at;
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut head = [0; 20];
        head[..4].copy_from_slice(&interface.to_le_bytes());
        head[4..8].copy_from_slice(&u32::try_from(nanos >> 32).unwrap_or(u32::MAX).to_le_bytes());
        head[8..12].copy_from_slice(&nanos.to_le_bytes()[..4]);
        head[12..16].copy_from_slice(&len);
        head[16..].copy_from_slice(&len);
        let padding = &[0; 3][..frame.len().next_multiple_of(4) - frame.len()];
        let mut flags = [0; 12];
        flags[..2].copy_from_slice(&FLAGS.to_le_bytes());
        flags[2] = 4;
        flags[4..8].copy_from_slice(&if sent { SENT } else { RECEIVED }.to_le_bytes());
        self.block(PACKET, &[&head, frame, padding, &flags]);
        self.frames += u64::from(self.stopped.is_none());
    }

    /// `body`'s parts are together a multiple of four long.
    fn block(&mut self, kind: u32, body: &[&[u8]]) {
        if self.stopped.is_some() {
            return;
        }
        let len = 12 + body.iter().map(|part| part.len()).sum::<usize>();
        if self.bytes + len as u64 > self.max {
            self.stopped = Some(format!("full at {} bytes", self.bytes));
            return;
        }
        let length = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut write = || {
            self.file.write_all(&kind.to_le_bytes())?;
            self.file.write_all(&length)?;
            for part in body {
                self.file.write_all(part)?;
            }
            self.file.write_all(&length)
        };
        match write() {
            Ok(()) => {
                self.bytes += len as u64;
                self.unflushed = true;
            }
            Err(error) => self.stopped = Some(format!("cannot write: {error}")),
        }
    }

    pub(super) fn flush(&mut self) {
        self.unflushed = false;
        if let Err(error) = self.file.flush() {
            self.stopped.get_or_insert(format!("cannot write: {error}"));
        }
    }
}

fn option(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A frame out of a capture.
#[derive(Clone, PartialEq, Eq)]
pub struct Captured {
    /// Whose: the name of the port.
    pub port: String,
    /// Whether the port sent it (else it received it).
    pub sent: bool,
    /// Since 1970.
    pub at: Duration,
    /// From the destination's Ethernet address on.
    pub frame: Vec<u8>,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            port,
            sent,
            at,
            frame,
        } = self;
        write!(
            f,
            "{:.6} {} {port} ",
            at.as_secs_f64(),
            if *sent { "from" } else { "to" }
        )?;
        frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads back what [`super::Net`] has captured.
///
/// # Errors
/// When the bytes are not such a capture. One that breaks off in the middle of a block is not an error: it is read up
/// to there, as its writer may still be at work.
pub fn read_capture(bytes: &[u8]) -> Result<Vec<Captured>> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
    };
    ensure!(
        bytes.is_empty() || (word(bytes, 0) == Some(SECTION) && word(bytes, 8) == Some(BYTE_ORDER)),
        "not a capture of ours: it begins with {:02x?}",
        &bytes[..bytes.len().min(12)]
    );
    let (mut rest, mut names, mut packets) = (bytes, vec![], vec![]);
    while let (Some(kind), Some(length)) = (word(rest, 0), word(rest, 4)) {
        let at = bytes.len() - rest.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        ensure!(
            length >= 12 && length.is_multiple_of(4),
            "a block of {length} bytes at {at}"
        );
        let Some((block, after)) = rest.split_at_checked(length) else {
            break;
        };
        let body = &block[8..length - 4];
        match kind {
            INTERFACE => {
                names.push(name(body).with_context(|| format!("an interface without a name at {at}"))?)
            }
            PACKET => packets.push(packet(body, &names).with_context(|| format!("a broken packet at {at}"))?),
            _ => {}
        }
        rest = after;
    }
    Ok(packets)
}

fn packet(body: &[u8], names: &[String]) -> Option<Captured> {
    let (head, rest) = body.split_first_chunk::<20>()?;
    let (words, _) = head.as_chunks::<4>();
    let [interface, high, low, len, _] = *<&[[u8; 4]; 5]>::try_from(words).ok()?;
    let len = usize::try_from(u32::from_le_bytes(len)).ok()?;
    let flags = rest.get(len.checked_next_multiple_of(4)?..)?.get(4..8)?;
    Some(Captured {
        port: names
            .get(usize::try_from(u32::from_le_bytes(interface)).ok()?)?
            .clone(),
        sent: u32::from(flags[0]) == SENT,
        at: Duration::from_nanos(
            u64::from(u32::from_le_bytes(high)) << 32 | u64::from(u32::from_le_bytes(low)),
        ),
        frame: rest.get(..len)?.to_vec(),
    })
}

/// The first option that [`Capture::add_interface`] writes.
fn name(body: &[u8]) -> Option<String> {
    let (head, rest) = body.get(8..)?.split_first_chunk::<4>()?;
    (u16::from_le_bytes([head[0], head[1]]) == NAME).then_some(())?;
    String::from_utf8(
        rest.get(..usize::from(u16::from_le_bytes([head[2], head[3]])))?
            .to_vec(),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn written(max: u64, frames: &[Vec<u8>]) -> (Vec<u8>, u64, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.pcapng");
        let mut capture = Capture::new(&path, max).unwrap();
        for name in ["one", "another"] {
            capture.add_interface(name);
        }
        for (i, frame) in frames.iter().enumerate() {
            capture.packet(
                u32::try_from(i % 2).unwrap(),
                i % 3 == 0,
                Duration::from_nanos(i as u64),
                frame,
            );
        }
        capture.flush();
        (fs::read(path).unwrap(), capture.frames, capture.stopped)
    }

    proptest! {
        #[test]
        fn what_was_captured_is_read_back(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20)) {
            let (bytes, count, stopped) = written(MAX_BYTES, &frames);
            prop_assert_eq!((count, stopped), (frames.len() as u64, None));
            let read = read_capture(&bytes).unwrap();
            prop_assert_eq!(read.len(), frames.len());
            for (i, (captured, frame)) in read.iter().zip(&frames).enumerate() {
                prop_assert_eq!(&captured.frame, frame);
                prop_assert_eq!(captured.port.as_str(), ["one", "another"][i % 2]);
                prop_assert_eq!(captured.sent, i % 3 == 0);
                prop_assert_eq!(captured.at, read[0].at + Duration::from_nanos(i as u64));
            }
        }

        #[test]
        fn a_capture_never_panics_its_reader(cut: usize, at: usize, value: u8, noise: Vec<u8>) {
            let _ = read_capture(&noise);
            let (mut bytes, ..) = written(MAX_BYTES, &[vec![1; 60], vec![2; 61]]);
            let len = bytes.len();
            bytes[at % len] = value;
            let _ = read_capture(&bytes);
            bytes.truncate(cut % len);
            let _ = read_capture(&bytes);
        }
    }

    #[test]
    fn a_full_capture_stops_and_says_so() {
        let (bytes, count, stopped) = written(1000, &vec![vec![0; 60]; 50]);
        assert!(bytes.len() <= 1000);
        assert_eq!(read_capture(&bytes).unwrap().len() as u64, count);
        assert!((1..50).contains(&count) && stopped.unwrap().starts_with("full"));
    }
}
