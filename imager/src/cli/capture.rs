//! `imager capture`.

use super::args::{Capture, CompressionArg, DataArg, Global};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::progress::Shown;
use super::running::Machine;
use super::{Status, session};
use imager::capture::hot::{self, Limits, Live};
use imager::capture::{self, DataMode, Options, number_disks};
use imager::captures;
use imager::firmware::{Facts, Firmware};
use imager::monitor::Monitor;
use imager::repository::Repository;
use imager::schedule::Settings;
use imager::survey::{self, Assigned, Survey, Volume};
use imager_disk::table::TableKind;
use imager_disk::usage::{DiskUses, What};
use imager_disk::{Access, Device, System};
use imager_image::Compression;
use imager_image::manifest::{Consistency, Manifest, Mode, Role, Running};
use imager_journal::{Arena, Disk, HOOKS_FOLDER, Hooks, Journal};
use imager_units::{ByteLen, Error, ErrorKind, Extent, SectorSize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How much memory there is for what is copied last.
const ARENA: ByteLen = ByteLen::new(96 << 20);

pub(crate) fn run(global: &Global, options: &Capture) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let paths: Vec<_> = options.disks.iter().map(|name| session::disk(name)).collect::<Result<_, _>>()?;
    check_distinct(&paths)?;
    let is_block = paths.iter().map(|path| is_block(path)).collect::<Result<Vec<_>, _>>()?.contains(&true);
    let machine = match &options.machine {
        Some(machine) => machine.clone(),
        None => default_machine(&paths, is_block)?,
    };
    imager_image::names::check_machine(&machine)?;
    let used = used(&paths)?;
    let mut in_use = users(&used);
    let repository = session::repository(global)?;
    let sector = session::sector(options.sector_bytes)?;
    let earlier = newest(&repository, &machine)?;
    let assigned = options.role.iter().cloned().collect();
    let look = |is_running| {
        survey::survey(number_disks(open_all(&paths, sector, is_running)?, earlier.as_ref()), &assigned)
    };
    if !in_use.is_empty() && !options.allow_inconsistent {
        write_back(&used);
        in_use = matter(used, &look(true)?, options.data);
    }
    let is_running = !in_use.is_empty() && !options.allow_inconsistent;
    let journal = if is_running { Some(journal(&paths, &in_use)?) } else { None };
    let mut survey = look(is_running)?;
    if are_of_this_machine(&paths)? {
        survey.firmware = Facts::of(&Firmware::new());
    }
    let consistency = if in_use.is_empty() { Consistency::Offline } else { Consistency::Inconsistent };
    let how = Options {
        machine,
        kind: options.kind.map(Into::into),
        data: match options.data {
            DataArg::Skeleton => DataMode::Skeleton,
            DataArg::Used => DataMode::Used,
            DataArg::None => DataMode::None,
        },
        keep: options.keep.clone(),
        compression: match options.compression {
            CompressionArg::Fast => Compression::Fast,
            CompressionArg::Small => Compression::Small,
        },
        consistency,
        hardware_uuid: is_block.then(hardware_uuid).flatten(),
        rebind: options.rebind,
        schedule: options.schedule.as_deref().map(Settings::read).transpose()?.map(|it| it.recorded()),
    };
    let captured = match journal {
        None => capture::run(&repository, &survey, &how, &monitor),
        Some(mut journal) => run_hot(&repository, &survey, &how, &mut journal, &paths, &assigned, &monitor),
    };
    let manifest = captured.map_err(|error| match error.kind() {
        ErrorKind::Exists => Failure::new(5, error, "run it again; nothing was published"),
        _ => error.into(),
    })?;
    drop(monitor);
    if global.json {
        print_json(&to_json(&manifest));
    } else {
        print(&to_text(&manifest));
    }
    let is_whole = manifest.problems.is_empty() && manifest.consistency != Consistency::Inconsistent;
    Ok(if is_whole { Status::Done } else { Status::Missing })
}

fn open_all(
    paths: &[PathBuf],
    sector: Option<SectorSize>,
    is_running: bool,
) -> Result<Vec<survey::Source>, Error> {
    let open = if is_running { survey::open_running } else { survey::open };
    paths.iter().map(|path| open(path, sector)).collect()
}

/// The journal of disks that are in use, without which they are not captured.
fn journal(paths: &[PathBuf], in_use: &[String]) -> Result<Journal, Failure> {
    let disks: Result<Vec<_>, _> = paths.iter().map(|path| Disk::at_node(path)).collect();
    match disks.and_then(|disks| Journal::open(&disks)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
            Err(refused(in_use))
        }
        opened => Ok(opened?),
    }
}

/// Captures what is in use.
fn run_hot(
    repository: &Repository,
    survey: &Survey,
    how: &Options,
    journal: &mut Journal,
    paths: &[PathBuf],
    assigned: &Assigned,
    monitor: &dyn Monitor,
) -> Result<Manifest, Error> {
    let number = |path: &PathBuf| {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        survey.disks.iter().find(|disk| disk.identity.path == path).map_or(0, |disk| disk.number)
    };
    let hooks = Hooks::open(Path::new(HOOKS_FOLDER))?;
    let mut machine = Machine::new(survey, &how.machine, &hooks)?;
    let live = Live {
        log: journal,
        disks: paths.iter().map(number).collect(),
        machine: &mut machine,
        arena: &mut Arena::new(ARENA)?,
        limits: Limits::default(),
        assigned,
    };
    hot::run(repository, survey, how, live, monitor)
}

fn is_block(path: &Path) -> Result<bool, Error> {
    Ok(Device::open(path, Access::Read, None)?.is_block())
}

/// Whether these are disks of this machine, and none a file (or a loop device) that stands for another's.
fn are_of_this_machine(paths: &[PathBuf]) -> Result<bool, Error> {
    let system = System::new();
    let is_one = |path: &PathBuf| system.is_hardware(&Device::open(path, Access::Read, None)?);
    Ok(!paths.iter().map(is_one).collect::<Result<Vec<_>, _>>()?.contains(&false))
}

/// A disk that is named twice, perhaps by two names, would be two disks in the image.
fn check_distinct(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = std::collections::HashSet::new();
    match paths.iter().find(|path| !seen.insert(path.canonicalize().unwrap_or_else(|_| (*path).clone()))) {
        Some(twice) => Err(Failure::usage(format!("{} is named twice", twice.display()))),
        None => Ok(()),
    }
}

/// Who uses the disks, each by its path.
fn used(paths: &[PathBuf]) -> Result<Vec<(PathBuf, DiskUses)>, Error> {
    let system = System::new();
    let of = |path: &PathBuf| {
        let uses = system.uses_by_partition(&Device::open(path, Access::Read, None)?)?;
        Ok((path.canonicalize().unwrap_or_else(|_| path.clone()), uses))
    };
    paths.iter().map(of).collect()
}

/// Has mounted filesystems write what they hold, so that their files can be looked at on the disks.
fn write_back(used: &[(PathBuf, DiskUses)]) {
    for used in used.iter().flat_map(|(_, uses)| uses.iter()) {
        if let What::Mounted { at, read_only: false } = &used.what
            && let Ok(folder) = std::fs::File::open(at)
            && let Err(error) = nix::unistd::syncfs(folder)
        {
            tracing::info!("{} is not written back: {error}", at.display());
        }
    }
}

/// Who may write to the disks while they are read.
fn users(used: &[(PathBuf, DiskUses)]) -> Vec<String> {
    let uses = used.iter().flat_map(|(_, uses)| uses.iter());
    uses.filter(|used| used.writes()).map(ToString::to_string).collect()
}

/// The same of those disks of which the bytes are read: nobody has to keep from writing to a volume of which only the
/// skeleton is taken, or nothing.
fn matter(mut used: Vec<(PathBuf, DiskUses)>, survey: &Survey, data: DataArg) -> Vec<String> {
    let is_left_out = |volume: &Volume| match volume.role {
        Role::Ignore => true,
        Role::Data => !matches!(data, DataArg::Used),
        _ => false,
    };
    for (path, uses) in &mut used {
        let Some(disk) = survey.disks.iter().find(|disk| disk.identity.path == *path) else { continue };
        let is_out = |extent: Extent| {
            let mut own = survey.volumes.iter().filter(|volume| volume.disk == disk.number);
            own.any(|volume| volume.extent == extent && is_left_out(volume))
        };
        uses.partitions.retain(|(partition, _)| !is_out(partition.extent));
        if disk.table.kind == TableKind::None && is_out(disk.geometry.extent()) {
            uses.whole.clear();
        }
    }
    users(&used)
}

fn refused(users: &[String]) -> Failure {
    let what = Error::new(ErrorKind::Denied, users.join("; "));
    let advice = "have its changes recorded (imager journal start), and it is captured while it runs; or unmount it, \
                  capture it from the rescue medium, or take an image that is never @latest with --allow-inconsistent";
    Failure::new(4, what.within("the disk is in use"), advice)
}

/// This host's name, or for image files the first file's.
pub(super) fn default_machine(paths: &[PathBuf], is_block: bool) -> Result<String, Failure> {
    let name = if is_block {
        nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok())
    } else {
        paths.first().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned())
    };
    let name = name.unwrap_or_default().to_lowercase();
    let host = name.split('.').next().unwrap_or_default();
    let sound: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let sound = sound.trim_matches('-');
    if sound.is_empty() {
        Err(Failure::usage("whose capture is it? Say --machine NAME"))
    } else {
        Ok(sound.to_owned())
    }
}

fn hardware_uuid() -> Option<String> {
    let text = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
    Some(text.trim().to_lowercase()).filter(|uuid| !uuid.is_empty())
}

/// The machine's newest readable capture, by which its disks keep their numbers.
fn newest(repository: &Repository, machine: &str) -> Result<Option<Manifest>, Error> {
    let history = captures::history(repository, machine, &|_| true)?;
    captures::newest_readable(repository, &history, |_| true)
}

/// The capture as other tools rely on it.
pub(super) fn to_json(manifest: &Manifest) -> Value {
    let mut object = json!({
        "capture": manifest.header.id,
        "machine": manifest.header.machine,
        "time": manifest.header.time,
        "kind": manifest.header.kind,
        "sequence": manifest.header.sequence,
        "parent": manifest.parent,
        "consistency": manifest.consistency,
        "elapsed_seconds": manifest.elapsed_seconds,
        "warnings": manifest.warnings,
        "problems": manifest.problems,
        "not_captured": manifest.not_captured,
    });
    let volumes = manifest.volumes.iter().map(|volume| {
        let mut object = serde_json::to_value(volume).unwrap_or_default();
        if let Some(object) = object.as_object_mut() {
            object.remove("map");
        }
        object
    });

    let disks = manifest.disks.iter().map(|disk| {
        json!({
            "disk": disk.number, "path": disk.path, "size_bytes": disk.size_bytes, "serial": disk.serial,
            "wwn": disk.wwn, "model": disk.model, "logical_sector_bytes": disk.logical_sector_bytes,
            "table": { "kind": disk.table.kind, "id": disk.table.id },
            "remainder": disk.remainder_cost,
        })
    });
    object["running"] = json!(manifest.running);
    object["disks"] = disks.collect();
    object["volumes"] = volumes.collect();
    object
}

/// The capture in words.
pub(super) fn to_text(manifest: &Manifest) -> String {
    let header = &manifest.header;
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "capture id:{} of {}, {}, {}, {}, in {:.1} s\n",
        header.id,
        header.machine,
        header.time,
        word(json!(header.kind)),
        word(json!(manifest.consistency)),
        manifest.elapsed_seconds
    );
    let mut columns = Columns::new(
        &["KEY", "ROLE", "NAME", "CONTENT", "BY", "USED", "READ", "NEW", "STORED"],
        &[5, 6, 7, 8],
    );
    let size = |bytes: u64| ByteLen::new(bytes).to_string();
    for volume in &manifest.volumes {
        let cost = &volume.cost;
        columns.row(vec![
            volume.key.clone(),
            word(json!(volume.role)),
            volume.name.clone(),
            imager::restore::plan::describe_mode(volume.mode).to_owned(),
            if volume.mode == Mode::None { "-".to_owned() } else { word(json!(volume.truth)) },
            if volume.mode == Mode::None { "-".to_owned() } else { size(cost.used_bytes) },
            size(cost.read_bytes),
            size(cost.new_bytes),
            size(cost.stored_bytes),
        ]);
    }
    out.push_str(&columns.render("  "));
    if let Some(running) = &manifest.running {
        out.push_str(&held_still(running));
    }
    for warning in &manifest.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    for problem in &manifest.problems {
        out.push_str(&format!("PROBLEM: volume {}: {}\n", problem.volume, problem.message));
        for extent in &problem.extents {
            out.push_str(&format!("  {}\n", extent.extent()));
        }
    }
    for missing in &manifest.not_captured {
        out.push_str(&format!("not in the image: {missing}\n"));
    }
    out
}

/// How a running machine was held still.
fn held_still(running: &Running) -> String {
    let times = running
        .freezes
        .iter()
        .map(|freeze| format!("{:.0}+{:.0}+{:.0}", freeze.freezing_ms, freeze.held_ms, freeze.thawing_ms));
    let times: Vec<_> = times.collect();
    let mut out = format!(
        "  {} passes, then frozen (freezing, held, thawing, in ms): {}\n",
        running.passes.len(),
        times.join(", ")
    );
    if running.never_written_bytes > 0 {
        let bytes = ByteLen::new(running.never_written_bytes);
        out.push_str(&format!("  {bytes} allocated and never written are zeros in the image\n"));
    }
    out
}
