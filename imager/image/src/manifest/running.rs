//! How a running machine was captured.

use serde::{Deserialize, Serialize};

/// What was done before and at the instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// The passes before the last one.
    pub passes: Vec<Pass>,
    /// Each time its filesystems were frozen: once to begin with, the last time for the instant.
    pub freezes: Vec<Freeze>,
    /// Bytes that count but were never written, so that nothing is known of them: captured as zeros.
    pub never_written_bytes: u64,
}

/// One pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pass {
    /// Bytes of blocks that were marked, or in the first one perhaps counted.
    pub marked_bytes: u64,
    /// Bytes read for it.
    pub read_bytes: u64,
    /// Bytes that new blocks took on the share.
    pub stored_bytes: u64,
    /// How long it took.
    pub elapsed_seconds: f64,
}

/// One freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Freeze {
    /// Until everything was frozen.
    pub freezing_ms: f64,
    /// From then until the first filesystem was thawed.
    pub held_ms: f64,
    /// Until all were.
    pub thawing_ms: f64,
    /// What there was no time to copy.
    pub left_bytes: u64,
}
