//! A process of QEMU: the processor time that it used, and its end. Patience with guests is counted in that time, so
//! that a busy host fails no test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A command that runs QEMU, and ends it when the thread of ours that started it is gone, however that ended.
pub(crate) fn command() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    command
}

/// QEMU, killed on drop.
pub(crate) struct Qemu(Child);

impl Qemu {
    /// Starts it; what it complains about goes to `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let log = File::create(log).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().expect("QEMU starts"))
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }

    /// Ends it as a power cut ends a machine.
    pub(crate) fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Processor time that it used.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.id())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processor time that a process used; none once it is gone.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    // In hundredths of a second, everywhere on x86.
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}
