//! `imager hold`.

use super::args::{Global, Hold};
use super::failure::Failure;
use super::output::{print, print_json};
use super::{Status, session};
use imager::prune;
use serde_json::json;

pub(crate) fn run(global: &Global, options: &Hold) -> Result<Status, Failure> {
    let repository = session::repository(global)?;
    let (manifest, warnings) = session::capture(&repository, &options.capture)?;
    let header = &manifest.header;
    if options.release {
        prune::release(&repository, header.id)?;
    } else {
        prune::hold(&repository, &manifest).map_err(Failure::no_capture)?;
    }
    let held = !options.release;
    if global.json {
        let object = json!({
            "capture": header.id, "machine": header.machine, "time": header.time, "held": held,
            "warnings": warnings,
        });
        print_json(&object);
    } else {
        let what = if held { "is held: no prune takes it" } else { "may be pruned again" };
        print(&format!("id:{} of {} ({}) {what}\n", header.id, header.machine, header.time));
        warnings.iter().for_each(|warning| print(&format!("warning: {warning}\n")));
    }
    Ok(Status::Done)
}
