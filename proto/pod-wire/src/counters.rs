//! What a listener counts, and where others on the same machine read it.
//!
//! The head of the listener's state file, integers in the machine's order: 8 bytes [`STATE_MAGIC`], 16 bytes boot
//! id, then a u64 for each [`Counter`] in its order. What follows is the listener's own.

/// The first bytes of the state file. The last one is the version of the layout.
pub const STATE_MAGIC: [u8; 8] = *b"rbpodst1";

macro_rules! counters {
    ($($variant:ident = $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Counter { $($variant,)* }

        impl Counter {
            /// Every counter, in the order of the file.
            pub const ALL: &[Counter] = &[$(Counter::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Counter::$variant => $name,)* }
            }
        }
    };
}

counters! {
    Received = "received",
    BadForm = "bad form",
    BadVersion = "unknown version",
    BadAction = "unknown action",
    OtherNode = "other node",
    BadTag = "bad tag",
    OddPacket = "fragment or extension header",
    OtherBoot = "other boot",
    Stale = "stale",
    Replay = "replay",
    UnknownKey = "unknown key",
    OutOfScope = "out of scope",
    WrongSignature = "wrong signature",
    Busy = "busy",
    Unable = "unable",
    Unanswered = "unanswered",
    NotSent = "answer not sent",
    Probes = "probes",
    Repeats = "repeats",
    DryRuns = "dry-runs",
    Reboots = "reboots",
    Crashes = "crashes",
    KillSlivers = "kill-slivers",
}

/// How many there are.
pub const COUNTERS: usize = Counter::ALL.len();
/// Bytes of the head.
pub const STATE_HEAD_BYTES: usize = 8 + 16 + 8 * COUNTERS;

/// The head of a state file: the boot that it is of, and the counts in their order. `None`: not of this layout.
#[must_use]
pub fn read_state_head(bytes: &[u8]) -> Option<([u8; 16], [u64; COUNTERS])> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (boot, mut rest) = rest.split_first_chunk::<16>()?;
    if *magic != STATE_MAGIC {
        return None;
    }
    let mut counts = [0; COUNTERS];
    for count in &mut counts {
        let (number, after) = rest.split_first_chunk::<8>()?;
        *count = u64::from_ne_bytes(*number);
        rest = after;
    }
    Some((*boot, counts))
}
