//! Capturing: disks → tables → volumes → used maps → blocks → frames → packs → share.
//!
//! The order on the share is what makes it safe to die anywhere: the lease, then packs of blocks, then packs of map
//! nodes, then the sparse index, and the manifest last; its presence is the commit.

pub mod blocks;
pub mod dedup;
pub mod hot;
pub(crate) mod packer;
mod record;
mod session;
mod skeleton;
mod streams;
pub mod worker;

pub use record::{is_clean, number_disks};

use crate::captures;
use crate::clock;
use crate::monitor::Monitor;
use crate::repository::{Repository, object};
use crate::survey::Survey;
use blocks::Standing;
use imager_image::manifest::{Consistency, Header, Kind, Manifest, Mode, Schedule};
use imager_image::{CaptureId, Compression, names};
use imager_units::{Error, ErrorKind, Result};
use session::Session;
use skeleton::Skeletons;
use std::collections::BTreeSet;
use std::time::Instant;

/// What to do with data volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataMode {
    /// Image their structure, without what is in their files.
    #[default]
    Skeleton,
    /// Image what they use.
    Used,
    /// Leave them out.
    None,
}

/// How to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose capture it is.
    pub machine: String,
    /// Which kind; by default incremental where there is something to compare with.
    pub kind: Option<Kind>,
    /// What to do with data volumes.
    pub data: DataMode,
    /// Files of data volumes that are in their skeletons all the same.
    pub keep: Vec<String>,
    /// How hard to compress.
    pub compression: Compression,
    /// How far the source is one instant.
    pub consistency: Consistency,
    /// The hardware the source belongs to, where that is known.
    pub hardware_uuid: Option<String>,
    /// Take the machine's name over although it belongs to other hardware.
    pub rebind: bool,
    /// The schedule it is made under.
    pub schedule: Option<Schedule>,
}

/// A capture under way: its header and what it is compared with.
struct Draft {
    header: Header,
    parent: Option<Manifest>,
    /// The machine's newest full capture before it.
    full: Option<CaptureId>,
    /// The volumes of which the capture before it has the content.
    held: BTreeSet<String>,
    started: Instant,
}

/// Captures what `survey` saw and publishes it.
///
/// # Errors
/// `Io`, `OutOfSpace`, `Denied` from source or share; `Cancelled`; `Exists` when the capture was revoked meanwhile.
/// Nothing is published then.
pub fn run(
    repository: &Repository,
    survey: &Survey,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Manifest> {
    let draft = begin(repository, options, |_| true)?;
    complete(repository, &draft, options, monitor, |session| {
        let skeletons = Skeletons::make(survey, options, monitor)?;
        let streams = streams::plan(survey, options, &skeletons, draft.parent.as_ref())?;
        let written = session.write("capture", &streams, Standing::Asked(session.dedup), &|_, _| false)?;
        Ok((record::manifest(survey, options, &draft, &streams, &skeletons, written), ()))
    })
    .map(|(manifest, ())| manifest)
}

/// Writes packs as `work` says, and publishes the manifest that comes of it; what else comes of it is handed on.
fn complete<T>(
    repository: &Repository,
    draft: &Draft,
    options: &Options,
    monitor: &dyn Monitor,
    work: impl FnOnce(&mut Session<'_, '_>) -> Result<(Manifest, T)>,
) -> Result<(Manifest, T)> {
    let written = Session::run(repository, draft.header.id, options, monitor, work);
    // Nothing of this capture will ever be published, so nobody has to wait for it. Whoever may not delete leaves the
    // lease; so does whoever was killed.
    let (manifest, beside) = written.inspect_err(|_| {
        let ended = object(names::lease(draft.header.id)).and_then(|lease| repository.store().delete(&lease));
        ended.unwrap_or_else(|error| tracing::info!("the lease of {} stays: {error}", draft.header.id));
    })?;
    publish(repository, &manifest, &mut repository.codec(Compression::Small)?)?;
    Ok((manifest, beside))
}

/// Draws the id, decides the place in the machine's history, and puts the lease.
fn begin(repository: &Repository, options: &Options, is_parent: impl Fn(&Header) -> bool) -> Result<Draft> {
    names::check_machine(&options.machine)?;
    let differential = options.kind == Some(Kind::Differential);
    let wanted = |header: &Header| is_parent(header) && (!differential || header.kind == Kind::Full);
    let history = captures::history(repository, &options.machine, &wanted)?;
    let (headers, damaged) = (&history.headers, &history.damaged);
    // A damaged manifest that is newer has taken a number that nobody can read; it is not taken twice. Names sort by time.
    let newest = headers.last().map(captures::name_of).unwrap_or_default();
    let lost = damaged.iter().filter(|damaged| **damaged > newest).count() as u64;
    let taken = headers.last().map_or(0, |newest| newest.sequence).saturating_add(lost);
    let parent = captures::newest_readable(repository, &history, wanted)?;
    check_binding(options, parent.as_ref())?;
    let kind = match options.kind {
        Some(kind) if parent.is_some() => kind,
        None if parent.is_some() => Kind::Incremental,
        _ => Kind::Full,
    };
    let header = Header {
        machine: options.machine.clone(),
        time: clock::now_rfc3339(),
        kind,
        id: CaptureId::random()?,
        sequence: taken.saturating_add(1),
        previous: headers.last().map(|newest| newest.id),
        revoked: false,
    };
    let lease = serde_json::json!({ "manifest": captures::name_of(&header), "machine": header.machine });
    repository.store().put(&object(names::lease(header.id))?, lease.to_string().as_bytes())?;
    let held = parent.iter().flat_map(|parent| &parent.volumes);
    let held = held.filter(|volume| matches!(volume.mode, Mode::Used | Mode::Raw));
    let held = held.map(|volume| volume.key.clone()).collect();
    let parent = parent.filter(|_| kind != Kind::Full);
    let full = headers.iter().rev().find(|header| header.kind == Kind::Full).map(|full| full.id);
    Ok(Draft { header, parent, full, held, started: Instant::now() })
}

/// A machine's name belongs to the hardware of its first capture, so two servers never mix their histories.
fn check_binding(options: &Options, known: Option<&Manifest>) -> Result<()> {
    let theirs = known.and_then(|manifest| manifest.system.hardware_uuid.as_ref());
    match (theirs, &options.hardware_uuid) {
        (Some(theirs), Some(ours)) if theirs != ours && !options.rebind => {
            let what = format!(
                "{:?} is the name of other hardware ({theirs}, this is {ours}): choose another --machine, or say \
                 --rebind if this machine replaces it",
                options.machine
            );
            Err(Error::new(ErrorKind::Denied, what))
        }
        _ => Ok(()),
    }
}

fn publish(repository: &Repository, manifest: &Manifest, codec: &mut imager_image::Codec<'_>) -> Result<()> {
    let name = captures::name_of(&manifest.header);
    let bytes = manifest.encode(codec)?;
    repository.store().put(&object(name)?, &bytes).map_err(|error| match error.kind() {
        ErrorKind::Exists => error.within("this capture was revoked while it ran"),
        _ => error,
    })?;
    Ok(())
}
