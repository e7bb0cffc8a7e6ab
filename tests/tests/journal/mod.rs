//! A disk that the journal follows, and the byte comparison that it has to stand.

use halfhour_tests::{LoopDisk, Scratch, need};
use imager_journal::{Disk, Ends, Journal, MARK_BYTES, Marks};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A loop disk under the journal; both end with it.
pub struct Watched {
    pub disk: LoopDisk,
    pub name: Disk,
    pub scratch: Scratch,
}

impl Watched {
    /// A new disk of zeros.
    pub fn new(file: &str, size: u64, ends: Ends) -> Option<Self> {
        let scratch = Scratch::new();
        let image = scratch.file(file, size);
        Self::on(scratch, &image, ends)
    }

    /// A disk on a file.
    pub fn on(scratch: Scratch, image: &str, ends: Ends) -> Option<Self> {
        if !can_follow() {
            return None;
        }
        let disk = LoopDisk::attach(image, 512)?;
        let name = Disk::at_node(Path::new(&disk.path)).expect("a disk");
        let watched = Self { disk, name, scratch };
        assert!(Journal::start_at(&watched.name, ends).expect("the journal starts"), "it ran already");
        Some(watched)
    }

    /// The journal, as a process that comes later finds it.
    pub fn open(&self) -> Journal {
        Journal::open(std::slice::from_ref(&self.name)).expect("the journal is running")
    }

    /// What is on the disk, by digests of its blocks.
    pub fn contents(&self) -> Vec<blake3::Hash> {
        contents(&self.disk.file)
    }

    /// Fails where a block changed since `before` that is not in `marks`.
    pub fn assert_covers(&self, before: &[blake3::Hash], marks: &Marks) {
        let changed = changed(before, &self.contents());
        let missed = changed.difference(&marks.written.union(&marks.discarded));
        println!(
            "changed {}, written {}, discarded {}",
            changed.total(),
            marks.written.total(),
            marks.discarded.total()
        );
        assert!(missed.is_empty(), "missed: {missed:?}");
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let stopped = Journal::stop(self.name.name());
        assert!(std::thread::panicking() || stopped.is_ok(), "{stopped:?}");
    }
}

/// Whether this kernel can do it; says so when not.
pub fn can_follow() -> bool {
    let can = Path::new("/sys/kernel/btf/vmlinux").exists();
    if !can {
        need::skip("this kernel does not describe its types");
    }
    can && need::root()
}

/// The digests of the blocks of a file.
pub fn contents(path: &str) -> Vec<blake3::Hash> {
    let file = std::fs::File::open(path).expect("the file of a disk");
    let len = file.metadata().expect("its length").len();
    let unit = MARK_BYTES.get();
    let mut buffer = vec![0; usize::try_from(unit).expect("small")];
    let blocks = (0..len.div_ceil(unit)).map(|block| {
        let part = buffer.get_mut(..usize::try_from(unit.min(len - block * unit)).expect("small"));
        let part = part.expect("a part of it");
        file.read_exact_at(part, block * unit).expect("it reads");
        blake3::hash(part)
    });
    blocks.collect()
}

/// The blocks that differ.
pub fn changed(before: &[blake3::Hash], after: &[blake3::Hash]) -> ExtentSet {
    let differ = (0_u64..).zip(before.iter().zip(after)).filter(|(_, (a, b))| a != b);
    differ.map(|(block, _)| extent(block)).collect()
}

/// A block.
pub fn extent(block: u64) -> Extent {
    let start = ByteOffset::new(block * MARK_BYTES.get());
    Extent::new(start, ByteLen::new(MARK_BYTES.get())).expect("not at the end of numbers")
}
