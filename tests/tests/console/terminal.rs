//! A terminal with a person at it: a pseudo-terminal, a program on it, and a screen that is read as a person reads it.

use halfhour_tests::person::ENTER;
use halfhour_tests::{Person, binary};
use nix::pty::{Winsize, openpty};
use rustix::termios::{self, LocalModes};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So long somebody waits for words before the test fails: machines are shared.
const PATIENCE: Duration = Duration::from_secs(180);

/// So often it is looked whether the program still runs.
const LOOK: Duration = Duration::from_millis(200);

/// F2, as a Linux console sends it.
pub(crate) const F2: &str = "\u{1b}OQ";

/// A terminal.
pub(crate) struct Terminal {
    keys: File,
    /// The program's side, to ask how it was left.
    line: OwnedFd,
    screen: vt100::Parser,
    /// Everything that was printed since the last look, for a program that prints lines.
    printed: String,
    output: Receiver<Vec<u8>>,
    reader: Option<JoinHandle<()>>,
    child: Child,
}

impl Terminal {
    /// The console, on a terminal of that kind and size, with these arguments.
    pub(crate) fn console(kind: &str, (columns, rows): (u16, u16), arguments: &[&str], state: &str) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a pseudo-terminal");
        let (line, master) = (pair.slave, pair.master);
        let side = || Stdio::from(line.try_clone().expect("a descriptor"));
        // As the first process starts it: a session of its own, and the terminal in charge.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary::console()).args(arguments);
        command.arg("--imager").arg(binary::imager());
        for name in ["PASSWORD", "PASSWORD_FILE", "TOKEN", "TOKEN_FILE", "REPO", "SHARE_PASSWORD", "LOG"] {
            command.env_remove(format!("IMAGER_{name}"));
        }
        command
            .env("IMAGER_STATE_DIR", state)
            .env("TERM", kind)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR");
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("setsid starts");
        let mut from = File::from(master);
        let keys = from.try_clone().expect("a descriptor");
        let (sender, output) = channel();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = from.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let screen = vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0);
        Self { keys, line, screen, printed: String::new(), output, reader: Some(reader), child }
    }

    fn fails(&self, why: &str) {
        panic!("{why}; the screen:\n{}\nwhat was printed:\n{}", self.screen(), self.printed.escape_debug());
    }

    fn take(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        // Lines are broken where the terminal ends: words are looked for as if they were not.
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        self.printed.push_str(&text);
        assert!(!self.printed.contains("panicked at"), "{}", self.printed);
    }

    /// Changes the size of the window.
    pub(crate) fn resizes(&mut self, columns: u16, rows: u16) {
        let size = termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.screen_mut().set_size(at_least_one(rows), at_least_one(columns));
        termios::tcsetwinsize(&self.line, size).expect("a window has a size");
    }

    /// The screen has a size of which the kernel knows nothing, as at the end of a serial line.
    pub(crate) fn resizes_silently(&mut self, columns: u16, rows: u16) {
        self.screen.screen_mut().set_size(at_least_one(rows), at_least_one(columns));
    }

    /// Whether a person can type on it: lines are edited and seen.
    pub(crate) fn is_usable(&self) -> bool {
        let modes = termios::tcgetattr(&self.line).expect("it is a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the end of the program; its exit status.
    pub(crate) fn ends(&mut self) -> Option<i32> {
        // What it prints at last must be taken, or it waits for that.
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.screen());
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(50)) {
                self.take(&bytes);
            }
        }
    }
}

impl Person for Terminal {
    fn screen(&self) -> String {
        self.screen.screen().contents()
    }

    fn printed(&self) -> String {
        self.printed.clone()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn enters(&mut self, line: &str) {
        self.printed.clear();
        self.press(&format!("{line}{ENTER}"));
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            // What it printed before it ended comes first.
            let ended = self.child.try_wait().expect("it is ours");
            match self.output.recv_timeout(LOOK) {
                Ok(bytes) => self.take(&bytes),
                Err(_) if ended.is_some() => {
                    self.fails(&format!("it ended ({ended:?}) before {what:?} came"))
                }
                Err(_) if Instant::now() > end => self.fails(&format!("{what:?} did not come")),
                Err(_) => {}
            }
        }
    }
}

fn at_least_one(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap_or(NonZero::<u16>::MIN)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // What it runs is not its child's child only: it goes with the console's own end.
            halfhour_tests::tool("kill", &["-TERM", &self.child.id().to_string()]);
            println!("the console ended with {:?}", self.ends());
        }
        drop(self.reader.take());
    }
}
