//! What systemd is told.

use super::every::{Clock, Every};
use std::path::Path;

/// The name of the service that makes one capture.
pub const SERVICE: &str = "halfhour-capture.service";
/// The name of the timer that starts it.
pub const TIMER: &str = "halfhour-capture.timer";

const SERVICE_TEXT: &str = include_str!("../../systemd/halfhour-capture.service");
const TIMER_TEXT: &str = include_str!("../../systemd/halfhour-capture.timer");
/// Captures of many machines are spread over so much at most. What is made up for after a start waits as long, too.
const MOST_DELAY_SECONDS: u64 = 120;

/// The service, for a system that has the program there.
pub fn service(program: &Path) -> String {
    SERVICE_TEXT.replace("/usr/bin/imager", &program.display().to_string())
}

/// The timer of a schedule.
pub fn timer(every: Every, at: Clock) -> String {
    let delay = (every.length().as_secs() / 10).min(MOST_DELAY_SECONDS);
    TIMER_TEXT.replace("@CALENDAR@", &every.calendar(at)).replace("@DELAY@", &format!("{delay}s"))
}

#[cfg(test)]
mod tests {
    use super::{SERVICE, TIMER, service, timer};
    use crate::schedule::{Clock, Every};
    use std::process::Command;

    #[test]
    fn the_units_are_in_order() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SERVICE), service(&std::env::current_exe().unwrap())).unwrap();
        std::fs::write(folder.path().join(TIMER), timer(Every::Hours(6), Clock::default())).unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).args([SERVICE, TIMER].map(|name| folder.path().join(name)));
        let Ok(output) = command.output() else {
            println!("skipped: there is no systemd-analyze here");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
