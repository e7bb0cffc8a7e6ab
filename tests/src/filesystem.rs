//! A filesystem on a loop device, mounted; and whether one can be written to.

use crate::device::{LoopDisk, Undo, mount};
use crate::scratch::Scratch;
use crate::tool::{judge, tool};
use crate::{MIB, need};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One that a test made. Thawed, unmounted and detached when dropped.
pub struct Filesystem {
    /// Where it is mounted.
    pub at: PathBuf,
    _mounted: Option<Undo>,
    /// What it lies on.
    pub disk: LoopDisk,
}

/// The arguments that make a filesystem of a kind.
fn maker(kind: &str) -> &'static [&'static str] {
    match kind {
        "xfs" => &["mkfs.xfs", "-q", "-f"],
        "btrfs" => &["mkfs.btrfs", "-q", "-f"],
        "ntfs" => &["mkntfs", "-Q", "-q", "-F"],
        _ => &["mke2fs", "-q", "-t", "ext4", "-F"],
    }
}

impl Filesystem {
    /// Makes and mounts one of `ext4`, `xfs`, `btrfs` or `ntfs`. `None`, with the reason printed, where that cannot be
    /// done.
    pub fn make(scratch: &Scratch, name: &str, kind: &str, size_mib: u64) -> Option<Self> {
        let file = scratch.file(&format!("{name}.img"), size_mib * MIB);
        Self::make_on(&file, kind, &scratch.path(name))
    }

    /// The same on a file that is there.
    pub fn make_on(file: &str, kind: &str, at: &Path) -> Option<Self> {
        let [program, options @ ..] = maker(kind) else { return None };
        if !need::programs(&[program, "fsfreeze"]) {
            return None;
        }
        let disk = LoopDisk::attach(file, 512)?;
        tool(program, &[options, &[disk.path.as_str()]].concat());
        let mounted = Some(mount(&disk.path, at, "noatime"));
        Some(Self { at: at.to_owned(), _mounted: mounted, disk })
    }

    /// Unmounts it.
    pub fn unmount(&mut self) {
        self._mounted = None;
    }

    /// Mounts it again.
    pub fn mount(&mut self) {
        self._mounted = Some(mount(&self.disk.path, &self.at, "noatime"));
    }

    /// Whether the kernel has it frozen; it is thawed for an instant at most.
    pub fn is_frozen(&self) -> bool {
        let at = self.at.display().to_string();
        let (status, said) = judge("fsfreeze", &["--freeze", &at]);
        if status == Some(0) {
            tool("fsfreeze", &["--unfreeze", &at]);
        } else {
            assert!(said.contains("busy"), "{said}");
        }
        status != Some(0)
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // What is frozen could not be unmounted for good.
        let _was_not = judge("fsfreeze", &["--unfreeze", &self.at.display().to_string()]);
    }
}

/// Somebody who writes all the time, and notes for how long he could not.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    begun: Instant,
    stop: AtomicBool,
    /// Writes that ended, and when the last did.
    count: AtomicU64,
    last_ms: AtomicU64,
    longest_ms: AtomicU64,
}

impl Writer {
    /// Starts him in a folder.
    pub fn start(folder: &Path) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            count: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
        });
        let (his, file) = (Arc::clone(&shared), folder.join("writer"));
        let thread = std::thread::spawn(move || {
            while !his.stop.load(Ordering::Relaxed) {
                std::fs::write(&file, his.count.load(Ordering::Relaxed).to_string())
                    .expect("it can be written");
                his.note();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// How long he has not been able to write, now.
    pub fn stalled(&self) -> Duration {
        Duration::from_millis(self.shared.now_ms() - self.shared.last_ms.load(Ordering::Relaxed))
    }

    /// For how long he could not at most.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.shared.longest_ms.load(Ordering::Relaxed)).max(self.stalled())
    }

    /// Waits until he has written from now on; how long that took, or `None` after `patience`.
    pub fn goes_on_within(&self, patience: Duration) -> Option<Duration> {
        // One write may have been under way.
        let (start, before) = (Instant::now(), self.shared.count.load(Ordering::Relaxed));
        while self.shared.count.load(Ordering::Relaxed) < before + 2 {
            if start.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(start.elapsed())
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        let now = self.now_ms();
        let before = self.last_ms.swap(now, Ordering::Relaxed);
        self.longest_ms.fetch_max(now - before, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Where he hangs for good a test has failed, and what he hangs on is thawed later.
        if self.goes_on_within(Duration::from_secs(5)).is_some()
            || self.thread.as_ref().is_some_and(|t| t.is_finished())
        {
            drop(self.thread.take().map(std::thread::JoinHandle::join));
        }
    }
}
