//! Whether a machine is built so that it can be put back in half an hour, and onto other hardware: what the method asks of
//! a server's design, asked of a running machine or of a capture.
//!
//! Nothing is changed, and nothing is guessed: what cannot be seen from where one looks is no finding. Each finding says
//! what was seen, why it matters and what to do.

mod design;
mod elsewhere;
mod history;
mod layout;
mod speed;
mod tree;

pub use design::{Design, Part};
pub use history::{History, examine as history};
pub use speed::{Measured, examine as recovery, measure};
pub use tree::Tree;

use serde::Serialize;

/// How much a finding matters, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// It costs time or comfort after a disaster.
    Advice,
    /// It may cost a recovery.
    Warning,
    /// A recovery would lose something, or would not start.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at, a word that stays the same.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
    /// Why it matters; empty where all is well.
    pub why: &'static str,
    /// What to do; empty where all is well.
    pub todo: String,
}

impl Finding {
    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Good, check, what: what.into(), why: "", todo: String::new() }
    }

    fn new(
        level: Level,
        check: &'static str,
        what: impl Into<String>,
        why: &'static str,
        todo: impl Into<String>,
    ) -> Self {
        Self { level, check, what: what.into(), why, todo: todo.into() }
    }
}

/// What the design of a machine tells by itself. `tree` is its running system, where that is what is looked at.
pub fn design(design: &Design, tree: Option<&Tree>) -> Vec<Finding> {
    let mut findings = layout::examine(design, tree);
    findings.extend(elsewhere::examine(design, tree));
    findings
}

/// Findings with the worst first.
pub fn worst_first(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
}

#[cfg(test)]
mod tests;
