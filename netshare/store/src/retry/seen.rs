//! Which entries of a listing were handed out already.

use crate::ObjectName;
use std::hash::{BuildHasher, RandomState};

/// How many names are remembered: 16 MiB, as many packs as 20 TiB of blocks fill.
const MOST: usize = 1 << 20;

/// Names, as 128 bits of a hash with a key of its own, so that nobody can choose two that collide.
#[derive(Default)]
pub(super) struct Seen {
    keys: (RandomState, RandomState),
    /// What earlier tries listed, in order.
    earlier: Vec<u128>,
    /// What this one lists that they did not.
    now: Vec<u128>,
    forgotten: usize,
}

impl Seen {
    /// Whether no earlier try listed it. One try lists nothing twice.
    pub(super) fn is_new(&mut self, name: &ObjectName) -> bool {
        let half = |key: &RandomState| u128::from(key.hash_one(name.as_str()));
        let hash = (half(&self.keys.0) << 64) | half(&self.keys.1);
        if self.earlier.binary_search(&hash).is_ok() {
            return false;
        }
        if self.earlier.len() + self.now.len() < MOST {
            self.now.push(hash);
        } else {
            self.forgotten += 1;
        }
        true
    }

    /// How many were new over all tries.
    pub(super) fn count(&self) -> usize {
        self.earlier.len() + self.now.len() + self.forgotten
    }

    /// Makes this try an earlier one; not when there were too many to remember.
    pub(super) fn settle(&mut self) -> bool {
        self.earlier.append(&mut self.now);
        self.earlier.sort_unstable();
        self.forgotten == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Seen};
    use crate::ObjectName;

    #[test]
    fn what_is_remembered_is_bounded_and_a_longer_listing_cannot_begin_again() {
        let mut seen = Seen::default();
        let name = |at: usize| ObjectName::new(format!("packs/{at:x}")).unwrap();
        (0..MOST).for_each(|at| assert!(seen.is_new(&name(at))));
        assert!(seen.settle());
        assert!(!seen.is_new(&name(MOST - 1)) && seen.is_new(&name(MOST)));
        assert_eq!((seen.now.len(), seen.count()), (0, MOST + 1));
        assert!(!seen.settle());
    }
}
