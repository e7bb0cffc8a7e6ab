//! Partition tables, told by sfdisk and sgdisk.

use crate::device::LoopDisk;
use crate::tool::{command, judge, tool};
use std::io::Write;
use std::process::Stdio;

/// Writes the table that sfdisk makes of `script` onto a file or device.
pub fn write(disk: &str, script: &str) {
    let mut sfdisk = command("sfdisk");
    sfdisk.args(["-q", "--wipe", "never", "--no-reread", "--no-tell-kernel", disk]);
    let mut child = sfdisk.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("sfdisk is installed");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("sfdisk reads");
    assert!(child.wait().expect("sfdisk ends").success(), "sfdisk takes {script:?}");
}

/// What `sfdisk --dump` says, without the name of the disk and what moves with its size. `None` where it finds no table.
pub fn dump(disk: &str, sector: u32) -> Option<String> {
    // The sfdisk of older systems counts only in the sectors of a device.
    let attached = if sector == 512 { None } else { Some(LoopDisk::attach(disk, sector)?) };
    let path = attached.as_ref().map_or(disk, |attached| &attached.path);
    let (status, said) = judge("sfdisk", &["--dump", path]);
    let moves = |line: &&str| !["device:", "last-lba:", "grain:"].iter().any(|start| line.starts_with(start));
    let lines: Vec<_> = said.lines().filter(moves).map(|line| line.replace(path, "DISK")).collect();
    (status == Some(0)).then(|| lines.join("\n"))
}

/// Whether `sgdisk --verify` finds nothing wrong with a GPT in sectors of 512 bytes.
pub fn is_sound_gpt(disk: &str) -> bool {
    let said = tool("sgdisk", &["--verify", disk]);
    if !said.contains("No problems found") {
        println!("{said}");
    }
    said.contains("No problems found")
}
