//! The terminals: each has a program in front of it. While a task runs by itself that is nobody, and Enter brings a shell;
//! afterwards what became of it stays to be read, until Enter brings the console. Otherwise it is the console at once,
//! started again whenever it ends, and a shell where it does not work.

use crate::log::{self, Hidden};
use bootenv_init::Settings;
use imager_units::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What `/init` is told to be when nothing else works.
pub(crate) const SHELL: &str = "shell";

const CONSOLE: &str = "/usr/bin/bootenv-console";
/// A program that ends sooner does not work.
const SHORT: Duration = Duration::from_secs(3);
/// The pause after that, and between looks at a terminal that somebody has.
const PAUSE: Duration = Duration::from_secs(1);
/// How often that may be before there is a shell instead.
const TRIES: u32 = 3;
/// How often a terminal at which nobody sits looks whether the task is over.
const LOOK: u16 = 500;

/// The terminals that the kernel uses as consoles.
pub(crate) fn terminals() -> Vec<String> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let named =
        active.split_whitespace().map(|name| format!("/dev/{}", if name == "tty0" { "tty1" } else { name }));
    // A name for a port that the machine does not have cannot be opened.
    let mut there: Vec<_> = named.filter(|path| open(path, OFlag::O_NONBLOCK).is_ok()).collect();
    if there.is_empty() {
        there.push("/dev/console".to_owned());
    }
    there
}

/// What the terminals are for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A task runs, for which nobody has to sit there.
    Task,
    /// They show how something ended, or why it was not begun.
    Report,
    /// A person says what is to be done.
    Person,
}

/// What all terminals are for.
#[derive(Clone)]
pub(crate) struct Uses(Arc<Mutex<Use>>);

impl Uses {
    /// For this, to begin with.
    pub(crate) fn new(now: Use) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// For this, from now on.
    pub(crate) fn set(&self, now: Use) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn get(&self) -> Use {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives every terminal its program, until the machine ends.
///
/// # Errors
/// `Io` without threads.
pub(crate) fn attend(terminals: &[String], uses: &Uses, settings: &Settings) -> Result<()> {
    for terminal in terminals {
        let (path, uses, plain) = (terminal.clone(), uses.clone(), settings.plain);
        let spawned = thread::Builder::new().name(terminal.clone()).spawn(move || {
            loop {
                wait_for_key(&path, &uses);
                if uses.get() == Use::Task {
                    let ended = shell(&path);
                    log::say_on(&path, "the task goes on; Enter brings a shell");
                    rest_after(ended);
                } else {
                    console(&path, &uses, plain);
                }
            }
        });
        spawned.context(|| format!("attending to {terminal}"))?;
    }
    Ok(())
}

/// Waits for Enter, as long as nobody has to sit there.
fn wait_for_key(path: &str, uses: &Uses) {
    let mut terminal = None;
    while uses.get() != Use::Person {
        // It stays open, so that no key is lost.
        let opened = match terminal.take() {
            Some(opened) => opened,
            None => match open(path, OFlag::O_NONBLOCK) {
                Ok(opened) => opened,
                Err(_) => {
                    thread::sleep(SHORT);
                    continue;
                }
            },
        };
        let mut fds = [PollFd::new(opened.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(0) => terminal = Some(opened),
            Ok(_) if (&opened).read(&mut [0; 64]).is_ok_and(|len| len > 0) => return,
            // It hung up.
            _ => thread::sleep(PAUSE),
        }
    }
}

fn console(path: &str, uses: &Uses, plain: bool) {
    let mut short = 0;
    while uses.get() != Use::Task {
        let begun = Instant::now();
        let ended = if Path::new(CONSOLE).exists() {
            let mut words = vec![CONSOLE];
            words.extend(plain.then_some("--plain"));
            on(path, &words)
        } else {
            shell(path)
        };
        short = if begun.elapsed() < SHORT { short + 1 } else { 0 };
        if let Err(error) = &ended {
            log::failed(&format!("starting a program on {path}: {}", log::chain(error)), "");
        }
        rest_after(ended);
        if short >= TRIES {
            log::failed(
                &format!("the console on {path} ends again and again"),
                "here is a shell; exit tries it again",
            );
            rest_after(shell(path));
            short = 0;
        }
    }
}

/// What does not work is not started a thousand times a second.
fn rest_after(ended: Result<ExitStatus>) {
    if !ended.is_ok_and(|status| status.success()) {
        thread::sleep(PAUSE);
    }
}

/// A shell at the last console that the kernel was told of.
pub(crate) fn emergency() {
    if let Some(path) = terminals().last() {
        drop(shell(path));
    }
}

fn shell(path: &str) -> Result<ExitStatus> {
    on(path, &["/bin/sh", "-l"])
}

/// Runs a program on a terminal of its own.
fn on(path: &str, words: &[&str]) -> Result<ExitStatus> {
    let say = || format!("running {} on {path}", words.join(" "));
    let open = || open(path, OFlag::empty()).context(say);
    // Of a manager that was killed, the programs at the terminals live on: two at one would take each other's keys.
    while is_taken(path) {
        thread::sleep(PAUSE);
    }
    let kind = if path.contains("ttyS") || path.contains("hvc") { "vt220" } else { "linux" };
    let mut command = Command::new("/bin/busybox");
    command.args(["setsid", "-c"]).args(words).env("TERM", kind);
    command.stdin(open()?).stdout(open()?).stderr(open()?);
    let _hidden = Hidden::on(path);
    command.status().context(say)
}

fn open(path: &str, flags: OFlag) -> std::io::Result<File> {
    let flags = (flags | OFlag::O_NOCTTY).bits();
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// Whether a process has the terminal for its own.
fn is_taken(path: &str) -> bool {
    let Ok(number) = fs::metadata(path).map(|metadata| metadata.rdev()) else { return false };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut statuses = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    statuses.any(|status| terminal_of(&status) == Some(number))
}

/// The terminal of the leader of a session, from its `stat` (proc_pid_stat(5)); others go with their leader.
fn terminal_of(status: &str) -> Option<u64> {
    let (process, rest) = (status.split(' ').next()?, status.rsplit_once(") ")?.1);
    let mut fields = rest.split(' ');
    let (session, terminal) = (fields.nth(3)?, fields.next()?);
    // Numbers fit into 16 bits here, where this encoding and that of `st_rdev` are the same.
    terminal.parse().ok().filter(|terminal| session == process && *terminal != 0)
}

#[cfg(test)]
mod tests {
    use super::terminal_of;

    #[test]
    fn who_leads_the_session_of_a_terminal_has_it() {
        // A shell on ttyS0, something that it runs, and a process without a terminal.
        let shell = "210 (sh -l) S 90 210 210 1088 215 4194304 303";
        assert_eq!(terminal_of(shell), Some((4 << 8) | 64));
        assert_eq!(terminal_of("215 (imager) R 210 215 210 1088 215 4194304 0"), None);
        assert_eq!(terminal_of("90 (init) S 1 0 0 0 -1 4194560 0"), None);
        assert_eq!(terminal_of("nothing"), None);
    }
}
