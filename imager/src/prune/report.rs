//! A plan, for scripts.

use super::decide::Why;
use super::leases::Lease;
use super::look::Plan;
use super::perform::advice;
use super::retention::Judged;
use imager_image::PackId;
use serde::Serialize;

/// What would be done.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// Every capture and what becomes of it.
    pub captures: Vec<Judged>,
    /// Bytes of packs that are deleted by this run.
    pub bytes_now: u64,
    /// Bytes of packs that later runs delete, less what is written to move what is needed of them.
    pub bytes_later: u64,
    /// Packs that are deleted.
    pub delete: Vec<PackId>,
    /// Packs that get a tombstone: a later run deletes them.
    pub tombstone: Vec<PackId>,
    /// Packs with a tombstone that are not deleted yet.
    pub waiting: Vec<PackId>,
    /// Packs that nobody needs, but that a capture under way may have written.
    pub pending: Vec<PackId>,
    /// Packs out of which what is needed moves.
    pub relocate: Vec<Relocating>,
    /// Captures that have begun and are not over.
    pub leases: Vec<Lease>,
    /// What cannot be read and therefore keeps all space from coming back.
    pub blind: Vec<String>,
    /// How to go on then.
    pub advice: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A pack out of which what is needed moves.
#[derive(Clone, Debug, Serialize)]
pub struct Relocating {
    /// Which.
    pub pack: PackId,
    /// Why.
    pub why: Why,
    /// Bytes of the frames that move.
    pub bytes: u64,
    /// Bytes of the pack.
    pub pack_bytes: u64,
}

impl Plan {
    /// The plan, for scripts.
    pub fn report(&self) -> PlanReport {
        let d = &self.decisions;
        let len = |packs: &[PackId]| -> u64 {
            packs.iter().map(|pack| u64::from(self.packs.get(pack).copied().unwrap_or(0))).sum()
        };
        let relocate: Vec<Relocating> = d
            .jobs
            .iter()
            .map(|job| Relocating {
                pack: job.pack.id,
                why: job.why,
                bytes: job.frames.iter().map(|frame| u64::from(frame.len)).sum(),
                pack_bytes: self.packs.get(&job.pack.id).copied().map_or(0, u64::from),
            })
            .collect();
        let gains = relocate.iter().map(|job| job.pack_bytes.saturating_sub(job.bytes));
        let later = [&d.tombstone, &d.waiting, &d.pending].into_iter().map(|packs| len(packs));
        PlanReport {
            captures: self.captures.clone(),
            bytes_now: len(&d.delete),
            bytes_later: later.chain(gains).fold(0, u64::saturating_add),
            delete: d.delete.clone(),
            tombstone: d.tombstone.clone(),
            waiting: d.waiting.clone(),
            pending: d.pending.clone(),
            relocate,
            leases: self.leases.iter().filter(|lease| !lease.is_over).cloned().collect(),
            blind: self.blind.clone(),
            advice: advice(&self.blind),
            warnings: self.warnings.clone(),
        }
    }
}
