//! Looking at everything before anything is changed. The order of the listings matters: see the module above.

use super::Options;
use super::decide::{self, Decisions, Seen, Why};
use super::heal::{self, Mending};
use super::leases::{self, Lease};
use super::needs::{Mark, Needs, manifest};
use super::perform::REMOVAL;
use super::record;
use super::retention::{self, Action, Judged, State};
use crate::clock;
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::{Repository, object};
use crate::verify::walk::is_damage;
use imager_image::manifest::{Consistency, Header};
use imager_image::{CaptureId, Compression, PackId, index, names};
use imager_units::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

/// What would be done, and why.
pub struct Plan {
    /// Every capture and what becomes of it, by machine and place.
    pub captures: Vec<Judged>,
    /// Captures that have begun.
    pub leases: Vec<Lease>,
    /// What cannot be read: while there is any, no space comes back.
    pub blind: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    pub(super) damaged_records: Vec<String>,
    /// What prunes that died left at the names of holds.
    pub(super) stale_holds: Vec<String>,
    pub(super) indexes: Vec<(String, HashSet<PackId>)>,
    pub(super) decisions: Decisions,
    pub(super) mending: Mending,
    pub(super) packs: HashMap<PackId, u32>,
}

impl Plan {
    /// The captures that go.
    pub fn removed(&self) -> impl Iterator<Item = CaptureId> + '_ {
        self.captures.iter().filter(|judged| judged.action == Action::Remove).map(|judged| judged.capture)
    }
}

/// Makes the plan.
pub(super) fn look(repository: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Plan> {
    monitor.phase("looking at packs and captures", None);
    let (records, damaged_records) = record::list(repository)?;
    let indexes = indexes(repository)?;
    let packs = packs(repository)?;
    let leases = leases::list(repository)?;
    check_cancelled(monitor)?;
    let (captures, stale_holds) = judged(repository, options, monitor)?;
    let broken = |lease: &&Lease| !lease.is_over && !options.break_leases.contains(&lease.capture);
    let live: HashSet<CaptureId> = leases.iter().filter(broken).map(|lease| lease.capture).collect();
    let missing = options.break_leases.iter().find(|id| !leases.iter().any(|lease| lease.capture == **id));
    if let Some(id) = missing {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no lease of capture {id}")));
    }
    let mut special = marked(repository)?;
    for folder in [names::TRASH, names::MOVED] {
        special.extend(listed(repository, folder)?);
    }
    monitor.phase("reading block maps", None);
    let of = |action| captures.iter().filter(move |c| c.action == action).map(|c| c.object.as_str());
    let (mut needs, mut also, mut mark) = (Needs::default(), HashSet::new(), Mark::new(repository, monitor));
    let mut blind = mark.walk(of(Action::Keep), |place, kind| {
        let is_special = special.contains(&place.pack.id) || !packs.contains_key(&place.pack.id);
        needs.add(place.pack, kind, place.frame, is_special);
    })?;
    let lost = mark.walk(of(Action::Remove), |place, _| {
        also.insert(place.pack.id);
    })?;
    let mut warnings: Vec<String> = lost.into_iter().map(|lost| format!("going anyway: {lost}")).collect();
    // A capture that cannot be read and goes takes its needs with it, unless it shares nodes with one that stays.
    blind.sort();
    let moved = parts(repository)?;
    let trash = listed(repository, names::TRASH)?;
    let damaged = marked(repository)?;
    let documents = decide::documents(repository, &mut needs, &mut also, &moved, (&trash, &damaged))?;
    let seen = Seen {
        packs,
        needs,
        also,
        moved,
        documents,
        trash,
        damaged,
        records,
        live,
        is_blind: !blind.is_empty(),
    };
    let mut decisions = decide::decide(&seen);
    let order = newest_first(&captures);
    prove_moves(repository, &seen, &mut decisions, &order.0, monitor)?;
    let mending = heal::look(repository, &seen, &mut decisions, &order, monitor)?;
    warnings.extend(std::mem::take(&mut decisions.warnings));
    let leases = decide::held_back(leases, &seen, &decisions);
    let packs = seen.packs;
    Ok(Plan {
        captures,
        leases,
        blind,
        warnings,
        damaged_records,
        stale_holds,
        indexes,
        decisions,
        mending,
        packs,
    })
}

/// A pack that is needed is deleted only when what moved out of it is where it went; otherwise it moves once more.
fn prove_moves(
    repository: &Repository,
    seen: &Seen,
    decisions: &mut Decisions,
    objects: &[String],
    monitor: &dyn Monitor,
) -> Result<()> {
    for pack in std::mem::take(&mut decisions.delete) {
        let Some(need) = seen.needs.packs.get(&pack) else {
            decisions.delete.push(pack);
            continue;
        };
        let unproven = super::relocate::unproven(repository, need, &seen.trash, objects, monitor)?;
        if unproven.is_empty() {
            decisions.delete.push(pack);
        } else {
            decisions.waiting.push(pack);
            decisions.jobs.push(seen.job(need, unproven, Why::Leaving));
        }
    }
    Ok(())
}

/// The captures that stay, each machine's newest good one first, and how many those are.
fn newest_first(captures: &[Judged]) -> (Vec<String>, usize) {
    let mut newest: BTreeMap<&str, &Judged> = BTreeMap::new();
    let stay = || captures.iter().filter(|c| c.action == Action::Keep && c.state != State::Unreadable);
    for capture in stay().filter(|c| c.state == State::Good) {
        // They come in order.
        newest.insert(capture.machine.as_str(), capture);
    }
    let first: Vec<String> = newest.values().map(|capture| capture.object.clone()).collect();
    let count = first.len();
    let rest = stay().map(|capture| capture.object.clone()).filter(|object| !first.contains(object));
    let rest: Vec<_> = rest.collect();
    (first.into_iter().chain(rest).collect(), count)
}

fn packs(repository: &Repository) -> Result<HashMap<PackId, u32>> {
    let mut packs = HashMap::new();
    repository.store().list(names::PACKS, &mut |entry| {
        if let Some(id) = names::pack_of(entry.name.as_str()) {
            packs.insert(id, u32::try_from(entry.len.get()).unwrap_or(u32::MAX));
        }
        Ok(())
    })?;
    Ok(packs)
}

fn listed(repository: &Repository, folder: &str) -> Result<HashSet<PackId>> {
    let mut found = HashSet::new();
    repository.store().list(folder, &mut |entry| {
        let name = entry.name.as_str();
        found.extend(names::moved_part(name).map(|(id, _)| id).or_else(|| names::pack_of(name)));
        Ok(())
    })?;
    Ok(found)
}

fn marked(repository: &Repository) -> Result<HashSet<PackId>> {
    listed(repository, names::DAMAGED)
}

/// How many parts there are of what is said of each moved pack.
fn parts(repository: &Repository) -> Result<HashMap<PackId, u32>> {
    let mut found: HashMap<PackId, u32> = HashMap::new();
    repository.store().list(names::MOVED, &mut |entry| {
        if let Some((id, part)) = names::moved_part(entry.name.as_str()) {
            let parts = found.entry(id).or_default();
            *parts = part.saturating_add(1).max(*parts);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Every sparse index and the packs it speaks of; a damaged one speaks of none.
fn indexes(repository: &Repository) -> Result<Vec<(String, HashSet<PackId>)>> {
    let mut found = Vec::new();
    repository.store().list(names::INDEX, &mut |entry| {
        found.push(entry.name);
        Ok(())
    })?;
    let mut codec = repository.codec(Compression::Fast)?;
    let mut indexes = Vec::new();
    for name in found {
        let read = repository.store().get(&name).and_then(|bytes| index::decode(&bytes, &mut codec));
        match read {
            Ok(hooks) => {
                indexes.push((name.to_string(), hooks.into_iter().map(|(_, pack)| pack.id).collect()))
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                indexes.push((name.to_string(), HashSet::new()))
            }
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(indexes)
}

/// The captures that are held, and those that a prune was removing.
fn holds(repository: &Repository) -> Result<(HashSet<CaptureId>, HashSet<CaptureId>)> {
    let mut found = Vec::new();
    repository.store().list(names::HOLDS, &mut |entry| {
        found.extend(names::capture_of(names::HOLDS, entry.name.as_str()));
        Ok(())
    })?;
    let (mut held, mut leaving) = (HashSet::new(), HashSet::new());
    for id in found {
        match repository.store().get(&object(names::hold(id))?) {
            Ok(document) if document == REMOVAL => leaving.insert(id),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) if !is_damage(&error) => return Err(error),
            _ => held.insert(id),
        };
    }
    Ok((held, leaving))
}

/// Every capture, judged; and what is left at the names of holds of captures that are gone.
fn judged(
    repository: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<(Vec<Judged>, Vec<String>)> {
    let (holds, leaving) = holds(repository)?;
    let mut found: Vec<(String, Option<SystemTime>)> = Vec::new();
    repository.store().list(names::CAPTURES, &mut |entry| {
        if names::manifest_parts(entry.name.as_str()).is_some() {
            found.push((entry.name.to_string(), entry.received));
        }
        Ok(())
    })?;
    found.sort();
    let there: HashSet<CaptureId> =
        found.iter().filter_map(|(name, _)| names::manifest_parts(name)).map(|(_, _, id)| id).collect();
    let stale_holds = leaving.difference(&there).map(|id| names::hold(*id)).collect();
    let mut machines: BTreeMap<String, Vec<Judged>> = BTreeMap::new();
    for (name, received) in found {
        check_cancelled(monitor)?;
        if let Some(capture) = capture(repository, name, received, &holds)? {
            machines.entry(capture.machine.clone()).or_default().push(capture);
        }
    }
    for named in &options.remove {
        if !machines.values().flatten().any(|capture| capture.capture == *named) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no capture id:{named}")));
        }
    }
    for (machine, captures) in &mut machines {
        let chosen = options.machine.as_ref().is_none_or(|chosen| chosen == machine);
        let rules = if chosen { options.rules.clone() } else { retention::Rules::default() };
        retention::judge(captures, &rules, options.times, &options.remove, options.force)?;
    }
    Ok((machines.into_values().flatten().collect(), stale_holds))
}

/// What there is to know of one capture; `None` when there is none under that name.
fn capture(
    repository: &Repository,
    object: String,
    received: Option<SystemTime>,
    holds: &HashSet<CaptureId>,
) -> Result<Option<Judged>> {
    let Some((machine, time, id)) = names::manifest_parts(&object) else { return Ok(None) };
    let (state, header, reasons) = match manifest(repository, &object) {
        Ok(manifest) if manifest.consistency == Consistency::Inconsistent => {
            (State::Inconsistent, Some(manifest.header), Vec::new())
        }
        Ok(manifest) => (State::Good, Some(manifest.header), Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if is_damage(&error) => {
            (State::Unreadable, header(repository, &object), vec![crate::verify::chain(&error)])
        }
        Err(error) => return Err(error),
    };
    let claimed = header.as_ref().map(|header| header.time.clone());
    let claimed = match claimed {
        Some(time) => time,
        None => clock::parse(time).map_or_else(|_| time.to_owned(), clock::rfc3339),
    };
    let received = received.and_then(|time| jiff::Timestamp::try_from(time).ok()).map(clock::rfc3339);
    Ok(Some(Judged {
        capture: id,
        machine: machine.to_owned(),
        time: claimed,
        received,
        sequence: header.map_or(0, |header| header.sequence),
        state,
        held: holds.contains(&id),
        action: Action::Keep,
        reasons,
        object,
    }))
}

fn header(repository: &Repository, name: &str) -> Option<Header> {
    let bytes = object(name).and_then(|name| repository.store().get(&name)).ok()?;
    Header::decode(&bytes).ok()
}
