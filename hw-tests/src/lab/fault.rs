//! The faults of PDN-03-015, done to a lab node for real. What a slice would do is done *by* a slice, so that the red
//! button has something to kill; what happens to machines is done to the machine.
//!
//! [`Fault::commit`] returns once the fault has begun; whether its harm was reached is seen from outside (ssh, ping,
//! the console), since a node that is out of processes or descriptors cannot tell.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use lab::net::Where;

use super::{CAP, Lab};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A slice takes every file descriptor of the machine (“Nodes hanging”, 21 Mar 2003).
    Fds,
    /// A slice forks without end, at most 8,000 times (“sydney1”, 7 Apr 2003).
    Forkbomb,
    /// A slice takes all memory, again and again.
    Memory,
    /// A slice has four busy loops for each processor (“eating cycles”, 6 Jan 2003).
    Cpu,
    /// A log on the node's disk grows until the disk is full (“disk space”, 24 Mar 2003).
    Disk,
    /// The kernel panics, and resets by itself (“Berkeley offline”, 27 Feb 2003).
    Panic,
    /// Nothing but the kernel's interrupts gets a processor any more; it may ping or not.
    Hang,
    /// The node's cable is pulled.
    Network,
    /// One half of its mirror is gone, and it is reset (“Princeton oops”, 10 Jun 2003).
    Raid,
    /// Its file system is damaged, and it is reset (“Seattle bootCD”, 22 May 2003).
    Fsck,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 10] = [
        Fault::Fds,
        Fault::Forkbomb,
        Fault::Memory,
        Fault::Cpu,
        Fault::Disk,
        Fault::Panic,
        Fault::Hang,
        Fault::Network,
        Fault::Raid,
        Fault::Fsck,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::Fds => "fds",
            Fault::Forkbomb => "forkbomb",
            Fault::Memory => "memory",
            Fault::Cpu => "cpu",
            Fault::Disk => "disk",
            Fault::Panic => "panic",
            Fault::Hang => "hang",
            Fault::Network => "network",
            Fault::Raid => "raid",
            Fault::Fsck => "fsck",
        }
    }

    /// What the slice runs, where it is a slice's doing.
    fn hog(self) -> Option<&'static str> {
        match self {
            Fault::Fds => Some("lab-hog fds 1000000"),
            Fault::Forkbomb => Some("lab-hog forks 8000 3600"),
            Fault::Memory => {
                Some("sh -c 'n=0; while [ $n -lt 1000 ]; do n=$((n + 1)); lab-hog memory 65536; done'")
            }
            Fault::Cpu => Some("lab-hog cpu 4 3600"),
            _ => None,
        }
    }

    /// Does it to node `index`, in `slice` where a slice does it. Returns what was done, for people.
    ///
    /// # Errors
    /// When the node does not take it: it is off, has no mirror, or is broken already.
    pub fn commit(self, lab: &Lab, index: usize, slice: &str) -> Result<String> {
        let node = lab.at(index);
        let name = node.name();
        ensure!(node.guest().is_on()?, "{name} is off: power it on first");
        if self == Fault::Forkbomb {
            // So many fit into its memory: else the kernel's OOM killer ends the bomb, and the fault with it.
            node.must("echo 500 > /proc/sys/kernel/threads-max")?;
        }
        if let Some(hog) = self.hog() {
            node.exec(slice, hog)
                .with_context(|| format!("starting {self} on {name}"))?;
            return Ok(format!("{slice} on {name} runs: {hog}"));
        }
        let reset = "echo b > /proc/sysrq-trigger";
        let since = node.console().mark();
        match self {
            Fault::Disk => {
                node.must("lab-hog disk /var/lib/redbutton/access.log 1000000 root >/tmp/disk.log 2>&1 &")?;
                Ok(format!(
                    "/var/lib/redbutton/access.log on {name} grows until the disk is full"
                ))
            }
            Fault::Panic => {
                node.send("echo c > /proc/sysrq-trigger")?;
                node.console().wait_for(since, "Kernel panic", CAP)?;
                Ok(format!("the kernel of {name} panicked; it resets by itself"))
            }
            Fault::Hang => {
                node.send("lab-hog cpu $(nproc) 3600 real-time >/dev/null 2>&1 &")?;
                Ok(format!(
                    "every processor of {name} is taken by a real-time loop: nothing else runs"
                ))
            }
            Fault::Network => {
                lab.net().cut(&Where::port(name))?;
                Ok(format!("{name}'s cable is pulled; `mend` plugs it in"))
            }
            Fault::Raid => {
                ensure!(
                    node.disks() >= 3,
                    "{name} has no mirror: a node with `mirror` has two more disks"
                );
                node.must(
                    "[ -e /dev/md0 ] || mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 \
                     --assume-clean /dev/vdb /dev/vdc",
                )?;
                node.guest().pull_disk(2)?;
                node.must(
                    "mdadm --manage /dev/md0 --fail detached --remove detached; sync; cat /proc/mdstat",
                )?;
                node.send(reset)?;
                Ok(format!(
                    "half of {name}'s mirror is gone and it was reset: it waits for an operator"
                ))
            }
            Fault::Fsck => {
                node.must("sync; dd if=/dev/zero of=/dev/vda bs=4096 seek=2 count=2000 conv=notrunc,fsync")?;
                node.send(reset)?;
                Ok(format!(
                    "{name}'s file system is damaged and it was reset: fsck will refuse"
                ))
            }
            Fault::Fds | Fault::Forkbomb | Fault::Memory | Fault::Cpu => bail!("{self} is a slice's doing"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .with_context(|| format!("no fault is called {text:?}; there are {}", known()))
    }
}
