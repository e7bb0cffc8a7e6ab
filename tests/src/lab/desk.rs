//! The keyboard and the screen of a machine: keys go in as a keyboard sends them, and the screen is read from the memory
//! of its graphics card, which is in text mode after a BIOS.

use super::machine::Machine;
use crate::person::{DOWN, ENTER, ESC, Person};
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// So often the screen is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// So long somebody waits for words there.
const PATIENCE: Duration = Duration::from_secs(300);

/// A person who sits at the machine itself.
pub struct Desk<'a> {
    machine: &'a mut Machine,
    seen: String,
}

impl<'a> Desk<'a> {
    pub(super) fn new(machine: &'a mut Machine) -> Self {
        let seen = machine.text_screen();
        Self { machine, seen }
    }

    fn key(&mut self, codes: &[&str]) {
        let keys: Vec<_> = codes.iter().map(|code| json!({ "type": "qcode", "data": code })).collect();
        self.machine.execute("send-key", &json!({ "keys": keys, "hold-time": 20 }));
        // The keyboard's controller forgets what comes while a key is held.
        thread::sleep(Duration::from_millis(60));
    }
}

impl Person for Desk<'_> {
    fn screen(&self) -> String {
        self.seen.clone()
    }

    fn printed(&self) -> String {
        self.seen.clone()
    }

    /// Small letters, digits, and what stands alone as a sequence.
    fn press(&mut self, keys: &str) {
        match keys {
            DOWN => return self.key(&["down"]),
            ESC => return self.key(&["esc"]),
            ENTER => return self.key(&["ret"]),
            _ => {}
        }
        for letter in keys.chars() {
            match letter {
                'a'..='z' | '0'..='9' => self.key(&[&letter.to_string()]),
                'A'..='Z' => self.key(&["shift", &letter.to_ascii_lowercase().to_string()]),
                '\r' => self.key(&["ret"]),
                '!' => self.key(&["shift", "1"]),
                _ => panic!("no key is known for {letter:?}"),
            }
        }
    }

    fn enters(&mut self, line: &str) {
        self.press(line);
        self.press(ENTER);
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        loop {
            self.seen = self.machine.text_screen();
            if is_so(self) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what:?} is not on the screen:\n{}", self.seen);
            thread::sleep(LOOK);
        }
    }
}
