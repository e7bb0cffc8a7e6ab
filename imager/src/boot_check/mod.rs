//! Will it start? Asked of a restored disk before success is reported.
//!
//! What firmware would do first is followed as far as it can be by looking: the code in sector 0 and where it goes on, or
//! the files that boot entries name. The same is asked of the captured disk, because a disk that never started by a way
//! need not after a restore: only what was right when it was captured and is not now is missing from the result. Reads
//! only.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

mod bios;
mod uefi;

use crate::firmware::Kind;
use crate::repository::Repository;
use crate::restore::plan::{DiskPlan, Plan, Scope};
use crate::view::CaptureView;
use imager_disk::{Access, Device, ReadAt, table};
use imager_image::manifest::{Manifest, Problem, Role, Uefi};
use imager_units::{Error, Result};
use serde::Serialize;

/// What was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The number of the disk.
    pub disk: u32,
    /// `bios` or `uefi`.
    pub firmware: &'static str,
    /// What was looked at.
    pub check: &'static str,
    /// Whether it is as firmware needs it.
    pub ok: bool,
    /// What was found.
    pub message: String,
    /// Whether it was as good when it was captured.
    #[serde(skip)]
    was_ok: bool,
    /// Whether the captured machine started this way, as far as is known.
    #[serde(skip)]
    counts: bool,
}

/// One thing found on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) firmware: Kind,
    pub(crate) check: &'static str,
    /// What tells it from others of its sort.
    subject: String,
    pub(crate) ok: bool,
    pub(crate) message: String,
}

impl Finding {
    fn new(firmware: Kind, check: &'static str, subject: &str, ok: bool, message: String) -> Self {
        Self { firmware, check, subject: subject.to_owned(), ok, message }
    }

    fn unreadable(firmware: Kind, check: &'static str, subject: &str, error: &Error) -> Self {
        Self::new(
            firmware,
            check,
            subject,
            false,
            format!("cannot be checked: {}", imager_volume::chain(error)),
        )
    }
}

/// Looks at the restored disks that a machine may start from. `running` is the firmware of this machine, where the disks
/// are its own: what it could start is told, too.
///
/// # Errors
/// Those of the repository, whose capture is looked at for comparison.
pub fn check(
    repository: &Repository,
    manifest: &Manifest,
    plan: &Plan,
    running: Option<Kind>,
) -> Result<Vec<Check>> {
    let captured = manifest.system.firmware.as_deref().and_then(Kind::parse);
    let view = CaptureView::new(repository, manifest.clone());
    let mut checks = Vec::new();
    for disk in plan.disks.iter().filter(|disk| is_started(disk)) {
        let number = disk.disk.number;
        let before = look(&view.disk(number)?, manifest.system.uefi.as_ref());
        for now in look_at_target(disk, manifest.system.uefi.as_ref()) {
            let then = before.iter().find(|then| (then.check, &then.subject) == (now.check, &now.subject));
            let was_ok = then.is_some_and(|then| then.ok);
            if now.check == bios::CODE && !now.ok && !was_ok {
                // There never was any: it is not this disk that the machine starts from.
                continue;
            }
            // Where nobody knows how the machine started, whatever was complete counts.
            let counts = captured.map_or(was_ok, |kind| kind == now.firmware);
            if counts || running == Some(now.firmware) {
                let (firmware, check, ok) = (now.firmware.word(), now.check, now.ok);
                checks.push(Check {
                    disk: number,
                    firmware,
                    check,
                    ok,
                    message: now.message,
                    was_ok,
                    counts,
                });
            }
        }
    }
    Ok(checks)
}

/// Whether a machine may start from what a plan puts onto a disk.
fn is_started(disk: &DiskPlan) -> bool {
    let system = |role| matches!(role, Role::Boot | Role::Os);
    match disk.scope {
        Scope::Tables => false,
        Scope::InPlace | Scope::BareMetal => disk.volumes.iter().any(|planned| system(planned.volume.role)),
    }
}

fn look_at_target(disk: &DiskPlan, menu: Option<&Uefi>) -> Vec<Finding> {
    match Device::open(&disk.target.path, Access::ReadDirect, Some(disk.target.geometry.logical)) {
        Ok(device) => look(&device, menu),
        Err(error) => vec![Finding::unreadable(Kind::Bios, bios::CODE, "", &error)],
    }
}

/// What firmware of either kind would find.
pub(crate) fn look(disk: &dyn ReadAt, menu: Option<&Uefi>) -> Vec<Finding> {
    match table::read(disk) {
        Ok(table) => [bios::look(disk, &table), uefi::look(disk, &table, menu)].concat(),
        Err(error) => vec![Finding::unreadable(Kind::Bios, bios::CODE, "", &error)],
    }
}

impl Check {
    /// What is missing from the result: the captured disk had it, and the restored one has not.
    pub fn problem(&self) -> Option<Problem> {
        (self.is_missing() && self.was_ok).then(|| Problem {
            volume: format!("{}:boot", self.disk),
            message: format!("may not start: {}", self.message),
            extents: Vec::new(),
        })
    }

    /// What firmware needs and does not find.
    fn is_missing(&self) -> bool {
        !self.ok && self.counts
    }
}

/// What a person should know although the restore is right: no disk can be started, and none could when it was captured.
pub fn warnings(checks: &[Check]) -> Vec<String> {
    let starts = |disk: u32| {
        let of = |firmware: &'static str| {
            checks
                .iter()
                .filter(move |check| check.counts && (check.disk, check.firmware) == (disk, firmware))
        };
        // One file that firmware finds is enough; boot code is one piece.
        of("uefi").any(|check| check.ok) || (of("bios").count() > 0 && of("bios").all(|check| check.ok))
    };
    if checks.iter().any(|check| starts(check.disk)) {
        return Vec::new();
    }
    let missing = checks.iter().filter(|check| check.is_missing() && !check.was_ok);
    missing.map(|check| format!("disk {}: {}; so it was in the capture", check.disk, check.message)).collect()
}

/// What to say before and after a restore, when this machine was started by another kind of firmware than the captured
/// one.
pub fn mismatch(manifest: &Manifest, running: Option<Kind>) -> Option<String> {
    let captured = manifest.system.firmware.as_deref().and_then(Kind::parse)?;
    let running = running.filter(|running| *running != captured)?;
    let entries = match captured {
        Kind::Uefi => ", and start the rescue medium that way too, so that its boot entries are written",
        Kind::Bios => "",
    };
    Some(format!(
        "the captured machine started by {captured}, this one was started by {running}: set it to {captured} in its \
         setup to start the restored system{entries}"
    ))
}

#[cfg(test)]
mod tests;
