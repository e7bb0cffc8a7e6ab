//! QEMU's control port: JSON in lines, answers and events (docs/interop/qmp-spec in QEMU's source).

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A moment in which nothing may come.
const MOMENT: Duration = Duration::from_millis(50);
/// In which QEMU answers, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(120);

/// The port.
pub(super) struct Qmp {
    port: BufReader<UnixStream>,
    /// A line of which the end has not come yet.
    line: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Opens it and agrees on what is spoken.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let port = BufReader::new(UnixStream::connect(path)?);
        let mut qmp = Self { port, line: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.read(PATIENCE);
        assert!(greeting.is_some_and(|line| !line["QMP"].is_null()), "QEMU greets");
        qmp.execute("qmp_capabilities", &json!({}));
        Ok(qmp)
    }

    /// Runs a command that has to succeed.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let sent = self.port.get_mut().write_all(format!("{request}\n").as_bytes());
        assert!(sent.is_ok(), "QEMU is gone at {request}");
        loop {
            let answer = self.read(PATIENCE).unwrap_or_else(|| panic!("QEMU does not answer {request}"));
            if answer["event"].is_string() {
                self.events.push_back(answer);
            } else if answer["return"].is_null() {
                panic!("{request}: {answer}");
            } else {
                return answer["return"].clone();
            }
        }
    }

    /// The next event, if one came.
    pub(super) fn event(&mut self) -> Option<Value> {
        if self.events.is_empty() {
            let came = self.read(MOMENT)?;
            self.events.push_back(came);
        }
        self.events.pop_front()
    }

    /// Waits for an event of this name; earlier ones are forgotten.
    pub(super) fn wait_for(&mut self, event: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.event().is_some_and(|came| came["event"] == event) {
                return;
            }
        }
        panic!("QEMU tells of no {event}");
    }

    fn read(&mut self, patience: Duration) -> Option<Value> {
        self.port.get_ref().set_read_timeout(Some(patience)).expect("a socket");
        // What came before a time-out stays in the line.
        match self.port.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.line);
                Some(serde_json::from_slice(&line).expect("QEMU speaks JSON"))
            }
            _ => None,
        }
    }
}
