//! The thread that does the I/O of one network: the tap, the sockets of the guests, the capture. It decides nothing;
//! that is [`Fabric`]. One `ppoll` over everything; no call in it waits for a guest.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::capture::Capture;
use super::fabric::{Fabric, PortId};
use super::stream::{Decoder, MAX_FRAME, Queue};
use super::{CaptureStats, HOST_PORT, PortStats, SiteStats, Stats};

/// Something that the owner wants done in the thread.
pub(super) type Command = Box<dyn FnOnce(&mut Forwarder) + Send>;

/// How many frames the tap may give before the others have their turn.
const TAP_TURN: usize = 64;
/// How long what was captured may stay in memory.
const UNFLUSHED: Duration = Duration::from_secs(1);

/// A guest that is connected.
struct Plug {
    stream: UnixStream,
    decoder: Decoder,
    queue: Queue,
    /// It did not take everything: no use in trying before it can be written to.
    blocked: bool,
}

enum End {
    Tap(File),
    Guest {
        listener: UnixListener,
        plug: Option<Plug>,
    },
}

struct Port {
    name: String,
    end: End,
    interface: u32,
    stats: PortStats,
}

enum Source {
    Wake,
    Tap(PortId),
    Listener(PortId),
    Stream(PortId),
}

pub(super) struct Forwarder {
    pub(super) fabric: Fabric,
    pub(super) capture: Capture,
    ports: Vec<Port>,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    began: Instant,
    flushed: Instant,
    /// Frames that came out of the fabric.
    out: Vec<(PortId, Vec<u8>)>,
}

impl Forwarder {
    pub(super) fn new(
        mut fabric: Fabric,
        mut capture: Capture,
        tap: File,
        wake: Arc<EventFd>,
        commands: Receiver<Command>,
    ) -> Self {
        fabric.add_port(HOST_PORT, 0, super::plan::HOST);
        let interface = capture.add_interface(HOST_PORT);
        let stats = PortStats {
            connected: true,
            ..PortStats::default()
        };
        let host = Port {
            name: HOST_PORT.into(),
            end: End::Tap(tap),
            interface,
            stats,
        };
        let began = Instant::now();
        Self {
            fabric,
            capture,
            ports: vec![host],
            wake,
            commands,
            began,
            flushed: began,
            out: vec![],
        }
    }

    /// `listener` must not block.
    pub(super) fn add_port(&mut self, name: &str, segment: u8, number: u8, listener: UnixListener) {
        let id = self.fabric.add_port(name, segment, number);
        debug_assert_eq!(
            id,
            self.ports.len(),
            "ports are numbered alike here and in the fabric"
        );
        let interface = self.capture.add_interface(name);
        let end = End::Guest { listener, plug: None };
        self.ports.push(Port {
            name: name.to_owned(),
            end,
            interface,
            stats: PortStats::default(),
        });
    }

    pub(super) fn stats(&self) -> Stats {
        let port = |(id, port): (PortId, &Port)| {
            let (to, from) = self.fabric.port_stats(id);
            (
                port.name.clone(),
                PortStats {
                    to,
                    from,
                    ..port.stats.clone()
                },
            )
        };
        Stats {
            ports: self.ports.iter().enumerate().map(port).collect(),
            sites: self
                .fabric
                .site_stats()
                .map(|(name, to, from)| (name, SiteStats { to, from }))
                .collect(),
            everything: self.fabric.middle_stats(),
            partitioned: self.fabric.partitioned(),
            capture: CaptureStats {
                frames: self.capture.frames,
                bytes: self.capture.bytes,
                stopped: self.capture.stopped.clone(),
            },
        }
    }

    /// Until the owner has dropped its end of the commands.
    pub(super) fn run(mut self) {
        let mut buffer = vec![0; MAX_FRAME];
        while let Ok(ready) = self.wait() {
            for source in ready {
                match source {
                    Source::Wake => {
                        // Fails only where nothing is in it.
                        let _ = self.wake.read();
                        loop {
                            match self.commands.try_recv() {
                                Ok(command) => command(&mut self),
                                Err(TryRecvError::Empty) => break,
                                Err(TryRecvError::Disconnected) => return self.capture.flush(),
                            }
                        }
                    }
                    Source::Tap(id) => self.read_tap(id, &mut buffer),
                    Source::Listener(id) => self.accept(id),
                    Source::Stream(id) => self.read_stream(id),
                }
            }
            self.fabric.run(self.began.elapsed(), &mut self.out);
            self.deliver();
            self.write();
            if self.capture.unflushed && self.flushed.elapsed() >= UNFLUSHED {
                self.capture.flush();
                self.flushed = Instant::now();
            }
        }
    }

    fn wait(&self) -> Result<Vec<Source>, Errno> {
        let mut polled = vec![(Source::Wake, PollFd::new(self.wake.as_fd(), PollFlags::POLLIN))];
        for (id, port) in self.ports.iter().enumerate() {
            match &port.end {
                End::Tap(tap) => polled.push((Source::Tap(id), PollFd::new(tap.as_fd(), PollFlags::POLLIN))),
                End::Guest { listener, plug } => {
                    if let Some(Plug { stream, blocked, .. }) = plug {
                        let out = if *blocked {
                            PollFlags::POLLOUT
                        } else {
                            PollFlags::empty()
                        };
                        polled.push((
                            Source::Stream(id),
                            PollFd::new(stream.as_fd(), PollFlags::POLLIN | out),
                        ));
                    }
                    polled.push((
                        Source::Listener(id),
                        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                    ));
                }
            }
        }
        let due = self
            .fabric
            .next_due()
            .map(|due| due.saturating_sub(self.began.elapsed()));
        let flush = self.capture.unflushed.then_some(UNFLUSHED);
        let timeout = due.into_iter().chain(flush).min().map(TimeSpec::from_duration);
        let (mut sources, mut fds): (Vec<_>, Vec<_>) = polled.into_iter().unzip();
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("lab: the network ends: cannot poll: {error}");
                return Err(error);
            }
        }
        let mut ready = fds
            .iter()
            .map(|fd| fd.revents().is_none_or(|events| !events.is_empty()));
        sources.retain(|_| ready.next() == Some(true));
        Ok(sources)
    }

    fn read_tap(&mut self, id: PortId, buffer: &mut [u8]) {
        for _ in 0..TAP_TURN {
            let End::Tap(tap) = &mut self.ports[id].end else {
                return;
            };
            match tap.read(buffer) {
                Ok(len) => self.input(id, buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing there; or somebody took the interface down, who may put it up again.
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, id: PortId) {
        let port = &mut self.ports[id];
        let End::Guest { listener, plug } = &mut port.end else {
            return;
        };
        // A machine has one cable in one socket: who comes last has it. That is the restarted one.
        while let Ok((stream, _)) = listener.accept() {
            if let Err(error) = stream.set_nonblocking(true) {
                eprintln!(
                    "lab: port {}: cannot make its stream non-blocking: {error}",
                    port.name
                );
                continue;
            }
            *plug = Some(Plug {
                stream,
                decoder: Decoder::new(),
                queue: Queue::default(),
                blocked: false,
            });
            port.stats.connected = true;
        }
    }

    fn unplug(&mut self, id: PortId) {
        let port = &mut self.ports[id];
        if let End::Guest { plug, .. } = &mut port.end {
            *plug = None;
            port.stats.connected = false;
        }
    }

    fn read_stream(&mut self, id: PortId) {
        let End::Guest { plug: Some(plug), .. } = &mut self.ports[id].end else {
            return;
        };
        // Whatever woke us: the next write finds out.
        plug.blocked = false;
        match plug.decoder.read(&mut plug.stream) {
            Ok(0) => return self.unplug(id),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.unplug(id),
        }
        loop {
            let End::Guest { plug: Some(plug), .. } = &mut self.ports[id].end else {
                return;
            };
            match plug.decoder.frame() {
                Ok(Some(frame)) => {
                    let frame = frame.to_vec();
                    self.input(id, frame);
                }
                Ok(None) => return,
                Err(too_long) => {
                    eprintln!(
                        "lab: port {}: a frame of {} bytes: unplugged",
                        self.ports[id].name, too_long.0
                    );
                    return self.unplug(id);
                }
            }
        }
    }

    fn input(&mut self, id: PortId, frame: Vec<u8>) {
        let now = self.began.elapsed();
        let port = &mut self.ports[id];
        port.stats.sent += 1;
        self.capture.packet(port.interface, true, now, &frame);
        self.fabric.input(id, frame, now, &mut self.out);
    }

    fn deliver(&mut self) {
        let now = self.began.elapsed();
        for (id, frame) in self.out.drain(..) {
            let Port {
                end,
                interface,
                stats,
                ..
            } = &mut self.ports[id];
            let delivered = match end {
                End::Guest { plug: None, .. } => {
                    stats.absent += 1;
                    continue;
                }
                End::Guest { plug: Some(plug), .. } => plug.queue.push(&frame),
                End::Tap(tap) => tap.write(&frame).is_ok(),
            };
            if delivered {
                stats.received += 1;
                self.capture.packet(*interface, false, now, &frame);
            } else {
                stats.full += 1;
            }
        }
    }

    fn write(&mut self) {
        for id in 0..self.ports.len() {
            let End::Guest { plug: Some(plug), .. } = &mut self.ports[id].end else {
                continue;
            };
            if plug.blocked || plug.queue.is_empty() {
                continue;
            }
            match plug.queue.write(&mut plug.stream) {
                Ok(()) => plug.blocked = !plug.queue.is_empty(),
                // What it has sent before it went is still to be read; the end of that unplugs it.
                Err(_) => plug.queue = Queue::default(),
            }
        }
    }
}
