//! How many connections one identity may hold: a stolen or careless certificate cannot take all descriptors.
//!
//! The newcomer is let in and the oldest is cut, as with handshakes: whoever presses the button now matters more
//! than a connection forgotten in another window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use proto::Identity;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Table {
    limit: usize,
    next: u64,
    held: HashMap<Identity, VecDeque<(u64, CancellationToken)>>,
}

/// The established connections of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Identities(Arc<Mutex<Table>>);

impl Identities {
    /// At most `limit` for each identity, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            limit: limit.max(1),
            next: 0,
            held: HashMap::new(),
        })))
    }

    /// Counts one more and cuts the oldest when there are too many. The permit counts until it is dropped.
    pub(crate) fn admit(&self, identity: Identity) -> Permit {
        let token = CancellationToken::new();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.next;
        table.next += 1;
        let limit = table.limit;
        let mine = table.held.entry(identity.clone()).or_default();
        mine.push_back((number, token.clone()));
        let oldest = if mine.len() > limit {
            mine.pop_front()
        } else {
            None
        };
        drop(table);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Permit {
            table: self.0.clone(),
            identity,
            number,
            token,
        }
    }

    /// Connections held now.
    pub(crate) fn len(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .held
            .values()
            .map(VecDeque::len)
            .sum()
    }
}

/// One established connection. Cancelling its token cuts it.
#[derive(Debug)]
pub(crate) struct Permit {
    table: Arc<Mutex<Table>>,
    identity: Identity,
    number: u64,
    token: CancellationToken,
}

impl Permit {
    /// Everything of the connection runs under this.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = table.held.get_mut(&self.identity) {
            mine.retain(|(number, _)| *number != self.number);
            if mine.is_empty() {
                table.held.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_same_identity_is_cut() {
        let identities = Identities::new(2);
        let alice: Identity = "redbutton://person/alice".parse().expect("identity");
        let first = identities.admit(alice.clone());
        let second = identities.admit(alice.clone());
        let other = identities.admit(Identity::Controller);
        assert_eq!(identities.len(), 3);
        let third = identities.admit(alice);
        assert!(first.token().is_cancelled());
        assert!(
            !second.token().is_cancelled() && !third.token().is_cancelled() && !other.token().is_cancelled()
        );
        drop((first, second, third, other));
        assert_eq!(identities.len(), 0);
    }
}
