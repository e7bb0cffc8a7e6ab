//! Capturing a machine that runs: copied like a live migration, and held still for an instant at the end.
//!
//! A chain of drafts under one lease. The journal is armed before anything is read. The filesystems are frozen once for an
//! instant, so that what their logs hold is in its place and a map of what is used misses nothing that was synced. The
//! first pass takes what changed since the parent, or all that is used; each further one what was marked since the one
//! before it. When little is marked any more, the rest is copied into memory, everything is frozen, and what was marked
//! in between is copied while nothing changes: that instant is what is captured.
//!
//! After the thaw the machine is looked at as it was at that instant: a block that was not marked since is still on its
//! disk, any other is in memory or in the draft. A last pass takes what counts then; most of it is in the draft. Only
//! the manifest publishes it, and only then does the journal's cursor move: whatever dies before that changed nothing.
//!
//! What cannot be frozen (FAT, tables, what is not mounted) has to be seen to be quiet instead: no mark between two
//! harvests, the second of them at the instant.

mod instant;
mod machine;
mod passes;
mod place;
mod served;
mod still;
mod track;
mod watched;

pub use machine::{Held, Limits, Live, Running};

use super::blocks::{Look, Marked, Rest, Standing};
use super::session::Session;
use super::skeleton::Skeletons;
use super::{Draft, Options, begin, complete, record, streams};
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::Repository;
use crate::survey::{self, Survey};
use crate::view::CaptureView;
use imager_image::manifest::{Kind, Manifest};
use imager_journal::{ChangeLog, Epoch};
use imager_units::{Context, Result};
use instant::{InstantDisk, Noted};
use passes::Passes;
use std::sync::Arc;
use still::Still;
use watched::Watched;

/// How often a capture is begun, when the journal says meanwhile that it missed something.
const TRIES: usize = 4;

/// Captures what `survey` saw of a running machine, as of one instant, and publishes it.
///
/// # Errors
/// As [`capture::run`](super::run); `Denied` when no instant could be had, with what may help; `Corrupt` from a journal
/// that missed something. Nothing is published then, and no cursor moved.
pub fn run(
    repository: &Repository,
    survey: &Survey,
    options: &Options,
    live: Live<'_>,
    monitor: &dyn Monitor,
) -> Result<Manifest> {
    // A copy moves no cursor, so nobody knows what changed since.
    let draft = begin(repository, options, |header| header.kind != Kind::Copy)?;
    let mut log = Watched { log: live.log, missed: false };
    let Live { disks, machine, arena, limits, assigned, .. } = live;
    let (manifest, epoch) = complete(repository, &draft, options, monitor, |session| {
        let skeletons = Skeletons::make(survey, options, monitor)?;
        for _ in 1..TRIES {
            let mut live = Live {
                log: &mut log,
                disks: disks.clone(),
                machine,
                arena,
                limits: limits.clone(),
                assigned,
            };
            match write(session, &draft, survey, options, &skeletons, &mut live) {
                Err(error) if log.missed => {
                    monitor.notice(&format!("{error}; the capture begins anew"));
                    (log.missed, _) = (false, arena.clear());
                }
                done => return done,
            }
        }
        let mut live =
            Live { log: &mut log, disks: disks.clone(), machine, arena, limits: limits.clone(), assigned };
        write(session, &draft, survey, options, &skeletons, &mut live)
    })?;
    if manifest.header.kind != Kind::Copy {
        commit(&mut log, &draft, epoch);
    }
    Ok(manifest)
}

/// Keeps a cursor for the capture, which is durable, and for the newest full one.
fn commit(log: &mut dyn ChangeLog, draft: &Draft, epoch: Epoch) {
    let id = draft.header.id.to_string();
    let full = if draft.header.kind == Kind::Full { None } else { draft.full };
    let keep: Vec<_> = [Some(id.clone()), full.map(|id| id.to_string())].into_iter().flatten().collect();
    if let Err(error) = log.commit(&id, epoch, &keep) {
        tracing::warn!("the journal keeps no cursor for {id}, so the next capture compares: {error}");
    }
}

/// Everything but the commits.
fn write(
    session: &mut Session<'_, '_>,
    draft: &Draft,
    survey: &Survey,
    options: &Options,
    skeletons: &Skeletons,
    live: &mut Live<'_>,
) -> Result<(Manifest, Epoch)> {
    live.check(survey)?;
    let mut passes = Passes::begin(session, draft, survey, options, skeletons, live)?;
    passes.first(session, draft, survey, options, live)?;
    passes.catch_up(session, live)?;
    live.machine.prepare()?;
    let still = hold(session, survey, &mut passes, live);
    passes.warn(live.machine.resume(still.is_ok()));
    let still = still?;
    let drafted = passes.drafted(survey, options, draft);
    let manifest = last(session, draft, survey, options, skeletons, live, &passes, &still, &drafted)?;
    // Whatever was read as unmarked was so only if the journal missed nothing up to here.
    live.log.harvest().context(|| "the journal after the last pass".to_owned())?;
    Ok((manifest, still.epoch()?))
}

/// Finds the instant; whenever too much is marked for memory, with another pass.
fn hold(
    session: &mut Session<'_, '_>,
    survey: &Survey,
    passes: &mut Passes<'_>,
    live: &mut Live<'_>,
) -> Result<Still> {
    let mut still = Still::new(live, survey)?;
    loop {
        check_cancelled(session.monitor)?;
        match still.attempt(live, passes)? {
            None => return Ok(still),
            Some(behind) => passes.next(session, live, &behind)?,
        }
    }
}

/// The last pass: the machine as it was at the instant.
#[expect(clippy::too_many_arguments, reason = "what a capture consists of, each once")]
fn last(
    session: &mut Session<'_, '_>,
    draft: &Draft,
    survey: &Survey,
    options: &Options,
    skeletons: &Skeletons,
    live: &Live<'_>,
    passes: &Passes<'_>,
    still: &Still,
    drafted: &Manifest,
) -> Result<Manifest> {
    let view = CaptureView::new(session.repository, drafted.clone());
    let (log, noted) = (&*live.log, Noted::default());
    let (copied, places) = (still::by_place(live.arena), still.extents(live.arena));
    let mut disks = Vec::new();
    for disk in &survey.disks {
        let number = live.disks.iter().position(|known| *known == disk.number).unwrap_or(usize::MAX);
        let (device, draft) = (Arc::clone(&disk.device), view.disk(disk.number)?);
        let bad = still.bad();
        disks.push(InstantDisk { number, device, log, copied: &copied, bad, draft, noted: &noted });
    }
    served::serve(&disks, |disks| {
        let sources =
            survey.disks.iter().zip(disks).map(|(disk, device)| {
                (disk.number, survey::Source { device, identity: disk.identity.clone() })
            });
        let mut seen = survey::survey(sources.collect(), live.assigned)?;
        seen.firmware = survey.firmware.clone();
        let mut streams = streams::plan(&seen, options, skeletons, Some(drafted))?;
        passes.check_same(&streams)?;
        for stream in &mut streams {
            let extents = passes.changed(stream, &places);
            passes.adopt(stream);
            stream.look = Look::Marked(Marked { extents, rest: Rest::Check, audit: None });
        }
        let mut written = session.write("last pass", &streams, Standing::Proven, &|_, _| false)?;
        passes.add_costs(&streams, &mut written, still);
        let never_written = passes.never_written(&streams, &noted);
        let options = Options { consistency: passes.consistency(), ..options.clone() };
        let mut manifest = record::manifest(&seen, &options, draft, &streams, skeletons, written);
        passes.describe(&mut manifest, still, never_written);
        Ok(manifest)
    })
}
