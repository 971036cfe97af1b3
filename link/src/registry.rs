//! The newest link of each daemon.
//!
//! A daemon that lost its connection dials again long before the controller notices that the old one is dead. So
//! the newcomer replaces the old link and cuts it, and a link that ends removes only itself: each has a generation.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something whose connection can be ended at once.
pub trait Cut {
    /// Ends it. Further calls do nothing.
    fn cut(&self);
}

/// Which insertion an entry came from; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

#[derive(Debug)]
struct Entries<K, V> {
    next: u64,
    map: HashMap<K, (Generation, V)>,
}

/// At most one live `V` for each `K`.
#[derive(Debug)]
pub struct Registry<K, V> {
    entries: Mutex<Entries<K, V>>,
}

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Entries {
                next: 0,
                map: HashMap::new(),
            }),
        }
    }
}

impl<K: Eq + Hash, V: Cut> Registry<K, V> {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `value`; the one that it replaces is cut and returned.
    pub fn insert(&self, key: K, value: V) -> (Generation, Option<V>) {
        let mut entries = self.lock();
        let generation = Generation(entries.next);
        entries.next += 1;
        let old = entries.map.insert(key, (generation, value)).map(|(_, old)| old);
        drop(entries);
        if let Some(old) = &old {
            old.cut();
        }
        (generation, old)
    }

    /// Removes what `insert` registered under this generation. `None` when another one has replaced it: that one stays.
    pub fn remove(&self, key: &K, generation: Generation) -> Option<V> {
        let mut entries = self.lock();
        match entries.map.get(key) {
            Some((current, _)) if *current == generation => entries.map.remove(key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The current one.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.lock().map.get(key).map(|(_, value)| value.clone())
    }

    /// All current ones, in no order.
    pub fn snapshot(&self) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.lock()
            .map
            .iter()
            .map(|(key, (_, value))| (key.clone(), value.clone()))
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts and removes all of them.
    pub fn clear(&self) {
        let old = std::mem::take(&mut self.lock().map);
        for (_, value) in old.values() {
            value.cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Probe(Arc<AtomicBool>);

    impl Probe {
        fn is_cut(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Cut for Probe {
        fn cut(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_newest_replaces_and_cuts_and_the_old_removes_nothing_of_it() {
        let registry = Registry::new();
        let (old, new) = (Probe::default(), Probe::default());
        let (first, replaced) = registry.insert("node", old.clone());
        assert!(replaced.is_none());
        let (second, replaced) = registry.insert("node", new.clone());
        assert!(replaced.is_some_and(|v| v.is_cut()) && old.is_cut() && !new.is_cut());
        assert!(
            registry.remove(&"node", first).is_none(),
            "the ending old link removed the new one"
        );
        assert_eq!(registry.len(), 1);
        assert!(registry.remove(&"node", second).is_some());
        assert!(registry.is_empty() && registry.get(&"node").is_none());
    }

    #[test]
    fn clearing_cuts_all() {
        let registry = Registry::new();
        let probes = [Probe::default(), Probe::default()];
        for (key, probe) in probes.iter().enumerate() {
            registry.insert(key, probe.clone());
        }
        assert_eq!(registry.snapshot().len(), 2);
        registry.clear();
        assert!(probes.iter().all(Probe::is_cut) && registry.is_empty());
    }
}
