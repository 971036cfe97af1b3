//! Which handshake has to go when there are too many: a table, no sockets, no clock.
//!
//! A newcomer is always let in. When the table is full, the source with the most handshakes in progress loses its
//! oldest one: a flood evicts itself, and a lone honest peer is never the source with the most. Between equals the
//! older handshake goes.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// One handshake in progress; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// Who is held responsible for a handshake: an IPv4 address or an IPv6 /64 (whoever has one address of it has all).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Source(match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            v4 => v4,
        })
    }
}

/// Handshakes in progress, `T` being what ends one of them.
#[derive(Debug)]
pub(crate) struct Handshakes<T> {
    limit: usize,
    next: u64,
    sources: HashMap<Source, BTreeSet<Ticket>>,
    live: HashMap<Ticket, (Source, T)>,
}

impl<T> Handshakes<T> {
    /// An empty table for at most `limit` handshakes, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            next: 0,
            sources: HashMap::new(),
            live: HashMap::new(),
        }
    }

    /// Lets one in, and says which one has to go for it.
    pub(crate) fn admit(&mut self, source: Source, handle: T) -> (Ticket, Option<T>) {
        let evicted = if self.live.len() >= self.limit {
            self.evict()
        } else {
            None
        };
        let ticket = Ticket(self.next);
        self.next += 1;
        self.sources.entry(source).or_default().insert(ticket);
        self.live.insert(ticket, (source, handle));
        (ticket, evicted)
    }

    /// Takes out the oldest handshake of the source with the most.
    pub(crate) fn evict(&mut self) -> Option<T> {
        let (_, _, oldest) = self
            .sources
            .iter()
            .filter_map(|(source, tickets)| tickets.first().map(|oldest| (tickets.len(), source, *oldest)))
            .max_by_key(|(count, _, oldest)| (*count, std::cmp::Reverse(*oldest)))?;
        self.remove(oldest)
    }

    /// Takes out one that ended. `None` when it was evicted before.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let (source, handle) = self.live.remove(&ticket)?;
        if let Some(tickets) = self.sources.get_mut(&source) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.sources.remove(&source);
            }
        }
        Some(handle)
    }

    /// In progress now.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(n: u8) -> Source {
        IpAddr::from([192, 0, 2, n]).into()
    }

    #[test]
    fn a_flood_evicts_its_own_oldest() {
        let mut table = Handshakes::new(4);
        table.admit(source(1), "honest");
        for name in ["flood 1", "flood 2", "flood 3"] {
            assert_eq!(table.admit(source(2), name).1, None);
        }
        assert_eq!(table.admit(source(2), "flood 4").1, Some("flood 1"));
        assert_eq!(table.admit(source(3), "honest too").1, Some("flood 2"));
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn between_equals_the_oldest_goes() {
        let mut table = Handshakes::new(2);
        table.admit(source(1), 1);
        table.admit(source(2), 2);
        assert_eq!(table.admit(source(3), 3).1, Some(1));
    }

    #[test]
    fn ipv6_counts_by_network_and_mapped_addresses_as_ipv4() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().expect(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn the_table_agrees_with_a_list(limit in 1usize..6, steps in prop::collection::vec((0u8..5, any::<bool>(), 0usize..8), 0..60)) {
            let mut table = Handshakes::new(limit);
            let mut list: Vec<(Ticket, Source)> = Vec::new();
            for (at, (from, leave, pick)) in steps.into_iter().enumerate() {
                if leave && !list.is_empty() {
                    let (ticket, _) = list.remove(pick % list.len());
                    prop_assert!(table.remove(ticket).is_some());
                } else {
                    let expected = (list.len() >= limit).then(|| {
                        let count = |s: Source| list.iter().filter(|(_, other)| *other == s).count();
                        let most = list.iter().map(|(_, s)| count(*s)).max().unwrap_or(0);
                        let index = list.iter().position(|(_, s)| count(*s) == most).expect("one has the most");
                        list.remove(index).0
                    });
                    let (ticket, evicted) = table.admit(source(from), at);
                    prop_assert_eq!(evicted.is_some(), expected.is_some());
                    if let Some(gone) = expected {
                        prop_assert!(table.remove(gone).is_none(), "another one was evicted");
                    }
                    list.push((ticket, source(from)));
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert!(table.len() <= limit);
            }
        }
    }
}
