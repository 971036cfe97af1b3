//! A guest without QEMU: a network namespace of its own, whose tap a thread couples to the port's socket. Both sides
//! of every conversation are real kernels.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::net::space::Space;
use crate::net::stream::{Decoder, MAX_FRAME, Queue};
use crate::net::{Net, Port, sys};

pub(super) struct Guest {
    space: Space,
    stop: Arc<EventFd>,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    /// A machine that is switched on at this port, up to the moment when the network knows it.
    pub(super) fn plug(net: &Net, port: &Port) -> Self {
        let space = Space::new().unwrap();
        let tap = space.enter(|| sys::open_tap("eth0")).unwrap().unwrap();
        let Port {
            mac,
            ip,
            prefix,
            gateway,
            ip6,
            prefix6,
            gateway6,
            ..
        } = port;
        space
            .ip(&format!(
                "link set eth0 address {mac}\naddress add {ip}/{prefix} dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
            ))
            .unwrap();
        if has_ipv6(&space) {
            space
                .ip(&format!(
                    "address add {ip6}/{prefix6} dev eth0 nodad\nroute add default via {gateway6} dev eth0\n"
                ))
                .unwrap();
        }
        let stream = UnixStream::connect(&port.socket).unwrap();
        let stop = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap());
        let stopped = Arc::clone(&stop);
        let pump = std::thread::spawn(move || pump(tap, stream, &stopped));
        wait(
            || net.stats().unwrap().ports[&port.name].connected,
            "the guest's connection",
        );
        Self {
            space,
            stop,
            pump: Some(pump),
        }
    }

    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.space.enter(work).unwrap()
    }
}

fn has_ipv6(space: &Space) -> bool {
    space.sysctl("net/ipv6/conf/eth0/accept_dad", "0").unwrap()
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        let _ = self.pump.take().map(JoinHandle::join);
    }
}

fn pump(mut tap: File, mut stream: UnixStream, stop: &EventFd) {
    let (mut decoder, mut buffer) = (Decoder::new(), vec![0; MAX_FRAME]);
    loop {
        let mut fds =
            [stop.as_fd(), tap.as_fd(), stream.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let [stopped, from_tap, from_stream] = fds.map(|fd| fd.any().unwrap());
        if stopped {
            return;
        }
        if from_tap {
            let mut queue = Queue::default();
            while let Ok(len) = tap.read(&mut buffer) {
                assert!(queue.push(&buffer[..len]));
                if queue.len() > 64 << 10 {
                    break;
                }
            }
            // A blocking write is fine for one guest; the forwarder always reads.
            match queue.write(&mut stream) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
                other => other.unwrap(),
            }
        }
        if from_stream {
            if decoder.read(&mut stream).unwrap_or(0) == 0 {
                return;
            }
            while let Some(frame) = decoder.frame().unwrap() {
                // A tap takes everything but what is not a frame at all.
                let _ = tap.write(frame);
            }
        }
    }
}

/// On a condition, with a cap that no working machine reaches.
pub(super) fn wait(mut done: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !done() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited a minute for {what}"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
