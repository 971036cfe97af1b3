//! The people's door: who may reach which services, which connections are whose, and the certificates that are
//! handed out there.
//!
//! ```text
//! connection ─▶ person, certificate good ─▶ every service      ┐ in `Connections` until it ends: revoking a key or
//!            ├▶ person, certificate ended ─▶ Enrol.Renew       │ a role cuts it, open streams included; it is also
//!            ├▶ invite ───────────────────▶ Enrol.Accept       ┘ cut when its certificate ends
//!            └▶ anybody else ─▶ closed
//! ```
//! A connection is entered before its first call, and each call looks its key up: a revocation between the two
//! either refuses the call or finds the connection to cut. There is no gap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use link::Peer;
use proto::{Identity, PersonName};
use tokio_util::sync::CancellationToken;
use trust::Spki;

use crate::pki::{Authority, Ca};
use crate::store::{KeyStore, Store};

/// Between two writes of when keys were used last.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// Refusals of one key in the audit, in this time.
const NOTES_OF_A_KEY: u32 = 10;
const NOTES_EVERY_MS: i64 = 60_000;
/// Keys that are turned away in that time; of more, nothing is noted.
const MOST_KNOCKING: usize = 1_000;
/// So long a connection lives on that must be cut, when the answer that says so goes out on it.
const LAST_WORD: Duration = Duration::from_millis(300);

/// What the door hands out, and until when it is good.
pub(crate) struct DoorConfig {
    /// Where people dial, for their bundles.
    pub(crate) controllers: Vec<String>,
    /// How long people's certificates are good.
    pub(crate) life: Duration,
    /// How long after its end a certificate may still be renewed.
    pub(crate) grace: Duration,
}

/// The people's door.
pub(crate) struct Door {
    authority: Arc<Authority>,
    pub(crate) config: DoorConfig,
    connections: Mutex<HashMap<u64, Connection>>,
    next: AtomicU64,
    used: Mutex<HashMap<Spki, i64>>,
    turned_away: Mutex<HashMap<Spki, Knocks>>,
}

/// How often a key was turned away lately.
#[derive(Debug, Clone, Copy)]
struct Knocks {
    since_ms: i64,
    count: u32,
}

struct Connection {
    person: Option<PersonName>,
    key: Spki,
    token: CancellationToken,
}

/// Which services a peer may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of them.
    Everything,
    /// `Enrol` alone.
    Enrol,
}

impl Reach {
    /// `None`: nothing, the connection is closed.
    pub(crate) const fn of(peer: &Peer) -> Option<Self> {
        match (&peer.identity, peer.expired) {
            (Identity::Person(_), false) => Some(Reach::Everything),
            (Identity::Person(_), true) | (Identity::Invite(_), false) => Some(Reach::Enrol),
            (Identity::Invite(_), true)
            | (Identity::Controller | Identity::Daemon(..) | Identity::Signer | Identity::Breakglass(_), _) => {
                None
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    pub(crate) fn new(authority: Arc<Authority>, config: DoorConfig) -> Self {
        Self {
            authority,
            config,
            connections: Mutex::default(),
            next: AtomicU64::new(0),
            used: Mutex::default(),
            turned_away: Mutex::default(),
        }
    }

    /// What issues now.
    pub(crate) fn ca(&self) -> Arc<Ca> {
        self.authority.ca()
    }

    /// Enters a connection. Everything of it runs under the token of what is returned.
    pub(crate) fn enter(self: &Arc<Self>, peer: &Peer, cut: &CancellationToken, now_ms: i64) -> Entered {
        let person = match &peer.identity {
            Identity::Person(name) => Some(name.clone()),
            _ => None,
        };
        let token = cut.child_token();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            person,
            key: peer.key,
            token: token.clone(),
        };
        lock(&self.connections).insert(number, connection);
        lock(&self.used).insert(peer.key, now_ms);
        Entered {
            door: self.clone(),
            number,
            token,
        }
    }

    /// Cuts every connection of a person.
    pub(crate) fn cut_person(&self, name: &PersonName) {
        self.cut(|connection| connection.person.as_ref() == Some(name));
    }

    /// Cuts every connection of these keys.
    pub(crate) fn cut_keys(&self, keys: &[Spki]) {
        self.cut(|connection| keys.contains(&connection.key));
    }

    /// As [`Door::cut_person`], a moment later: the caller is that person and waits for an answer.
    pub(crate) fn cut_person_soon(self: &Arc<Self>, name: PersonName) {
        let door = self.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            door.cut_person(&name);
        }));
    }

    /// As [`Door::cut_keys`], a moment later: one of them may be the caller's.
    pub(crate) fn cut_keys_soon(self: &Arc<Self>, keys: Vec<Spki>) {
        let door = self.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            door.cut_keys(&keys);
        }));
    }

    /// Whether one more refusal of this key belongs into the audit: whoever is locked out must not be able to fill
    /// the disk, or to keep its writer busy while support presses.
    pub(crate) fn is_worth_a_note(&self, key: Spki, now_ms: i64) -> bool {
        let mut knocking = lock(&self.turned_away);
        knocking.retain(|_, knocks| now_ms.saturating_sub(knocks.since_ms) < NOTES_EVERY_MS);
        if knocking.len() >= MOST_KNOCKING && !knocking.contains_key(&key) {
            return false;
        }
        let knocks = knocking.entry(key).or_insert(Knocks {
            since_ms: now_ms,
            count: 0,
        });
        knocks.count = knocks.count.saturating_add(1);
        knocks.count <= NOTES_OF_A_KEY
    }

    fn cut(&self, whose: impl Fn(&Connection) -> bool) {
        for connection in lock(&self.connections).values().filter(|c| whose(c)) {
            connection.token.cancel();
        }
    }

    /// Writes down when keys were used, now and then and at the end.
    pub(crate) async fn keep_record(self: Arc<Self>, store: Arc<dyn Store>, shutdown: CancellationToken) {
        loop {
            let done = shutdown
                .run_until_cancelled(tokio::time::sleep(TOUCH_EVERY))
                .await
                .is_none();
            let used: Vec<(Spki, i64)> = lock(&self.used).drain().collect();
            // An observation: what a full disk does not take is not missed.
            if let Err(error) = KeyStore::touch_keys(&*store, &used).await {
                tracing::debug!(%error, "cannot note when keys were used");
            }
            if done {
                return;
            }
        }
    }
}

/// One connection; leaves the table when dropped.
pub(crate) struct Entered {
    door: Arc<Door>,
    number: u64,
    /// Cancelled: the connection is to end.
    pub(crate) token: CancellationToken,
}

impl Entered {
    /// Cuts the connection at the end of its certificate, if it was good at the beginning: whoever stays connected
    /// gets no more than whoever comes back. Waits for ever otherwise.
    pub(crate) async fn certificate_ends(&self, peer: &Peer) {
        match peer.certificate_expires.duration_since(SystemTime::now()) {
            Ok(left) if !peer.expired => tokio::time::sleep(left).await,
            _ => std::future::pending().await,
        }
        self.token.cancel();
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.door.connections).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn peer(uri: &str, key: u8, expired: bool) -> Peer {
        Peer {
            identity: uri.parse().expect("an identity"),
            address: "127.0.0.1:1".parse().expect("an address"),
            certificate_expires: SystemTime::now(),
            key: Spki::new([key; 32]),
            expired,
            direct: false,
        }
    }

    #[test]
    fn nobody_reaches_more_than_they_should() {
        let node = "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/nodemgr";
        let invite = "redbutton://invite/6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for (uri, good, ended) in [
            (
                "redbutton://person/alice",
                Some(Reach::Everything),
                Some(Reach::Enrol),
            ),
            (invite, Some(Reach::Enrol), None),
            (node, None, None),
            ("redbutton://controller", None, None),
            ("redbutton://signer", None, None),
        ] {
            assert_eq!(Reach::of(&peer(uri, 1, false)), good, "{uri}");
            assert_eq!(Reach::of(&peer(uri, 1, true)), ended, "{uri}, ended");
        }
    }

    fn door() -> Arc<Door> {
        let dir = tempfile::tempdir().expect("a directory");
        let names = ["localhost".parse().expect("a name")];
        let authority = Authority::create(dir.path(), &names, OffsetDateTime::now_utc()).expect("made");
        let config = DoorConfig {
            controllers: Vec::new(),
            life: Duration::ZERO,
            grace: Duration::ZERO,
        };
        Arc::new(Door::new(Arc::new(authority), config))
    }

    #[test]
    fn whoever_keeps_knocking_is_noted_a_few_times_a_minute() {
        let door = door();
        let noted = |key: u8, times: usize, now_ms: i64| {
            let key = Spki::new([key; 32]);
            (0..times).filter(|_| door.is_worth_a_note(key, now_ms)).count()
        };
        assert_eq!(noted(1, 500, 0), 10);
        assert_eq!(noted(2, 3, 0), 3, "another key has its own");
        assert_eq!(noted(1, 500, NOTES_EVERY_MS - 1), 0);
        assert_eq!(noted(1, 500, NOTES_EVERY_MS), 10);
        for n in 0..5_000_u32 {
            let mut key = [0; 32];
            for (to, from) in key.iter_mut().zip(n.to_be_bytes()) {
                *to = from;
            }
            door.is_worth_a_note(Spki::new(key), NOTES_EVERY_MS);
        }
        assert!(lock(&door.turned_away).len() <= MOST_KNOCKING);
    }

    #[test]
    fn who_is_cut_is_cut_and_nobody_else() {
        let door = door();
        let all = CancellationToken::new();
        let enter = |uri, key| door.enter(&peer(uri, key, false), &all, 0);
        let (laptop, desk) = (
            enter("redbutton://person/alice", 1),
            enter("redbutton://person/alice", 2),
        );
        let bob = enter("redbutton://person/bob", 3);
        let cut = |c: &Entered| c.token.is_cancelled();
        door.cut_keys(&[Spki::new([1; 32]), Spki::new([9; 32])]);
        assert!(cut(&laptop) && !cut(&desk) && !cut(&bob));
        door.cut_person(&"alice".parse().expect("a name"));
        assert!(cut(&desk) && !cut(&bob));
        drop((laptop, desk));
        assert_eq!(lock(&door.connections).len(), 1);
        all.cancel();
        assert!(cut(&bob));
    }
}
