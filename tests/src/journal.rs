//! A disk that the journal follows, and the byte comparison that it has to stand.

use crate::{LoopDisk, Scratch, need};
use imager_disk::{Access, AlignedBuf, Device, ReadAt};
use imager_journal::{ChangeLog, Disk, Ends, Journal, MARK_BYTES, Marks};
use imager_units::{ByteOffset, ErrorKind, Extent, ExtentSet};
use std::path::Path;

/// A loop disk under the journal; both end with it.
pub struct Watched {
    /// The disk.
    pub disk: LoopDisk,
    /// The same as the journal knows it.
    pub name: Disk,
    /// Where its file lies.
    pub scratch: Scratch,
}

/// What one round came to.
#[derive(Debug)]
pub struct Round {
    /// What differs.
    pub changed: ExtentSet,
    /// What was marked.
    pub marks: Marks,
}

impl Watched {
    /// A new disk of zeros.
    pub fn new(size: u64, ends: Ends) -> Option<Self> {
        let scratch = Scratch::new();
        let file = scratch.file("disk.img", size);
        Self::on(scratch, &file, ends)
    }

    /// A disk on a file.
    pub fn on(scratch: Scratch, file: &str, ends: Ends) -> Option<Self> {
        if !can_follow() {
            return None;
        }
        let disk = LoopDisk::attach(file, 512)?;
        let name = Disk::at_node(Path::new(&disk.path)).expect("a disk");
        let watched = Self { disk, name, scratch };
        assert!(Journal::start_at(&watched.name, ends).expect("the journal starts"), "it ran already");
        Some(watched)
    }

    /// The journal, as a process that comes later finds it.
    pub fn open(&self) -> Journal {
        Journal::open(std::slice::from_ref(&self.name)).expect("the journal is running")
    }

    /// What is on the disk.
    pub fn contents(&self) -> Vec<blake3::Hash> {
        contents(&self.disk.path)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let stopped = Journal::stop(self.name.name());
        assert!(std::thread::panicking() || stopped.is_ok(), "{stopped:?}");
    }
}

impl Round {
    /// Does something to disks, and says what came of it, disk by disk. `None` where the journal itself says that it
    /// may have missed something.
    pub fn of(log: &mut Journal, nodes: &[&str], act: impl FnOnce()) -> Option<Vec<Self>> {
        // What was in doubt before is not what is asked here.
        log.harvest().or_else(|_| log.harvest()).expect("a harvest");
        let before: Vec<_> = nodes.iter().map(|node| contents(node)).collect();
        act();
        crate::tool("sync", &[] as &[&str]);
        let after: Vec<_> = nodes.iter().map(|node| contents(node)).collect();
        let marks = match log.harvest() {
            Ok(marks) => marks,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                println!("in doubt: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let rounds = before.iter().zip(&after).zip(marks);
        Some(rounds.map(|((before, after), marks)| Self { changed: changed(before, after), marks }).collect())
    }

    /// What differs and was not marked.
    pub fn missed(&self) -> ExtentSet {
        self.changed.difference(&self.marks.written.union(&self.marks.discarded))
    }
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blocks = |set: &ExtentSet| set.total().get() / MARK_BYTES.get();
        let (written, discarded) = (blocks(&self.marks.written), blocks(&self.marks.discarded));
        let (changed, missed) = (blocks(&self.changed), blocks(&self.missed()));
        write!(f, "blocks changed {changed}, written {written}, discarded {discarded}, missed {missed}")
    }
}

/// Whether this machine can follow loop disks; says so when not.
pub fn can_follow() -> bool {
    let can = Path::new("/sys/kernel/btf/vmlinux").exists();
    if !can {
        need::skip("this kernel does not describe its types");
    }
    can && need::root()
}

/// The digests of the blocks of a disk, read past all caches.
pub fn contents(node: &str) -> Vec<blake3::Hash> {
    const CHUNK: u64 = 4 << 20;
    let disk = Device::open(Path::new(node), Access::ReadDirect, None).expect("the disk opens");
    let (len, unit) = (disk.geometry().size.get(), MARK_BYTES.get());
    let mut buffer = AlignedBuf::zeroed(usize::try_from(CHUNK).expect("small"));
    let mut found = Vec::new();
    for at in (0..len).step_by(usize::try_from(CHUNK).expect("small")) {
        let part = usize::try_from(CHUNK.min(len - at)).expect("small");
        let part = buffer.get_mut(..part).expect("a part of it");
        disk.read_exact_at(ByteOffset::new(at), part).expect("it reads");
        found.extend(part.chunks(usize::try_from(unit).expect("small")).map(blake3::hash));
    }
    found
}

/// The blocks that differ.
pub fn changed(before: &[blake3::Hash], after: &[blake3::Hash]) -> ExtentSet {
    let differ = (0_u64..).zip(before.iter().zip(after)).filter(|(_, (a, b))| a != b);
    differ.map(|(block, _)| block_extent(block)).collect()
}

/// A block.
pub fn block_extent(block: u64) -> Extent {
    let start = ByteOffset::new(block * MARK_BYTES.get());
    Extent::new(start, MARK_BYTES).expect("not at the end of numbers")
}
