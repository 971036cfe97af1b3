//! How long to wait before the next dial: full jitter, so that a fleet that lost its controller in one moment does
//! not come back in one moment (AWS, "Exponential Backoff And Jitter": least work and least time of the variants).

use std::time::Duration;

/// Waits are uniform in `0 .. min(cap, base × 2^attempt)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of every wait.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The longest that the wait after `attempt` failures (0: the first) can be.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 2_u32.checked_pow(attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The wait after `attempt` failures, `random` being uniform in 0..1. Anything else counts as the nearer end.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let random = if random.is_nan() {
            1.0
        } else {
            random.clamp(0.0, 1.0)
        };
        self.ceiling(attempt).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff::default();
        let seconds: Vec<f64> = (0..9).map(|n| backoff.ceiling(n).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(backoff.ceiling(u32::MAX), backoff.cap);
    }

    proptest! {
        #[test]
        fn waits_fill_the_whole_range_and_never_leave_it(attempt in any::<u32>(), random in 0.0..1.0f64) {
            let backoff = Backoff::default();
            let wait = backoff.delay(attempt, random);
            prop_assert!(wait <= backoff.ceiling(attempt));
            prop_assert_eq!(wait, backoff.ceiling(attempt).mul_f64(random));
            prop_assert_eq!(backoff.delay(attempt, 0.0), Duration::ZERO);
            prop_assert_eq!(backoff.delay(attempt, 1.0), backoff.ceiling(attempt));
        }

        #[test]
        fn a_broken_random_number_cannot_break_the_wait(attempt in any::<u32>(), random in any::<f64>()) {
            let backoff = Backoff::default();
            prop_assert!(backoff.delay(attempt, random) <= backoff.ceiling(attempt));
        }
    }
}
