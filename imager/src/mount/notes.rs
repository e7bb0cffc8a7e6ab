//! What a person is told about a mounted capture: on the terminal, and in a file beside what it speaks of.

use super::tree::Item;
use imager_image::manifest::{Manifest, Mode, Volume};
use imager_units::{Error, ErrorKind};

/// What a volume is called in a sentence.
fn called(volume: &Volume) -> String {
    if volume.name == volume.key { volume.key.clone() } else { format!("{} ({})", volume.key, volume.name) }
}

/// Nothing of it is in the capture.
pub(super) fn absent(volume: &Volume) -> String {
    format!("volume {} is not in the capture: role {:?}", called(volume), volume.role).to_lowercase()
}

/// A filesystem that is not read here, and how to reach its files.
pub(super) fn other(volume: &Volume, file: &str) -> Option<String> {
    let options = match volume.filesystem.as_deref()? {
        "xfs" => "ro,norecovery,nouuid,loop",
        "btrfs" => "ro,rescue=nologreplay,loop",
        "f2fs" => "ro,norecovery,loop",
        "exfat" | "fat12" | "fat16" | "fat32" | "vfat" => "ro,loop",
        _ => return None,
    };
    Some(format!(
        "volume {}: no folder of its files; as root: mount -o {options} DIR/{file} /mnt",
        called(volume)
    ))
}

/// A filesystem that could not be opened.
pub(super) fn unreadable(volume: &Volume, file: &str, error: &Error) -> String {
    let mut chain = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        chain = format!("{chain}: {cause}");
        next = cause.source();
    }
    let is_ext = volume.filesystem.as_deref().is_some_and(|kind| kind.starts_with("ext"));
    let way = match error.kind() {
        ErrorKind::Unsupported if is_ext => format!(
            "; as root, to see it as it was before the journal's last changes: mount -o ro,noload,loop DIR/{file} /mnt; with \
             them: imager export --format raw --volume {}, then mount -o loop",
            volume.key
        ),
        _ => String::new(),
    };
    format!("volume {}: no folder of its files: {chain}{way}", called(volume))
}

/// A filesystem that is shown although it was not left in order.
pub(super) fn doubt(volume: &Volume) -> Option<String> {
    (volume.clean == Some(false)).then(|| {
        format!(
            "volume {}: it was not left in order; its last changes may be missing or half there",
            called(volume)
        )
    })
}

/// What concerns the capture as a whole.
pub(super) fn general(manifest: &Manifest) -> Vec<String> {
    let mut notes = Vec::new();
    for volume in manifest.volumes.iter().filter(|volume| volume.mode == Mode::Skeleton) {
        notes.push(format!("volume {}: folders without their files (a skeleton)", called(volume)));
    }
    notes.extend(manifest.not_captured.iter().map(|missing| format!("not in the image: {missing}")));
    let problems = manifest.problems.iter();
    notes.extend(problems.map(|problem| {
        let fails = if problem.extents.is_empty() { "" } else { "; reading there fails" };
        format!("PROBLEM: volume {}: {}{fails}", problem.volume, problem.message)
    }));
    notes
}

/// The file at the top.
pub(super) fn text(manifest: &Manifest, items: &[Item], notes: &[String]) -> String {
    let header = &manifest.header;
    let mut text = format!("Capture {} of {} at {}, read-only.\n\n", header.id, header.machine, header.time);
    for item in items {
        text.push_str(&format!("{}\t{}\n", item.name, item.description));
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(note);
        text.push('\n');
    }
    text
}
