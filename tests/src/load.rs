//! The load that captures of a running machine are tested under, and the judge of what they captured.
//!
//! `tests/load/load.py` says what it writes. What it notes lies elsewhere than what it writes to, with times of
//! [`now`]: whoever freezes notes when he began and when it was over, and the judge says whether a copy is of an instant
//! between the two.

use crate::binary::repository;
use crate::device::{LoopDisk, try_mount};
use crate::judge::fsck;
use crate::scratch::Scratch;
use crate::tool::{command, tool};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Everything that can be written; see `WRITERS` in the script.
pub const ALL: [&str; 10] =
    ["files", "direct", "mapped", "delete", "wal", "packages", "checkouts", "holes", "trim", "fio"];

/// The programs that all of it needs.
pub const PROGRAMS: [&str; 4] = ["python3", "fio", "fstrim", "fallocate"];

/// Writers at work.
pub struct Load {
    process: Child,
    log: PathBuf,
    writers: usize,
}

/// Nanoseconds of the clock that the writers note.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a clock");
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("it does not go backwards")
}

fn script() -> String {
    repository().join("tests/load/load.py").display().to_string()
}

impl Load {
    /// Starts `writers` on what is mounted at `at`; they note what they do in the folder `log`.
    pub fn start(at: &Path, log: &Path, writers: &[&str]) -> Self {
        std::fs::create_dir_all(log).expect("a folder for the log");
        let mut command = command("python3");
        command.arg(script()).arg("run").args([at, log]).args(writers);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("python3 runs");
        Self { process, log: log.to_owned(), writers: writers.len() }
    }

    /// Waits until each writer that notes anything has noted so many lines.
    pub fn wait_for(&self, lines: usize) {
        let start = Instant::now();
        let is_busy = |path: PathBuf| {
            let quiet = ["checkouts", "holes", "trim", "fio"];
            quiet.iter().any(|name| path.ends_with(name))
                || std::fs::read(path).is_ok_and(|text| text.iter().filter(|b| **b == b'\n').count() >= lines)
        };
        let busy = || {
            let logs = std::fs::read_dir(&self.log).expect("the log").flatten();
            logs.filter(|entry| is_busy(entry.path())).count()
        };
        while busy() < self.writers {
            assert!(start.elapsed() < Duration::from_secs(120), "the writers write too little");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends them all, each in the middle of something; they must have written until then.
    pub fn stop(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "a writer failed");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its end ends them.
        drop(self.process.stdin.take());
        let _reaped = self.process.wait();
    }
}

/// What a judge found.
#[derive(Debug)]
pub struct Verdict {
    /// What is wrong, the first fifty.
    pub faults: Vec<String>,
    /// What the writers had made durable before, by writer.
    pub durable: Value,
}

/// Judges a copy of the filesystem that is mounted at `at`, read-only or not: it has to be of an instant between `before`
/// and `after`.
pub fn judge_mounted(at: &Path, log: &Path, before: u64, after: u64) -> Verdict {
    let [at, log] = [at, log].map(|path| path.display().to_string());
    let said = tool("python3", &[&script(), "judge", &at, &log, &before.to_string(), &after.to_string()]);
    let said: Value = serde_json::from_str(&said).expect("a verdict");
    let faults = said["faults"].as_array().expect("faults").iter();
    Verdict {
        faults: faults.map(|fault| fault.as_str().unwrap_or_default().to_owned()).collect(),
        durable: said["durable_before"].clone(),
    }
}

/// Judges an image of a filesystem of a kind, which nothing else may have mounted meanwhile, nor what it is a copy of:
/// its checker finds nothing before and after it was mounted (an XFS first has to play its log), and what is in it is
/// of an instant between `before` and `after`. The image changes.
pub fn judge_image(
    image: &str,
    kind: &str,
    log: &Path,
    before: u64,
    after: u64,
    scratch: &Scratch,
) -> Verdict {
    let check = |when: &str| match fsck(image, kind) {
        (Some(0), _) => None,
        (status, said) => {
            let said: String = said.chars().take(400).collect();
            Some(format!("the checker {when}: {status:?} {said}"))
        }
    };
    let mut faults: Vec<_> =
        (kind != "xfs").then(|| check("before it was mounted")).flatten().into_iter().collect();
    let disk = LoopDisk::attach(image, 512).expect("a loop device");
    if kind == "btrfs" {
        // Or the kernel takes it for a device of the original.
        tool("btrfs", &["device", "scan", "--forget"]);
    }
    let at = scratch.path("judged");
    let verdict =
        try_mount(&disk.path, &at, "noatime").map(|_mounted| judge_mounted(&at, log, before, after));
    drop(disk);
    faults.extend(check("after it was mounted"));
    match verdict {
        Ok(verdict) => Verdict { faults: [faults, verdict.faults].concat(), durable: verdict.durable },
        Err(said) => Verdict { faults: [faults, vec![said]].concat(), durable: Value::Null },
    }
}
