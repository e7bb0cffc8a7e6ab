//! The kernel calls that are not safe Rust.
//!
//! Each wrapper takes the descriptor of an open file, which the borrow keeps open, and memory of just the type that
//! the kernel reads or writes.
#![expect(unsafe_code, reason = "these calls take raw pointers and descriptors; no crate wraps them")]

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{self, MapFlags, ProtFlags};
use std::ffi::c_int;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

mod raw {
    use std::ffi::c_int;

    // `linux/fs.h`: _IOWR, though neither reads what it is given.
    nix::ioctl_readwrite!(fifreeze, b'X', 119, c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, c_int);
}

/// Freezes the filesystem that a folder lies on (`FIFREEZE`).
pub(crate) fn freeze(folder: &File) -> Result<(), Errno> {
    let mut unused: c_int = 0;
    // SAFETY: `folder` is open for the call; the kernel does not use the pointer, which is to an int.
    unsafe { raw::fifreeze(folder.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Thaws the filesystem that a folder lies on (`FITHAW`); `EINVAL` when it was not frozen.
pub(crate) fn thaw(folder: &File) -> Result<(), Errno> {
    let mut unused: c_int = 0;
    // SAFETY: `folder` is open for the call; the kernel does not use the pointer, which is to an int.
    unsafe { raw::fithaw(folder.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// How the calling thread is scheduled (`sched_getscheduler`).
pub(crate) fn scheduling() -> Result<c_int, Errno> {
    // SAFETY: the call takes no memory; 0 is the calling thread.
    Errno::result(unsafe { libc::sched_getscheduler(0) })
}

/// Has the calling thread scheduled otherwise (`sched_setscheduler`); `priority` is 0 for what is not real-time.
pub(crate) fn schedule(policy: c_int, priority: c_int) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one `sched_param`, and `parameters` is one; 0 is the calling thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })?;
    Ok(())
}

/// How urgent the I/O of the calling thread is (`ioprio_get`); 0 follows from its scheduling.
pub(crate) fn io_priority() -> Result<c_int, Errno> {
    // SAFETY: the call takes no memory; 1 is a process (or thread), 0 the calling one.
    let priority = Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) })?;
    c_int::try_from(priority).map_err(|_| Errno::ERANGE)
}

/// Makes it otherwise (`ioprio_set`).
pub(crate) fn set_io_priority(priority: c_int) -> Result<(), Errno> {
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, priority) })?;
    Ok(())
}

/// Words of a kernel map that are shared with the programs which write them (`BPF_F_MMAPABLE`), until dropped.
pub(crate) struct SharedWords {
    /// Lent out only for as long as this lives.
    words: &'static [AtomicU64],
}

impl SharedWords {
    /// The first `count` words of a map whose values lie one after the other.
    pub(crate) fn map(map: BorrowedFd<'_>, count: NonZeroUsize) -> Result<Self, Errno> {
        let bytes = count.checked_mul(NonZeroUsize::MIN.saturating_add(7)).ok_or(Errno::EOVERFLOW)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new place of the kernel's choosing. It is page-aligned and, or the call fails, as long as asked.
        let at = unsafe { mman::mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        // SAFETY: the mapping above is alive until the drop, shared and written only atomically; any bits are a word.
        let words = unsafe { std::slice::from_raw_parts(at.cast::<AtomicU64>().as_ptr(), count.get()) };
        Ok(Self { words })
    }

    /// The words.
    pub(crate) fn get(&self) -> &[AtomicU64] {
        self.words
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let at = std::ptr::NonNull::from(self.words).cast();
        // SAFETY: just what was mapped, once; nobody can hold a reference, since all of them borrow `self`.
        let _nothing_to_do = unsafe { mman::munmap(at, std::mem::size_of_val(self.words)) };
    }
}

/// What the kernel tells of a program (`BPF_OBJ_GET_INFO_BY_FD`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramInfo {
    /// How often it was not run because it ran already.
    pub(crate) misses: u64,
    /// How often it was run, and for how long; counted only while `kernel.bpf_stats_enabled` is 1.
    pub(crate) runs: u64,
    /// In nanoseconds.
    pub(crate) time: u64,
}

/// Asks for it.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> Result<ProgramInfo, Errno> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `len` bytes to `info`, and nothing else since all of its pointers are null.
    let status = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
    };
    Errno::result(status)?;
    Ok(ProgramInfo { misses: info.recursion_misses, runs: info.run_cnt, time: info.run_time_ns })
}

/// Keeps memory from being swapped out (`mlock`).
pub(crate) fn lock(memory: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel neither reads nor writes the memory, and the borrow keeps it where it is.
    unsafe { mman::mlock(NonNull::from(memory).cast(), memory.len()) }
}

/// Lets it be swapped out again; what was freed since is not locked anyway (`munlock`).
pub(crate) fn unlock(memory: &[u8]) {
    // SAFETY: as above. It fails where nothing was locked, which is as well.
    let _unlocked = unsafe { mman::munlock(NonNull::from(memory).cast(), memory.len()) };
}

/// A record of a filesystem's map (`struct fsmap`, `linux/fsmap.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct MapRecord {
    pub(crate) device: u32,
    pub(crate) flags: u32,
    pub(crate) physical: u64,
    pub(crate) owner: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    reserved: [u64; 3],
}

/// How many records are asked for at once.
const MAP_RECORDS: usize = 1024;

/// A request for records, and the records (`struct fsmap_head`).
#[repr(C)]
pub(crate) struct MapPage {
    iflags: u32,
    pub(crate) oflags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    /// From where and up to where; the first with the last record that is known.
    pub(crate) keys: [MapRecord; 2],
    records: [MapRecord; MAP_RECORDS],
}

impl MapPage {
    /// A request for everything.
    pub(crate) fn whole() -> Self {
        let all = u64::MAX;
        let last = MapRecord {
            device: u32::MAX,
            flags: u32::MAX,
            physical: all,
            owner: all,
            offset: all,
            ..MapRecord::default()
        };
        let (keys, records) = ([MapRecord::default(), last], [MapRecord::default(); MAP_RECORDS]);
        Self { iflags: 0, oflags: 0, count: 1024, entries: 0, reserved: [0; 6], keys, records }
    }

    /// The records of the last answer.
    pub(crate) fn records(&self) -> &[MapRecord] {
        let entries = usize::try_from(self.entries).unwrap_or(MAP_RECORDS);
        self.records.get(..entries).unwrap_or(&self.records)
    }
}

const _: () = assert!(size_of::<MapRecord>() == 64 && std::mem::offset_of!(MapPage, records) == 192);

/// The next records of the map of the filesystem that a folder lies on (`FS_IOC_GETFSMAP`).
pub(crate) fn map(folder: &File, page: &mut MapPage) -> Result<(), Errno> {
    const HEAD_BYTES: usize = std::mem::offset_of!(MapPage, records);
    // SAFETY: `folder` is open for the call; the kernel writes a head and up to `count` records behind it, and `page` has
    // room for as many. Any bytes are a record.
    Errno::result(unsafe {
        libc::ioctl(folder.as_raw_fd(), nix::request_code_readwrite!(b'X', 59, HEAD_BYTES), &raw mut *page)
    })?;
    Ok(())
}

/// What a Btrfs says about itself (the beginning of `struct btrfs_ioctl_fs_info_args`, `linux/btrfs.h`).
#[repr(C)]
struct BtrfsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    nodesize: u32,
    rest: [u8; 988],
}

/// How many devices a Btrfs has, and how long its nodes are.
pub(crate) struct BtrfsShape {
    pub(crate) device_count: u64,
    pub(crate) node_bytes: u64,
}

/// The shape of the Btrfs that a folder lies on (`BTRFS_IOC_FS_INFO`).
pub(crate) fn btrfs_info(folder: &File) -> Result<BtrfsShape, Errno> {
    const { assert!(size_of::<BtrfsInfo>() == 1024) };
    let mut info = BtrfsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], nodesize: 0, rest: [0; 988] };
    // SAFETY: `folder` is open for the call; the kernel writes one structure of 1024 bytes, and `info` is one.
    Errno::result(unsafe {
        libc::ioctl(
            folder.as_raw_fd(),
            nix::request_code_read!(0x94, 31, size_of::<BtrfsInfo>()),
            &raw mut info,
        )
    })?;
    Ok(BtrfsShape { device_count: info.num_devices, node_bytes: info.nodesize.into() })
}

/// A key of a tree of Btrfs, in the order of the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreeKey {
    pub(crate) object: u64,
    pub(crate) kind: u8,
    pub(crate) offset: u64,
}

impl TreeKey {
    /// The least key behind this one; `None` behind the last.
    pub(crate) fn next(self) -> Option<Self> {
        let Self { object, kind, offset } = self;
        match (offset.checked_add(1), kind.checked_add(1)) {
            (Some(offset), _) => Some(Self { offset, ..self }),
            (None, Some(kind)) => Some(Self { object, kind, offset: 0 }),
            (None, None) => object.checked_add(1).map(|object| Self { object, kind: 0, offset: 0 }),
        }
    }
}

/// What is looked for (`struct btrfs_ioctl_search_key`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SearchKey {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    reserved: [u64; 4],
}

/// Room for items: more than the longest.
const TREE_BYTES: usize = 128 << 10;

/// A request for items of a tree, and the items (`struct btrfs_ioctl_search_args_v2`).
#[repr(C)]
pub(crate) struct TreePage {
    key: SearchKey,
    buf_size: u64,
    buf: [u8; TREE_BYTES],
}

impl TreePage {
    /// Of a tree by its number.
    pub(crate) fn new(tree: u64) -> Box<Self> {
        let all = u64::MAX;
        let key = SearchKey {
            tree_id: tree,
            max_objectid: all,
            max_offset: all,
            max_transid: all,
            max_type: u8::MAX.into(),
            ..SearchKey::default()
        };
        Box::new(Self { key, buf_size: TREE_BYTES as u64, buf: [0; TREE_BYTES] })
    }

    /// The items of the last answer (each a `struct btrfs_ioctl_search_header` and its bytes).
    pub(crate) fn items(&self) -> impl Iterator<Item = (TreeKey, &[u8])> {
        let mut rest = self.buf.as_slice();
        (0..self.key.nr_items).map_while(move |_| {
            let (head, behind) = rest.split_at_checked(32)?;
            let number = |at: usize| Some(u64::from_ne_bytes(head.get(at..at + 8)?.try_into().ok()?));
            let short = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
            let (item, behind) = behind.split_at_checked(usize::try_from(short(28)?).ok()?)?;
            rest = behind;
            let kind = u8::try_from(short(24)?).ok()?;
            Some((TreeKey { object: number(8)?, kind, offset: number(16)? }, item))
        })
    }
}

const _: () = assert!(std::mem::offset_of!(TreePage, buf) == 112);

/// The items of a tree from a key on, as many as there is room for (`BTRFS_IOC_TREE_SEARCH_V2`).
pub(crate) fn btrfs_search(folder: &File, page: &mut TreePage, from: TreeKey) -> Result<(), Errno> {
    const HEAD_BYTES: usize = std::mem::offset_of!(TreePage, buf);
    page.key = SearchKey {
        min_objectid: from.object,
        min_type: from.kind.into(),
        min_offset: from.offset,
        nr_items: u32::MAX,
        ..page.key
    };
    page.buf_size = TREE_BYTES as u64;
    // SAFETY: `folder` is open for the call; the kernel writes a head and up to `buf_size` bytes behind it, and `page` has
    // room for as many. Any bytes are items, or are told apart from them by bounds.
    Errno::result(unsafe {
        libc::ioctl(folder.as_raw_fd(), nix::request_code_readwrite!(0x94, 17, HEAD_BYTES), &raw mut *page)
    })?;
    Ok(())
}
