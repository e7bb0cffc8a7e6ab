//! The terminals: each has a program in front of it. While a task runs by itself that is nobody, and Enter brings a shell;
//! otherwise it is the console, started again whenever it ends, and a shell where it does not work.

use crate::log;
use bootenv_init::Settings;
use imager_units::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const CONSOLE: &str = "/usr/bin/bootenv-console";
/// A console that ends sooner does not work.
const SHORT: Duration = Duration::from_secs(3);
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
    let mut there: Vec<_> =
        named.filter(|path| File::options().read(true).write(true).open(path).is_ok()).collect();
    if there.is_empty() {
        there.push("/dev/console".to_owned());
    }
    there
}

/// Whether a task runs for which nobody has to sit at a terminal.
#[derive(Clone, Default)]
pub(crate) struct Busy(Arc<(Mutex<bool>, Condvar)>);

impl Busy {
    /// Says so.
    pub(crate) fn set(&self, busy: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        self.0.1.notify_all();
    }

    fn get(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives every terminal its program, until the machine ends.
///
/// # Errors
/// `Io` without threads.
pub(crate) fn attend(terminals: &[String], busy: &Busy, settings: &Settings) -> Result<()> {
    for terminal in terminals {
        let (path, busy, plain) = (terminal.clone(), busy.clone(), settings.plain);
        let spawned = thread::Builder::new().name(terminal.clone()).spawn(move || {
            loop {
                wait_for_key(&path, &busy);
                console(&path, &busy, plain);
            }
        });
        spawned.context(|| format!("attending to {terminal}"))?;
    }
    Ok(())
}

/// While the task runs: Enter brings a shell.
fn wait_for_key(path: &str, busy: &Busy) {
    while busy.get() {
        let Ok(mut terminal) = File::options().read(true).write(true).open(path) else {
            thread::sleep(SHORT);
            continue;
        };
        let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                drop(terminal.read(&mut [0; 64]));
                if busy.get() {
                    drop(shell(path));
                }
            }
            Err(_) => thread::sleep(SHORT),
        }
    }
}

fn console(path: &str, busy: &Busy, plain: bool) {
    let mut short = 0;
    while !busy.get() {
        let begun = Instant::now();
        let ended = if Path::new(CONSOLE).exists() {
            let mut words = vec![CONSOLE];
            words.extend(plain.then_some("--plain"));
            on(path, &words)
        } else {
            shell(path)
        };
        short = if begun.elapsed() < SHORT { short + 1 } else { 0 };
        if let Err(error) = ended {
            log::failed(&format!("starting a program on {path}: {error}"), "");
            thread::sleep(SHORT);
        }
        if short >= TRIES {
            log::failed(
                &format!("the console on {path} ends again and again"),
                "here is a shell; exit tries it again",
            );
            drop(shell(path));
            short = 0;
        }
    }
}

fn shell(path: &str) -> Result<ExitStatus> {
    on(path, &["/bin/sh", "-l"])
}

/// Runs a program on a terminal of its own.
fn on(path: &str, words: &[&str]) -> Result<ExitStatus> {
    let say = || format!("running {} on {path}", words.join(" "));
    let open = || File::options().read(true).write(true).open(path).context(say);
    let kind = if path.contains("ttyS") || path.contains("hvc") { "vt220" } else { "linux" };
    let mut command = Command::new("/bin/busybox");
    command.args(["setsid", "-c"]).args(words).env("TERM", kind);
    command.stdin(open()?).stdout(open()?).stderr(open()?);
    command.status().context(say)
}
