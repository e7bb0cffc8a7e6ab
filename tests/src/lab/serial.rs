//! The serial console: everything that came, as text without what moves the cursor and paints, each piece with the time
//! at which it came; and the screen of a terminal at its end.

use crate::qemu::cpu_of;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The terminal at the end of the line: rows and columns, the least for a full screen.
const SIZE: (NonZero<u16>, NonZero<u16>) = (NonZero::new(24).unwrap(), NonZero::new(80).unwrap());
/// How a program asks a terminal where its cursor is (ECMA-48, DSR).
const WHERE: [u8; 4] = *b"\x1b[6n";

/// The console of a machine.
pub(super) struct Serial {
    port: UnixStream,
    shared: Arc<(Mutex<Text>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

/// What came.
pub(super) struct Text {
    /// All of it.
    pub(super) all: String,
    /// From where in the text, since when on the clock, at how much processor time of QEMU.
    pub(super) stamps: Vec<(usize, Instant, Duration)>,
    /// Nothing more will come.
    pub(super) is_over: bool,
    /// The screen of a terminal.
    pub(super) screen: vt100::Parser,
    /// Whether the terminal says where its cursor is. A line without one is silent.
    pub(super) answers: bool,
    /// The last bytes that came.
    asked: [u8; WHERE.len()],
    plain: Plain,
}

impl Serial {
    /// Reads `port` until it ends; `process` is QEMU.
    pub(super) fn open(port: UnixStream, process: u32) -> Self {
        let text = Text {
            all: String::new(),
            stamps: Vec::new(),
            is_over: false,
            screen: vt100::Parser::new(SIZE.0, SIZE.1, 0),
            answers: false,
            asked: [0; WHERE.len()],
            plain: Plain::default(),
        };
        let shared = Arc::new((Mutex::new(text), Condvar::new()));
        let mut from = port.try_clone().expect("a socket");
        let to = Arc::clone(&shared);
        let read = move || {
            let mut buffer = [0; 4096];
            loop {
                let len = from.read(&mut buffer).unwrap_or(0);
                let mut text = to.0.lock().unwrap_or_else(PoisonError::into_inner);
                let at = text.all.len();
                text.stamps.push((at, Instant::now(), cpu_of(process)));
                let Text { all, plain, .. } = &mut *text;
                plain.push(&buffer[..len], all);
                let answer = text.show(&buffer[..len]);
                text.is_over = len == 0;
                to.1.notify_all();
                drop(text);
                if len == 0 || from.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        };
        let reader = Builder::new().name("serial console".to_owned()).spawn(read).expect("a thread");
        Self { port, shared, reader: Some(reader) }
    }

    /// What came so far.
    pub(super) fn text(&self) -> MutexGuard<'_, Text> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came so far, after a moment in which more may come.
    pub(super) fn text_soon(&self) -> MutexGuard<'_, Text> {
        let waited = self.shared.1.wait_timeout(self.text(), Duration::from_millis(200));
        waited.map_or_else(|poisoned| poisoned.into_inner().0, |(text, _)| text)
    }

    /// Types.
    pub(super) fn send(&mut self, keys: &str) {
        let sent = self.port.write_all(keys.as_bytes());
        assert!(sent.is_ok(), "the machine is off, nobody reads {keys:?}");
    }

    /// Waits for the end of what comes; QEMU has to be over.
    pub(super) fn close(&mut self) {
        drop(self.port.shutdown(std::net::Shutdown::Both));
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Text {
    /// Shows what came on the screen; what the terminal answers.
    fn show(&mut self, bytes: &[u8]) -> String {
        let mut answer = String::new();
        // A question may come in pieces.
        for byte in bytes {
            self.screen.process(&[*byte]);
            self.asked.rotate_left(1);
            self.asked[WHERE.len() - 1] = *byte;
            if self.answers && self.asked == WHERE {
                let (row, column) = self.screen.screen().cursor_position();
                answer.push_str(&format!("\x1b[{};{}R", row + 1, column + 1));
            }
        }
        answer
    }

    /// When the text at this place came.
    pub(super) fn stamp(&self, at: usize) -> Option<(Instant, Duration)> {
        let after = self.stamps.partition_point(|(from, ..)| *from <= at);
        self.stamps.get(after.checked_sub(1)?).map(|(_, clock, cpu)| (*clock, *cpu))
    }
}

/// Takes out of a stream what a terminal would act on: sequences of ECMA-48 (`ESC [ … letter`), those of two letters, and
/// strings (`ESC ]`, ended by BEL). Moving the cursor to a place begins a new line.
#[derive(Default)]
struct Plain {
    state: State,
    letters: Vec<u8>,
    is_in_line: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Text,
    Escape,
    /// After `ESC (` and the like: one more letter.
    Designate,
    Sequence,
    String,
}

impl Plain {
    fn push(&mut self, bytes: &[u8], to: &mut String) {
        for byte in bytes {
            self.state = match (&self.state, byte) {
                (State::Text, 0x1b) => State::Escape,
                (State::Text, b'\n' | b'\t' | b' '..=b'~' | 0x80..) => self.put(*byte),
                (State::Text | State::Designate, _) => State::Text,
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, b']') => State::String,
                (State::Escape, b'(' | b')' | b'#') => State::Designate,
                (State::Escape, _) => State::Text,
                (State::Sequence, b'H' | b'f') if self.is_in_line => self.put(b'\n'),
                (State::Sequence, b'@'..=b'~') => State::Text,
                (State::Sequence, _) => State::Sequence,
                (State::String, 0x07) => State::Text,
                (State::String, _) => State::String,
            };
        }
        // A letter of several bytes may lack its last.
        let whole = match std::str::from_utf8(&self.letters) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.letters.len(),
        };
        let rest = self.letters.split_off(whole);
        to.push_str(&String::from_utf8_lossy(&std::mem::replace(&mut self.letters, rest)));
    }

    fn put(&mut self, byte: u8) -> State {
        self.letters.push(byte);
        self.is_in_line = byte != b'\n';
        State::Text
    }
}

#[cfg(test)]
mod tests {
    use super::Plain;

    #[test]
    fn text_is_left_when_a_terminal_s_part_is_taken_out() {
        let stream = "a\x1b[0;32mb\x1b[m\r\nc\x1b[10;2Hd\x1b(0e\x1b]0;title\x07f\x1b[?2004hé";
        for pieces in [1, 3, stream.len()] {
            let (mut plain, mut text) = (Plain::default(), String::new());
            stream.as_bytes().chunks(pieces).for_each(|piece| plain.push(piece, &mut text));
            assert_eq!(text, "ab\nc\ndefé", "in pieces of {pieces}");
        }
    }
}
