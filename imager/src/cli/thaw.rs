//! `imager thaw`, and the guard of a freeze.

use super::Status;
use super::args::Global;
use super::failure::Failure;
use super::output::{print, print_json};
use imager_journal::{FreezeOptions, guard};
use serde_json::json;

/// Thaws what processes that died left frozen. Whatever is said is said when everything is thawed, because whoever
/// hears it may not be able to write before.
pub(crate) fn run(global: &Global) -> Result<Status, Failure> {
    let released = guard::release_abandoned(&FreezeOptions::default().records)?;
    let thawed: Vec<_> = released.iter().filter(|one| one.thawed).map(|one| one.at.display()).collect();
    if global.json {
        let thawed: Vec<_> = thawed.iter().map(ToString::to_string).collect();
        print_json(&json!({ "thawed": thawed }));
    } else if thawed.is_empty() {
        print("nothing was left frozen\n");
    } else {
        thawed.iter().for_each(|at| print(&format!("thawed {at}\n")));
    }
    Ok(Status::Done)
}

/// Watches over the freeze of the process that started this one.
pub(crate) fn guard() -> Result<Status, Failure> {
    guard::run()?;
    Ok(Status::Done)
}
