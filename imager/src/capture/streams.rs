//! Which byte streams a capture consists of: each volume, and each disk's remainder.

use super::blocks::{Look, Scope};
use super::skeleton::{Skeleton, Skeletons};
use super::{DataMode, Options};
use crate::survey::{Disk, Survey, Volume};
use imager_disk::{Geometry, ReadAt};
use imager_image::MaskUnit;
use imager_image::manifest::{Manifest, Map, Mode, Role, Truth};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, Result};
use imager_volume::{Certainty, State, UsedMap};
use std::sync::Arc;

/// One byte stream to capture.
pub(crate) struct Stream<'a> {
    /// The volume's key, or `D:remainder`.
    pub(crate) label: String,
    /// Its bytes.
    pub(crate) source: Arc<dyn ReadAt>,
    /// Which of them count.
    pub(crate) used: ExtentSet,
    /// The grain of its masks.
    pub(crate) unit: MaskUnit,
    /// What it is compared with.
    pub(crate) parent: Option<Map>,
    /// What of it has to be read.
    pub(crate) look: Look,
    /// How it is known what changed.
    pub(crate) truth: Truth,
    /// What it is.
    pub(crate) subject: Subject<'a>,
}

impl Stream<'_> {
    /// What a pass has to do for it.
    pub(super) fn scope(&self) -> Result<Scope<'_>> {
        let whole = self.source.geometry().extent();
        let (data, look) = (self.source.data(whole)?, &self.look);
        Ok(Scope { size: whole.len(), unit: self.unit, used: &self.used, data, look })
    }

    /// How much is read of it, about.
    pub(super) fn expected(&self) -> ByteLen {
        match &self.look {
            Look::All => self.used.total(),
            Look::Marked(marked) => marked.extents.total(),
        }
    }
}

/// What a stream is the content of.
pub(crate) enum Subject<'a> {
    /// A volume's skeleton: nothing of it lies on the disks.
    Skeleton(&'a Volume, &'a Skeleton),
    /// A volume, with how much of it is taken and, if all of it had to be, why.
    Volume(&'a Volume, Mode, Option<String>),
    /// What a disk has outside its volumes.
    Remainder(&'a Disk),
}

/// The streams of a capture: volumes first, then remainders. Volumes of which nothing is taken have none.
pub(crate) fn plan<'a>(
    survey: &'a Survey,
    options: &Options,
    skeletons: &'a Skeletons,
    parent: Option<&Manifest>,
) -> Result<Vec<Stream<'a>>> {
    plan_with(survey, options, skeletons, parent, &Volume::used)
}

/// The same, of volumes of which `used` says what counts.
pub(super) fn plan_with<'a>(
    survey: &'a Survey,
    options: &Options,
    skeletons: &'a Skeletons,
    parent: Option<&Manifest>,
    used: &dyn Fn(&Volume) -> Result<UsedMap>,
) -> Result<Vec<Stream<'a>>> {
    let mut streams = Vec::new();
    for volume in &survey.volumes {
        streams.extend(of_volume(volume, options, skeletons, parent, used)?);
    }
    for disk in &survey.disks {
        let before = parent.and_then(|m| m.disks.iter().find(|d| d.number == disk.number));
        streams.push(Stream {
            label: format!("{}:remainder", disk.number),
            source: Arc::clone(&disk.device),
            used: disk.remainder(),
            unit: MaskUnit::SECTOR,
            parent: before.map(|disk| disk.remainder.clone()),
            look: Look::All,
            truth: truth(before.is_some()),
            subject: Subject::Remainder(disk),
        });
    }
    Ok(streams)
}

fn truth(is_compared: bool) -> Truth {
    if is_compared { Truth::Compare } else { Truth::Scan }
}

fn of_volume<'a>(
    volume: &'a Volume,
    options: &Options,
    skeletons: &'a Skeletons,
    parent: Option<&Manifest>,
    used: &dyn Fn(&Volume) -> Result<UsedMap>,
) -> Result<Option<Stream<'a>>> {
    let before = parent.and_then(|m| m.volumes.iter().find(|v| v.key == volume.key));
    if let Some(skeleton) = skeletons.of(volume).filter(|_| volume.role == Role::Data) {
        return of_skeleton(volume, skeleton, before).map(Some);
    }
    let taken = match (volume.role, options.data) {
        (Role::Ignore, _) | (Role::Data, DataMode::None | DataMode::Skeleton) => return Ok(None),
        _ => used(volume)?,
    };
    let UsedMap { extents, unit, certainty } = taken;
    let (mode, because) = match (volume.role, certainty) {
        (Role::Swap, Certainty::Exact) => (Mode::Signature, None),
        (_, Certainty::Exact) => (Mode::Used, None),
        (_, Certainty::Whole(why)) => (Mode::Raw, Some(why)),
    };
    Ok(Some(Stream {
        label: volume.key.clone(),
        source: source_of(volume)?,
        used: extents,
        unit: MaskUnit::new(unit.get())?,
        truth: truth(before.is_some_and(|volume| volume.map.is_some())),
        parent: before.and_then(|volume| volume.map.clone()),
        look: Look::All,
        subject: Subject::Volume(volume, mode, because),
    }))
}

fn of_skeleton<'a>(
    volume: &'a Volume,
    skeleton: &'a Skeleton,
    before: Option<&imager_image::manifest::Volume>,
) -> Result<Stream<'a>> {
    let parent = before.and_then(|volume| volume.map.clone());
    Ok(Stream {
        label: volume.key.clone(),
        source: Arc::clone(&skeleton.bytes),
        used: skeleton.used.extents.clone(),
        unit: MaskUnit::new(skeleton.used.unit.get())?,
        truth: truth(parent.is_some()),
        parent,
        look: Look::All,
        subject: Subject::Skeleton(volume, skeleton),
    })
}

/// The bytes to capture: the volume's own, but for a swap volume that holds a hibernated system. Its pages are not
/// captured, so the header must not promise them: a kernel that resumed from it would destroy the restored disk.
fn source_of(volume: &Volume) -> Result<Arc<dyn ReadAt>> {
    let hibernated = volume.filesystem.as_ref().is_some_and(|f| f.state == State::Hibernated);
    if volume.role != Role::Swap || !hibernated {
        return Ok(Arc::clone(&volume.bytes));
    }
    let len = volume.filesystem.as_ref().and_then(|f| f.block.to_usize()).unwrap_or(4096);
    let mut head = vec![0; len];
    volume.bytes.read_exact_at(ByteOffset::ZERO, &mut head)?;
    imager_volume::swap::reset(&mut head)?;
    Ok(Arc::new(Patched { inner: Arc::clone(&volume.bytes), head }))
}

/// A volume whose first bytes read as others.
struct Patched {
    inner: Arc<dyn ReadAt>,
    head: Vec<u8>,
}

impl ReadAt for Patched {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.inner.read_exact_at(offset, buf)?;
        let asked = Extent::between(offset, offset.saturating_add(ByteLen::of(buf)));
        let patched = asked.intersection(Extent::first(ByteLen::of(&self.head)));
        let (from, len) = (patched.start().get(), patched.len().to_usize().unwrap_or(0));
        let source = usize::try_from(from).ok().and_then(|at| self.head.get(at..at + len));
        let target =
            patched.start().saturating_since(offset).to_usize().and_then(|at| buf.get_mut(at..at + len));
        if let (Some(source), Some(target)) = (source, target) {
            target.copy_from_slice(source);
        }
        Ok(())
    }
}
