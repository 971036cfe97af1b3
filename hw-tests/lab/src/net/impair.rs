//! What one direction of one link does to a frame. Pure: length, time and random numbers in, a fate out.
//!
//! Invariants: a frame never leaves before it came; nothing is invented (at most two copies of what came, and the
//! second only by `duplicate`); with `reorder` and `jitter` at nothing frames leave in the order in which they came.
//! Only a change of the impairment may break that order: what is on its way stays so, what comes after is not held
//! back by it, else a link healed of a delay of a minute would pass nothing for a minute.

use std::time::Duration;

use anyhow::{Result, ensure};

/// Time since the forwarder began.
pub(super) type Moment = Duration;

/// How much may wait for a slow link, in bytes and in time, whichever is more.
const BACKLOG_BYTES: u64 = 32 << 10;
const BACKLOG_TIME: Duration = Duration::from_millis(100);

/// How long a reordered frame is held back at most, so that later ones overtake it.
const HELD_BACK: Duration = Duration::from_millis(20);

/// What a link does to frames. Probabilities are 0 to 1 for each frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Time that each frame takes.
    pub delay: Duration,
    /// Each frame takes up to this much more or less, evenly spread; frames may overtake each other.
    pub jitter: Duration,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is held back for 1 to 20 ms more, so that later ones overtake it.
    pub reorder: f64,
    /// Probability that one bit behind the Ethernet header is flipped.
    pub corrupt: f64,
    /// Bits per second; more than 32 KiB or 100 ms waiting is dropped.
    pub rate_bits: Option<u64>,
}

impl Impairment {
    /// Only losing frames, with this probability.
    #[must_use]
    pub fn loss(loss: f64) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }

    /// Only taking this much time.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self {
            loss,
            delay: _,
            jitter: _,
            duplicate,
            reorder,
            corrupt,
            rate_bits,
        } = self;
        for (what, value) in [
            ("loss", loss),
            ("duplicate", duplicate),
            ("reorder", reorder),
            ("corrupt", corrupt),
        ] {
            ensure!(
                (0.0..=1.0).contains(value),
                "{what} must be a probability from 0 to 1, not {value}"
            );
        }
        ensure!(*rate_bits != Some(0), "a rate of 0 bits is a cut: say so");
        Ok(())
    }
}

/// A small generator (splitmix64), so that a test is reproducible by its seed. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0 ≤ x < 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }
}

/// One copy of a frame on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) at: Moment,
    /// A random number that says which bit is flipped, if one is.
    pub(super) flip: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The link is cut.
    Cut,
    Lost,
    /// Too much waits already for a slow link.
    Full,
    Passes(Arrival),
    PassesTwice(Arrival, Arrival),
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) cut: bool,
    impairment: Impairment,
    rng: Rng,
    /// When a slow link has sent what it was given.
    free_at: Moment,
    /// When the last frame that keeps the order arrives.
    last_at: Moment,
}

impl Link {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            cut: false,
            impairment: Impairment::default(),
            rng: Rng::new(seed),
            free_at: Moment::ZERO,
            last_at: Moment::ZERO,
        }
    }

    pub(super) fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    pub(super) fn impair(&mut self, impairment: Impairment) {
        self.impairment = impairment;
        self.free_at = Moment::ZERO;
        self.last_at = Moment::ZERO;
    }

    pub(super) fn heal(&mut self) {
        self.cut = false;
        self.impair(Impairment::default());
    }

    pub(super) fn pass(&mut self, len: usize, now: Moment) -> Fate {
        if self.cut {
            return Fate::Cut;
        }
        let Impairment {
            loss,
            delay,
            jitter,
            duplicate,
            reorder,
            corrupt,
            rate_bits,
        } = self.impairment;
        if self.rng.chance(loss) {
            return Fate::Lost;
        }
        let Some(sent) = self.send(len, now, rate_bits) else {
            return Fate::Full;
        };
        let mut at = sent.saturating_add(delay);
        let held_back = self.rng.chance(reorder);
        if held_back {
            at = at.saturating_add(
                Duration::from_millis(1)
                    + (HELD_BACK - Duration::from_millis(1)).mul_f64(self.rng.fraction()),
            );
        }
        if jitter > Duration::ZERO {
            // From delay - jitter to delay + jitter, but never before it was sent.
            at = at
                .saturating_add(jitter.mul_f64(2.0 * self.rng.fraction()))
                .saturating_sub(jitter)
                .max(sent);
        } else if !held_back {
            at = at.max(self.last_at);
            self.last_at = at;
        }
        let twice = self.rng.chance(duplicate);
        let mut copy = || Arrival {
            at,
            flip: self.rng.chance(corrupt).then(|| self.rng.next()),
        };
        let first = copy();
        if twice {
            Fate::PassesTwice(first, copy())
        } else {
            Fate::Passes(first)
        }
    }

    /// When the last bit is on the wire; `None` if there is no room to wait.
    fn send(&mut self, len: usize, now: Moment, rate_bits: Option<u64>) -> Option<Moment> {
        let Some(rate) = rate_bits else {
            self.free_at = now;
            return Some(now);
        };
        let time_for = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(8_000_000_000) / rate);
        if self.free_at.saturating_sub(now) > BACKLOG_TIME.max(time_for(BACKLOG_BYTES)) {
            return None;
        }
        self.free_at = self.free_at.max(now) + time_for(len as u64);
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrivals(fate: &Fate) -> Vec<Arrival> {
        match fate {
            Fate::Cut | Fate::Lost | Fate::Full => vec![],
            Fate::Passes(one) => vec![*one],
            Fate::PassesTwice(one, two) => vec![*one, *two],
        }
    }

    fn link(seed: u64, impairment: Impairment) -> Link {
        impairment.check().unwrap();
        Link {
            impairment,
            ..Link::new(seed)
        }
    }

    fn any_impairment() -> impl Strategy<Value = Impairment> {
        let p = || 0.0..=1.0_f64;
        let ms = || (0_u64..200).prop_map(Duration::from_millis);
        (
            p(),
            ms(),
            ms(),
            p(),
            p(),
            p(),
            proptest::option::of(1_u64..10_000_000_000),
        )
            .prop_map(
                |(loss, delay, jitter, duplicate, reorder, corrupt, rate_bits)| Impairment {
                    loss,
                    delay,
                    jitter,
                    duplicate,
                    reorder,
                    corrupt,
                    rate_bits,
                },
            )
    }

    /// Lengths and the nanoseconds between one frame and the next.
    fn traffic() -> impl Strategy<Value = Vec<(usize, u64)>> {
        proptest::collection::vec((0_usize..70_000, 0_u64..5_000_000), 1..200)
    }

    proptest! {
        #[test]
        fn nothing_arrives_before_it_came_or_more_than_twice(seed: u64, what in any_impairment(), traffic in traffic()) {
            let mut link = link(seed, what.clone());
            let mut now = Moment::ZERO;
            for (len, gap) in traffic {
                now += Duration::from_nanos(gap);
                let arrivals = arrivals(&link.pass(len, now));
                prop_assert!(arrivals.iter().all(|a| a.at >= now));
                prop_assert!(arrivals.len() < 2 || what.duplicate > 0.0);
                prop_assert!(what.corrupt > 0.0 || arrivals.iter().all(|a| a.flip.is_none()));
            }
        }

        #[test]
        fn order_is_kept_without_reorder_and_jitter(seed: u64, what in any_impairment(), traffic in traffic()) {
            let mut link = link(seed, Impairment { reorder: 0.0, jitter: Duration::ZERO, ..what });
            let (mut now, mut last) = (Moment::ZERO, Moment::ZERO);
            for (len, gap) in traffic {
                now += Duration::from_nanos(gap);
                for arrival in arrivals(&link.pass(len, now)) {
                    prop_assert!(arrival.at >= last);
                    last = arrival.at;
                }
            }
        }

        #[test]
        fn the_same_seed_gives_the_same_fates(seed: u64, what in any_impairment(), traffic in traffic()) {
            let run = || {
                let mut link = link(seed, what.clone());
                traffic.iter().map(|(len, gap)| link.pass(*len, Duration::from_nanos(*gap))).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }

        #[test]
        fn a_rate_is_never_exceeded(seed: u64, rate in 1_000_u64..1_000_000_000, traffic in traffic()) {
            let mut link = link(seed, Impairment { rate_bits: Some(rate), ..Impairment::default() });
            let (mut now, mut bits) = (Moment::ZERO, 0_u128);
            for (len, gap) in traffic {
                now += Duration::from_nanos(gap);
                for arrival in arrivals(&link.pass(len, now)) {
                    bits += len as u128 * 8;
                    // A nanosecond for each frame is rounding.
                    prop_assert!(bits * 1_000_000_000 <= (arrival.at.as_nanos() + 200) * u128::from(rate));
                }
            }
        }

        #[test]
        fn rates_of_faults_are_as_asked(seed: u64, p in 0.0..=1.0_f64) {
            let frames = 4_000_u32;
            let count = |what: Impairment, is: fn(&Fate) -> bool| {
                let mut link = link(seed, what);
                (0..frames).filter(|_| is(&link.pass(100, Moment::ZERO))).count()
            };
            let counts = [
                count(Impairment::loss(p), |fate| *fate == Fate::Lost),
                count(Impairment { duplicate: p, ..Impairment::default() }, |f| matches!(f, Fate::PassesTwice(..))),
                count(Impairment { corrupt: p, ..Impairment::default() }, |f| arrivals(f)[0].flip.is_some()),
                count(Impairment { reorder: p, ..Impairment::default() }, |f| arrivals(f)[0].at > Moment::ZERO),
            ];
            // Six standard deviations: wrong once in a billion.
            let (n, mean) = (f64::from(frames), f64::from(frames) * p);
            let off = 6.0 * (n * p * (1.0 - p)).sqrt() + 1.0;
            for count in counts {
                prop_assert!((f64::from(u32::try_from(count).unwrap()) - mean).abs() <= off, "{count} of {n} for {p}");
            }
        }
    }

    #[test]
    fn a_slow_link_drops_what_has_no_room_to_wait() {
        let mut link = link(
            1,
            Impairment {
                rate_bits: Some(8_000),
                ..Impairment::default()
            },
        );
        let fates: Vec<_> = (0..100).map(|_| link.pass(1_000, Moment::ZERO)).collect();
        assert_eq!(
            fates.iter().filter(|f| **f == Fate::Full).count(),
            100 - 33,
            "32 KiB and the one that fills it"
        );
        assert_eq!(arrivals(&fates[0])[0].at, Duration::from_secs(1));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Impairment::loss(bad).check().is_err());
            assert!(
                Impairment {
                    corrupt: bad,
                    ..Impairment::default()
                }
                .check()
                .is_err()
            );
        }
        assert!(
            Impairment {
                rate_bits: Some(0),
                ..Impairment::default()
            }
            .check()
            .is_err()
        );
    }
}
