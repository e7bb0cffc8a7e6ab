//! `imager diff`.

use super::args::{Diff, Global};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::progress::Shown;
use super::{Status, session};
use imager::diff::{self, DiffReport};
use imager_units::ByteLen;
use serde_json::json;

pub(crate) fn run(global: &Global, options: &Diff) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let repository = session::repository(global)?;
    let (before, _) = session::capture(&repository, &options.before)?;
    let (after, _) = session::capture(&repository, &options.after)?;
    let report = diff::run(&repository, &before, &after, &monitor).map_err(Failure::damaged)?;
    drop(monitor);
    if global.json {
        print_json(&report);
    } else {
        print(&to_text(&report, options.extents));
    }
    Ok(Status::Done)
}

fn to_text(report: &DiffReport, extents: bool) -> String {
    let mut columns = Columns::new(&["KEY", "NAME", "IN", "CHANGED", "ADDED", "FREED"], &[3, 4, 5]);
    let size = |bytes: u64| ByteLen::new(bytes).to_string();
    for volume in &report.volumes {
        let presence = json!(volume.presence);
        columns.row(vec![
            volume.key.clone(),
            volume.name.clone(),
            presence.as_str().unwrap_or_default().to_owned(),
            size(volume.changed_bytes),
            size(volume.added_bytes),
            size(volume.freed_bytes),
        ]);
    }
    let mut out = columns.render("");
    for volume in report.volumes.iter().filter(|_| extents) {
        let lists = [
            ("changed", &volume.changed_extents),
            ("added", &volume.added_extents),
            ("freed", &volume.freed_extents),
        ];
        for (what, runs) in lists {
            for run in runs {
                out.push_str(&format!("volume {} {what} {}\n", volume.key, run.extent()));
            }
        }
    }
    out
}
