//! The last bytes of a stream, by absolute offset. Pure.

/// Holds at least the last `keep` bytes (if that many came) and at most twice as many, in one slice: searching is
/// simple, and bytes are moved only once in `keep`.
pub(super) struct Ring {
    held: Vec<u8>,
    end: u64,
    keep: usize,
}

impl Ring {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            held: Vec::new(),
            end: 0,
            keep: keep.max(1),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let fresh = &bytes[bytes.len().saturating_sub(self.keep)..];
        if fresh.len() < bytes.len() {
            self.held.clear();
        } else if self.held.len() + fresh.len() > 2 * self.keep {
            let surplus = (self.held.len() + fresh.len())
                .saturating_sub(self.keep)
                .min(self.held.len());
            self.held.drain(..surplus);
        }
        self.held.extend_from_slice(fresh);
    }

    /// The offset of the next byte to come.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn start(&self) -> u64 {
        self.end - self.held.len() as u64
    }

    /// What is held from `offset` on, where it starts, and how many bytes after `offset` are gone. An offset in the
    /// future gives nothing.
    pub(super) fn since(&self, offset: u64) -> Held<'_> {
        let at = offset.clamp(self.start(), self.end);
        let skip = usize::try_from(at - self.start()).unwrap_or(usize::MAX);
        Held {
            at,
            lost: at.saturating_sub(offset),
            bytes: self.held.get(skip..).unwrap_or_default(),
        }
    }

    /// The last `most` bytes.
    pub(super) fn last(&self, most: usize) -> &[u8] {
        &self.held[self.held.len().saturating_sub(most)..]
    }
}

pub(super) struct Held<'a> {
    pub(super) at: u64,
    pub(super) lost: u64,
    pub(super) bytes: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ring_agrees_with_a_vector_that_forgets_nothing(
            pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30),
            keep in 1usize..30,
            offset in 0u64..700,
        ) {
            let mut ring = Ring::new(keep);
            let mut all = Vec::new();
            for push in &pushes {
                ring.push(push);
                all.extend_from_slice(push);
                prop_assert_eq!(ring.end(), all.len() as u64);
                let held = ring.since(0);
                prop_assert!(held.bytes.len() >= keep.min(all.len()) && held.bytes.len() <= 2 * keep);
                prop_assert!(all.ends_with(held.bytes));
                let held = ring.since(offset);
                let at = usize::try_from(held.at).unwrap();
                prop_assert_eq!(held.bytes, &all[at..]);
                prop_assert_eq!(held.lost, held.at.saturating_sub(offset));
                prop_assert!(all.ends_with(ring.last(7)));
            }
        }
    }
}
