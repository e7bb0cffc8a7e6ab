//! A journal that remembers whether it missed something: then a capture begins anew, once or twice.

use imager_journal::{ChangeLog, Epoch, Marks, Since};
use imager_units::{ErrorKind, Extent, Result};

/// The journal.
pub(super) struct Watched<'a> {
    pub(super) log: &'a mut dyn ChangeLog,
    /// Whether a harvest said so since this was last cleared.
    pub(super) missed: bool,
}

impl Watched<'_> {
    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        self.missed |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt);
        result
    }
}

impl ChangeLog for Watched<'_> {
    fn harvest(&mut self) -> Result<Vec<Marks>> {
        let harvested = self.log.harvest();
        self.note(harvested)
    }

    fn harvest_frozen(&mut self, each: &mut dyn FnMut(usize, Extent) -> bool) -> Result<Epoch> {
        let harvested = self.log.harvest_frozen(each);
        self.note(harvested)
    }

    fn since(&self, base: &str) -> Result<Since> {
        self.log.since(base)
    }

    fn is_marked(&self, disk: usize, extent: Extent) -> bool {
        self.log.is_marked(disk, extent)
    }

    fn commit(&mut self, capture: &str, epoch: Epoch, keep: &[String]) -> Result<()> {
        self.log.commit(capture, epoch, keep)
    }

    fn taint(&mut self, why: &str) -> Result<()> {
        self.log.taint(why)
    }
}
