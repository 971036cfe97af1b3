//! Many courses over one socket of each family, in one thread.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pod_wire::{Action, NODE_OFFSET};

use crate::course::{Course, Outcome, Patience, Target};
use crate::key::{Sign, key_id};
use crate::wire::Ping;

/// Larger than any answer; what is longer is none.
const BUFFER: usize = 2_048;

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// Neither kind of socket.
    #[error(
        "no {family} ping socket: {source}; run as root, or let your group ping: sysctl net.ipv4.ping_group_range=\"0 2147483647\""
    )]
    Socket {
        /// IPv4 or IPv6.
        family: &'static str,
        /// What the system said about the raw one.
        source: io::Error,
    },
    /// Waiting failed.
    #[error("cannot wait for answers")]
    Wait(#[source] io::Error),
}

/// What came of one node.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Its place in the list that was given.
    pub index: usize,
    /// The node's id.
    pub node: [u8; 16],
    /// What came of it.
    pub outcome: Outcome,
    /// From the first packet to the end of the course.
    pub took: Duration,
}

/// Sends the same action to many nodes.
#[derive(Debug)]
pub struct Campaign {
    v4: Option<Ping>,
    v6: Option<Ping>,
}

struct Running {
    course: Course,
    addresses: Vec<IpAddr>,
    reported: bool,
}

impl Campaign {
    /// Opens the sockets that these addresses need.
    ///
    /// # Errors
    /// When one of them may not be had.
    pub fn open(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, CampaignError> {
        let (mut v4, mut v6) = (false, false);
        for address in addresses {
            if address.is_ipv4() {
                v4 = true;
            } else {
                v6 = true;
            }
        }
        let identifier = rand::random();
        let open = |wanted: bool, is_v6: bool, family| {
            wanted
                .then(|| {
                    Ping::open(is_v6, identifier).map_err(|source| CampaignError::Socket { family, source })
                })
                .transpose()
        };
        Ok(Self {
            v4: open(v4, false, "IPv4")?,
            v6: open(v6, true, "IPv6")?,
        })
    }

    /// Sends `action` to every target at all of its addresses until each course has ended; `told` hears of each end
    /// as it comes.
    ///
    /// # Errors
    /// When waiting itself fails. That a node cannot be reached is an outcome.
    pub fn run(
        &mut self,
        targets: Vec<(Target, Vec<IpAddr>)>,
        action: Action,
        key: &dyn Sign,
        patience: Patience,
        told: &mut dyn FnMut(Report),
    ) -> Result<(), CampaignError> {
        let id = key_id(&key.public());
        let mut by_node: HashMap<[u8; 16], Vec<usize>> = HashMap::with_capacity(targets.len());
        let mut running: Vec<Running> = Vec::with_capacity(targets.len());
        for (index, (target, addresses)) in targets.into_iter().enumerate() {
            by_node.entry(target.node).or_default().push(index);
            running.push(Running {
                course: Course::new(target, action, id, patience),
                addresses,
                reported: false,
            });
        }
        let begun = Instant::now();
        let mut left = running.len();
        let mut buffer = [0; BUFFER];
        while left > 0 {
            let mut due = u64::MAX;
            for (index, one) in running.iter_mut().enumerate() {
                if one.reported {
                    continue;
                }
                let now_ms = millis(begun.elapsed());
                let clock_ms = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
                let nonce = rand::random();
                if let Some(packet) = one
                    .course
                    .next(now_ms, clock_ms, nonce, &mut |bytes| key.sign(bytes))
                {
                    self.send(&one.addresses, &packet);
                }
                match (one.course.outcome(), one.course.due_ms()) {
                    (Some(outcome), _) => {
                        one.reported = true;
                        left -= 1;
                        told(Report {
                            index,
                            node: *one.course.node(),
                            outcome,
                            took: begun.elapsed(),
                        });
                    }
                    (None, Some(at)) => due = due.min(at),
                    (None, None) => {}
                }
            }
            if left == 0 {
                break;
            }
            let wait = due.saturating_sub(millis(begun.elapsed()));
            self.wait(Duration::from_millis(wait))?;
            self.hear(&mut buffer, begun, &by_node, &mut running)?;
        }
        Ok(())
    }

    fn send(&mut self, addresses: &[IpAddr], packet: &[u8]) {
        for address in addresses {
            let socket = if address.is_ipv4() {
                &mut self.v4
            } else {
                &mut self.v6
            };
            if let Some(socket) = socket {
                // Unreachable now may be reachable at the next copy; silence is what is told in the end.
                let _ = socket.send(*address, packet);
            }
        }
    }

    fn wait(&self, at_most: Duration) -> Result<(), CampaignError> {
        // A millisecond more, so that rounding down never makes it spin.
        let timeout = PollTimeout::try_from(at_most + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds: Vec<PollFd<'_>> = [&self.v4, &self.v6]
            .into_iter()
            .flatten()
            .map(|ping| PollFd::new(ping.fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(CampaignError::Wait(errno.into())),
        }
    }

    fn hear(
        &self,
        buffer: &mut [u8],
        begun: Instant,
        by_node: &HashMap<[u8; 16], Vec<usize>>,
        running: &mut [Running],
    ) -> Result<(), CampaignError> {
        for ping in [&self.v4, &self.v6].into_iter().flatten() {
            while let Some(payload) = ping.receive(buffer).map_err(CampaignError::Wait)? {
                // Echo and answer have the node's id at the same place.
                let node = payload
                    .get(NODE_OFFSET..)
                    .and_then(|rest| rest.first_chunk::<16>().copied());
                for index in node.iter().filter_map(|node| by_node.get(node)).flatten() {
                    let Some(one) = running.get_mut(*index) else {
                        continue;
                    };
                    if let Some(heard) = one.course.read(payload) {
                        one.course.hear(heard, millis(begun.elapsed()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
