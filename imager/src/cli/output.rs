//! Results on stdout, everything else on stderr. A reader that went away is no error.

use serde::Serialize;
use std::io::Write;

/// Prints one JSON object.
pub(crate) fn print_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(value) {
        print(&format!("{text}\n"));
    }
}

/// Prints text.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A closed pipe is how `| head` ends a program; there is nobody left to tell.
    let _ignored = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Tells the person or script at stderr, if there still is one: a terminal that went away must not end a restore, and
/// `eprintln` would.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ignored = writeln!(std::io::stderr(), "{line}");
}

/// Columns under headings, each as wide as it needs; numbers to the right.
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Columns {
    /// Columns with these headings; those numbered in `right` are aligned to the right.
    pub(crate) fn new(headings: &[&str], right: &'static [usize]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()], right }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, each line after `indent`.
    pub(crate) fn render(&self, indent: &str) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..count).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if self.right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            out.push_str(indent);
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// What a volume's text says where there is nothing to say.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}
