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

/// How often a program was not run because it ran already (`recursion_misses` of `BPF_OBJ_GET_INFO_BY_FD`).
pub(crate) fn program_misses(program: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `len` bytes to `info`, and nothing else since all of its pointers are null.
    let status = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut len)
    };
    Errno::result(status).map(|_| info.recursion_misses)
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
