//! `imager prune`.

use super::args::{Global, Prune, TimesArg};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::captures::Selector;
use imager::prune::{self, Action, Options, Plan, PlanReport, Report, Rules, Times};
use imager::repository::Repository;
use imager_image::{CaptureId, names};
use imager_units::{ByteLen, Context, Error, ErrorKind};
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

/// Unfinished files on the share that are older are left by somebody who died: no object takes so long to write.
const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn run(global: &Global, options: &Prune) -> Result<Status, Failure> {
    if let Some(machine) = &options.machine {
        names::check_machine(machine)?;
    }
    let monitor = Shown::new(global);
    let repository = session::repository(global)?;
    let how = how(&repository, options)?;
    let plan = prune::plan(&repository, &how, &monitor).map_err(refused)?;
    let shown = plan.report();
    if let Some(machine) = &options.machine
        && !shown.captures.iter().any(|judged| judged.machine == *machine)
    {
        let what = format!("there is no capture of a machine {machine:?}");
        return Err(Failure::no_capture(Error::new(ErrorKind::NotFound, what)));
    }
    if options.plan {
        drop(monitor);
        if global.json {
            print_json(&shown);
        } else {
            print(&plan_text(&shown));
        }
        return Ok(status(&shown));
    }
    confirm(options, &plan, &shown)?;
    let report = prune::run(&repository, &how, plan, &monitor).map_err(stopped)?;
    if let Some(path) = session::location(global)?.path() {
        let swept = netshare_store::sweep_unfinished(path, UNFINISHED)?;
        if swept > ByteLen::ZERO {
            tracing::info!("{swept} of unfinished files removed");
        }
    }
    drop(monitor);
    if global.json {
        let mut object = serde_json::to_value(&report).unwrap_or_default();
        object["blind"] = serde_json::json!(shown.blind);
        object["advice"] = serde_json::json!(shown.advice);
        print_json(&object);
    } else {
        print(&report_text(&report, &shown));
    }
    Ok(status(&shown))
}

/// Damage is said by the exit status too: nothing comes back while it is there.
fn status(shown: &PlanReport) -> Status {
    if shown.blind.is_empty() { Status::Done } else { Status::Damaged }
}

fn how(repository: &Repository, options: &Prune) -> Result<Options, Failure> {
    let ids = |names: &[String], folder: &str| -> Result<Vec<CaptureId>, Failure> {
        names.iter().map(|name| find(repository, name, folder)).collect()
    };
    Ok(Options {
        rules: Rules {
            last: options.keep_last,
            hourly: options.keep_hourly,
            daily: options.keep_daily,
            weekly: options.keep_weekly,
            monthly: options.keep_monthly,
            also: ids(&options.keep, names::CAPTURES)?,
        },
        machine: options.machine.clone(),
        remove: ids(&options.remove, names::CAPTURES)?,
        break_leases: ids(&options.break_lease, names::LEASES)?,
        force: options.force,
        times: options.times.map(|times| match times {
            TimesArg::Claimed => Times::Claimed,
            TimesArg::Received => Times::Received,
        }),
    })
}

/// The one id in a folder that starts as given, by its name alone: what it names may be damaged.
fn find(repository: &Repository, name: &str, folder: &str) -> Result<CaptureId, Failure> {
    let prefix = if name.starts_with("id:") { name.to_owned() } else { format!("id:{name}") };
    let Selector::Id(prefix) = prefix.parse()? else {
        return Err(Failure::usage(format!("{name:?} is no id")));
    };
    let mut found = Vec::new();
    repository.store().list(folder, &mut |entry| {
        let name = entry.name.as_str();
        let id = names::manifest_parts(name).map(|(_, _, id)| id).or_else(|| names::capture_of(folder, name));
        found.extend(id.filter(|id| id.to_string().starts_with(&prefix)));
        Ok(())
    })?;
    match found.as_slice() {
        [id] => Ok(*id),
        [] => {
            let (kind, advice) = match folder {
                names::LEASES => ("capture under way", "imager prune --plan shows those under way"),
                _ => ("capture", "imager list shows what there is"),
            };
            let what = format!("there is no {kind} whose id starts with {prefix}");
            Err(Failure::new(11, Error::new(ErrorKind::NotFound, what), advice))
        }
        _ => Err(Failure::usage(format!("id:{prefix} fits {} in {folder}/", found.len()))),
    }
}

/// Nothing was begun.
fn refused(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Denied => Failure::new(
            4,
            error,
            "nothing was removed; imager prune --plan with milder rules, or with --force, shows what would go",
        ),
        _ => error.into(),
    }
}

/// In the middle of it.
fn stopped(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Denied => Failure::new(
            4,
            error,
            "nothing that a capture needs was touched, and running it again goes on; where this share does not let us \
             write or delete, prune needs an admin's token, or the rights to the folder",
        ),
        _ => error.into(),
    }
}

/// Fails unless somebody who has seen the plan agreed.
fn confirm(options: &Prune, plan: &Plan, shown: &PlanReport) -> Result<(), Failure> {
    let idle = plan.is_empty() && options.break_lease.is_empty();
    if options.yes || idle {
        return Ok(());
    }
    eprint!("{}", plan_text(shown));
    if !std::io::stdin().is_terminal() {
        let what = Error::new(ErrorKind::Denied, "nobody confirmed the plan");
        return Err(Failure::new(4, what, "nothing was removed; if the plan is right, say --yes"));
    }
    eprint!("To go on, type yes: ");
    let say = || "reading the answer".to_owned();
    std::io::stderr().flush().context(say)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context(say)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(4, Error::new(ErrorKind::Denied, "the plan was not confirmed"), "nothing was removed"))
}

fn plan_text(plan: &PlanReport) -> String {
    let mut columns = Columns::new(&["", "MACHINE", "TIME", "ID", "WHY"], &[]);
    for judged in &plan.captures {
        let action = match judged.action {
            Action::Keep => "keep",
            Action::Remove => "REMOVE",
        };
        let id: String = judged.capture.to_string().chars().take(12).collect();
        let time =
            judged.received.as_ref().map_or_else(|| judged.time.clone(), |time| format!("{time} (received)"));
        let cells =
            [action.to_owned(), judged.machine.clone(), time, format!("id:{id}"), judged.reasons.join("; ")];
        columns.row(cells.to_vec());
    }
    let mut out = columns.render("");
    let size = |bytes: u64| ByteLen::new(bytes).to_string();
    let count = plan.captures.iter().filter(|judged| judged.action == Action::Remove).count();
    out.push_str(&format!(
        "captures that go: {count}; {} come back now (packs: {}), {} later (packs: {})\n",
        size(plan.bytes_now),
        plan.delete.len(),
        size(plan.bytes_later),
        plan.tombstone.len() + plan.waiting.len() + plan.pending.len() + plan.relocate.len()
    ));
    for job in &plan.relocate {
        let why = serde_json::to_value(job.why).unwrap_or_default();
        let why = why.as_str().unwrap_or_default();
        out.push_str(&format!(
            "pack {}: {why}; {} of {} move\n",
            job.pack,
            size(job.bytes),
            size(job.pack_bytes)
        ));
    }
    for lease in &plan.leases {
        out.push_str(&format!(
            "under way: {} of {}{}, holds back {}; if it is dead: --break-lease {}\n",
            lease.manifest.as_deref().unwrap_or("a capture whose lease is damaged"),
            lease.machine.as_deref().unwrap_or("an unknown machine"),
            lease.received.as_ref().map_or_else(String::new, |time| format!(", since {time}")),
            size(lease.holds_back_bytes),
            lease.capture
        ));
    }
    out.push_str(&trouble(plan));
    plan.warnings.iter().for_each(|warning| out.push_str(&format!("warning: {warning}\n")));
    out
}

fn trouble(plan: &PlanReport) -> String {
    let mut out = String::new();
    plan.blind.iter().for_each(|blind| out.push_str(&format!("CANNOT BE READ {blind}\n")));
    plan.advice.iter().for_each(|advice| out.push_str(&format!("{advice}\n")));
    out
}

fn report_text(report: &Report, plan: &PlanReport) -> String {
    let size = |bytes: u64| ByteLen::new(bytes).to_string();
    let mut out = String::new();
    report.broken.iter().for_each(|id| out.push_str(&format!("revoked id:{id}\n")));
    report.removed.iter().for_each(|id| out.push_str(&format!("removed id:{id}\n")));
    if report.moved_packs > 0 {
        let healed = match report.healed_frames {
            0 => String::new(),
            frames => format!(", {frames} damaged frames made anew"),
        };
        let (packs, written) = (report.moved_packs, size(report.written_bytes));
        out.push_str(&format!("packs of which what is needed moved: {packs}, {written} written{healed}\n"));
    }
    out.push_str(&format!(
        "{} came back (packs: {}); {} wait for a later prune (packs: {})\n",
        size(report.deleted_bytes),
        report.deleted_packs,
        size(report.waiting_bytes),
        report.waiting_packs
    ));
    for lease in plan
        .leases
        .iter()
        .filter(|lease| lease.holds_back_bytes > 0 && !report.broken.contains(&lease.capture))
    {
        out.push_str(&format!(
            "{} are held back by a capture of {} under way; if it is dead: --break-lease {}\n",
            size(lease.holds_back_bytes),
            lease.machine.as_deref().unwrap_or("an unknown machine"),
            lease.capture
        ));
    }
    out.push_str(&trouble(plan));
    report.warnings.iter().for_each(|warning| out.push_str(&format!("warning: {warning}\n")));
    out
}
