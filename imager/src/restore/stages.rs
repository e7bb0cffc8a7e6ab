//! The order in which a plan is carried out, over all its disks.
//!
//! One rule: from the first write to the last, no planned volume is recognisable unless it is what was there before or
//! what was captured, and what starts a system comes last. So everything is claimed; with the first difference the
//! heads of all volumes are cleared, an operating system's first; everything else is written; then the heads return,
//! an operating system's last; and of a disk that is made anew the table follows. Whatever is interrupted is run again.

use super::disk_run::DiskRun;
use super::ground::Ground;
use super::plan::{BootCode, Scope, VolumePlan};
use super::target::Writer;
use super::volume::Job;
use super::volumes::Bodies;
use super::{Report, outside};
use crate::monitor::check_cancelled;
use imager_disk::{Segment, Window, WriteAt};
use imager_image::manifest::Role;
use imager_units::{ByteOffset, Context, Error, ErrorKind, Result};
use std::sync::Arc;

/// A disk, and what it is written through.
struct Site<'a> {
    run: &'a DiskRun<'a>,
    ground: Ground,
    /// Whether anything of it is damaged in the repository.
    is_damaged: bool,
}

/// A volume: its site's number, and its own in the plan.
type Place = (usize, usize);

/// Carries out the plans of all disks.
///
/// # Errors
/// As [`super::run`].
pub(super) fn carry_out(runs: &[DiskRun<'_>], report: &mut Report) -> Result<()> {
    let Some(&DiskRun { repository, monitor, .. }) = runs.first() else { return Ok(()) };
    let mut sites = runs.iter().map(Site::claim).collect::<Result<Vec<_>>>()?;
    each(&mut sites, Site::wipe)?;
    let order = order(runs);
    let mut targets = open(&sites, &order)?;
    let mut bodies = Bodies::write(repository, &jobs(&sites, &order, &targets), monitor)?;
    if differ_beside(&sites)? {
        bodies.clear_heads(&jobs(&sites, &order, &targets))?;
    }
    let mark = |sites: &mut [Site<'_>], n: usize, is_damaged: bool| {
        let site = order.get(n).and_then(|(site, _)| sites.get_mut(*site));
        site.into_iter().for_each(|site| site.is_damaged |= is_damaged);
    };
    (0..order.len()).for_each(|n| mark(&mut sites, n, bodies.is_damaged(n)));
    targets.clear();
    each(&mut sites, |site| site.write_beside(report))?;
    targets = open(&sites, &order)?;
    let outcomes = bodies.write_heads(repository, &jobs(&sites, &order, &targets), monitor)?;
    drop(targets);
    outcomes.iter().enumerate().for_each(|(n, outcome)| mark(&mut sites, n, !outcome.damaged.is_empty()));
    // Told in the order in which the plan was shown.
    let mut done: Vec<_> = order.iter().zip(&outcomes).collect();
    done.sort_by_key(|(place, _)| **place);
    for (place, outcome) in done {
        if let Some(planned) = volume(&sites, *place) {
            report.book(planned, outcome);
        }
    }
    if runs.iter().any(|run| run.plan.table.is_some()) {
        check_cancelled(monitor)?;
    }
    // What a system starts from comes last here, too.
    sites.sort_by_key(|site| site.run.has_os());
    each(&mut sites, |site| site.write_table(report))
}

fn each<'a>(sites: &mut [Site<'a>], mut work: impl FnMut(&mut Site<'a>) -> Result<()>) -> Result<()> {
    sites.iter_mut().try_for_each(|site| work(site).context(|| site.run.name()))
}

/// Whether anything is to be written beside the volumes of disks that keep their tables.
fn differ_beside(sites: &[Site<'_>]) -> Result<bool> {
    for site in sites {
        if site.differs_beside().context(|| site.run.name())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All volumes: operating systems first, what they start from last.
fn order(runs: &[DiskRun<'_>]) -> Vec<Place> {
    let of_disk =
        |(n, run): (usize, &DiskRun<'_>)| (0..run.plan.volumes.len()).map(move |volume| (n, volume));
    let mut order: Vec<_> = runs.iter().enumerate().flat_map(of_disk).collect();
    order.sort_by_key(|(n, volume)| {
        match runs.get(*n).and_then(|run| run.plan.volumes.get(*volume)).map(|planned| planned.volume.role) {
            Some(Role::Os) => 0,
            Some(Role::Boot) => 2,
            _ => 1,
        }
    });
    order
}

fn volume<'s>(sites: &'s [Site<'_>], (site, volume): Place) -> Option<&'s VolumePlan> {
    sites.get(site)?.run.plan.volumes.get(volume)
}

/// A volume as it is written: its pieces, on whatever disks.
type Target = Window<Arc<Writer>>;

/// The targets of all volumes; while there are any, their disks cannot be written as a whole.
fn open(sites: &[Site<'_>], order: &[Place]) -> Result<Vec<Target>> {
    let planned = order.iter().filter_map(|place| volume(sites, *place));
    planned.map(|planned| target(sites, planned)).collect()
}

fn target(sites: &[Site<'_>], planned: &VolumePlan) -> Result<Target> {
    let (mut writers, mut pieces): (Vec<Arc<Writer>>, Vec<Segment>) = (Vec::new(), Vec::new());
    for segment in &planned.volume.segments {
        let site = sites.iter().find(|site| site.run.plan.disk.number == segment.disk);
        let site = site.ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("volume {} lies on a disk that is no target", planned.volume.key),
            )
        })?;
        let (writer, extent) = site.ground.place(segment.extent())?;
        let known = writers.iter().position(|known| Arc::ptr_eq(known, &writer));
        let disk = known.unwrap_or(writers.len());
        if known.is_none() {
            writers.push(writer);
        }
        pieces.push(Segment { disk, extent });
    }
    Window::new(writers, pieces)
}

fn jobs<'s>(sites: &'s [Site<'_>], order: &[Place], targets: &'s [Target]) -> Vec<Job<'s>> {
    order.iter().zip(targets).filter_map(|(place, target)| job(sites, *place, target)).collect()
}

fn job<'s>(sites: &'s [Site<'_>], place: Place, target: &'s Target) -> Option<Job<'s>> {
    let planned = volume(sites, place)?;
    Some(Job {
        label: format!("volume {}", planned.volume.key),
        map: &planned.map,
        target,
        head: planned.head(),
        only: None,
        read_back: sites.get(place.0)?.run.options.read_back,
    })
}

impl<'a> Site<'a> {
    fn claim(run: &'a DiskRun<'a>) -> Result<Self> {
        let ground = Ground::claim(run).context(|| run.name())?;
        Ok(Self { run, ground, is_damaged: false })
    }

    /// A disk that is made anew is unrecognisable from the start.
    fn wipe(&mut self) -> Result<()> {
        match self.run.plan.scope {
            Scope::BareMetal => self.ground.with_whole(self.run, |whole| outside::wipe(whole)),
            Scope::InPlace | Scope::Tables => Ok(()),
        }
    }

    /// Whether anything is to be written beside the volumes of a disk that keeps its table.
    fn differs_beside(&self) -> Result<bool> {
        let plan = self.run.plan;
        Ok(!plan.swap_resets.is_empty()
            || (plan.boot_code == BootCode::Write
                && plan.scope == Scope::InPlace
                && !outside::boot_code_matches(self.run.repository, plan)?))
    }

    /// Writes what lies beside the volumes, but for a table.
    fn write_beside(&mut self, report: &mut Report) -> Result<()> {
        match self.run.plan.scope {
            Scope::InPlace => {
                self.reset_swap(report)?;
                self.write_boot_code(report)
            }
            Scope::BareMetal => self.write_remainder(report),
            Scope::Tables => Ok(()),
        }
    }

    /// A system that is put back must never wake up with the memory of another one: it is not recognisable yet.
    fn reset_swap(&self, report: &mut Report) -> Result<()> {
        for reset in &self.run.plan.swap_resets {
            let (writer, extent) = self.ground.place(reset.extent)?;
            let place = Window::part(writer, extent)?;
            place.write_all_at(ByteOffset::ZERO, &reset.page)?;
            place.flush()?;
            report.written_bytes += reset.page.len() as u64;
            report.warnings.push(format!("the hibernated system in swap volume {} was discarded", reset.key));
        }
        Ok(())
    }

    fn write_boot_code(&mut self, report: &mut Report) -> Result<()> {
        let DiskRun { repository, plan, options, .. } = *self.run;
        let is_due = plan.boot_code == BootCode::Write && !self.is_damaged;
        if is_due && !outside::boot_code_matches(repository, plan)? {
            let write = |whole: &_| outside::restore_boot_code(repository, plan, whole, options.read_back);
            report.written_bytes += self.ground.with_whole(self.run, |whole| write(whole))?.total().get();
        }
        Ok(())
    }

    fn write_remainder(&mut self, report: &mut Report) -> Result<()> {
        let DiskRun { repository, plan, options, monitor, .. } = *self.run;
        let outcome = self.ground.with_whole(self.run, |whole| {
            outside::restore_remainder(repository, plan, whole, options.read_back, monitor)
        })?;
        self.is_damaged |= !outcome.damaged.is_empty();
        report.add(&format!("{}:remainder", plan.disk.number), &outcome);
        Ok(())
    }

    fn write_table(&mut self, report: &mut Report) -> Result<()> {
        let Some(table) = &self.run.plan.table else { return Ok(()) };
        if self.is_damaged {
            report.warnings.push("the partition table was withheld because of the damage".to_owned());
            return Ok(());
        }
        let read_back = self.run.options.read_back;
        self.ground.with_whole(self.run, |whole| {
            report.written_bytes += outside::write_table(whole, table, read_back)?.total().get();
            if whole.device().is_block()
                && let Err(error) = whole.device().reread_table()
            {
                report.warnings.push(format!("the kernel did not take the new table yet: {error}"));
            }
            Ok(())
        })
    }
}
