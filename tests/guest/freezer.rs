//! Freezes what is mounted from some devices, again and again, for the tests that kill it meanwhile.
//!
//!     halfhour-freezer RECORDS HOLD_MS LIMIT_MS COUNT DEVICE...     prints `open`, then for each freeze `frozen` while
//!                                                                   it is, and `thawed …` or `failed KIND: why`
//!     halfhour-freezer freeze-guard                                 what it starts as its guard

use imager_disk::{Access, Device, System};
use imager_journal::{Freeze, FreezeOptions, Freezer};
use std::io::{Write, stdout};
use std::path::Path;
use std::time::Duration;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [guard] if guard == "freeze-guard" => drop(imager_journal::guard::run()),
        [records, hold, limit, count, devices @ ..] => {
            let [hold, limit, count] = [hold, limit, count].map(|text| text.parse().unwrap_or(0));
            freeze(records.into(), hold, limit, count, devices);
        }
        _ => println!("see the source"),
    }
}

fn freeze(records: std::path::PathBuf, hold: u64, limit: u64, count: u64, devices: &[String]) {
    let limit = Duration::from_millis(limit);
    let options = FreezeOptions { records, limit, budget: limit, ..FreezeOptions::default() };
    let number =
        |path: &String| Device::open(Path::new(path), Access::Read, None).ok().and_then(|d| d.number());
    let devices: Vec<_> = devices.iter().filter_map(number).collect();
    let mut freezer = match Freezer::open(System::new(), &devices, options) {
        Ok(freezer) => freezer,
        Err(error) => return say(&format!("failed {:?}: {error}", error.kind())),
    };
    let order: Vec<_> =
        freezer.filesystems().iter().map(|one| one.mounts[0].1.display().to_string()).collect();
    say(&format!("open {}", order.join(" ")));
    for _ in 0..count {
        let mut work = |_| {
            say("frozen");
            std::thread::sleep(Duration::from_millis(hold));
        };
        let took = freezer.sync().and_then(|()| freezer.frozen(&mut work));
        let unfreezable = freezer.filesystems().iter().filter(|one| freezer.is_unfreezable(one)).count();
        match took {
            Ok(took) => say(&format!("thawed {took:?}, {unfreezable} unfreezable")),
            Err(error) => say(&format!("failed {:?}: {error}", error.kind())),
        }
    }
}

fn say(line: &str) {
    // Whoever listens may have gone.
    let _nobody = stdout().write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout().flush());
}
