//! Agreeing to a plan: what was shown, and a target named by what it is.

use super::args::Restore;
use super::failure::Failure;
use imager::restore::plan::Plan;
use imager_units::{Context, Error, ErrorKind};
use std::io::{BufRead, IsTerminal, Write};

/// Fails unless somebody who knows what will be written has agreed.
pub(crate) fn confirm(plan: &Plan, options: &Restore, shown: &str) -> Result<(), Failure> {
    let hash = plan.hash();
    if let Some(confirmed) = &options.confirm {
        if *confirmed == hash {
            return Ok(());
        }
        let what = Error::new(ErrorKind::Denied, format!("the plan's hash is {hash}, not {confirmed}"));
        return Err(Failure::new(4, what, "look at the plan again with --plan; nothing was written"));
    }
    let is_named = |name: &str| {
        let name =
            name.split_once('=').filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(name, |(_, n)| n);
        name.starts_with("serial:") || name.starts_with("wwn:")
    };
    let all_named = options.to.iter().all(|name| is_named(name));
    if options.yes && (!plan.writes_devices() || all_named) {
        return Ok(());
    }
    if std::io::stdin().is_terminal() && !options.yes {
        return ask(plan, shown);
    }
    let what = Error::new(ErrorKind::Denied, "nobody confirmed the plan");
    let yes =
        if plan.writes_devices() { "name each disk by serial: or wwn: and say --yes" } else { "say --yes" };
    let advice = format!("nothing was written; if the plan is right, {yes}, or say --confirm {hash}");
    eprint!("{shown}");
    Err(Failure::new(4, what, advice))
}

fn ask(plan: &Plan, shown: &str) -> Result<(), Failure> {
    eprint!("{shown}");
    for disk in &plan.disks {
        let identity = &disk.target.identity;
        let path = disk.target.path.display().to_string();
        let name = identity.serial.as_ref().or(identity.wwn.as_ref()).unwrap_or(&path);
        eprint!("To write to {}, type {name}: ", disk.target.describe());
        let say = || "reading the answer".to_owned();
        std::io::stderr().flush().context(say)?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).context(say)?;
        if answer.trim() != name {
            let what = Error::new(ErrorKind::Denied, "that is not the disk's name");
            return Err(Failure::new(4, what, "nothing was written"));
        }
    }
    Ok(())
}
