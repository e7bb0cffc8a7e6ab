//! `imager restore`.

use super::args::{Global, ProveArg, Restore};
use super::boot::{self, Boot};
use super::confirm::confirm;
use super::failure::Failure;
use super::output::{Columns, print, print_json, tell};
use super::progress::{self, Shown};
use super::reports::Draft;
use super::{Status, session};
use imager::boot_check::Check;
use imager::repository::Repository;
use imager::restore::plan::{self, BootCode, DiskPlan, Plan, Request, Scope, describe_mode};
use imager::restore::protection::{self, Protected};
use imager::restore::untouched::{Proof, Untouched};
use imager::restore::volume::ReadBack;
use imager::restore::{self, Options, Report};
use imager_image::manifest::Manifest;
use imager_units::{ByteLen, Error, ErrorKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) fn run(global: &Global, options: &Restore) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let repository = session::repository(global)?;
    let mut draft = Draft::begin(options);
    let mut outcome = carry_out(global, options, &repository, &mut draft, &monitor);
    drop(monitor);
    if options.report && !options.plan {
        progress::has_stopped();
        let said = outcome.as_ref().map(|done| (done.status.code(), &done.object));
        if let Some(warning) = draft.put(&repository, said) {
            match &mut outcome {
                Ok(done) => done.warn(&warning),
                Err(_) => tell(format!("warning: {warning}")),
            }
        }
    }
    let done = outcome?;
    if global.json {
        print_json(&done.object)
    } else {
        print(&done.text)
    }
    Ok(done.status)
}

/// How a restore, or the showing of its plan, ended.
struct Done {
    status: Status,
    object: Value,
    text: String,
}

impl Done {
    fn warn(&mut self, warning: &str) {
        self.text.push_str(&format!("warning: {warning}\n"));
        if let Some(warnings) = self.object["warnings"].as_array_mut() {
            warnings.push(json!(warning));
        }
    }
}

fn carry_out(
    global: &Global,
    options: &Restore,
    repository: &Repository,
    draft: &mut Draft,
    monitor: &Shown,
) -> Result<Done, Failure> {
    let (manifest, mut warnings) = session::capture(repository, &options.capture)?;
    draft.is_of(&manifest);
    let mut plan =
        plan::plan(repository, &manifest, &request(global, options, &manifest)?).map_err(Failure::no_plan)?;
    plan.warnings.append(&mut warnings);
    draft.follows(&plan);
    let boot = Boot::plan(&manifest, &mut plan);
    let locked = if options.unprotect { Ok(()) } else { protection::check(&plan) };
    let locked = locked.map_err(Failure::write_protected);
    if options.plan {
        plan.warnings.extend(locked.err().map(|failure| failure.told()));
        let mut object = plan_json(&plan, &manifest);
        object["firmware_entries"] = boot.json();
        return Ok(Done { status: Status::Done, object, text: plan_text(&plan, &manifest, &boot) });
    }
    locked?;
    confirm(&plan, options, &plan_text(&plan, &manifest, &boot))?;
    let mut report = restore::run(repository, &plan, how(options), monitor).map_err(failed)?;
    let everything = options.volume.is_empty();
    let checks = boot.finish(repository, &manifest, &plan, everything, &mut report);
    let mut object = report_json(&plan, &manifest, &report);
    object["boot"] = json!(checks);
    object["firmware_entries"] = boot.json();
    let text = report_text(&report, &checks);
    Ok(Done { status: status(&report), object, text })
}

fn request(global: &Global, options: &Restore, manifest: &Manifest) -> Result<Request, Failure> {
    let scope = match (options.tables, options.bare_metal) {
        (true, _) => Scope::Tables,
        (_, true) => Scope::BareMetal,
        _ => Scope::InPlace,
    };
    Ok(Request {
        targets: targets(manifest, &options.to)?,
        scope,
        volumes: options.volume.clone(),
        erase: options.erase.clone(),
        erase_files: options.yes,
        erase_volumes: options.erase_volume.clone(),
        repository: session::location(global)?.path().map(Path::to_owned),
    })
}

fn how(options: &Restore) -> Options {
    Options {
        read_back: if options.no_read_back { ReadBack::No } else { ReadBack::Yes },
        proof: match options.prove {
            ProveArg::Samples => Proof::Samples,
            ProveArg::Full => Proof::Full,
        },
        protected: if options.unprotect { Protected::Lift } else { Protected::Refuse },
    }
}

fn failed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Cancelled => Failure::new(
            130,
            error,
            "unless nothing was written yet, what was to be restored is not recognisable and does not start; run the same \
             command again to finish",
        ),
        _ => Failure::damaged_or_refused(error),
    }
}

fn status(report: &Report) -> Status {
    if report.is_damaged {
        Status::Damaged
    } else if report.problems.is_empty() {
        Status::Done
    } else {
        Status::Missing
    }
}

/// Which captured disk goes where.
fn targets(manifest: &Manifest, to: &[String]) -> Result<Vec<(u32, PathBuf)>, Failure> {
    let mut numbers = manifest.disks.iter().map(|disk| disk.number);
    let mut targets = Vec::new();
    for name in to {
        let numbered = name.split_once('=').and_then(|(number, name)| Some((number.parse().ok()?, name)));
        let (number, name) = match numbered {
            Some((number, name)) => (number, name),
            None => {
                let next = numbers.next().ok_or_else(|| {
                    let count = manifest.disks.len();
                    Failure::usage(format!("the capture has {count} disks, fewer than --to names"))
                })?;
                (next, name.as_str())
            }
        };
        targets.push((number, session::disk(name)?));
    }
    Ok(targets)
}

fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::InPlace => "volumes go back into their partitions",
        Scope::Tables => "the partition table alone is put back",
        Scope::BareMetal => "the whole disk is made anew; everything on it is lost",
    }
}

fn plan_text(plan: &Plan, manifest: &Manifest, boot: &Boot) -> String {
    let header = &manifest.header;
    let mut out = format!("Restore of {} as of {} (id:{})\n", header.machine, header.time, header.id);
    for disk in &plan.disks {
        out.push_str(&format!("\nonto {}\n  {}\n", disk.target.describe(), scope_text(disk.scope)));
        out.push_str(&disk_text(disk, manifest));
    }
    out.push_str(&boot.lines());
    for warning in &plan.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    for missing in &manifest.not_captured {
        out.push_str(&format!("not in the image: {missing}\n"));
    }
    out.push_str(&format!("plan {}\n", plan.hash()));
    out
}

fn disk_text(disk: &DiskPlan, manifest: &Manifest) -> String {
    let mut columns = Columns::new(&["", "VOLUME", "NAME", "AT", "SIZE", "CONTENT"], &[4]);
    let size = |len: ByteLen| len.to_string();
    for planned in &disk.volumes {
        columns.row(vec![
            "write".to_owned(),
            planned.volume.key.clone(),
            planned.volume.name.clone(),
            planned.extent.start().to_string(),
            size(ByteLen::new(planned.volume.size_bytes)),
            format!("{} ({})", describe_mode(planned.volume.mode), planned.content),
        ]);
    }
    for reset in &disk.swap_resets {
        let (at, len) = (reset.extent.start().to_string(), size(reset.extent.len()));
        let what = "hibernated system discarded".to_owned();
        columns.row(vec!["write".to_owned(), reset.key.clone(), "swap".to_owned(), at, len, what]);
    }
    for pieces in disk.untouched.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((key, extent)) = pieces.first() else { continue };
        let len = pieces.iter().map(|(_, extent)| extent.len()).sum();
        let name =
            manifest.volumes.iter().find(|volume| volume.key == *key).map(|volume| volume.name.clone());
        let (at, len) = (extent.start().to_string(), size(len));
        let uses: Vec<_> = disk.target.users_of(*extent).map(ToString::to_string).collect();
        let what = match uses.is_empty() {
            true => "untouched".to_owned(),
            false => format!("in use, and stays so: {}", uses.join(", ")),
        };
        columns.row(vec!["leave".to_owned(), key.clone(), name.unwrap_or_default(), at, len, what]);
    }
    let mut out = columns.render("  ");
    if disk.table.is_some() {
        out.push_str("  write  the partition table\n");
    }
    match disk.boot_code {
        BootCode::Leave => {}
        BootCode::Write => out.push_str("  write  boot code outside volumes\n"),
        BootCode::Keep => out.push_str("  leave  boot code outside volumes: it is the captured one\n"),
    }
    if let Some(size) = disk.extend_to {
        out.push_str(&format!("  the file is extended to {size}\n"));
    }
    out
}

fn plan_json(plan: &Plan, manifest: &Manifest) -> Value {
    let disks = plan.disks.iter().map(|disk| {
        let volumes = disk.volumes.iter().map(|planned| {
            json!({
                "disk": disk.disk.number, "key": planned.volume.key, "name": planned.volume.name,
                "role": planned.volume.role, "start_byte": planned.extent.start().get(),
                "size_bytes": planned.volume.size_bytes, "content_bytes": planned.content.get(),
            })
        });
        json!({
            "disk": disk.disk.number,
            "target": disk.target.path,
            "model": disk.target.identity.model,
            "serial": disk.target.identity.serial,
            "wwn": disk.target.identity.wwn,
            "size_bytes": disk.target.geometry.size.get(),
            "scope": scope_text(disk.scope),
            "volumes": volumes.collect::<Vec<_>>(),
            "writes_table": disk.table.is_some(),
            "writes_boot_code": disk.boot_code == BootCode::Write,
            "swap_resets": disk.swap_resets.iter().map(|r| &r.key).collect::<Vec<_>>(),
            "untouched": disk.untouched.iter().map(|(key, _)| key).collect::<BTreeSet<_>>(),
            "in_use": in_use_json(disk),
        })
    });
    json!({
        "capture": plan.capture, "machine": manifest.header.machine, "plan": plan.hash(),
        "disks": disks.collect::<Vec<_>>(), "warnings": plan.warnings, "not_captured": manifest.not_captured,
    })
}

fn in_use_json(disk: &DiskPlan) -> Value {
    let used = disk.untouched.iter().filter(|(_, extent)| disk.target.is_used(*extent));
    let used = used.map(|(key, extent)| {
        let uses = disk.target.users_of(*extent).map(ToString::to_string).collect::<Vec<_>>();
        json!({ "key": key, "uses": uses })
    });
    used.collect()
}

fn report_json(plan: &Plan, manifest: &Manifest, report: &Report) -> Value {
    let mut object = serde_json::to_value(report).unwrap_or_default();
    object["capture"] = json!(plan.capture);
    object["machine"] = json!(manifest.header.machine);
    object["plan"] = json!(plan.hash());
    object["not_captured"] = json!(manifest.not_captured);
    object
}

fn report_text(report: &Report, checks: &[Check]) -> String {
    let mut out = String::new();
    let size = |bytes: u64| ByteLen::new(bytes).to_string();
    let mut columns = Columns::new(&["VOLUME", "NAME", "MATCHED", "WRITTEN", "READ BACK", ""], &[2, 3, 4]);
    for volume in &report.volumes {
        columns.row(vec![
            volume.key.clone(),
            volume.name.clone(),
            size(volume.matched_bytes),
            size(volume.written_bytes),
            size(volume.verified_bytes),
            if volume.complete { "complete" } else { "INCOMPLETE: not recognisable" }.to_owned(),
        ]);
    }
    out.push_str(&columns.render("  "));
    for untouched in &report.untouched {
        out.push_str(&untouched_text(untouched));
    }
    out.push_str(&boot::text(checks));
    for warning in &report.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    for problem in &report.problems {
        out.push_str(&format!("PROBLEM: volume {}: {}\n", problem.volume, problem.message));
        for extent in &problem.extents {
            out.push_str(&format!("  {}\n", extent.extent()));
        }
    }
    let proof = if report.verified { ", all of it read back and right" } else { ", not read back" };
    let (written, matched) = (size(report.written_bytes), size(report.matched_bytes));
    out.push_str(&format!(
        "{written} written{proof}; {matched} were there already; {:.1} s\n",
        report.elapsed_seconds
    ));
    out
}

fn untouched_text(untouched: &Untouched) -> String {
    let Untouched { key, proof, written_bytes, .. } = untouched;
    let how = match untouched.unchanged {
        Some(true) => "untouched",
        Some(false) => "CHANGED",
        None => {
            let how = "in use: written by its own users, not by this restore";
            let proof = match *proof {
                "counters" => "the kernel counted only our writes to the rest of the disk",
                _ => "the kernel's count does not show it",
            };
            return format!("  volume {key}: {how} ({proof})\n");
        }
    };
    let counted =
        written_bytes.map_or(String::new(), |n| format!(", {n} bytes written by the kernel's count"));
    format!("  volume {key}: {how} ({proof}{counted})\n")
}
