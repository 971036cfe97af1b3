//! Versions, taken from the store in blocks: one fsync for a thousand presses, and a crash never hands one out
//! twice.

use std::ops::Range;

use crate::error::Error;
use crate::store::{EPOCH_BLOCK, Store};

/// Versions in stock. The next block is taken when half of one is left, so that a full disk finds a reserve.
#[derive(Debug)]
pub(crate) struct Epochs {
    current: Range<u64>,
    spare: Option<Range<u64>>,
}

impl Epochs {
    pub(crate) const fn new(block: Range<u64>) -> Self {
        Self {
            current: block,
            spare: None,
        }
    }

    /// The next one. The store is asked long before the stock is empty.
    pub(super) async fn next(&mut self, store: &dyn Store) -> Result<u64, Error> {
        if self.spare.is_none() && self.current.end.saturating_sub(self.current.start) <= EPOCH_BLOCK / 2 {
            match store.reserve_epochs(EPOCH_BLOCK).await {
                Ok(block) => self.spare = Some(block),
                Err(error) if self.current.is_empty() => {
                    return Err(Error::NotDurable(format!(
                        "no reserved epoch is left and no new ones: {error}"
                    )));
                }
                Err(error) => {
                    tracing::warn!(%error, left = self.current.end - self.current.start, "no new epochs")
                }
            }
        }
        if self.current.is_empty()
            && let Some(spare) = self.spare.take()
        {
            self.current = spare;
        }
        self.current
            .next()
            .ok_or_else(|| Error::NotDurable("no reserved epoch is left".into()))
    }
}
