//! Repositories that earlier versions wrote, one of each format version, stay readable for ever.

use halfhour_tests::{Imager, Scratch, need, tool};
use std::path::Path;

/// Every format version there was; a new one is added here and made by `tests/golden/make`.
const VERSIONS: [&str; 1] = ["v1"];

fn golden() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
}

#[test]
fn the_list_of_format_versions_is_complete() {
    let newest = format!("v{}", imager_image::FORMAT_VERSION);
    assert_eq!(VERSIONS.last(), Some(&newest.as_str()));
    let mut archives: Vec<_> = std::fs::read_dir(golden())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().ok()?.strip_suffix(".tar.zst").map(str::to_owned)
        })
        .collect();
    archives.sort();
    let mut expected: Vec<_> =
        VERSIONS.iter().flat_map(|v| ["plain", "encrypted"].map(|kind| format!("{v}-{kind}"))).collect();
    expected.sort();
    assert_eq!(archives, expected);
}

#[test]
fn every_golden_repository_verifies_and_gives_back_its_disks() {
    if !need::programs(&["tar", "zstd", "sha256sum"]) {
        return;
    }
    for version in VERSIONS {
        let scratch = Scratch::new();
        let into = scratch.folder("repositories");
        let sums = std::fs::read_to_string(golden().join(format!("{version}.sums"))).unwrap();
        for kind in ["plain", "encrypted"] {
            let archive = golden().join(format!("{version}-{kind}.tar.zst"));
            let (archive, folder) = (archive.display().to_string(), into.display().to_string());
            tool("tar", &["--zstd", "-xf", &archive, "-C", &folder]);
            let imager = Imager::new(scratch.folder("state"), into.join(kind));
            let imager = imager.with("IMAGER_PASSWORD", "golden passphrase");
            imager.ok(&["verify", "--read-data"]);
            let expected: Vec<_> = sums.lines().filter(|line| line.starts_with(kind)).collect();
            assert_eq!(expected.len(), 2, "two captures in {version}-{kind}");
            for line in expected {
                let [_, id, sum] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                let file = scratch.name(id);
                imager.ok(&["export", &format!("id:{id}"), &file, "--format", "raw"]);
                assert!(tool("sha256sum", &[&file]).starts_with(sum), "{version}-{kind} {id}");
            }
        }
    }
}
