//! `imager verify`.

use super::args::{Global, Verify};
use super::failure::Failure;
use super::output::{print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::captures::Selector;
use imager::verify::{self, Affected, Depth, Mark, Options, Scope, VerifyReport};
use imager_units::ByteLen;

/// How many runs of bytes are listed for one volume.
const MOST_RUNS: usize = 20;

pub(crate) fn run(global: &Global, options: &Verify) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let selector: Option<Selector> = options.capture.as_deref().map(str::parse).transpose()?;
    let repository = session::repository(global)?;
    let scope = selector.as_ref().map_or(Scope::All, Scope::Selected);
    let how = Options {
        depth: if options.read_data { Depth::ReadData } else { Depth::Structure },
        mark: if options.mark { Mark::Damaged } else { Mark::Leave },
    };
    let report = verify::run(&repository, scope, how, &monitor).map_err(Failure::no_capture)?;
    drop(monitor);
    if global.json {
        print_json(&report);
    } else {
        print(&to_text(&report));
    }
    Ok(if report.has_damage() { Status::Damaged } else { Status::Done })
}

fn to_text(report: &VerifyReport) -> String {
    let mut out = String::new();
    for capture in &report.captures {
        let status = serde_json::to_value(capture.status).unwrap_or_default();
        let status = status.as_str().unwrap_or_default();
        out.push_str(&format!("{status:<10} id:{} {} {}\n", capture.capture, capture.machine, capture.time));
        for volume in capture.volumes.iter().filter(|volume| volume.damaged_bytes > 0) {
            let lost = ByteLen::new(volume.damaged_bytes);
            out.push_str(&format!("           volume {} ({}): {lost} damaged\n", volume.key, volume.name));
        }
    }
    for damaged in &report.damaged {
        out.push_str(&format!("DAMAGED {}: {}\n", damaged.object, damaged.message));
        damaged.affects.iter().for_each(|affected| out.push_str(&affected_text(affected)));
    }
    for marked in &report.marked {
        out.push_str(&format!("marked {marked}: the next capture stores its blocks again\n"));
    }
    for warning in &report.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    let read = match report.depth {
        Depth::ReadData => format!("{} of packs read", ByteLen::new(report.read_bytes)),
        Depth::Structure => "packs looked for, not read (--read-data reads them)".to_owned(),
    };
    out.push_str(&format!(
        "captures: {}, packs: {}, {}, {read}, {:.1} s\n",
        report.captures.len(),
        report.packs,
        ByteLen::new(report.pack_bytes),
        report.elapsed_seconds
    ));
    if !report.damaged.is_empty() && report.marked.is_empty() {
        out.push_str("imager verify --read-data --mark has the next capture store damaged blocks again\n");
    }
    out
}

fn affected_text(affected: &Affected) -> String {
    let mut out = format!(
        "  {} id:{}: volume {} ({}), {}\n",
        affected.machine,
        affected.capture,
        affected.key,
        affected.name,
        ByteLen::new(affected.bytes)
    );
    for extent in affected.extents.iter().take(MOST_RUNS) {
        out.push_str(&format!("    {}\n", extent.extent()));
    }
    if affected.more_extents || affected.extents.len() > MOST_RUNS {
        out.push_str("    … (--json lists them)\n");
    }
    out
}
