//! Skeletons of data volumes: a filesystem like the volume's, with its directories and without its files.
//!
//! One is made by the filesystem's own programs in a sparse file that has no name, given the volume's tree through two
//! mounts that no other process sees, checked by the filesystem's own checker, and captured like any volume's bytes. The
//! source is looked at through a mount that cannot write, not even the times of access. Everything hangs on descriptors
//! of this process: whatever becomes of it, nothing is left behind.
//!
//! Where none can be made, the rest of the machine is captured, and what to do about it is said.

mod attributes;
mod keep;
mod look;
mod mount;
mod place;
mod program;
mod tree;

use super::{DataMode, Options};
use crate::monitor::{Monitor, check_cancelled};
use crate::survey::{Survey, Volume};
use imager_disk::{Access, Device, LoopDevice, ReadAt, Writing};
use imager_image::manifest::{self, Problem, Role};
use imager_units::{Context, Error, ErrorKind, Result, SectorSize};
use imager_volume::skeleton::{Recipe, Step, recipe, unwritten};
use imager_volume::{Filesystem, UsedMap, chain};
use keep::Keep;
use look::Attached;
use mount::Mount;
use place::Place;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The skeletons of a capture, by the keys of their volumes.
#[derive(Default)]
pub(super) struct Skeletons {
    made: BTreeMap<String, Skeleton>,
    /// What went wrong.
    pub(super) problems: Vec<Problem>,
    /// What a person should know.
    pub(super) warnings: Vec<String>,
}

/// A skeleton that was made.
pub(super) struct Skeleton {
    pub(super) bytes: Arc<dyn ReadAt>,
    pub(super) used: UsedMap,
    pub(super) filesystem: Filesystem,
    /// Whether the volume was mounted, so that it does not matter what waits in its log.
    pub(super) is_live: bool,
    /// How it was made, and what is in it.
    pub(super) made: manifest::Skeleton,
}

impl Skeletons {
    /// Makes those that a capture is to have.
    ///
    /// # Errors
    /// `Cancelled`. What else goes wrong is a problem of the one volume.
    pub(super) fn make(survey: &Survey, options: &Options, monitor: &dyn Monitor) -> Result<Self> {
        let mut all = Self::default();
        let wanted = |volume: &&Volume| volume.role == Role::Data && options.data == DataMode::Skeleton;
        let mut keep = Keep::new(&options.keep);
        for volume in survey.volumes.iter().filter(wanted) {
            monitor.phase(&format!("skeleton of volume {}", volume.key), None);
            check_cancelled(monitor)?;
            match all.one(survey, volume, &mut keep, monitor) {
                Ok(skeleton) => drop(all.made.insert(volume.key.clone(), skeleton)),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    check_cancelled(monitor)?;
                    all.problems.push(none_made(volume, &error));
                }
            }
        }
        if !all.made.is_empty() {
            all.warnings.extend(keep.unmatched());
        }
        Ok(all)
    }

    /// That of a volume.
    pub(super) fn of(&self, volume: &Volume) -> Option<&Skeleton> {
        self.made.get(&volume.key)
    }

    /// Volumes of which nobody knew before that they are data: what a running system says of itself may be in its log alone.
    pub(super) fn late(&self, volumes: &[Volume]) -> Vec<Problem> {
        let is_known =
            |key: &str| self.made.contains_key(key) || self.problems.iter().any(|p| p.volume == key);
        let late = volumes.iter().filter(|volume| volume.role == Role::Data && !is_known(&volume.key));
        let message = "no skeleton was made, so nothing of it is in the image: that it is data turned out only while the \
                       machine was captured; run it again";
        late.map(|volume| problem(volume, message.to_owned())).collect()
    }

    fn one(
        &mut self,
        survey: &Survey,
        volume: &Volume,
        keep: &mut Keep,
        monitor: &dyn Monitor,
    ) -> Result<Skeleton> {
        let found =
            volume.filesystem.as_ref().ok_or_else(|| Error::unsupported("no filesystem is recognised"))?;
        if volume.member.as_ref().is_some_and(|member| member.of > 1) {
            return Err(Error::unsupported(format!(
                "no skeleton is made of {} on several devices",
                found.kind
            )));
        }
        let wanted = recipe(found.kind, &*volume.bytes)?;
        program::check_there(&wanted)?;
        program::know_loops();
        let sector = volume.bytes.geometry().logical;
        let look = look::look(survey, volume, &wanted)?;
        let place = Place::make(volume.size(), &look)?;
        let run = |steps: &[Step]| steps.iter().try_for_each(|step| program::run(step, &place.path()));
        run(&wanted.steps)?;
        let copied = fill(&wanted, &place, sector, &look, keep, monitor)?;
        let is_live = look.is_live();
        drop(look);
        check_cancelled(monitor)?;
        run(&wanted.finish)?;
        program::check(&wanted.check, &place.path(), copied.lacks_lost_and_found)?;
        let device = Device::open(&place.path(), Access::Read, Some(sector))?;
        let filesystem =
            imager_volume::probe(&device)?.ok_or_else(|| Error::corrupt("it is not recognised"))?;
        let mut used = imager_volume::used(&device)?;
        used.extents = used.extents.difference(&unwritten(filesystem.kind, &device)?);
        for difference in wanted.differences(&recipe(filesystem.kind, &device)?) {
            self.warnings.push(format!("volume {}: of the skeleton, {difference}", volume.key));
        }
        if let Some(quotas) = wanted.parameters.get("quotas").filter(|quotas| !quotas.is_empty()) {
            self.warnings.push(format!(
                "volume {}: its skeleton keeps quotas ({quotas}), but has the limits of nobody",
                volume.key
            ));
        }
        self.problems.extend(copied.problems.iter().map(|message| problem(volume, message.clone())));
        let made = described(&wanted, &copied.counts);
        Ok(Skeleton { bytes: Arc::new(device), used, filesystem, is_live, made })
    }
}

/// Puts the tree into an empty filesystem.
fn fill(
    wanted: &Recipe,
    place: &Place,
    sector: SectorSize,
    look: &look::Look,
    keep: &mut Keep,
    monitor: &dyn Monitor,
) -> Result<tree::Copied> {
    let device = LoopDevice::new(place.file(), place.extent(), sector, Writing::Yes)?;
    let device = Attached::new(device, wanted.kind);
    let target = Mount::new(wanted.kind, device.path(), &wanted.mount, mount::Access::Write)
        .context(|| "mounting the skeleton".to_owned())?;
    let copied = tree::copy(look, &target, keep, monitor)?;
    target.sync()?;
    Ok(copied)
}

fn described(wanted: &Recipe, counts: &tree::Counts) -> manifest::Skeleton {
    let step = |step: &Step| manifest::Step {
        program: step.program.to_owned(),
        arguments: step.arguments.clone(),
        input: step.input.clone(),
    };
    let owned = |(name, value): (&&str, &String)| ((*name).to_owned(), value.clone());
    manifest::Skeleton {
        steps: wanted.steps.iter().chain(&wanted.finish).map(step).collect(),
        parameters: wanted.parameters.iter().map(owned).collect(),
        directories: counts.directories,
        symlinks: counts.symlinks,
        kept_files: counts.kept,
        kept_bytes: counts.kept_bytes,
        other_files: counts.others,
    }
}

fn problem(volume: &Volume, message: String) -> Problem {
    Problem { volume: volume.key.clone(), message, extents: Vec::new() }
}

fn none_made(volume: &Volume, error: &Error) -> Problem {
    let key = &volume.key;
    let root = if nix::unistd::geteuid().is_root() { "" } else { " (it takes root)" };
    problem(
        volume,
        format!(
            "no skeleton could be made, so nothing of it is in the image: {}{root}; with --data used what it holds is taken, with \
             --role {key}=ignore it is left out",
            chain(error)
        ),
    )
}
