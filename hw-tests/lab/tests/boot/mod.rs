//! A guest just for the tests of images: one QEMU, its console on standard output, a second serial line on a socket.
//! Guests of the lab proper are another module; an image must be testable without them.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use lab::image::cpio::Archive;
use lab::image::{self, Image, Kind};

/// How long anything may take, on a machine that does much else.
const CAP: Duration = Duration::from_secs(120);

/// The image in the cache; else says why the test is skipped.
pub(crate) fn image_or_skip(kind: Kind) -> Option<Image> {
    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: qemu-system-x86_64 is not installed");
        return None;
    }
    match image::find(kind) {
        Ok(image) => Some(image),
        Err(error) => {
            println!("skipped: {error:#}");
            None
        }
    }
}

/// The image's initrd with a node's own files behind it.
pub(crate) fn initrd_with(image: &Image, folder: &Path, own: &Archive) -> std::path::PathBuf {
    let path = folder.join("initrd");
    std::fs::write(
        &path,
        [std::fs::read(image.initrd()).unwrap(), own.to_bytes()].concat(),
    )
    .unwrap();
    path
}

/// What a serial line said, read by a thread so that the guest never waits for us.
struct Line {
    heard: Receiver<Vec<u8>>,
    all: String,
    /// Up to where [`Line::wait`] has read.
    seen: usize,
}

impl Line {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if tell.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            heard,
            all: String::new(),
            seen: 0,
        }
    }

    /// Waits for this text behind what was waited for last; what was between.
    fn wait(&mut self, text: &str) -> String {
        let end = Instant::now() + CAP;
        loop {
            if let Some(at) = self.all[self.seen..].find(text) {
                let between = self.all[self.seen..self.seen + at].to_owned();
                self.seen += at + text.len();
                return between;
            }
            match self
                .heard
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.all.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => {
                    let what = if error == RecvTimeoutError::Timeout {
                        "not said in time"
                    } else {
                        "never said"
                    };
                    let lines: Vec<_> = self.all.lines().collect();
                    let last = lines[lines.len().saturating_sub(50)..].join("\n");
                    panic!("{text:?}: {what}; the last lines were:\n{last}");
                }
            }
        }
    }
}

/// A running guest; it ends when dropped.
pub(crate) struct Guest {
    qemu: Child,
    console: Line,
    control: Option<(UnixStream, Line)>,
    /// QEMU connects to it, and ends if nobody is there.
    listener: UnixListener,
}

impl Guest {
    /// Starts a guest with these disks; its network is a wire to nobody.
    pub(crate) fn start(
        image: &Image,
        initrd: Option<&Path>,
        append: &str,
        disks: &[&Path],
        folder: &Path,
    ) -> Self {
        let socket = folder.join("control");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let memory = if image.kind == Kind::Full { "768" } else { "256" };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", memory,
        ])
        .args(["-display", "none", "-nodefaults", "-no-reboot"])
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(initrd.unwrap_or(&image.initrd()))
        .args(["-append", &format!("{} panic=-1 {append}", image::KERNEL_LINE)])
        .args([
            "-serial",
            "stdio",
            "-serial",
            &format!("unix:{}", socket.display()),
        ])
        .args([
            "-netdev",
            "hubport,id=n,hubid=0",
            "-device",
            "virtio-net-pci,netdev=n,romfile=",
        ]);
        for disk in disks {
            let format = if disk.extension().is_some_and(|end| end == "qcow2") {
                "qcow2"
            } else {
                "raw"
            };
            qemu.args([
                "-drive",
                &format!("file={},format={format},if=virtio", disk.display()),
            ]);
        }
        let mut qemu = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let console = Line::read(qemu.stdout.take().unwrap());
        listener.set_nonblocking(true).unwrap();
        let mut guest = Self {
            qemu,
            console,
            control: None,
            listener,
        };
        if append.contains("lab.control=ttyS1") {
            let end = Instant::now() + CAP;
            let stream = loop {
                match guest.listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if Instant::now() < end && guest.qemu.try_wait().unwrap().is_none() => {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                    Err(error) => panic!("QEMU does not connect to the second serial line: {error}"),
                }
            };
            stream.set_nonblocking(false).unwrap();
            let line = Line::read(stream.try_clone().unwrap());
            guest.control = Some((stream, line));
        }
        guest
    }

    /// Waits until the console says this.
    pub(crate) fn wait(&mut self, text: &str) -> String {
        self.console.wait(text)
    }

    /// Types a line on the console.
    pub(crate) fn type_line(&mut self, line: &str) {
        self.qemu
            .stdin
            .as_mut()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Runs a command on the second serial line; what it printed.
    pub(crate) fn control(&mut self, command: &str) -> String {
        let (stream, line) = self.control.as_mut().unwrap();
        if line.seen == 0 {
            line.wait("LAB: control\n");
        }
        stream
            .write_all(format!("{command}\necho \"E\"ND\n").as_bytes())
            .unwrap();
        line.wait("END\n")
    }

    /// Waits until QEMU has ended by itself: the guest powered off.
    pub(crate) fn ends(&mut self) {
        let end = Instant::now() + CAP;
        loop {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                assert!(status.success(), "QEMU ended with {status}");
                return;
            }
            assert!(Instant::now() < end, "still running");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
