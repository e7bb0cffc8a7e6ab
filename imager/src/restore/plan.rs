//! The whole plan of a restore, computed and shown before the first write.
//!
//! A plan names what is written where on which disk, and what is not touched. Its hash covers the capture, the targets
//! by what stays the same about them and the segments; not kernel names, nor what already matches: so it can be known
//! beforehand and confirmed by a script.

mod preflight;
mod refuse;
mod sets;
mod skeletons;
mod stacked;

use super::target::Target;
use crate::repository::Repository;
use crate::survey::{self, NO_FSTAB, volume_key};
use base64::Engine;
use imager_disk::table::{RawArea, Table, TableKind};
use imager_image::CaptureId;
use imager_image::manifest::{Disk, Manifest, Map, Mode, Role, Run, Stack, Volume};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use imager_volume::State;
use preflight::preflight;
use refuse::{
    check_boot_code, check_distinct, check_entries, check_erasable, check_volumes, denied, lost_table,
    too_small,
};
use std::path::PathBuf;

/// What is to be done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Volumes go back into the partitions they came from.
    InPlace,
    /// The lost partition table alone.
    Tables,
    /// The disk is made anew.
    BareMetal,
}

/// What a person asked for.
pub struct Request {
    /// The captured disk's number and where it goes.
    pub targets: Vec<(u32, PathBuf)>,
    /// What is to be done.
    pub scope: Scope,
    /// Keys of volumes; empty for what the scope does by default.
    pub volumes: Vec<String>,
    /// Serial numbers (or WWNs) of disks whose contents may be erased.
    pub erase: Vec<String>,
    /// Whether the contents of regular files may be erased.
    pub erase_files: bool,
    /// Volumes whose place a skeleton may take although there is a filesystem.
    pub erase_volumes: Vec<String>,
    /// Where the repository lies, if on a path of this machine.
    pub repository: Option<PathBuf>,
}

/// A volume to be written.
pub struct VolumePlan {
    /// The volume as captured.
    pub volume: Volume,
    /// Its map.
    pub map: Map,
    /// Where on the target it, or its first piece, lies.
    pub extent: Extent,
    /// Bytes with content.
    pub content: ByteLen,
}

impl VolumePlan {
    /// Everywhere it is recognisable: its first mebibyte and every copy of a superblock. Of a physical volume only its
    /// own structures: others may begin within the first mebibyte.
    pub fn head(&self) -> ExtentSet {
        let bounds = Extent::first(ByteLen::new(self.map.size_bytes));
        let own = !matches!(self.volume.stack, Some(Stack::Physical { .. }));
        let front = Extent::first(if own { ByteLen::new(1 << 20) } else { ByteLen::ZERO });
        let mut head = ExtentSet::from(front.intersection(bounds));
        head.extend(self.volume.head.iter().map(|run| run.extent().intersection(bounds)));
        head
    }
}

/// A swap volume that holds a hibernated system which must not wake up on a restored disk.
pub struct SwapReset {
    /// Its key on the target.
    pub key: String,
    /// Where it lies.
    pub extent: Extent,
    /// Its first page without the hibernation.
    pub page: Vec<u8>,
}

/// What happens to the boot code outside volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootCode {
    /// Nothing: it was not asked for.
    Leave,
    /// It is written where it differs.
    Write,
    /// It is the captured one and stays: beside partitions in use the disk itself cannot be written.
    Keep,
}

/// What happens to one disk.
pub struct DiskPlan {
    /// The disk as captured.
    pub disk: Disk,
    /// The disk to be written.
    pub target: Target,
    /// What is done with it.
    pub scope: Scope,
    /// Volumes in the order in which they are written.
    pub volumes: Vec<VolumePlan>,
    /// The table to be written, fitted to the target.
    pub table: Option<Table>,
    /// What happens to boot code outside volumes.
    pub boot_code: BootCode,
    /// Hibernated swap volumes.
    pub swap_resets: Vec<SwapReset>,
    /// What of a disk that keeps its table is opened to be written through: partitions, those under logical volumes too.
    pub parts: Vec<Extent>,
    /// Volumes of the target that are left alone: key and place; one in pieces comes once a piece.
    pub untouched: Vec<(String, Extent)>,
    /// The length a file is extended to.
    pub extend_to: Option<ByteLen>,
}

/// The plan.
pub struct Plan {
    /// What is restored.
    pub capture: CaptureId,
    /// The disks.
    pub disks: Vec<DiskPlan>,
    /// What a person should know before he agrees.
    pub warnings: Vec<String>,
}

/// Computes the plan; reads every map that it needs, so that damage there is found before the first write.
///
/// # Errors
/// `Denied` for every reason not to write; `Corrupt` when a map, table or pack is damaged or missing; `Invalid` when the
/// request makes no sense.
pub fn plan(repository: &Repository, manifest: &Manifest, request: &Request) -> Result<Plan> {
    let mut plan = Plan { capture: manifest.header.id, disks: Vec::new(), warnings: Vec::new() };
    check_distinct(request)?;
    for (number, path) in &request.targets {
        let disk = manifest.disks.iter().find(|disk| disk.number == *number).ok_or_else(|| {
            let numbers: Vec<_> = manifest.disks.iter().map(|disk| disk.number.to_string()).collect();
            Error::new(
                ErrorKind::Invalid,
                format!("the capture has no disk {number}, only {}", numbers.join(", ")),
            )
        })?;
        let target = Target::open(path, SectorSize::new(disk.logical_sector_bytes)?)?;
        target.check_apart(request.repository.as_deref())?;
        // Only a disk that keeps its table can go on being used beside what is written.
        if request.scope != Scope::InPlace || disk.table.kind == "none" {
            target.check_free()?;
        }
        let chosen = choose(manifest, *number, request)?;
        let mut planned = match request.scope {
            Scope::InPlace => in_place(disk, target, chosen, request, &mut plan.warnings)?,
            Scope::Tables => tables(disk, target)?,
            Scope::BareMetal => bare_metal(disk, target, chosen, request, &mut plan.warnings)?,
        };
        for volume in &mut planned.volumes {
            volume.content = preflight(repository, &volume.map)
                .context(|| format!("volume {} cannot be restored", volume.volume.key))?;
        }
        if planned.boot_code != BootCode::Leave {
            preflight(repository, &disk.remainder).context(|| format!("disk {number} cannot be restored"))?;
        }
        if planned.boot_code == BootCode::Write && !planned.target.uses.partitions.is_empty() {
            check_boot_code(repository, &planned)?;
            planned.boot_code = BootCode::Keep;
        }
        plan.disks.push(planned);
    }
    stacked::settle(&mut plan, manifest)?;
    for key in &request.volumes {
        let found = |disk: &DiskPlan| disk.volumes.iter().any(|planned| is_called(&planned.volume, key));
        if !plan.disks.iter().any(found) {
            let what =
                format!("volume {key:?} is not in the capture of the disks named by --to, or has no content");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
    }
    skeletons::check(repository, manifest, &plan, request)?;
    sets::check(repository, manifest, &mut plan)?;
    if request.scope == Scope::InPlace && request.volumes.is_empty() {
        let unread = manifest.warnings.iter().filter(|warning| warning.starts_with(NO_FSTAB));
        plan.warnings.extend(unread.map(|warning| format!("when it was captured, {warning}")));
    }
    Ok(plan)
}

/// Whether a person who says `key` means this volume.
pub fn is_called(volume: &Volume, key: &str) -> bool {
    let part = volume.partition.as_ref().and_then(|p| p.unique_id.as_deref());
    volume.key == key
        || [volume.uuid.as_deref(), part].into_iter().flatten().any(|id| id.eq_ignore_ascii_case(key))
        || volume.label.as_deref() == Some(key)
}

/// The volumes of a disk that are to be written.
fn choose(manifest: &Manifest, disk: u32, request: &Request) -> Result<Vec<Volume>> {
    for key in &request.volumes {
        let by_key = manifest.volumes.iter().filter(|volume| volume.key == *key).count();
        let by_name = manifest.volumes.iter().filter(|volume| is_called(volume, key)).count();
        if by_key == 0 && by_name > 1 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{key:?} fits {by_name} volumes: use the key"),
            ));
        }
    }
    let wanted = |volume: &&Volume| {
        let by_default = match request.scope {
            Scope::InPlace => {
                matches!(volume.role, Role::Boot | Role::Os)
                    && !stacked::is_frame(volume)
                    && volume.mode != Mode::Skeleton
            }
            Scope::BareMetal => true,
            Scope::Tables => false,
        };
        volume.disk == disk
            && volume.map.is_some()
            && if request.volumes.is_empty() {
                by_default
            } else {
                request.volumes.iter().any(|key| is_called(volume, key))
            }
    };
    Ok(manifest.volumes.iter().filter(wanted).cloned().collect())
}

fn volume_plan(disk: &Disk, volume: Volume) -> Result<VolumePlan> {
    let segment = match (volume.segments.as_slice(), &volume.stack) {
        // Where the others lie is looked at together with the group.
        ([segment], _) | ([segment, ..], Some(Stack::Logical { .. })) => segment,
        _ => {
            return Err(Error::corrupt(format!(
                "volume {} lies in pieces that nothing explains",
                volume.key
            )));
        }
    };
    let extent = Extent::new(ByteOffset::new(segment.start_byte), ByteLen::new(segment.len_bytes))
        .filter(|extent| segment.disk == disk.number && extent.end().get() <= disk.size_bytes)
        .ok_or_else(|| Error::corrupt(format!("volume {} lies outside its disk", volume.key)))?;
    let is_inside = |run: &Run| run.0.checked_add(run.1).is_some_and(|end| end <= volume.size_bytes);
    if !volume.head.iter().all(is_inside) {
        return Err(Error::corrupt(format!("the head of volume {} lies outside it", volume.key)));
    }
    match volume.map.clone() {
        Some(map) if map.size_bytes == volume.size_bytes => {
            Ok(VolumePlan { volume, map, extent, content: ByteLen::ZERO })
        }
        _ => Err(Error::corrupt(format!("volume {} and its map differ in size", volume.key))),
    }
}

fn captured_table(disk: &Disk) -> Result<Table> {
    let mut areas = Vec::new();
    for raw in &disk.table.raw {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&raw.base64)
            .map_err(|e| Error::with_source(ErrorKind::Corrupt, "the captured table's sectors", e))?;
        areas.push(RawArea { start: ByteOffset::new(raw.start_byte), bytes });
    }
    Table::rebuild(&areas, SectorSize::new(disk.logical_sector_bytes)?, ByteLen::new(disk.size_bytes))
        .context(|| format!("the captured table of disk {}", disk.number))
}

fn in_place(
    disk: &Disk,
    target: Target,
    chosen: Vec<Volume>,
    request: &Request,
    warnings: &mut Vec<String>,
) -> Result<DiskPlan> {
    let is_divided = disk.table.kind != "none";
    let mut volumes = Vec::new();
    for volume in chosen {
        volumes.push(volume_plan(disk, volume)?);
    }
    // What logical volumes lie in is asked for when that is known.
    let own = volumes.iter().filter(|planned| !stacked::is_logical(&planned.volume));
    target.check_free_at(&own.map(|planned| planned.extent).collect::<Vec<_>>())?;
    let end = volumes.iter().map(|v| v.extent.end()).max().unwrap_or_default();
    let size = ByteLen::new(disk.size_bytes);
    let extend_to = (!target.is_block && target.geometry.size < size).then_some(size);
    if extend_to.is_none() && end.get() > target.geometry.size.get() {
        return Err(denied(
            &target,
            format!("is smaller than the volumes need ({})", ByteLen::new(end.get())),
        ));
    }
    let seen = match target.survey(disk.number) {
        Ok(seen) => seen,
        Err(error) if error.kind() == ErrorKind::Corrupt && !is_divided => {
            // What is there is no sound table; a bare filesystem overwrites it.
            warnings.push(format!("{}: {error}", target.path.display()));
            survey::survey(Vec::new(), &survey::Assigned::new())?
        }
        // An empty file holds nothing and is extended.
        Err(_) if target.geometry.size.is_zero() && !is_divided => {
            survey::survey(Vec::new(), &survey::Assigned::new())?
        }
        Err(error) if target.geometry.size.is_zero() => {
            return Err(Error::with_source(ErrorKind::Denied, lost_table(&target), error));
        }
        Err(error) => return Err(error.within(lost_table(&target))),
    };
    let there = seen.disks.first().map(|disk| disk.table.kind);
    if !is_divided && there.is_some_and(|kind| kind != TableKind::None) {
        let what = "has a partition table, the captured disk had none: is it the right disk? (--bare-metal makes it anew)";
        return Err(denied(&target, what.to_owned()));
    }
    if is_divided {
        check_entries(&seen, &volumes, &target)?;
    }
    let restores_os = volumes.iter().any(|planned| planned.volume.role == Role::Os);
    let planned = |extent: Extent| volumes.iter().any(|v| v.extent.overlaps(extent));
    let mut swap_resets = Vec::new();
    let mut untouched = Vec::new();
    for volume in seen.volumes.iter().filter(|volume| is_divided && !planned(volume.extent)) {
        match restores_os.then(|| swap_reset(volume)).transpose()?.flatten() {
            Some(reset) => swap_resets.push(reset),
            None => untouched.push((volume.key.clone(), volume.extent)),
        }
    }
    target.check_free_at(&swap_resets.iter().map(|reset| reset.extent).collect::<Vec<_>>())?;
    let asked = is_divided && request.volumes.is_empty();
    let boot_code = if asked { BootCode::Write } else { BootCode::Leave };
    let written = volumes.iter().filter(|planned| !stacked::is_logical(&planned.volume));
    let parts = written.map(|planned| planned.extent).chain(swap_resets.iter().map(|reset| reset.extent));
    Ok(DiskPlan {
        disk: disk.clone(),
        scope: Scope::InPlace,
        parts: parts.collect(),
        target,
        volumes,
        table: None,
        boot_code,
        swap_resets,
        untouched,
        extend_to,
    })
}

fn swap_reset(volume: &survey::Volume) -> Result<Option<SwapReset>> {
    let Some(filesystem) = volume.filesystem.as_ref().filter(|f| f.state == State::Hibernated) else {
        return Ok(None);
    };
    let mut page = vec![0; filesystem.block.to_usize().unwrap_or(4096)];
    volume.bytes.read_exact_at(ByteOffset::ZERO, &mut page)?;
    imager_volume::swap::reset(&mut page)?;
    Ok(Some(SwapReset { key: volume.key.clone(), extent: volume.extent, page }))
}

fn tables(disk: &Disk, target: Target) -> Result<DiskPlan> {
    if disk.table.kind == "none" {
        return Err(Error::new(ErrorKind::Invalid, "the captured disk had no partition table"));
    }
    let size =
        target.geometry.size.max(if target.is_block { ByteLen::ZERO } else { ByteLen::new(disk.size_bytes) });
    let table = captured_table(disk)?.moved_to(size).map_err(|e| too_small(&target, e))?;
    let there = imager_disk::table::read(&*target.reader).ok().filter(|there| there.kind != TableKind::None);
    if there.is_some_and(|there| there.entries != table.entries) {
        let what = "has a partition table that differs from the captured one: it is not lost. Is it the right disk? \
                    (--bare-metal makes it anew)";
        return Err(denied(&target, what.to_owned()));
    }
    let untouched = table.volumes().map(|entry| (volume_key(disk.number, entry.number), entry.extent));
    let untouched =
        untouched.filter(|(_, extent)| extent.end().get() <= target.geometry.size.get()).collect();
    let extend_to = (size > target.geometry.size).then_some(size);
    let (disk, scope, table) = (disk.clone(), Scope::Tables, Some(table));
    let (volumes, swap_resets) = (Vec::new(), Vec::new());
    Ok(DiskPlan {
        disk,
        target,
        scope,
        volumes,
        table,
        boot_code: BootCode::Leave,
        swap_resets,
        parts: Vec::new(),
        untouched,
        extend_to,
    })
}

fn bare_metal(
    disk: &Disk,
    target: Target,
    chosen: Vec<Volume>,
    request: &Request,
    warnings: &mut Vec<String>,
) -> Result<DiskPlan> {
    let size = ByteLen::new(disk.size_bytes);
    let extend_to = (!target.is_block && target.geometry.size < size).then_some(size);
    let final_size = extend_to.unwrap_or(target.geometry.size);
    let mut volumes = Vec::new();
    for volume in chosen {
        volumes.push(volume_plan(disk, volume)?);
    }
    let end = volumes.iter().map(|v| v.extent.end()).max().unwrap_or_default();
    if end.get() > final_size.get() {
        return Err(denied(
            &target,
            format!("is smaller than its volumes need ({})", ByteLen::new(end.get())),
        ));
    }
    let table = match disk.table.kind.as_str() {
        "none" => None,
        _ => Some(captured_table(disk)?.moved_to(final_size).map_err(|e| too_small(&target, e))?),
    };
    check_volumes(disk, table.as_ref(), &volumes)?;
    check_erasable(&target, request)?;
    if target.is_block && final_size > size {
        warnings
            .push(format!("{} is larger than the captured disk: the rest stays free", target.path.display()));
    }
    let (disk, scope) = (disk.clone(), Scope::BareMetal);
    let (swap_resets, untouched) = (Vec::new(), Vec::new());
    Ok(DiskPlan {
        disk,
        target,
        scope,
        volumes,
        table,
        boot_code: BootCode::Write,
        swap_resets,
        parts: Vec::new(),
        untouched,
        extend_to,
    })
}

impl Plan {
    /// What a script may confirm beforehand: 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.capture.0);
        for disk in &self.disks {
            let scope = match disk.scope {
                Scope::InPlace => "in place",
                Scope::Tables => "tables",
                Scope::BareMetal => "bare metal",
            };
            let mut line = format!("\n{} {scope} {}", disk.disk.number, disk.target.constant_name());
            for volume in &disk.volumes {
                line.push_str(&format!("\n{} {}", volume.volume.key, volume.extent));
                for piece in volume.volume.segments.iter().skip(1) {
                    line.push_str(&format!(" {}:{}+{}", piece.disk, piece.start_byte, piece.len_bytes));
                }
            }
            hasher.update(line.as_bytes());
        }
        hasher.finalize().to_hex().chars().take(16).collect()
    }

    /// Bytes with content that are compared or written.
    pub fn content(&self) -> ByteLen {
        self.disks.iter().flat_map(|disk| &disk.volumes).map(|volume| volume.content).sum()
    }

    /// Whether a block device is written.
    pub fn writes_devices(&self) -> bool {
        self.disks.iter().any(|disk| disk.target.is_block)
    }
}

/// How a mode reads in a plan.
pub fn describe_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Used => "used blocks",
        Mode::Raw => "every block",
        Mode::Skeleton => "structure without data",
        Mode::Signature => "header only",
        Mode::None => "nothing",
    }
}
