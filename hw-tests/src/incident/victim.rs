//! Hosts outside the fleet that slivers hit: they listen, and count who came. What they count is what a replay
//! believes: neither the fleet nor its controller has a say in it.
//!
//! One thread for each victim takes whatever the kernel has queued, round by round. After two more rounds everything
//! that the kernel had at some moment has been counted; from then on silence is shown without waiting for time to
//! pass, by witnesses: others that go on while not one more of the silent comes ([`Web::fall_silent`],
//! [`Ports::fall_silent`]).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fleet::wait_for;

/// A request is read no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// And no further.
const LINE: usize = 256;
/// How soon a victim notices that it may go.
const LOOK: u16 = 50;
/// So many requests of each witness, without one of the silent, are silence.
const WITNESSED: u64 = 8;

/// How often each came: the key is a request's path, or a port.
pub type Seen<K> = BTreeMap<K, u64>;

struct Counter<K> {
    seen: Arc<Mutex<Seen<K>>>,
    /// How often all that was queued has been taken.
    rounds: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<K: Ord + Clone + Send + 'static> Counter<K> {
    /// Counts what `key` makes of each connection to one of the listeners.
    fn start(
        listeners: Vec<TcpListener>,
        key: impl Fn(usize, TcpStream) -> Option<K> + Send + 'static,
    ) -> Result<Self> {
        for listener in &listeners {
            listener.set_nonblocking(true).context("a listener")?;
        }
        let (seen, end) = (
            Arc::new(Mutex::new(Seen::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let rounds = Arc::new(AtomicU64::new(0));
        let (counts, done, stop) = (seen.clone(), rounds.clone(), end.clone());
        let thread = std::thread::Builder::new()
            .name("victim".into())
            .spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut ready: Vec<PollFd<'_>> = listeners
                        .iter()
                        .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
                        .collect();
                    if poll(&mut ready, PollTimeout::from(LOOK)).is_err() {
                        continue;
                    }
                    for (index, listener) in listeners.iter().enumerate() {
                        while let Ok((stream, _)) = listener.accept() {
                            if let Some(key) = key(index, stream) {
                                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                                *counts.entry(key).or_default() += 1;
                            }
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
            .context("a thread for the victim")?;
        Ok(Self {
            seen,
            rounds,
            end,
            thread: Some(thread),
        })
    }

    fn seen(&self) -> Seen<K> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each of these has come `more` times more.
    fn come(&self, what: &str, keys: &[K], more: u64) -> Result<()> {
        let before = self.seen();
        wait_for(what, || {
            let now = self.seen();
            keys.iter()
                .all(|key| count(&now, key) >= count(&before, key) + more)
                .then_some(())
        })
    }

    /// Shows that none of `silent` comes any more, while each of the `witnesses` does.
    fn fall_silent(&self, silent: &[K], witnesses: &[K]) -> Result<()> {
        // What was under way comes first: at the witnesses' side as theirs does, ...
        self.come("requests of witnesses", witnesses, 2)?;
        // ... in the kernel's queue once a whole round has been made: the one that is being made may be past it.
        let round = self.rounds.load(Ordering::Relaxed);
        wait_for("two rounds of the victim", || {
            (self.rounds.load(Ordering::Relaxed) >= round + 2).then_some(())
        })?;
        let before = self.seen();
        self.come("requests of witnesses", witnesses, WITNESSED)?;
        let now = self.seen();
        let loud = silent
            .iter()
            .filter(|key| count(&now, key) != count(&before, key))
            .count();
        ensure!(loud == 0, "{loud} of {} still come", silent.len());
        Ok(())
    }
}

fn count<K: Ord>(seen: &Seen<K>, key: &K) -> u64 {
    seen.get(key).copied().unwrap_or(0)
}

impl<K> Drop for Counter<K> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A web server: counts `GET /KEY` by key.
pub struct Web {
    address: SocketAddr,
    counter: Counter<String>,
}

impl Web {
    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a web server")?;
        let address = listener.local_addr()?;
        let counter = Counter::start(vec![listener], |_, stream| answer(stream))?;
        Ok(Self { address, counter })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    #[must_use]
    pub fn seen(&self) -> Seen<String> {
        self.counter.seen()
    }

    /// Waits until each of these keys was asked for `more` times more.
    ///
    /// # Errors
    /// When one is not.
    pub fn hit_by(&self, keys: &[String], more: u64) -> Result<()> {
        self.counter.come("requests of all nodes", keys, more)
    }

    /// Shows that none of `silent` is asked for any more, while each of the `witnesses` is.
    ///
    /// # Errors
    /// When one still is, or a witness is not.
    pub fn fall_silent(&self, silent: &[String], witnesses: &[String]) -> Result<()> {
        self.counter.fall_silent(silent, witnesses)
    }
}

/// Reads `GET /KEY …`, answers, and returns the key. Whatever else comes is not counted.
fn answer(mut stream: TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut line = Vec::new();
    let mut bytes = [0; LINE];
    // To the end: closing with something unread would be a reset.
    while !line.ends_with(b"\r\n\r\n") && line.len() < LINE {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(read) => line.extend_from_slice(&bytes[..read]),
        }
    }
    // It may be gone by now.
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
    let text = String::from_utf8_lossy(&line);
    let path = text.strip_prefix("GET /")?.split_whitespace().next()?;
    Some(path.to_owned())
}

/// A host with open ports that never says anything: counts connections by port.
pub struct Ports {
    addresses: Vec<SocketAddr>,
    counter: Counter<SocketAddr>,
}

impl Ports {
    /// Hosts with `each` open ports, all watched by one thread.
    ///
    /// # Errors
    /// When one cannot listen.
    pub fn open(hosts: &[Ipv4Addr], each: usize) -> Result<Self> {
        let mut listeners = Vec::new();
        for host in hosts {
            for _ in 0..each {
                listeners.push(TcpListener::bind((*host, 0)).with_context(|| format!("a port of {host}"))?);
            }
        }
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<std::io::Result<Vec<_>>>()?;
        let ports = addresses.clone();
        let counter = Counter::start(listeners, move |index, _| ports.get(index).copied())?;
        Ok(Self { addresses, counter })
    }

    /// The open ports of a host.
    #[must_use]
    pub fn of(&self, host: Ipv4Addr) -> Vec<SocketAddr> {
        let host = IpAddr::V4(host);
        self.addresses
            .iter()
            .copied()
            .filter(|address| address.ip() == host)
            .collect()
    }

    /// Connections so far.
    #[must_use]
    pub fn seen(&self) -> Seen<SocketAddr> {
        self.counter.seen()
    }

    /// Waits until each of these ports was tried `more` times more.
    ///
    /// # Errors
    /// When one is not.
    pub fn hit(&self, ports: &[SocketAddr], more: u64) -> Result<()> {
        self.counter.come("probes of all ports", ports, more)
    }

    /// Shows that none of `silent` is tried any more, while each of the `witnesses` is.
    ///
    /// # Errors
    /// When one still is, or a witness is not.
    pub fn fall_silent(&self, silent: &[SocketAddr], witnesses: &[SocketAddr]) -> Result<()> {
        self.counter.fall_silent(silent, witnesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: SocketAddr, words: &str) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }

    #[test]
    fn a_web_victim_counts_requests_and_nothing_else() {
        let web = Web::start().unwrap();
        drop(TcpStream::connect(web.address()).unwrap());
        get(web.address(), "HELO\r\n\r\n");
        get(web.address(), &"x".repeat(2 * LINE));
        for _ in 0..2 {
            get(web.address(), "GET /n1/slice HTTP/1.0\r\n\r\n");
        }
        wait_for("two", || (web.seen().get("n1/slice") == Some(&2)).then_some(())).unwrap();
        assert_eq!(web.seen().len(), 1);
    }

    #[test]
    fn who_goes_on_is_not_silent() {
        let web = Web::start().unwrap();
        let (address, end) = (web.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    get(address, "GET /loud HTTP/1.0\r\n\r\n");
                    get(address, "GET /witness HTTP/1.0\r\n\r\n");
                }
            });
            let keys = |key: &str| [key.to_owned()];
            let quiet = web.fall_silent(&keys("quiet"), &keys("witness"));
            let loud = web.fall_silent(&keys("loud"), &keys("witness"));
            end.store(true, Ordering::Relaxed);
            quiet.unwrap();
            assert!(loud.is_err());
        });
    }

    #[test]
    fn ports_are_counted_one_by_one() {
        let hosts = [Ipv4Addr::new(127, 0, 26, 1), Ipv4Addr::new(127, 0, 26, 2)];
        let ports = Ports::open(&hosts, 2).unwrap();
        let mine = ports.of(hosts[1]);
        assert_eq!(mine.len(), 2);
        drop(TcpStream::connect(mine[0]).unwrap());
        wait_for("one", || (!ports.seen().is_empty()).then_some(())).unwrap();
        assert_eq!(ports.seen(), Seen::from([(mine[0], 1)]));
    }
}
