//! Filesystems on several devices: a folder of images.

use crate::image::Image;
use crate::{compare, judges, name};
use imager_disk::ReadAt;
use imager_volume::Certainty;
use std::path::{Path, PathBuf};

/// Judges a folder of devices; returns a line of figures.
pub(crate) fn judge(folder: &Path) -> String {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let name = name(folder);
    let images: Vec<_> = paths.iter().map(|path| Image::open(path)).collect();
    let oracle = judges::btrfs::used(&paths);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mut targets, mut figures) = (Vec::new(), Vec::new());
    for (number, (image, oracle)) in images.iter().zip(&oracle).enumerate() {
        judges::identity(&paths[number], &imager_volume::probe(image).unwrap().expect("recognised"));
        let member = imager_volume::member(image).unwrap().expect("one of several");
        assert_eq!(member.of, images.len() as u64, "{name}");
        assert!(
            matches!(imager_volume::used(image).unwrap().certainty, Certainty::Whole(_)),
            "{name}: alone"
        );
        let others = images.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<_> = others.map(|(_, image)| image as &dyn ReadAt).collect();
        let map = imager_volume::used_with(image, &others).unwrap();
        assert_eq!(map.certainty, Certainty::Exact, "{name}");
        judges::alignment(&name, &map, image.size());
        let extra = compare(&name, &map, oracle, image.size());
        let target = dir.path().join(format!("target{number}"));
        image.restore(&map.extents, &target);
        targets.push(target);
        figures.push(format!(
            "{} of {} (oracle {}, {extra} more)",
            map.extents.total(),
            image.size(),
            oracle.total()
        ));
    }
    judges::btrfs::copies(&paths, &targets, dir.path());
    format!("{name}: maps {}", figures.join(", "))
}
