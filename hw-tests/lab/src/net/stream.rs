//! Frames on QEMU's `-netdev stream`: each with its length in front, four bytes, big-endian. What QEMU sends is
//! bounded and checked here; what it does not read is bounded and dropped here, whole frames at a time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// What QEMU itself takes at most (`NET_BUFSIZE`).
pub(super) const MAX_FRAME: usize = 4096 + 65536;
/// How much may wait for a guest that does not read.
pub(super) const MAX_QUEUE: usize = 512 << 10;
const PREFIX: usize = 4;

/// The length of a frame that nobody can have sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

/// Cuts a stream of bytes into frames.
pub(super) struct Decoder {
    bytes: Vec<u8>,
    /// What was read from the stream lies between these two.
    start: usize,
    end: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; 2 * (PREFIX + MAX_FRAME)],
            start: 0,
            end: 0,
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream. All frames must have been taken before.
    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let n = from.read(&mut self.bytes[self.end..])?;
        self.end += n;
        Ok(n)
    }

    /// The next whole frame.
    pub(super) fn frame(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let bytes = &self.bytes[self.start..self.end];
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(TooLong(len));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let frame = self.start + PREFIX..self.start + PREFIX + len;
        self.start = frame.end;
        Ok(Some(&self.bytes[frame]))
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    bytes: VecDeque<u8>,
}

impl Queue {
    /// Takes the whole frame or, if there is no room, nothing of it.
    #[must_use]
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(len) = u32::try_from(frame.len()) else {
            return false;
        };
        if self.bytes.len() + PREFIX + frame.len() > MAX_QUEUE {
            return false;
        }
        self.bytes.extend(len.to_be_bytes());
        self.bytes.extend(frame);
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes what can be written now.
    pub(super) fn write(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.bytes.is_empty() {
            let (front, back) = self.bytes.as_slices();
            match to.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.bytes.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives `chunk` bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buffer.len()).min(self.0.len());
            self.0.read(&mut buffer[..n])
        }
    }

    fn frames(stream: &[u8], chunk: usize) -> (Vec<Vec<u8>>, Option<TooLong>) {
        let (mut decoder, mut from, mut frames) = (Decoder::new(), Dribble(stream, chunk), vec![]);
        while decoder.read(&mut from).unwrap() > 0 {
            loop {
                match decoder.frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    proptest! {
        #[test]
        fn a_stream_never_panics_the_decoder(stream: Vec<u8>, chunk in 1_usize..100) {
            frames(&stream, chunk);
        }

        #[test]
        fn frames_come_out_as_they_went_in(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..20), chunk in 1_usize..5000,
        ) {
            let mut queue = Queue::default();
            for frame in &sent {
                prop_assert!(queue.push(frame));
            }
            let mut stream = vec![];
            queue.write(&mut stream).unwrap();
            prop_assert!(queue.is_empty());
            prop_assert_eq!(frames(&stream, chunk), (sent, None));
        }
    }

    #[test]
    fn the_longest_frame_fits_and_a_longer_one_is_refused() {
        let mut queue = Queue::default();
        let longest = vec![7; MAX_FRAME];
        assert!(queue.push(&longest) && queue.push(&longest));
        let mut stream = vec![];
        queue.write(&mut stream).unwrap();
        assert_eq!(
            frames(&stream, usize::MAX),
            (vec![longest.clone(), longest], None)
        );
        let bad = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        assert_eq!(frames(&bad, 1), (vec![], Some(TooLong(MAX_FRAME + 1))));
    }

    #[test]
    fn a_full_queue_takes_no_part_of_a_frame() {
        let mut queue = Queue::default();
        let taken = (0..1000).filter(|_| queue.push(&[1; 1500])).count();
        assert_eq!(taken, MAX_QUEUE / 1504);
        let mut stream = vec![];
        queue.write(&mut stream).unwrap();
        assert_eq!(frames(&stream, 9999).0.len(), taken);
    }
}
