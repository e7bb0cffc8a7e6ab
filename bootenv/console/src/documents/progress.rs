//! A line of progress.

use super::{number, some_text, text};
use crate::say;
use serde_json::Value;

/// How far `imager` is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    /// What it does.
    pub(crate) phase: String,
    /// How many bytes are done.
    pub(crate) done: u64,
    /// Of how many.
    pub(crate) total: Option<u64>,
    /// Bytes a second.
    rate: f64,
    /// How many seconds are left.
    left: Option<f64>,
    /// What everything waits for.
    bottleneck: String,
    /// Why the share is waited for.
    trouble: Option<String>,
    /// For how long yet.
    patience: u64,
}

impl Progress {
    /// Reads a line of `imager --progress json`; `None` when it is something else.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let object: Value = serde_json::from_str(line).ok()?;
        let phase = some_text(&object, "phase")?;
        Some(Self {
            phase,
            done: number(&object, "done_bytes"),
            total: object["total_bytes"].as_u64(),
            rate: object["bytes_per_second"].as_f64().unwrap_or(0.0),
            left: object["eta_seconds"].as_f64(),
            bottleneck: text(&object, "bottleneck"),
            trouble: some_text(&object, "error"),
            patience: number(&object, "patience_left_seconds"),
        })
    }

    /// In words.
    pub(crate) fn words(&self) -> Vec<String> {
        if let Some(trouble) = &self.trouble {
            let patience = say::span(f64::from(u32::try_from(self.patience).unwrap_or(u32::MAX)));
            let waits = format!("The share does not answer. It is asked again for another {patience}.");
            return vec![waits, trouble.clone()];
        }
        let done = match self.total {
            Some(total) => format!("{} of {}", say::size(self.done), say::size(total)),
            None => say::size(self.done),
        };
        let left = self.left.map_or(String::new(), |left| format!(", about {} left", say::span(left)));
        let mut words = vec![format!("{}: {done}, {:.0} MB/s{left}", self.phase, self.rate / 1e6)];
        if !self.bottleneck.is_empty() {
            words.push(format!("It is as fast as the {}.", self.bottleneck));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn progress_is_told_in_words() {
        let line = r#"{"phase":"restore","done_bytes":1048576,"total_bytes":4194304,"bytes_per_second":2e6,"eta_seconds":2.0,"bottleneck":"share"}"#;
        let words = Progress::read(line).expect("progress").words();
        assert_eq!(
            words,
            ["restore: 1.0 MiB of 4.0 MiB, 2 MB/s, about 2 seconds left", "It is as fast as the share."]
        );
        let line = r#"{"phase":"waiting for the share","error":"no route","patience_left_seconds":300}"#;
        let words = Progress::read(line).expect("progress").words().join(" ");
        assert!(words.contains("5 minutes") && words.contains("no route"), "{words}");
        assert_eq!((Progress::read("imager: no"), Progress::read("{}")), (None, None));
    }
}
