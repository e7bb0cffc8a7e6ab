//! What changed between two captures: bytes and extents of each volume, from their maps alone.
//!
//! Subtrees with the same id are passed over, so it takes as long as there are changes. The grain is the block: of a
//! block whose id is another, everything that counts in both captures is called changed. A part that only came to count
//! was added, one that no longer counts was freed; freeing alone changes nothing.

mod compare;

use crate::map::MapReader;
use crate::monitor::Monitor;
use crate::repository::Repository;
use crate::verify::{Stream, streams};
use compare::Comparison;
use imager_image::CaptureId;
use imager_image::manifest::{Manifest, Run};
use imager_units::{Context, Extent, ExtentSet, Result};
use serde::Serialize;

/// How many extents of one sort a volume's report lists; where there are more, the nearest are joined.
const MOST_EXTENTS: usize = 65_536;
/// How many are kept in memory before that is done.
const MOST_HELD: usize = 4 * MOST_EXTENTS;

/// The difference of two captures.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// The earlier one (or whichever was named first).
    pub before: CaptureId,
    /// The later one.
    pub after: CaptureId,
    /// Every volume and remainder of either, in the order of the later one, then those that are gone.
    pub volumes: Vec<VolumeDiff>,
    /// The sum over the volumes in both.
    pub changed_bytes: u64,
    /// The sum over the volumes in both.
    pub added_bytes: u64,
    /// The sum over the volumes in both.
    pub freed_bytes: u64,
}

/// How a volume stands in two captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// In both.
    Both,
    /// Only in the later one.
    Added,
    /// Only in the earlier one.
    Removed,
    /// Its content is not in both captures, so there is nothing to compare.
    Uncaptured,
}

/// The difference of one volume.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeDiff {
    /// The disk it starts on.
    pub disk: u32,
    /// Its key, `D:remainder` for a remainder.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub presence: Presence,
    /// Its size before, where it was there.
    pub size_bytes_before: Option<u64>,
    /// Its size after, where it is there.
    pub size_bytes_after: Option<u64>,
    /// Bytes that count in both and are in blocks with other content.
    pub changed_bytes: u64,
    /// Bytes that did not count before.
    pub added_bytes: u64,
    /// Bytes that do not count any more.
    pub freed_bytes: u64,
    /// Bytes that count in both and could not be read at one of the captures.
    pub unknown_bytes: u64,
    /// Where the changed bytes are, relative to the volume.
    pub changed_extents: Vec<Run>,
    /// Where the added ones are.
    pub added_extents: Vec<Run>,
    /// Where the freed ones are.
    pub freed_extents: Vec<Run>,
    /// Whether the extents are exact; where there were too many, near ones were joined.
    pub exact_extents: bool,
}

/// Compares two captures of one repository.
///
/// # Errors
/// `Corrupt`, `NotFound` when a map is damaged or gone; `Io`, `Denied` from the share; `Cancelled`.
pub fn run(
    repository: &Repository,
    before: &Manifest,
    after: &Manifest,
    monitor: &dyn Monitor,
) -> Result<DiffReport> {
    monitor.phase("comparing block maps", None);
    let mut volumes = Vec::new();
    for entry in listed(after) {
        let earlier = listed(before).find(|earlier| earlier.key == entry.key);
        volumes.push(match &earlier {
            Some(earlier) => both(repository, earlier, &entry, monitor)?,
            None => alone(&entry, Presence::Added),
        });
    }
    let gone = listed(before).filter(|entry| listed(after).all(|later| later.key != entry.key));
    volumes.extend(gone.map(|entry| alone(&entry, Presence::Removed)));
    let sum = |bytes: fn(&VolumeDiff) -> u64| volumes.iter().map(bytes).sum();
    Ok(DiffReport {
        before: before.header.id,
        after: after.header.id,
        changed_bytes: sum(|volume| volume.changed_bytes),
        added_bytes: sum(|volume| volume.added_bytes),
        freed_bytes: sum(|volume| volume.freed_bytes),
        volumes,
    })
}

/// A volume or remainder of a capture, captured or not.
struct Listed<'m> {
    disk: u32,
    key: String,
    name: String,
    size_bytes: u64,
    stream: Option<Stream<'m>>,
}

fn listed(manifest: &Manifest) -> impl Iterator<Item = Listed<'_>> {
    let captured = streams(manifest).map(|stream| Listed {
        disk: stream.disk,
        key: stream.key.clone(),
        name: stream.name.clone(),
        size_bytes: stream.map.size_bytes,
        stream: Some(stream),
    });
    let others = manifest.volumes.iter().filter(|volume| volume.map.is_none()).map(|volume| Listed {
        disk: volume.disk,
        key: volume.key.clone(),
        name: volume.name.clone(),
        size_bytes: volume.size_bytes,
        stream: None,
    });
    captured.chain(others)
}

/// What was found out about a volume.
#[derive(Default)]
struct Difference {
    changed: Extents,
    added: Extents,
    freed: Extents,
    unknown: Extents,
}

/// Extents that come in order, counted exactly and kept in bounded memory.
#[derive(Default)]
struct Extents {
    set: ExtentSet,
    bytes: u64,
    joined: bool,
}

impl Extents {
    fn insert(&mut self, extent: Extent) {
        self.bytes = self.bytes.saturating_add(extent.len().get());
        self.set.insert(extent);
        if self.set.count() > MOST_HELD {
            self.join();
        }
    }

    fn join(&mut self) {
        self.set = std::mem::take(&mut self.set).coarsen(MOST_EXTENTS);
        self.joined = true;
    }

    fn runs(mut self) -> Vec<Run> {
        if self.set.count() > MOST_EXTENTS {
            self.join();
        }
        self.set.iter().map(Run::from).collect()
    }

    fn is_exact(&self) -> bool {
        !self.joined && self.set.count() <= MOST_EXTENTS
    }
}

fn both(
    repository: &Repository,
    before: &Listed<'_>,
    after: &Listed<'_>,
    monitor: &dyn Monitor,
) -> Result<VolumeDiff> {
    let sizes = (Some(before.size_bytes), Some(after.size_bytes));
    let (Some(earlier), Some(later)) = (&before.stream, &after.stream) else {
        return Ok(report(after, Presence::Uncaptured, sizes, Difference::default()));
    };
    let mut found = Difference::default();
    let mut comparison = Comparison {
        before: MapReader::new(repository.frames()?, earlier.map)?,
        after: MapReader::new(repository.frames()?, later.map)?,
        monitor,
        found: &mut found,
    };
    comparison.run().context(|| format!("comparing volume {}", after.key))?;
    Ok(report(after, Presence::Both, sizes, found))
}

fn alone(entry: &Listed<'_>, presence: Presence) -> VolumeDiff {
    let sizes = match presence {
        Presence::Removed => (Some(entry.size_bytes), None),
        _ => (None, Some(entry.size_bytes)),
    };
    report(entry, presence, sizes, Difference::default())
}

fn report(
    entry: &Listed<'_>,
    presence: Presence,
    sizes: (Option<u64>, Option<u64>),
    found: Difference,
) -> VolumeDiff {
    let Difference { changed, added, freed, unknown } = found;
    VolumeDiff {
        disk: entry.disk,
        key: entry.key.clone(),
        name: entry.name.clone(),
        presence,
        size_bytes_before: sizes.0,
        size_bytes_after: sizes.1,
        changed_bytes: changed.bytes,
        added_bytes: added.bytes,
        freed_bytes: freed.bytes,
        unknown_bytes: unknown.bytes,
        exact_extents: [&changed, &added, &freed].iter().all(|extents| extents.is_exact()),
        changed_extents: changed.runs(),
        added_extents: added.runs(),
        freed_extents: freed.runs(),
    }
}
