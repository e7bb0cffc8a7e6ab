//! What there is at the top of a mounted capture, and how it is called.

use super::notes;
use crate::repository::Repository;
use crate::view::{CaptureView, DiskView};
use imager_disk::ReadAt;
use imager_image::CaptureId;
use imager_image::manifest::{Manifest, Volume};
use imager_units::{ErrorKind, Result};
use imager_volume::files::Files;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names are cut here, well before the system would.
const MOST_LABEL_CHARACTERS: usize = 64;

/// A captured machine as a folder.
pub struct Tree {
    pub(super) id: CaptureId,
    pub(super) time: SystemTime,
    pub(super) items: Vec<Item>,
    notes: Vec<String>,
}

/// A file or folder at the top.
pub struct Item {
    /// What it is called.
    pub name: String,
    /// What a person would call it.
    pub description: String,
    pub(super) content: Content,
}

#[derive(Clone)]
pub(super) enum Content {
    /// A disk or volume, byte for byte.
    Raw(Arc<DiskView<'static>>),
    /// The files on a volume.
    Files(Arc<dyn Files>),
    /// A text for people.
    Text(Arc<Vec<u8>>),
}

impl Tree {
    /// What there is at the top.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What a person should know: what is not there and why, and how to get at the rest.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Item {
    /// The size of a disk or volume; `None` for a folder.
    pub fn size_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Raw(view) => Some(view.geometry().size.get()),
            Content::Text(text) => u64::try_from(text.len()).ok(),
            Content::Files(_) => None,
        }
    }
}

pub(super) fn build(repository: &'static Repository, manifest: &Manifest) -> Result<Tree> {
    let capture = CaptureView::new(repository, manifest.clone());
    let machine = &manifest.header.machine;
    let mut builder = Builder { items: Vec::new(), names: HashSet::new(), notes: Vec::new() };
    for disk in &manifest.disks {
        let view = capture.disk(disk.number)?.strict();
        let description = format!("disk {} of {machine} at {}", disk.number, manifest.header.time);
        builder.add(format!("disk{}", disk.number), ".raw", description, Content::Raw(Arc::new(view)));
    }
    for volume in &manifest.volumes {
        if volume.map.is_none() {
            builder.notes.push(notes::absent(volume));
            continue;
        }
        builder.volume(volume, capture.volume(&volume.key)?.strict());
    }
    builder.notes.extend(notes::general(manifest));
    let text = notes::text(manifest, &builder.items, &builder.notes);
    let what = "what this is, and what is not in it".to_owned();
    builder.add("NOTES".to_owned(), ".txt", what, Content::Text(Arc::new(text.into_bytes())));
    let time = manifest.header.time.parse::<jiff::Timestamp>().map_or(0, |time| time.as_second());
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or_default());
    Ok(Tree { id: manifest.header.id, time, items: builder.items, notes: builder.notes })
}

struct Builder {
    items: Vec<Item>,
    names: HashSet<String>,
    notes: Vec<String>,
}

impl Builder {
    /// Adds an item under a name that no other has.
    fn add(&mut self, stem: String, suffix: &str, description: String, content: Content) -> String {
        let mut name = format!("{stem}{suffix}");
        let mut number = 2_u32;
        while !self.names.insert(name.clone()) {
            name = format!("{stem}~{number}{suffix}");
            number = number.saturating_add(1);
        }
        self.items.push(Item { name: name.clone(), description, content });
        name
    }

    fn volume(&mut self, volume: &Volume, view: DiskView<'static>) {
        let stem = stem(volume);
        let kind = volume.filesystem.as_deref().unwrap_or("no filesystem known");
        let named = if volume.name == volume.key { String::new() } else { format!(" ({})", volume.name) };
        let description = format!("volume {}{named}, {kind}", volume.key);
        let raw = Content::Raw(Arc::new(view.clone()));
        let file = self.add(stem.clone(), ".raw", description, raw);
        match open(view) {
            Ok(Some(files)) => {
                let description = format!("the files of volume {}{named}", volume.key);
                self.add(stem, "", description, Content::Files(files));
                self.notes.extend(notes::doubt(volume));
            }
            Ok(None) => self.notes.extend(notes::other(volume, &file)),
            Err(error) => self.notes.push(notes::unreadable(volume, &file, &error)),
        }
    }
}

/// The files on a volume. A fault of ours in reading a hostile one costs the folder, not the mount.
fn open(view: DiskView<'static>) -> Result<Option<Arc<dyn Files>>> {
    let opened = catch_unwind(AssertUnwindSafe(|| imager_volume::files::files(Box::new(view))));
    let failed = imager_units::Error::new(
        ErrorKind::Corrupt,
        "reading it failed in a way that is a fault of this program",
    );
    let opened = opened.map_err(|_| failed)?;
    Ok(opened?.map(Arc::from))
}

/// A volume's name by its key and, where it has one, its label: only characters that every shell and share knows.
fn stem(volume: &Volume) -> String {
    let label = volume.label.as_deref().map(safe).filter(|label| !label.is_empty());
    let label = label.map_or(String::new(), |label| format!("-{label}"));
    format!("volume-{}{label}", safe(&volume.key))
}

fn safe(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '+');
    let plain = text.chars().map(|letter| if is_plain(letter) { letter } else { '_' });
    plain.take(MOST_LABEL_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn odd_labels_are_made_safe() {
        assert_eq!(safe("Größe Ω/../x\n"), "Gr__e___.._x_");
        assert_eq!(safe("vg0/root"), "vg0_root");
        assert_eq!(safe("2:3"), "2_3");
        assert_eq!(safe(&"x".repeat(300)).len(), 64);
    }
}
