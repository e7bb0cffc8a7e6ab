//! What f2fs-tools say of F2FS.

use super::extent;
use crate::tools::{output, run, text};
use imager_units::{ByteLen, ExtentSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 4096;
const SEGMENT: u64 = 512 * BLOCK;

/// The blocks that dump.f2fs finds valid, and everything outside the main area.
pub(crate) fn used(path: &Path, size: ByteLen) -> ExtentSet {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    run("bash", &["-ec", "cd \"$0\"; dump.f2fs -s 0~-1 \"$1\" > dump", text(dir.path()), text(path)]);
    let table = std::fs::read_to_string(dir.path().join("dump_sit")).unwrap();
    let mut header = [0; 28];
    std::fs::File::open(path).unwrap().read_exact_at(&mut header, 1024 + 68).unwrap();
    let long = |at: usize| u64::from(u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
    let (segments, main) = (long(0), long(24) * BLOCK);
    let end = main + segments * SEGMENT;
    let mut used: ExtentSet = [extent(0, main), extent(end, size.get())].into_iter().collect();
    let (mut at, mut counted) = (0, 0);
    for line in table.lines() {
        if let Some(number) = line.strip_prefix("segno:") {
            let number: u64 = number.split_whitespace().next().unwrap().parse().unwrap();
            let (_, valid) = line.split_once("vblocks:").unwrap();
            counted += valid.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            at = main + number * SEGMENT;
        } else if line.starts_with("  ") {
            for byte in line.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()) {
                (0..8).filter(|bit| byte << bit & 0x80 != 0).for_each(|bit| {
                    used.insert(extent(at + bit * BLOCK, (at + bit * BLOCK) + BLOCK));
                });
                at += 8 * BLOCK;
            }
        }
    }
    let in_main = used.intersection(&extent(main, end).into()).total().get();
    assert_eq!(in_main, counted * BLOCK, "{}: valid blocks", path.display());
    used
}

/// fsck.f2fs finds nothing, and the same tree; the blocks of the files are those of the map, which were copied.
pub(crate) fn copy(source: &Path, target: &Path, _: &Path) {
    let name = source.file_name().unwrap().to_str().unwrap();
    let check = |image: &Path| {
        let output = output("fsck.f2fs", &["-f", "-t", "--dry-run", text(image)]);
        let said = String::from_utf8_lossy(&output.stdout).replace(text(image), "");
        let lines = said.lines().filter(|line| !line.starts_with("Done: "));
        (output.status.code(), lines.collect::<Vec<_>>().join("\n"))
    };
    let said = check(target);
    assert_eq!(said.0, Some(0), "{name}: {}", said.1);
    assert!(said.1.contains("[Ok..]") && !said.1.contains("[Fail]"), "{name}: {}", said.1);
    assert_eq!(check(source), said, "{name}");
}
