//! What a machine with a wrong clock knows of the time all the same.
//!
//! A node's clock says 1970 after its battery died, and 2040 after somebody's mistake; neither may keep it away from
//! its controller. So for a dialler with a floor the clock alone refuses no controller: a certificate for which our
//! clock is too early or too late is looked at as of a moment of its own life, at or after the floor. The floor is
//! what is known to have passed: a certificate that had ended by then is refused, whatever the clock says. Chain,
//! name, identity and possession of the key are checked as ever.
//!
//! What is lost: a controller's key that was stolen, and whose certificate has ended since, deceives a node that has
//! not spoken with the true controller after that end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

/// A time that has passed for certain; rises only. Seconds since 1970.
#[derive(Debug, Default)]
pub struct TimeFloor(AtomicU64);

impl TimeFloor {
    /// As it was kept.
    #[must_use]
    pub const fn new(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }

    /// It is at least so late. True when that is news.
    pub fn raise(&self, seconds: u64) -> bool {
        self.0.fetch_max(seconds, Ordering::Relaxed) < seconds
    }

    /// What has passed.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The earliest moment of a life that can still be; `None` when it had ended by the floor.
    pub(crate) fn within(&self, begins: SystemTime, ends: SystemTime) -> Option<UnixTime> {
        let at = begins.max(UNIX_EPOCH + Duration::from_secs(self.seconds()));
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        (at <= ends).then(|| UnixTime::since_unix_epoch(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_moment_lies_in_the_life_and_not_below_the_floor(
            floor in 0_u64..4_000, begins in 0_u64..4_000, life in 0_u64..2_000,
        ) {
            let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
            let found = TimeFloor::new(floor).within(at(begins), at(begins + life));
            match found {
                Some(moment) => {
                    let moment = moment.as_secs();
                    prop_assert!(moment >= floor && moment >= begins && moment <= begins + life);
                }
                None => prop_assert!(begins + life < floor),
            }
        }

        #[test]
        fn a_floor_only_rises(to in proptest::collection::vec(any::<u64>(), 1..20)) {
            let floor = TimeFloor::default();
            for seconds in &to {
                let news = *seconds > floor.seconds();
                prop_assert_eq!(floor.raise(*seconds), news);
            }
            prop_assert_eq!(floor.seconds(), to.into_iter().max().unwrap_or(0));
        }
    }
}
