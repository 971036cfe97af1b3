//! Whether two machines share one identity: a disk was cloned, or a key stolen. Pure.
//!
//! One machine has one boot at a time, so the links of each of its boots stand together: A A A, B B, C. Two machines
//! take turns: A B A. Links are numbered as they are accepted and judged by that number, not by when their first
//! report came to be looked at: a slow report of a boot that is over says nothing new.
//!
//! ```text
//!   links     1 2 3 4 5 6
//!   boots     A A B B C C      intervals A 1–2, B 3–4, C 5–6: apart, one machine
//!             A B B A          intervals A 1–4, B 2–3: one inside the other, two machines
//! ```
//! The order of the observations changes nothing. What it does not see: two machines of which one attaches once and
//! never again look like a reboot.

use proto::BootId;

/// Boots that are remembered; a machine that reboots more often than that between two links of its twin is lucky.
const REMEMBERED: usize = 32;

/// The boots of one node's links, each with its first and last link.
#[derive(Debug, Default, Clone)]
pub(crate) struct Boots {
    seen: Vec<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    boot: BootId,
    first: u64,
    last: u64,
}

impl Boots {
    /// The boot that was known before any link: numbers begin above 0.
    pub(crate) fn known(boot: Option<BootId>) -> Self {
        let seen = boot.map(|boot| Seen {
            boot,
            first: 0,
            last: 0,
        });
        Self {
            seen: seen.into_iter().collect(),
        }
    }

    /// The link of this number is of this boot. Returns another boot that its own took turns with.
    pub(crate) fn observe(&mut self, boot: BootId, link: u64) -> Option<BootId> {
        let own = match self.seen.iter_mut().find(|seen| seen.boot == boot) {
            Some(seen) => {
                (seen.first, seen.last) = (seen.first.min(link), seen.last.max(link));
                *seen
            }
            None => {
                let seen = Seen {
                    boot,
                    first: link,
                    last: link,
                };
                self.seen.push(seen);
                seen
            }
        };
        let other = self
            .seen
            .iter()
            .find(|seen| seen.boot != boot && seen.first <= own.last && own.first <= seen.last)
            .map(|seen| seen.boot);
        if self.seen.len() > REMEMBERED {
            let oldest = (0..self.seen.len()).min_by_key(|at| self.seen[*at].last);
            oldest.map(|at| self.seen.swap_remove(at));
        }
        other
    }

    /// One machine again, with another key.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn boot(n: u32) -> BootId {
        BootId::from_uuid(Uuid::from_u128(n.into()))
    }

    fn alarm(mut boots: Boots, links: &[(u32, u64)]) -> bool {
        let mut alarm = false;
        for (of, link) in links {
            alarm |= boots.observe(boot(*of), *link).is_some();
        }
        alarm
    }

    #[test]
    fn turns_are_told_from_reboots() {
        let links = |of: &[u32]| of.iter().copied().zip(1..).collect::<Vec<_>>();
        for (of, expected) in [
            (&[1, 1, 1][..], false),
            (&[1, 2], false),
            (&[1, 2, 3, 3, 4], false),
            (&[1, 2, 1], true),
            (&[1, 2, 3, 1], true),
            (&[1, 1, 2, 2, 2, 1], true),
        ] {
            assert_eq!(alarm(Boots::default(), &links(of)), expected, "{of:?}");
        }
        assert!(alarm(Boots::known(Some(boot(1))), &links(&[2, 1])));
        assert!(!alarm(Boots::known(Some(boot(1))), &links(&[1, 2])));
        let mut boots = Boots::known(Some(boot(1)));
        boots.observe(boot(2), 1);
        boots.forget();
        assert_eq!(boots.observe(boot(1), 2), None);
    }

    fn delivered(links: Vec<(u32, u64)>) -> impl Strategy<Value = Vec<(u32, u64)>> {
        let count = links.len();
        // Reports of one link come more than once, and of several in any order.
        prop::collection::vec(any::<prop::sample::Index>(), 0..8).prop_flat_map(move |again| {
            let mut all = links.clone();
            all.extend(again.iter().map(|at| links[at.index(count)]));
            Just(all).prop_shuffle()
        })
    }

    /// One machine: each boot with some links, one after the other.
    fn one_machine() -> impl Strategy<Value = Vec<(u32, u64)>> {
        prop::collection::vec(1_u32..5, 1..12).prop_map(|of| {
            let boots = of
                .iter()
                .enumerate()
                .flat_map(|(n, links)| std::iter::repeat_n(n as u32, *links as usize));
            boots.zip(1..).collect()
        })
    }

    proptest! {
        #[test]
        fn one_machine_is_never_two(links in one_machine().prop_flat_map(delivered)) {
            prop_assert!(!alarm(Boots::default(), &links));
        }

        #[test]
        fn two_machines_are_found_in_any_order(
            links in prop::collection::vec(0_u32..4, 3..20)
                .prop_map(|of| of.into_iter().zip(1..).collect::<Vec<_>>())
                .prop_flat_map(delivered),
        ) {
            // The naive oracle: put in order, a boot comes back after another.
            let mut ordered = links.clone();
            ordered.sort_unstable_by_key(|(_, link)| *link);
            ordered.dedup();
            let mut runs: Vec<u32> = ordered.iter().map(|(of, _)| *of).collect();
            runs.dedup();
            let runs_count = runs.len();
            runs.sort_unstable();
            runs.dedup();
            prop_assert_eq!(alarm(Boots::default(), &links), runs.len() < runs_count);
        }
    }
}
