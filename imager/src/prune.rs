//! Giving up captures, and getting back the space of what nobody refers to any more.
//!
//! Machines capture, read and prune at once, on shares without locks or clocks that agree, and any of them may die
//! between any two calls. What makes that safe is grace as in RCU: what is to go is announced first, and goes only
//! when everybody who may have begun before the announcement is over.
//!
//! # The protocol
//!
//! *Capture C*: puts `leases/C`, which names its manifest; *then* lists `trash/`; from then on relies only on packs
//! that were there and not tombstoned in that listing (or that it wrote itself); puts its manifest last. C is *over*
//! when its manifest's name is taken (by the manifest or by a revocation) or its lease is gone. A lease is removed only
//! when that is so already, or by C itself when it fails before it has begun to put its manifest.
//!
//! *Prune*: (1) reads the records of earlier prunes, lists packs, then leases, then manifests; (2) decides by rules
//! which captures go; (3) the *mark*: walks the maps of all others and collects the frames they need, then of those
//! that go; then lists `moved/`, then `trash/`; (4) shows its plan. Then (5) removes manifests; (6) deletes packs that an
//! *earlier* prune tombstoned, if every lease of that prune's record was over in step 1 and no capture needs anything of
//! them (or all that is needed has moved, below); (7) moves what is still needed out of packs that are to go; (8) puts
//! tombstones; (9) *then* lists leases and puts them, with the names of the tombstones, into `prunes/ID`.
//!
//! # Why nothing that is needed goes
//!
//! - *Tombstones are never taken back while the pack is there.* So from a tombstone on, every capture that begins sees
//!   the pack as absent. A pack X is deleted when (a) `trash/X` was durable before the leases of its record were listed,
//!   (b) all of these were over before the mark. A capture that relies on X listed `trash/` before `trash/X` was there,
//!   so its lease was there before, so it is in the record, so it is over, so its manifest was there before the mark, which
//!   found what it needs. This holds for any number of prunes at once, slow ones too: what such a mark found stays true,
//!   because nobody can come to need X later. (Taking tombstones back would break it: one prune reads the tombstone,
//!   another takes it back, a capture begins and relies on X, the first deletes X. So a tombstoned pack that a capture
//!   under way still came to need is not spared but emptied: what is needed of it moves.)
//! - *Moving*: the frames that are needed are copied whole into new packs Y, then `moved/X` says where they are, then X is
//!   tombstoned. `moved/` only grows while X is needed (a later part adds, nothing is replaced), so a reader who misses
//!   something always finds it. X is deleted although it is needed only if all that is needed is in packs that are there and not
//!   tombstoned, seen in this order: `moved/`, `trash/`, the packs. Could Y go at the same moment? Whoever deletes Y
//!   found it tombstoned by an earlier prune, and found in a mark no need for it; a need through `moved/X` counts. Had
//!   his mark listed `moved/` after `moved/X` was put, it would have found that need; had it listed before, `trash/Y` was
//!   there before `moved/X`, so whoever saw `moved/X` and then listed `trash/` saw it too and leaves X alone. A `moved/X` that a
//!   slow prune puts after Y has gone is passed over, by readers and prunes alike.
//! - *Packs of captures under way* are needed by no manifest yet. A pack that no capture needs and that was not seen to
//!   belong to one that is being removed is tombstoned only if no capture is under way (packs were listed before leases,
//!   leases before manifests: whoever wrote it is over, and its manifest was looked at), or if an earlier prune's record has
//!   it as an orphan and every lease of that record is over. This is thrift, not safety: a tombstone on such a
//!   pack would only mean that it is emptied later.
//! - *A capture that died* leaves its lease; what it holds back is said. `--break-lease` puts a revocation at its
//!   manifest's name: of the two, whoever comes second loses, so a wrong guess costs that capture and no data. The
//!   revocation stays for ever (some hundred bytes): a manifest that comes late must find it. Leases are broken before
//!   anything is looked at, so that a capture which was just in time is marked.
//! - *Holds*: before a prune removes a manifest it puts a document at the name of the capture's hold, which it takes away
//!   afterwards. Of it and a person who holds the capture whoever comes second finds the name taken and gives way; so a
//!   hold that was confirmed holds.
//! - *Readers* (restore, verify, nbd, export, a token that may only read) put no lease: a share may not let them. What a
//!   kept capture needs is always readable, before, during and after a move. Packs of a removed capture are deleted
//!   by the next prune at the earliest, so a reader of it has at least until then; to be sure, hold it first. `verify` leaves out
//!   captures that went while it looked at them.
//! - *A prune that dies*: after (5) its packs are orphans for the next one; between (8) and (9) its tombstones have no
//!   record: the next prune takes them into its own. New packs without `moved/` are orphans, too. Packs are deleted before
//!   their tombstones, so a tombstone without a pack is left and cleared when the pack is seen to be gone.
//! - *Damage*: a manifest or map node that cannot be read may need anything. While there is one, nothing is tombstoned
//!   or deleted; the report says how to go on. Moving (which is how damage is healed) goes on: it only adds.
//!   A pack is marked under the name by which captures know it, wherever what they need is now: frames that went out of
//!   a marked pack, or into one, are read before they stand for anything. One that is damaged stands for nothing: what
//!   it held is healed under the old name, with one more part of `moved/`.
//! - *Sparse indexes* list packs; those of which no pack is left are removed, among them the ones that captures which
//!   were killed left under random names. They were listed before the packs, so one that is being written is kept.
//!
//! A repository that is being filled by a copying tool must not be pruned: what has not arrived yet looks like what nobody
//! needs.

mod decide;
mod heal;
mod leases;
mod look;
mod needs;
mod perform;
mod record;
mod relocate;
mod report;
mod retention;

pub use leases::{Lease, break_lease};
pub use look::Plan;
pub use perform::Report;
pub use report::{PlanReport, Relocating};
pub use retention::{Action, Judged, Rules, State, Times};

use crate::monitor::Monitor;
use crate::repository::{Repository, object};
use imager_image::manifest::Manifest;
use imager_image::{CaptureId, names};
use imager_units::{Error, ErrorKind, Result};
use netshare_store::Put;

/// What to prune.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which captures stay. Without any rule none goes.
    pub rules: Rules,
    /// Only captures of this machine go.
    pub machine: Option<String>,
    /// Captures that go whatever the rules say.
    pub remove: Vec<CaptureId>,
    /// Captures under way that are known to be dead.
    pub break_leases: Vec<CaptureId>,
    /// More than half of a machine's captures may go, and its newest good one if it is named.
    pub force: bool,
    /// Which times the rules go by where they contradict each other.
    pub times: Option<Times>,
}

/// What would be done. Changes nothing.
///
/// # Errors
/// `Denied` when the rules would take too much or times contradict each other; `Invalid`, `NotFound` when a capture or
/// lease that was named is not there; `Io`, `Denied` from the share; `Cancelled`.
pub fn plan(repository: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Plan> {
    look::look(repository, options, monitor)
}

/// Does what was planned.
///
/// # Errors
/// As [`plan`]; what was done until then stays done, and the next prune goes on from there. `Denied` also when what
/// there is has changed so much that other captures would go.
pub fn run(repository: &Repository, options: &Options, plan: Plan, monitor: &dyn Monitor) -> Result<Report> {
    if options.break_leases.is_empty() {
        return perform::perform(repository, plan, monitor);
    }
    for id in &options.break_leases {
        break_lease(repository, *id)?;
    }
    // Who was just in time has published, and must be looked at.
    let after = Options { break_leases: Vec::new(), ..options.clone() };
    let now = look::look(repository, &after, monitor)?;
    if now.removed().ne(plan.removed()) {
        let what = "what there is has changed since the plan was made, and other captures would go";
        return Err(Error::new(ErrorKind::Denied, what));
    }
    perform::perform(repository, now, monitor)
        .map(|report| Report { broken: options.break_leases.clone(), ..report })
}

/// Keeps a capture from being pruned, until it is released.
///
/// # Errors
/// `NotFound` when a prune took the capture away before it was held; `Denied` while one is doing so; `Io`, `Denied` from
/// the share.
pub fn hold(repository: &Repository, manifest: &Manifest) -> Result<Put> {
    let header = &manifest.header;
    let document = format!("{}\n", crate::captures::name_of(header));
    let put = repository.store().put(&object(names::hold(header.id))?, document.as_bytes());
    let put = put.map_err(|error| match error.kind() {
        ErrorKind::Exists => {
            let what = format!(
                "a prune is removing capture id:{} at this moment (if none runs any more, it was killed: release the \
                 capture with --release, then hold it)",
                header.id
            );
            Error::new(ErrorKind::Denied, what)
        }
        _ => error,
    })?;
    match repository.store().len(&object(crate::captures::name_of(header))?)? {
        Some(_) => Ok(put),
        None => {
            release(repository, header.id)?;
            Err(Error::new(ErrorKind::NotFound, format!("capture id:{} was pruned meanwhile", header.id)))
        }
    }
}

/// Lets a capture be pruned again.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub fn release(repository: &Repository, id: CaptureId) -> Result<()> {
    repository.store().delete(&object(names::hold(id))?)
}
