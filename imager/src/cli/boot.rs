//! Whether a restored machine starts: what `imager restore` says of it before, does after, and reports.

use imager::boot_check::{self, Check};
use imager::firmware::entries::{self, Action, Menu};
use imager::firmware::{Firmware, Kind};
use imager::repository::Repository;
use imager::restore::Report;
use imager::restore::plan::Plan;
use imager_disk::{Access, Device, System};
use imager_image::manifest::Manifest;
use serde_json::{Value, json};

/// What is to be done about starting.
pub(super) struct Boot {
    firmware: Firmware,
    /// The firmware of this machine, where all targets are disks of it.
    running: Option<Kind>,
    menu: Menu,
}

impl Boot {
    /// Looks at the firmware; what a person should know of it becomes a warning of the plan.
    pub(super) fn plan(manifest: &Manifest, plan: &mut Plan) -> Self {
        let firmware = Firmware::new();
        let running = firmware.kind().filter(|_| writes_this_machine(plan));
        let mut boot = Self { firmware, running, menu: Menu::default() };
        plan.warnings.extend(boot_check::mismatch(manifest, running));
        if let (Some(Kind::Uefi), Some(uefi)) = (running, &manifest.system.uefi) {
            match entries::plan(uefi, &entries::restored(plan), &boot.firmware.variables()) {
                Ok(menu) => boot.menu = menu,
                Err(error) => {
                    let why = imager_volume::chain(&error);
                    plan.warnings.push(format!("boot entries are not restored: {why}"));
                }
            }
        }
        boot
    }

    /// The entries in words.
    pub(super) fn lines(&self) -> String {
        let line = |entry: &entries::Entry| {
            let what = match entry.action {
                Action::Keep => "is there already",
                Action::Write => "is written",
            };
            format!("firmware entry: {} \u{2192} {} ({what})\n", entry.description, entry.file)
        };
        self.menu.entries.iter().map(line).collect()
    }

    /// The entries for a script.
    pub(super) fn json(&self) -> Value {
        let entry = |entry: &entries::Entry| {
            json!({
                "number": entry.number, "description": entry.description, "file": entry.file,
                "write": entry.action == Action::Write,
            })
        };
        self.menu.entries.iter().map(entry).collect()
    }

    /// Writes the entries and looks whether the disks can be started; what is wrong is added to the report. Of a restore
    /// that was to bring everything back, what no longer starts is missing from the result.
    pub(super) fn finish(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        plan: &Plan,
        everything: bool,
        report: &mut Report,
    ) -> Vec<Check> {
        if report.is_damaged {
            return Vec::new();
        }
        report.warnings.extend(self.menu.write(&self.firmware.variables()));
        let checks = boot_check::check(repository, manifest, plan, self.running);
        let checks = checks.unwrap_or_else(|error| {
            let why = imager_volume::chain(&error);
            report.warnings.push(format!("whether the machine starts could not be checked: {why}"));
            Vec::new()
        });
        let problems = checks.iter().filter_map(Check::problem);
        if everything {
            report.problems.extend(problems);
        } else {
            report.warnings.extend(problems.map(|problem| problem.message));
        }
        report.warnings.extend(boot_check::warnings(&checks));
        checks
    }
}

/// What was looked at, in words.
pub(super) fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let how = if check.ok { "starts" } else { "MAY NOT START" };
        format!("  disk {}: {how} by {}: {}\n", check.disk, check.firmware.to_uppercase(), check.message)
    };
    checks.iter().map(line).collect()
}

/// Whether every target is a disk of this machine, and none a file (or a loop device) that stands for another's.
fn writes_this_machine(plan: &Plan) -> bool {
    let system = System::new();
    let is_one = |path: &std::path::Path| {
        Device::open(path, Access::Read, None).and_then(|device| system.is_hardware(&device)).unwrap_or(false)
    };
    plan.disks.iter().all(|disk| disk.target.is_block && is_one(&disk.target.path))
}
