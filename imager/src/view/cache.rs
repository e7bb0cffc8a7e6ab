//! A bounded cache for any number of threads: what was used last stays, and nobody loads what another is loading.

use imager_units::Result;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many loads may be under way at once.
const TURNS: usize = 32;

struct Held<V> {
    value: V,
    weight: usize,
    used: u64,
}

struct State<K, V> {
    held: HashMap<K, Held<V>>,
    /// The keys by when they were used.
    order: BTreeMap<u64, K>,
    weight: usize,
    clock: u64,
}

/// Values by key, of a limited weight together.
pub(super) struct Cache<K, V> {
    state: Mutex<State<K, V>>,
    most: usize,
    hasher: RandomState,
    turns: [Mutex<()>; TURNS],
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// An empty cache that holds values of `most` bytes together.
    pub(super) fn new(most: usize) -> Self {
        let state = State { held: HashMap::new(), order: BTreeMap::new(), weight: 0, clock: 0 };
        let turns = std::array::from_fn(|_| Mutex::default());
        Self { state: Mutex::new(state), most, hasher: RandomState::new(), turns }
    }

    /// The value of `key`; `load` makes it, with its weight in bytes, where it is not there.
    ///
    /// # Errors
    /// What `load` fails with; nothing is remembered then.
    pub(super) fn get(&self, key: &K, load: impl FnOnce() -> Result<(V, usize)>) -> Result<V> {
        if let Some(value) = self.find(key) {
            return Ok(value);
        }
        // Keys that share a turn by chance only wait for each other.
        let turn = usize::try_from(self.hasher.hash_one(key) % TURNS as u64).unwrap_or(0);
        let _turn = self.turns[turn].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.find(key) {
            return Ok(value);
        }
        let (value, weight) = load()?;
        self.insert(key, value.clone(), weight);
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &K) -> Option<V> {
        let state = &mut *self.lock();
        let held = state.held.get_mut(key)?;
        state.order.remove(&held.used);
        state.clock += 1;
        held.used = state.clock;
        state.order.insert(state.clock, key.clone());
        Some(held.value.clone())
    }

    fn insert(&self, key: &K, value: V, weight: usize) {
        let state = &mut *self.lock();
        state.clock += 1;
        let used = state.clock;
        if let Some(before) = state.held.insert(key.clone(), Held { value, weight, used }) {
            state.order.remove(&before.used);
            state.weight -= before.weight;
        }
        state.order.insert(used, key.clone());
        state.weight += weight;
        while state.weight > self.most {
            let Some((_, oldest)) = state.order.pop_first() else { break };
            state.weight -= state.held.remove(&oldest).map_or(0, |held| held.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use imager_units::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_was_used_last_stays_and_the_weight_is_bounded() {
        let cache = Cache::new(100);
        let load = |n: u32| cache.get(&n, || Ok((n, 40))).unwrap();
        assert_eq!((load(1), load(2), load(1), load(3)), (1, 2, 1, 3));
        let held = |n: u32| cache.get(&n, || Err(Error::corrupt("absent"))).is_ok();
        assert!(held(1) && held(3) && !held(2));
        // What is too heavy for the cache is used all the same.
        assert_eq!(cache.get(&9, || Ok((9, 1000))).unwrap(), 9);
        assert!(!held(9) && !held(1));
    }

    #[test]
    fn threads_load_a_value_once() {
        let (cache, loads) = (Cache::new(1000), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get(&7, || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(((), 1))
                    })
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}
