//! A machine with its power on: what it says is waited for with patience counted in QEMU's processor time; a kernel that
//! panics, a system that gives up, and a machine that does nothing at all end the wait at once.

use super::desk::Desk;
use super::hardware::logs;
use super::qmp::Qmp;
use super::serial::Serial;
use crate::person::{ENTER, Person};
use crate::qemu::{self, Qemu};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Processor time between two things that are waited for; a whole start takes fifteen to forty seconds.
const PATIENCE_CPU: Duration = Duration::from_secs(300);
/// Real time for the same.
const PATIENCE: Duration = Duration::from_secs(1500);
/// Who says nothing for so long, and uses less processor time than this, waits for something that will not come.
const STALL: (Duration, Duration) = (Duration::from_secs(200), Duration::from_secs(3));
/// Nobody needs to wait any longer after one of these.
const TROUBLE: [&str; 9] = [
    "Kernel panic",
    "Oops:",
    "emergency mode",
    "(initramfs)",
    "grub rescue>",
    "bad shim signature",
    "UEFI Interactive Shell",
    "halfhour: failed",
    "panicked at",
];

/// A machine that runs, or is held because it wanted to start again. Dropped, it loses its power.
pub struct Machine {
    name: String,
    folder: tempfile::TempDir,
    qemu: Qemu,
    qmp: Qmp,
    serial: Serial,
    first: Option<&'static str>,
    on: Instant,
    /// How much of the console's text was waited for.
    at: usize,
    off: Option<Off>,
    /// Since when it is held.
    held: Option<Instant>,
}

/// How long after it was switched on something came.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the clock.
    pub clock: Duration,
    /// In processor time of QEMU.
    pub cpu: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Off {
    /// It wants to start again.
    Restart,
    /// It switched itself off.
    Power,
}

impl Machine {
    /// Switches it on. `first` is what it starts from, if not its disks.
    pub(super) fn start(
        name: &str,
        folder: tempfile::TempDir,
        options: Vec<String>,
        first: Option<&'static str>,
    ) -> Self {
        let path = |name: &str| folder.path().join(name);
        let port = |name: &str, wait: &str| {
            format!("socket,id={name},path={},server=on,wait={wait}", path(name).display())
        };
        let mut command = qemu::command();
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]).args(options);
        // It is held, not over, when it ends or starts again: we look at it then.
        command.args(["-action", "reboot=shutdown,shutdown=pause"]);
        command.args(["-chardev", &port("control", "off"), "-mon", "chardev=control,mode=control"]);
        command.args(["-chardev", &port("console", "on"), "-serial", "chardev:console"]);
        let firmware = format!("file,id=firmware,path={}", path("firmware").display());
        command.args(["-chardev", &firmware, "-device", "isa-debugcon,iobase=0x402,chardev=firmware"]);
        let mut qemu = Qemu::start(command, &path("qemu"));
        let console = connect(&mut qemu, &folder);
        let serial = Serial::open(console, qemu.id());
        let qmp = Qmp::open(&path("control")).expect("QEMU's control port");
        let name = name.to_owned();
        println!("lab: {name} is on");
        Self { name, folder, qemu, qmp, serial, first, on: Instant::now(), at: 0, off: None, held: None }
    }

    /// Waits until the console shows this.
    pub fn expect(&mut self, wanted: &str) -> Moment {
        self.expect_any(&[wanted]).1
    }

    /// Waits until the console shows one of these: which, and when it came.
    pub fn expect_any(&mut self, wanted: &[&str]) -> (usize, Moment) {
        let (which, moment) = self.find_any(wanted);
        println!("lab: {}: {:6.1} s: {}", self.name, moment.clock.as_secs_f64(), wanted[which].trim());
        (which, moment)
    }

    fn find_any(&mut self, wanted: &[&str]) -> (usize, Moment) {
        let (which, at) = self.wait(
            &wanted.join(" or "),
            |machine| {
                let text = machine.serial.text();
                let new = text.all.get(machine.at..).unwrap_or_default();
                let found =
                    wanted.iter().enumerate().filter_map(|(which, wanted)| Some((new.find(wanted)?, which)));
                let (at, which) = found.min()?;
                Some((which, machine.at + at + wanted[which].len()))
            },
            wanted,
        );
        self.at = at;
        (which, self.moment(at.saturating_sub(1)))
    }

    /// Waits until it wants to start again; it is held then.
    pub fn expect_restart(&mut self) -> Moment {
        self.expect_off(Off::Restart)
    }

    /// Waits until it has switched itself off.
    pub fn expect_power_off(&mut self) -> Moment {
        self.expect_off(Off::Power)
    }

    /// Lets a held machine start again, from its disks from now on. It is not held another time.
    pub fn restart_from_disk(&mut self) {
        assert_eq!(self.off.take(), Some(Off::Restart), "{} did not want to start again", self.name);
        if let Some(first) = self.first.take() {
            let path = format!("/machine/peripheral/{first}");
            self.qmp.execute("qom-set", &json!({ "path": path, "property": "bootindex", "value": 100 }));
        }
        // Otherwise our own reset would only hold it again, and so would that of SeaBIOS, which makes a second one of it.
        self.qmp.execute("set-action", &json!({ "reboot": "reset" }));
        self.qmp.execute("system_reset", &json!({}));
        self.qmp.wait_for("RESET");
        self.qmp.execute("cont", &json!({}));
        // What we did meanwhile is no time of the machine's.
        self.on += self.held.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Puts a terminal at the end of the serial line, one that says where its cursor is when it is asked.
    pub fn put_terminal(&mut self) {
        self.serial.text().answers = true;
    }

    /// The keyboard and the screen of the machine itself.
    pub fn desk(&mut self) -> Desk<'_> {
        Desk::new(self)
    }

    /// Types at the console.
    pub fn type_in(&mut self, keys: &str) {
        self.serial.send(keys);
    }

    /// Runs a line of shell at the prompt on the console: its exit status, and what it printed.
    pub fn run(&mut self, line: &str) -> (i32, String) {
        // What is typed shows too, and must not be taken for what is printed.
        self.type_in(&format!("echo be''gin; {line}; echo en''d $?.\n"));
        self.find_any(&["begin\n"]);
        let from = self.at;
        self.find_any(&["end "]);
        let to = self.at - "end ".len();
        self.find_any(&[".\n"]);
        let text = self.serial.text();
        let status =
            text.all.get(to + "end ".len()..self.at).unwrap_or_default().trim().trim_end_matches('.');
        let printed = text.all.get(from..to).unwrap_or_default().to_owned();
        (status.parse().unwrap_or(-1), printed)
    }

    /// Has QEMU do something to it (docs/interop/qemu-qmp-ref): plug a device in, pull a cable.
    pub fn execute(&mut self, command: &str, arguments: &serde_json::Value) {
        self.qmp.execute(command, arguments);
    }

    /// Presses the power button, and waits until it is off.
    pub fn power_off(mut self) {
        self.qmp.execute("system_powerdown", &json!({}));
        self.expect_power_off();
    }

    /// Pulls the plug.
    pub fn cut_power(mut self) {
        self.qemu.kill();
        println!("lab: {}: the power is cut", self.name);
    }

    /// Bytes that were written to a disk so far.
    pub fn written_bytes(&mut self, disk: usize) -> u64 {
        self.written_to(&format!("file{disk}"))
    }

    /// Bytes that were written to the medium so far.
    pub fn medium_written_bytes(&mut self) -> u64 {
        self.written_to("image")
    }

    fn written_to(&mut self, drive: &str) -> u64 {
        let stats = self.qmp.execute("query-blockstats", &json!({}));
        let of = |stats: &serde_json::Value| stats["device"] == drive;
        let found = stats.as_array().into_iter().flatten().find(|stats| of(stats));
        found.and_then(|stats| stats["stats"]["wr_bytes"].as_u64()).expect("a disk of this machine")
    }

    /// Waits until at least so many bytes were written to a disk.
    pub fn wait_written(&mut self, disk: usize, bytes: u64) {
        let begun = Instant::now();
        while self.written_bytes(disk) < bytes {
            assert!(begun.elapsed() < PATIENCE, "{}: {bytes} bytes are not written", self.name);
            if let Some(trouble) = self.trouble(&[]) {
                panic!("{}: {trouble}", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that the console showed.
    pub fn console(&self) -> String {
        self.serial.text().all.clone()
    }

    /// What the firmware said to whoever debugs it; `SeaBIOS` does.
    pub fn firmware_log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("firmware")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The screen, where it is in text mode as after a BIOS: 25 lines.
    pub fn text_screen(&mut self) -> String {
        let file = self.folder.path().join("screen");
        let (cells, lines) = (80 * 2, 25);
        let arguments = json!({ "val": 0xb8000, "size": cells * lines, "filename": file });
        self.qmp.execute("pmemsave", &arguments);
        let bytes = std::fs::read(file).expect("QEMU saved it");
        let line = |cells: &[u8]| {
            let letters =
                cells.iter().step_by(2).map(|byte| if byte.is_ascii_graphic() { *byte } else { b' ' });
            String::from_utf8(letters.collect()).expect("only ASCII").trim_end().to_owned()
        };
        bytes.chunks(cells).map(line).collect::<Vec<_>>().join("\n")
    }

    /// Watches a machine that cannot start until that is clear: it says so, it stands still, or it has used ten times the
    /// processor time after which a healthy one speaks. Fails if it does start.
    pub fn expect_no_start(mut self) {
        const SIGNS: [&str; 5] =
            ["No bootable", "not a bootable disk", "grub rescue>", "error: ", "BootDevice: Not Found"];
        let (begun, mut quiet) = (Instant::now(), 0);
        let why = loop {
            let cpu = self.qemu.cpu();
            thread::sleep(Duration::from_secs(1));
            let seen = format!("{}\n{}\n{}", self.console(), self.text_screen(), self.firmware_log());
            assert!(!seen.contains("login: "), "{}: it starts", self.name);
            let trouble = SIGNS.iter().chain(&TROUBLE).find(|sign| seen.contains(**sign));
            if let Some(sign) = trouble {
                break (*sign).to_owned();
            }
            quiet =
                if self.qemu.cpu().saturating_sub(cpu) < Duration::from_millis(30) { quiet + 1 } else { 0 };
            if quiet == 10 {
                break "it stands still".to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{}: neither starts nor fails", self.name);
            if self.qemu.cpu() > Duration::from_secs(30) && !seen.contains("Linux version") {
                break "it turns in circles".to_owned();
            }
        };
        println!("lab: {}: it does not start: {why}", self.name);
    }

    fn expect_off(&mut self, how: Off) -> Moment {
        let what = if how == Off::Restart { "its restart" } else { "its power-off" };
        self.wait(what, |machine| machine.off, &[]);
        self.held = Some(Instant::now());
        assert_eq!(self.off, Some(how), "{} did the other", self.name);
        let moment = Moment { clock: self.on.elapsed(), cpu: self.qemu.cpu() };
        println!("lab: {}: {:6.1} s: {what}", self.name, moment.clock.as_secs_f64());
        self.at = self.serial.text().all.len();
        moment
    }

    /// Asks again and again, until there is an answer or trouble. What is `wanted` is no trouble.
    fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>, wanted: &[&str]) -> T {
        let name = self.name.clone();
        let (begun, cpu) = (Instant::now(), self.qemu.cpu());
        loop {
            let was_over = self.off.is_some() || self.qemu.ended().is_some();
            drop(self.serial.text_soon());
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(!was_over, "{name}: waiting for {what}: it is off");
            if let Some(trouble) = self.trouble(wanted) {
                // The rest of the story.
                thread::sleep(Duration::from_secs(3));
                panic!("{name}: waiting for {what}: {trouble}");
            }
            let (spent, used) = (begun.elapsed(), self.qemu.cpu().saturating_sub(cpu));
            let is_late = used > PATIENCE_CPU || spent > PATIENCE;
            assert!(!is_late, "{name}: waiting for {what}: nothing after {spent:?} ({used:?} of processor)");
            self.look_for_events();
        }
    }

    fn look_for_events(&mut self) {
        while let Some(event) = self.qmp.event() {
            if event["event"] == "SHUTDOWN" {
                let is_restart = event["data"]["reason"] == "guest-reset";
                self.off = Some(if is_restart { Off::Restart } else { Off::Power });
            }
        }
    }

    fn trouble(&self, wanted: &[&str]) -> Option<String> {
        let text = self.serial.text();
        let new = text.all.get(self.at..).unwrap_or_default();
        let mut words = TROUBLE.iter().filter(|word| !wanted.iter().any(|wanted| wanted.contains(*word)));
        if let Some(word) = words.find(|word| new.contains(**word)) {
            return Some(format!("{word:?}"));
        }
        let (_, clock, cpu) = text.stamps.last().copied().unwrap_or((0, self.on, Duration::ZERO));
        let used = self.qemu.cpu().saturating_sub(cpu);
        let is_stalled = clock.elapsed() > STALL.0 && used < STALL.1;
        is_stalled.then(|| format!("a stall: {:?} without a word, {used:?} of processor", clock.elapsed()))
    }

    fn moment(&self, at: usize) -> Moment {
        let (clock, cpu) = self.serial.text().stamp(at).unwrap_or((self.on, Duration::ZERO));
        Moment { clock: clock.saturating_duration_since(self.on), cpu }
    }

    /// Keeps what the machine said, for whoever looks into a failure.
    fn keep_log(&self) {
        let (console, log) = (self.console(), logs().join(format!("{}.serial", self.name)));
        let lines: Vec<_> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
        println!(
            "--- {}: the last lines of its console\n{last}\n--- the terminal\n{}\n---",
            self.name,
            self.screen()
        );
        let kept = std::fs::create_dir_all(logs()).and_then(|()| std::fs::write(&log, &console));
        println!("all of it: {} ({kept:?})", log.display());
        for file in ["firmware", "qemu"] {
            let to = log.with_extension(file);
            drop(std::fs::copy(self.folder.path().join(file), to));
        }
    }
}

/// At the terminal of the serial line.
impl Person for Machine {
    fn screen(&self) -> String {
        self.serial.text().screen.screen().contents()
    }

    fn printed(&self) -> String {
        self.serial.text().all.get(self.at..).unwrap_or_default().to_owned()
    }

    fn press(&mut self, keys: &str) {
        self.type_in(keys);
    }

    fn enters(&mut self, line: &str) {
        self.at = self.serial.text().all.len();
        self.type_in(&format!("{line}{ENTER}"));
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.wait(what, |machine| is_so(machine).then_some(()), &[what]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu.kill();
        self.serial.close();
        if thread::panicking() {
            self.keep_log();
        }
    }
}

/// QEMU waits for us at its console before it starts the machine.
fn connect(qemu: &mut Qemu, folder: &tempfile::TempDir) -> UnixStream {
    let begun = Instant::now();
    loop {
        if let Ok(port) = UnixStream::connect(folder.path().join("console")) {
            return port;
        }
        if qemu.ended().is_some() || begun.elapsed() > Duration::from_secs(120) {
            let said = std::fs::read_to_string(folder.path().join("qemu")).unwrap_or_default();
            panic!("QEMU does not start: {said}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}
