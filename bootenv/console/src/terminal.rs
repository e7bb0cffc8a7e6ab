//! The terminal: what it can do, and giving it back as it was, whatever happens.

use crossterm::{cursor, event, execute, terminal};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::termios::{self, LocalModes, OptionalActions, Winsize};
use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The smallest full screen.
pub(crate) const LEAST: (u16, u16) = (80, 24);

/// How questions are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// On a full screen.
    Full,
    /// Line by line.
    Plain,
}

/// How to ask on this terminal.
pub(crate) fn manner(plain: bool) -> Manner {
    let kind = std::env::var("TERM").unwrap_or_default();
    let is_poor = matches!(kind.as_str(), "" | "dumb" | "unknown" | "network" | "ansi-mini");
    if plain || is_poor || !stdin().is_terminal() || !stdout().is_terminal() {
        return Manner::Plain;
    }
    match size().or_else(ask_size) {
        Some((columns, rows)) if columns >= LEAST.0 && rows >= LEAST.1 => Manner::Full,
        _ => Manner::Plain,
    }
}

/// The size that the kernel knows.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A serial line has no size; the terminal at its end does, if it answers. Then the kernel is told, for the shell too.
fn ask_size() -> Option<(u16, u16)> {
    terminal::enable_raw_mode().ok()?;
    let asked =
        execute!(stdout(), cursor::SavePosition, cursor::MoveTo(998, 998)).and_then(|()| cursor::position());
    let back = execute!(stdout(), cursor::RestorePosition).and_then(|()| terminal::disable_raw_mode());
    let (column, row) = asked.ok()?;
    back.ok()?;
    let (columns, rows) = (column.checked_add(1)?, row.checked_add(1)?);
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal that cannot be told is used all the same.
    let _told = termios::tcsetwinsize(stdout(), size);
    Some((columns, rows))
}

/// Whether only ASCII may be drawn: where the locale says nothing better, and on real or emulated VTs at serial lines.
pub(crate) fn is_ascii() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let kind = set("TERM").unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    !(locale.contains("utf-8") || locale.contains("utf8")) || kind.starts_with("vt")
}

/// Whether colours may be used (<https://no-color.org>).
pub(crate) fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The full screen, until this is dropped.
pub(crate) struct Screen;

impl Screen {
    /// Takes the screen.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        execute!(stdout(), terminal::EnterAlternateScreen, event::EnableBracketedPaste, cursor::Hide)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Whatever of it fails, the rest is tried.
    drop(execute!(stdout(), event::DisableBracketedPaste, terminal::LeaveAlternateScreen, cursor::Show));
    drop(terminal::disable_raw_mode());
}

/// A panic must be readable, and leave a terminal that somebody can type on.
pub(crate) fn give_back_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        before(panic);
    }));
}

/// What is typed does not appear, until this is dropped.
pub(crate) struct Unseen(Option<termios::Termios>);

impl Unseen {
    /// Hides it; where there is no terminal, there is nothing to hide.
    pub(crate) fn begin() -> Self {
        let before = termios::tcgetattr(stdin()).ok();
        if let Some(mut hidden) = before.clone() {
            hidden.local_modes.remove(LocalModes::ECHO);
            let _hidden = termios::tcsetattr(stdin(), OptionalActions::Now, &hidden);
        }
        Self(before)
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _shown = termios::tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

/// Signals that end other programs.
pub(crate) struct Signals {
    interrupted: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Signals {
    /// Ctrl-C goes back, Ctrl-Z and Ctrl-\ do nothing; SIGTERM ends the console in order. Programs that are started have
    /// the usual ones.
    ///
    /// # Errors
    /// When they cannot be set.
    pub(crate) fn attend() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
        let (interrupted, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let nothing = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, Arc::clone(&interrupted))?;
        signal_hook::flag::register(SIGTERM, Arc::clone(&ended))?;
        for signal in [SIGQUIT, SIGTSTP] {
            signal_hook::flag::register(signal, Arc::clone(&nothing))?;
        }
        Ok(Self { interrupted, ended })
    }

    /// Whether Ctrl-C was pressed since this was asked last.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.swap(false, Ordering::Relaxed)
    }

    /// Whether the console is to end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Runs a shell until it ends.
pub(crate) fn shell() {
    let mut out = stdout();
    // Nobody to tell is no reason not to.
    drop(writeln!(out, "\nA shell. exit comes back to the console.").and_then(|()| out.flush()));
    if let Err(error) = Command::new("/bin/sh").arg("-l").status() {
        drop(writeln!(out, "/bin/sh cannot be run: {error}"));
    }
    take_foreground();
}

/// A shell with job control may leave the terminal to a process group that is gone.
fn take_foreground() {
    let background = SigSet::from(Signal::SIGTTOU);
    let before = background.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    // Where the terminal is not ours, it is nobody's.
    let _ours = nix::unistd::tcsetpgrp(stdin(), nix::unistd::getpgrp());
    if let Ok(before) = before {
        let _same = before.thread_set_mask();
    }
}
