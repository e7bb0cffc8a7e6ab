//! Line by line: for terminals that draw badly, logs of serial lines, and whoever reads with the fingers.

use crate::console::{Console, Turn};
use crate::page::{Answer, Ask, Page, printable};
use crate::terminal::{self, Signals, Unseen};
use crate::wrap::wrap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The width where the terminal tells none.
const WIDTH: usize = 79;
/// How often progress is told.
const EVERY: Duration = Duration::from_secs(5);
/// How long one waits for a key before looking for news.
const LOOK_MS: u16 = 200;
/// The same while no news are to be expected.
const REST_MS: u16 = 2000;

/// Asks until the console is left.
///
/// # Errors
/// Those of the terminal.
pub(crate) fn run(mut console: Console, signals: &Signals, ascii: bool) -> io::Result<()> {
    let mut plain =
        Plain { lines: Lines::default(), shown: None, told: Vec::new(), told_at: None, unseen: None, ascii };
    while !signals.is_ended() {
        // What comes at once is shown at once.
        let patience =
            if console.is_working() { Duration::from_millis(LOOK_MS.into()) } else { Duration::ZERO };
        let mut turn = console.catch_up(patience);
        plain.show(&console)?;
        let wait = if console.is_working() { 0 } else { REST_MS };
        match plain.lines.next(wait)? {
            _ if signals.was_interrupted() => turn = plain.answer(&mut console, Answer::Back)?,
            Input::Nothing => {}
            Input::Line(line) => turn = plain.line(&mut console, &line)?,
            Input::End => break,
        }
        match turn {
            Turn::Show => {}
            Turn::Shell => plain.shell(),
            Turn::Leave => break,
        }
    }
    drop(plain.unseen.take());
    console.finish();
    Ok(())
}

struct Plain {
    lines: Lines,
    /// Which screen was printed last, and what of it.
    shown: Option<(u64, Page)>,
    /// The progress that was told last, and when.
    told: Vec<String>,
    told_at: Option<Instant>,
    unseen: Option<Unseen>,
    ascii: bool,
}

impl Plain {
    fn show(&mut self, console: &Console) -> io::Result<()> {
        let (turn, page) = (console.turns(), console.page());
        let waits = matches!(page.ask, Ask::Wait { .. });
        match &self.shown {
            Some((shown, before)) if *shown == turn && matches!(before.ask, Ask::Wait { .. }) && waits => {
                self.tell(&page)?;
            }
            Some((shown, before)) if *shown == turn && *before == page => return Ok(()),
            _ => self.print(&page)?,
        }
        self.shown = Some((turn, page));
        Ok(())
    }

    fn say(&self, text: &str) -> io::Result<()> {
        let width = terminal::size().map_or(WIDTH, |(columns, _)| usize::from(columns).saturating_sub(1));
        let mut out = stdout().lock();
        for line in wrap(text, width.max(20)) {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    /// Progress that changed, not too often.
    fn tell(&mut self, page: &Page) -> io::Result<()> {
        let lines: Vec<_> = page.text.iter().map(|line| line.text.clone()).collect();
        let is_early = self.told_at.is_some_and(|at| at.elapsed() < EVERY);
        if lines == self.told || is_early {
            return Ok(());
        }
        lines.iter().try_for_each(|line| self.say(line))?;
        (self.told, self.told_at) = (lines, Some(Instant::now()));
        Ok(())
    }

    fn print(&mut self, page: &Page) -> io::Result<()> {
        self.unseen = None;
        (self.told, self.told_at) = (page.text.iter().map(|line| line.text.clone()).collect(), None);
        self.say("")?;
        self.say(&format!("== {} ==", page.title))?;
        for line in &page.text {
            self.say(&line.text)?;
        }
        if let Some(command) = &page.command {
            self.say(&format!("$ {command}"))?;
        }
        self.ask(page)
    }

    fn ask(&mut self, page: &Page) -> io::Result<()> {
        match &page.ask {
            Ask::Choose { items, .. } => {
                for (number, item) in (1_usize..).zip(items) {
                    match &item.refused {
                        None => self.say(&format!("  {number}  {}", item.text))?,
                        Some(why) => self.say(&format!("  -  {} (not possible: {why})", item.text))?,
                    }
                    if !item.detail.is_empty() {
                        self.say(&format!("       {}", item.detail))?;
                    }
                }
                self.prompt("Number (< back, ! shell): ")
            }
            Ask::Type { label, value, secret } => {
                let kept = match (value.is_empty(), secret) {
                    (true, _) => String::new(),
                    (false, true) => " [as before]".to_owned(),
                    (false, false) => format!(" [{}]", printable(value, self.ascii)),
                };
                self.prompt(&format!("{label}{kept} (< back): "))?;
                self.unseen = secret.then(Unseen::begin);
                Ok(())
            }
            Ask::Wait { stop: Some(stop), .. } => self.say(&format!("(Enter: {stop})")),
            Ask::Wait { stop: None, .. } => Ok(()),
        }
    }

    fn prompt(&self, text: &str) -> io::Result<()> {
        let mut out = stdout().lock();
        write!(out, "{text}")?;
        out.flush()
    }

    fn line(&mut self, console: &mut Console, line: &str) -> io::Result<Turn> {
        if self.unseen.take().is_some() {
            self.say("")?;
        }
        let page = console.page();
        let is_secret = matches!(page.ask, Ask::Type { secret: true, .. });
        let trimmed = line.trim();
        if trimmed == "!" && !is_secret {
            return Ok(Turn::Shell);
        }
        if trimmed == "<" {
            return self.answer(console, Answer::Back);
        }
        match &page.ask {
            Ask::Choose { items, .. } => {
                let number = trimmed.parse::<usize>().ok();
                if number == Some(0) {
                    return self.answer(console, Answer::Back);
                }
                let index = number.and_then(|number| number.checked_sub(1));
                match index.and_then(|index| Some((index, items.get(index)?))) {
                    Some((_, item)) if item.refused.is_some() => {
                        let why = item.refused.as_deref().unwrap_or_default();
                        self.say(&format!("That is not possible: {why}"))?;
                    }
                    Some((index, _)) => return self.answer(console, Answer::Pick(index)),
                    None if trimmed.is_empty() => return self.again(),
                    None => {
                        self.say(&format!("A number from 1 to {} is expected, < to go back.", items.len()))?
                    }
                }
                self.prompt("Number (< back, ! shell): ")?;
                Ok(Turn::Show)
            }
            Ask::Type { value, secret, .. } => {
                let typed = if line.is_empty() && !secret { value.clone() } else { line.to_owned() };
                self.answer(console, Answer::Typed(typed))
            }
            Ask::Wait { stop, .. } if stop.is_some() && trimmed.is_empty() => {
                self.answer(console, Answer::Back)
            }
            Ask::Wait { .. } => Ok(Turn::Show),
        }
    }

    fn answer(&mut self, console: &mut Console, answer: Answer) -> io::Result<Turn> {
        // The same question again is asked again, in full.
        self.shown = None;
        Ok(console.answer(answer))
    }

    fn again(&mut self) -> io::Result<Turn> {
        self.shown = None;
        Ok(Turn::Show)
    }

    fn shell(&mut self) {
        self.unseen = None;
        terminal::shell();
        self.shown = None;
    }
}

enum Input {
    Nothing,
    Line(String),
    End,
}

/// Lines of the standard input, read without losing what came with others.
#[derive(Default)]
struct Lines {
    bytes: VecDeque<u8>,
}

impl Lines {
    fn next(&mut self, wait_ms: u16) -> io::Result<Input> {
        if let Some(line) = self.take() {
            return Ok(Input::Line(line));
        }
        let input = stdin();
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(wait_ms)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Input::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut piece = [0; 1024];
        match rustix::io::read(&input, &mut piece) {
            // Ctrl-D on a terminal is only a key.
            Ok(0) if input.is_terminal() => Ok(Input::Line("<".to_owned())),
            Ok(0) => Ok(Input::End),
            Ok(count) => {
                self.bytes.extend(piece.iter().take(count));
                Ok(self.take().map_or(Input::Nothing, Input::Line))
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Input::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        let line: Vec<_> = self.bytes.drain(..end).collect();
        self.bytes.pop_front();
        Some(typed(&line))
    }
}

/// What a person typed, without what the terminal or its keys say beside: control sequences (ECMA-48) and other
/// unprintable bytes.
fn typed(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut letters = text.chars();
    let mut out = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                if letters.next() == Some('[') {
                    letters.by_ref().find(|letter| ('@'..='~').contains(letter));
                }
            }
            _ if letter.is_control() => {}
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Lines, typed};

    #[test]
    fn lines_are_taken_one_by_one() {
        let mut lines = Lines { bytes: b"1\r\n2\nrest".iter().copied().collect() };
        let taken: Vec<_> = std::iter::from_fn(|| lines.take()).collect();
        assert_eq!(taken, ["1", "", "2"]);
        assert_eq!(lines.bytes.len(), 4);
    }

    #[test]
    fn what_the_terminal_says_is_not_what_a_person_typed() {
        assert_eq!(typed(b"\x1b[24;80R2"), "2");
        assert_eq!(typed(b"\x1bOQ\x07w\xc3\xa4"), "Qw\u{e4}");
    }
}
