//! A captured disk or volume as an image file, for machines that are virtual or other programs' tools.
//!
//! A raw image is sparse: parts that do not count or are zero are holes. Workers read and check the content in parallel,
//! the file is written in order under a name of its own, and it gets its name when all of it is durable.

mod partial;
mod qcow2;

use crate::capture::worker::is_zero;
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use crate::pipeline::{Width, ordered};
use crate::repository::Repository;
use crate::view::{CaptureView, DiskView, Status};
use imager_disk::ReadAt;
use imager_image::CaptureId;
use imager_image::manifest::{Manifest, Problem};
use imager_units::{ByteLen, ByteOffset, Context, Extent, Result};
use partial::Partial;
use qcow2::{CLUSTER, Qcow2};
use serde::Serialize;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much one worker reads at once.
const UNIT: ByteLen = ByteLen::new(4 << 20);
const GRAIN: ByteLen = ByteLen::new(CLUSTER as u64);

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The disk of this number, complete.
    Disk(u32),
    /// The volume of this key.
    Volume(String),
}

/// What kind of file it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes as they are, with holes.
    Raw,
    /// QEMU's format, version 3.
    Qcow2,
}

/// What was exported.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The capture.
    pub capture: CaptureId,
    /// The disk, or the volume's first disk.
    pub disk: Option<u32>,
    /// The volume's key.
    pub key: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// The size of the disk or volume.
    pub size_bytes: u64,
    /// Bytes written that are not holes.
    pub data_bytes: u64,
    /// Parts that could not be read when they were captured, and are zero now.
    pub problems: Vec<Problem>,
    /// How long it took.
    pub elapsed_seconds: f64,
}

/// Writes a disk or volume of a capture into a new file.
///
/// # Errors
/// `NotFound` when the capture has no such disk or volume; `Exists` when there is such a file; `Corrupt` when the
/// content is damaged; `OutOfSpace`, `Denied`, `Io`; `Cancelled`. No file is left then.
pub fn run(
    repository: &Repository,
    manifest: &Manifest,
    subject: &Subject,
    file: &Path,
    format: Format,
    monitor: &dyn Monitor,
) -> Result<ExportReport> {
    let started = Instant::now();
    let capture = CaptureView::new(repository, manifest.clone());
    let view = match subject {
        Subject::Disk(number) => capture.disk(*number)?,
        Subject::Volume(key) => capture.volume(key)?,
    };
    let size = view.geometry().size;
    monitor.phase("export", Some(size));
    let partial = Partial::create(file)?;
    let say = || format!("writing {}", file.display());
    let mut image = Image::new(partial.file(), format, size).context(say)?;
    let data = copy(&view, &mut image, monitor).context(say)?;
    image.finish().context(say)?;
    check_cancelled(monitor)?;
    partial.publish()?;
    Ok(ExportReport {
        capture: manifest.header.id,
        disk: disk_of(manifest, subject),
        key: match subject {
            Subject::Disk(_) => None,
            Subject::Volume(key) => Some(key.clone()),
        },
        file: file.to_owned(),
        format,
        size_bytes: size.get(),
        data_bytes: data.get(),
        problems: problems(manifest, subject),
        elapsed_seconds: started.elapsed().as_secs_f64(),
    })
}

fn disk_of(manifest: &Manifest, subject: &Subject) -> Option<u32> {
    match subject {
        Subject::Disk(number) => Some(*number),
        Subject::Volume(key) => {
            manifest.volumes.iter().find(|volume| volume.key == *key).map(|volume| volume.disk)
        }
    }
}

/// What the capture says is missing from the subject.
fn problems(manifest: &Manifest, subject: &Subject) -> Vec<Problem> {
    let concerns = |problem: &&Problem| match subject {
        Subject::Volume(key) => problem.volume == *key,
        Subject::Disk(number) => {
            let volume = manifest.volumes.iter().find(|volume| volume.key == problem.volume);
            let lies_there = volume.is_some_and(|v| v.segments.iter().any(|segment| segment.disk == *number));
            lies_there || problem.volume == format!("{number}:remainder")
        }
    };
    manifest.problems.iter().filter(concerns).cloned().collect()
}

/// A part of the disk as it was read: its bytes, and which clusters of them are not zero.
struct Read {
    extent: Extent,
    bytes: Vec<u8>,
    runs: Vec<Range<usize>>,
}

/// Copies everything with content and says how much that was.
fn copy(view: &DiskView<'_>, image: &mut Image<'_>, monitor: &dyn Monitor) -> Result<ByteLen> {
    let size = view.geometry().size;
    let (mut data, mut done) = (ByteLen::ZERO, ByteOffset::ZERO);
    let make = || Ok(|extent: Extent| read(view, extent, monitor));
    let units = Units { view, next: ByteOffset::ZERO };
    ordered("export", Width::for_this_machine(), units, make, |part: Read| {
        for run in &part.runs {
            let at = part.extent.start().saturating_add(ByteLen::new(run.start as u64));
            let bytes = part.bytes.get(run.clone()).unwrap_or_default();
            timed(monitor, Stage::Write, || image.put(at, bytes))?;
            data = data.saturating_add(ByteLen::of(bytes));
        }
        monitor.advance(part.extent.end().saturating_since(done));
        done = part.extent.end();
        Ok(())
    })?;
    monitor.advance(Extent::first(size).end().saturating_since(done));
    Ok(data)
}

fn read(view: &DiskView<'_>, extent: Extent, monitor: &dyn Monitor) -> Result<Read> {
    check_cancelled(monitor)?;
    let mut bytes = vec![0; extent.len().to_usize().unwrap_or(0)];
    timed(monitor, Stage::Share, || view.read_exact_at(extent.start(), &mut bytes))?;
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for cluster in bytes.chunks(CLUSTER) {
        let end = at + cluster.len();
        if !is_zero(cluster) {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => runs.push(at..end),
            }
        }
        at = end;
    }
    Ok(Read { extent, bytes, runs })
}

/// The parts of a disk that hold anything, in whole clusters, in order.
struct Units<'v, 'r> {
    view: &'v DiskView<'r>,
    next: ByteOffset,
}

impl Units<'_, '_> {
    fn step(&mut self) -> Result<Option<Extent>> {
        let end = Extent::first(self.view.geometry().size).end();
        while self.next < end {
            let rest = Extent::between(self.next, end);
            let Some((run, status)) = self.view.status(rest, 1)?.first().copied() else { break };
            if status == Status::Data {
                let start = self.next.align_down(GRAIN);
                let unit = Extent::between(start, start.align_down(UNIT).saturating_add(UNIT).min(end));
                self.next = unit.end();
                return Ok(Some(unit));
            }
            self.next = run.end();
        }
        Ok(None)
    }
}

impl Iterator for Units<'_, '_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The file in its format.
enum Image<'f> {
    Raw(&'f File),
    Qcow2(Qcow2<'f>),
}

impl<'f> Image<'f> {
    fn new(file: &'f File, format: Format, size: ByteLen) -> Result<Self> {
        match format {
            Format::Raw => {
                file.set_len(size.get()).context(|| "making room".to_owned())?;
                Ok(Self::Raw(file))
            }
            Format::Qcow2 => Ok(Self::Qcow2(Qcow2::new(file, size))),
        }
    }

    fn put(&mut self, at: ByteOffset, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Raw(file) => file.write_all_at(bytes, at.get()).context(|| format!("at {at}")),
            Self::Qcow2(image) => image.put(at, bytes),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Qcow2(image) => image.finish(),
        }
    }
}
