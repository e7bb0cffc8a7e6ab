//! Doing what was planned, in the order that the protocol wants.

use super::decide::Why;
use super::look::Plan;
use super::record::{self, Record};
use super::relocate::relocate;
use super::retention::{Action, Judged};
use super::{leases, needs};
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::{Repository, object};
use imager_image::{CaptureId, PackId, names};
use imager_units::{Context, Error, ErrorKind, Result};
use serde::Serialize;
use std::collections::HashSet;

/// What a tombstone says; always the same, so that two prunes at once do not contradict each other.
const TOMBSTONE: &[u8] = b"imager prune: this pack is on its way out\n";

/// What is at a hold's name while a prune removes the capture.
pub(super) const REMOVAL: &[u8] = b"imager prune: this capture is being removed\n";

/// What a prune did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Captures that were removed.
    pub removed: Vec<CaptureId>,
    /// Captures under way that were revoked.
    pub broken: Vec<CaptureId>,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes: this much space came back.
    pub deleted_bytes: u64,
    /// Packs that a later prune deletes.
    pub waiting_packs: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Packs of which what is needed was moved into others.
    pub moved_packs: u64,
    /// Bytes of the new packs.
    pub written_bytes: u64,
    /// Damaged frames that were made anew.
    pub healed_frames: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

struct Work<'a> {
    repository: &'a Repository,
    monitor: &'a dyn Monitor,
    plan: Plan,
    report: Report,
}

/// Does it.
pub(super) fn perform(repository: &Repository, plan: Plan, monitor: &dyn Monitor) -> Result<Report> {
    let warnings = plan.warnings.clone();
    let mut work = Work { repository, monitor, plan, report: Report { warnings, ..Report::default() } };
    monitor.phase("pruning", None);
    work.remove_captures()?;
    work.end_leases()?;
    work.delete_packs()?;
    let emptied = work.relocate()?;
    work.bury(emptied)?;
    work.clear()?;
    Ok(work.report)
}

impl Work<'_> {
    fn delete(&self, name: String) -> Result<()> {
        check_cancelled(self.monitor)?;
        let say = || format!("deleting {name}");
        self.repository.store().delete(&object(name.clone())?).context(say)
    }

    /// The lease first: one whose manifest is gone would look as if its capture were under way.
    fn remove_captures(&mut self) -> Result<()> {
        let goes = |judged: &&Judged| judged.action == Action::Remove;
        let gone: Vec<Judged> = self.plan.captures.iter().filter(goes).cloned().collect();
        for judged in gone {
            self.delete(names::lease(judged.capture))?;
            self.claim(&judged)?;
            self.delete(judged.object.clone())?;
            self.delete(names::hold(judged.capture))?;
            self.report.removed.push(judged.capture);
            let mut checks = Vec::new();
            self.repository.store().list(&format!("{}/{}", names::CHECKS, judged.capture), &mut |entry| {
                checks.push(entry.name.to_string());
                Ok(())
            })?;
            checks.into_iter().try_for_each(|check| self.delete(check))?;
        }
        Ok(())
    }

    /// Takes the place of a hold: of a person who holds the capture and us who remove it, whoever comes second loses.
    fn claim(&self, judged: &Judged) -> Result<()> {
        let hold = object(names::hold(judged.capture))?;
        self.repository.store().put(&hold, REMOVAL).map(drop).map_err(|error| match error.kind() {
            ErrorKind::Exists => {
                let what =
                    format!("capture id:{} was held meanwhile: it and those after it stay", judged.capture);
                Error::new(ErrorKind::Denied, what)
            }
            _ => error,
        })
    }

    fn end_leases(&mut self) -> Result<()> {
        let over: Vec<_> = self.plan.leases.iter().filter(|lease| lease.is_over).map(|l| l.capture).collect();
        over.into_iter().try_for_each(|id| self.delete(names::lease(id)))
    }

    /// The tombstone last: without it the pack would look as if it could be relied on.
    fn delete_packs(&mut self) -> Result<()> {
        for pack in std::mem::take(&mut self.plan.decisions.delete) {
            self.delete(names::pack(pack))?;
            self.delete(names::marker(names::DAMAGED, pack))?;
            self.delete(names::marker(names::TRASH, pack))?;
            self.report.deleted_packs += 1;
            self.report.deleted_bytes += u64::from(self.plan.packs.remove(&pack).unwrap_or(0));
        }
        Ok(())
    }

    /// Says which packs may go now.
    fn relocate(&mut self) -> Result<Vec<PackId>> {
        let jobs = std::mem::take(&mut self.plan.decisions.jobs);
        let missing: HashSet<_> =
            jobs.iter().filter(|job| job.why == Why::Missing).map(|job| job.pack.id).collect();
        let done = relocate(self.repository, jobs, &self.plan.mending, self.monitor)?;
        self.report.moved_packs = done.packs;
        self.report.written_bytes = done.written_bytes;
        self.report.healed_frames = done.healed_frames;
        self.report.warnings.extend(done.warnings);
        Ok(done.emptied.into_iter().filter(|pack| !missing.contains(pack)).collect())
    }

    /// Puts tombstones, *then* lists who is under way.
    fn bury(&mut self, emptied: Vec<PackId>) -> Result<()> {
        let decisions = &mut self.plan.decisions;
        let mut tombstones: HashSet<PackId> = std::mem::take(&mut decisions.unrecorded).into_iter().collect();
        let orphans: HashSet<PackId> = std::mem::take(&mut decisions.orphans).into_iter().collect();
        let mut waiting: HashSet<PackId> =
            decisions.waiting.iter().chain(&decisions.pending).copied().collect();
        let new = std::mem::take(&mut decisions.tombstone);
        for pack in new.into_iter().chain(emptied) {
            check_cancelled(self.monitor)?;
            let name = object(names::marker(names::TRASH, pack))?;
            match self.repository.store().put(&name, TOMBSTONE) {
                // In other words.
                Err(error) if error.kind() == ErrorKind::Exists => {}
                put => drop(put?),
            }
            tombstones.insert(pack);
        }
        waiting.extend(&tombstones);
        self.report.waiting_packs = waiting.len() as u64;
        let len = |pack: &PackId| u64::from(self.plan.packs.get(pack).copied().unwrap_or(0));
        self.report.waiting_bytes = waiting.iter().map(len).sum();
        if tombstones.is_empty() && orphans.is_empty() {
            return Ok(());
        }
        let leases = leases::list(self.repository)?.into_iter().filter(|lease| !lease.is_over);
        let leases = leases.map(|lease| lease.capture).collect();
        record::put(self.repository, &Record { name: String::new(), tombstones, orphans, leases })
    }

    /// Markers and indexes that speak of nothing any more.
    fn clear(&mut self) -> Result<()> {
        let decisions = &self.plan.decisions;
        for pack in &decisions.clear_tombstones {
            // It may have come after packs were listed.
            if self.repository.store().len(&object(names::pack(*pack))?)?.is_none() {
                self.delete(names::marker(names::TRASH, *pack))?;
            }
        }
        for pack in &decisions.clear_marks {
            if self.repository.store().len(&object(names::pack(*pack))?)?.is_none() {
                self.delete(names::marker(names::DAMAGED, *pack))?;
            }
        }
        for (pack, parts) in &decisions.clear_moved {
            if self.repository.store().len(&object(names::pack(*pack))?)?.is_none() {
                (0..*parts).rev().try_for_each(|part| self.delete(names::moved(*pack, part)))?;
            }
        }
        let records = decisions.stale_records.iter().chain(&self.plan.damaged_records);
        let stale = records.chain(&self.plan.stale_holds).cloned();
        stale.collect::<Vec<_>>().into_iter().try_for_each(|record| self.delete(record))?;
        let trash: HashSet<PackId> = self.tombstoned()?;
        let is_left = |pack: &PackId| self.plan.packs.contains_key(pack) && !trash.contains(pack);
        let stale = self.plan.indexes.iter().filter(|(_, packs)| !packs.iter().any(is_left));
        stale.into_iter().try_for_each(|(index, _)| self.delete(index.clone()))
    }

    fn tombstoned(&self) -> Result<HashSet<PackId>> {
        let mut trash = HashSet::new();
        self.repository.store().list(names::TRASH, &mut |entry| {
            trash.extend(names::pack_of(entry.name.as_str()));
            Ok(())
        })?;
        Ok(trash)
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let d = &self.decisions;
        let packs = [&d.delete, &d.tombstone, &d.unrecorded, &d.orphans, &d.clear_tombstones, &d.clear_marks];
        packs.iter().all(|packs| packs.is_empty())
            && d.jobs.is_empty()
            && d.clear_moved.is_empty()
            && self.removed().next().is_none()
    }
}

/// So that the blind are told the same way everywhere.
pub(super) fn advice(blind: &needs::Blind) -> Option<String> {
    (!blind.is_empty()).then(|| {
        "no space comes back, whatever the machine, while a capture cannot be read, because it may need anything. Bring \
         what is damaged back from a copy of the repository; or, where it is a pack, have it healed (imager verify \
         --read-data --mark, then capture, then prune); or give the capture up: imager prune --remove id:…, the end of its \
         name"
            .to_owned()
    })
}
