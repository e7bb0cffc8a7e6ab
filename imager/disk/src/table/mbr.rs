//! Sector 0: an MBR, a protective MBR, or the boot sector of a filesystem that only looks like one.
//!
//! `55 aa` at its end says little. What is a table follows Linux (`block/partitions/msdos.c`) and libblkid: a status
//! byte other than 00 or 80 means code or text; a known filesystem without one plausible entry is a filesystem (this
//! covers the made-up entry that mkfs.fat writes, which starts at sector 0); with plausible entries the table wins,
//! because boot loaders keep the parameter block of a FAT that used to be there.

use super::ebr;
use super::field::{bytes, le32};
use super::filesystem;
use super::sectors::Sectors;
use super::slot::{Slot, has_boot_signature};
use super::{Entry, EntryKind, RawArea, Table, TableKind, layout};
use imager_units::{Error, Extent, ExtentSet, Result};

const DISK_SIGNATURE: usize = 440;
/// AIX marks its disks so; Linux leaves them alone.
const AIX_SIGNATURE: [u8; 4] = [0xc9, 0xc2, 0xd4, 0xc1];

/// A sector 0 with the boot signature.
pub(super) struct Mbr {
    slots: [Slot; 4],
    signature: u32,
}

/// What sector 0 says about a GPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protective {
    /// An entry of type ee that starts at sector 1, which is what Linux asks for.
    Proper,
    /// An entry of type ee that starts elsewhere.
    Odd,
    /// No entry of type ee.
    No,
}

impl Mbr {
    /// Sector 0, if it has the boot signature.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        let ours = has_boot_signature(sector) && bytes(sector, 0) != AIX_SIGNATURE;
        ours.then(|| Self { slots: Slot::read_all(sector), signature: le32(sector, DISK_SIGNATURE) })
    }

    pub(super) fn slots(&self) -> &[Slot; 4] {
        &self.slots
    }

    pub(super) fn protective(&self) -> Protective {
        let protective: Vec<_> = self.slots.iter().filter(|slot| slot.is_protective()).collect();
        if protective.is_empty() {
            Protective::No
        } else if protective.iter().any(|slot| slot.start == 1) {
            Protective::Proper
        } else {
            Protective::Odd
        }
    }

    /// Whether the four status bytes allow this to be a table.
    pub(super) fn has_valid_statuses(&self) -> bool {
        self.slots.iter().all(Slot::has_valid_status)
    }

    /// Whether this is a table rather than the boot sector of a filesystem.
    pub(super) fn is_table(&self, sectors: &Sectors<'_>, boot: &[u8]) -> bool {
        let filesystem = || filesystem::recognise(sectors, boot).is_some();
        self.has_valid_statuses() && (self.is_plausible(sectors) || !filesystem())
    }

    /// Whether sector 0 has partitions of its own beside the protective entry.
    pub(super) fn is_hybrid(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_used() && !slot.is_protective())
    }

    /// Whether there are entries, all of them inside the disk and apart from each other.
    pub(super) fn is_plausible(&self, sectors: &Sectors<'_>) -> bool {
        let mut taken = ExtentSet::new();
        self.used().all(|slot| match slot.extent_inside(sectors) {
            Some(extent) if !taken.overlaps(extent) => {
                taken.insert(extent);
                true
            }
            _ => false,
        }) && !taken.is_empty()
    }

    fn used(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.is_used())
    }

    /// What is unusual about a protective MBR; nothing of it is changed.
    pub(super) fn protective_warnings(&self, sectors: &Sectors<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_hybrid() {
            warnings.push(
                "the protective MBR is a hybrid with entries of its own; it is kept byte for byte".to_owned(),
            );
        }
        if self.protective() == Protective::Odd {
            warnings.push(
                "the protective MBR's entry does not start at sector 1; Linux ignores this GPT".to_owned(),
            );
        }
        for slot in self.slots.iter().filter(|slot| slot.is_protective()) {
            let whole = [sectors.last().min(u64::from(u32::MAX)), u64::from(u32::MAX)];
            if !self.is_hybrid() && !whole.contains(&u64::from(slot.sectors)) {
                let (says, is) = (slot.sectors, sectors.last());
                warnings
                    .push(format!("the protective MBR covers {says} sectors of {is}; it is kept as it is"));
            }
            if slot.status != 0 {
                let status = slot.status;
                warnings.push(format!(
                    "the protective MBR's entry has status {status:#04x}; it is kept as it is"
                ));
            }
        }
        warnings
    }
}

/// The table of a disk whose sector 0 is `mbr` in `boot`, or `None` when that is no table.
pub(super) fn table(sectors: &Sectors<'_>, boot: &RawArea, mbr: &Mbr) -> Result<Option<Table>> {
    if !mbr.is_table(sectors, &boot.bytes) {
        return Ok(None);
    }
    let filesystem = filesystem::recognise(sectors, &boot.bytes);
    let warn = |name| format!("the disk also looks like a bare {name}; its MBR entries are used");
    let mut table = Table {
        kind: TableKind::Mbr,
        id: Some(format!("{:#010x}", mbr.signature)),
        sector: sectors.sector(),
        size: sectors.size(),
        entries: Vec::new(),
        raw: vec![boot.clone()],
        warnings: filesystem.map(warn).into_iter().collect(),
    };
    for (number, slot) in (1..).zip(mbr.slots()) {
        add_primary(sectors, &mut table, number, slot)?;
    }
    for (number, slot) in (1..).zip(mbr.slots()).filter(|(_, slot)| slot.is_extended()) {
        ebr::walk(sectors, &mut table, number, slot)?;
    }
    warn_of_containers(&mut table);
    layout::check(&table)?;
    Ok(Some(table))
}

fn add_primary(sectors: &Sectors<'_>, table: &mut Table, number: u32, slot: &Slot) -> Result<()> {
    if !slot.is_used() {
        if slot.type_code != 0 {
            let code = slot.type_code;
            table
                .warnings
                .push(format!("MBR entry {number} has type {code:x} but no sectors; it is ignored"));
        }
        return Ok(());
    }
    let kind = if slot.is_extended() { EntryKind::Extended } else { EntryKind::Primary };
    let (start, count) = slot.place(0);
    let end = start.saturating_add(count);
    if kind == EntryKind::Extended && start <= sectors.last() && end > sectors.count() {
        table
            .warnings
            .push(format!("the extended entry {number} ends at sector {end}, behind the disk's end"));
    } else {
        check_inside(sectors, number, start, count)?;
    }
    let extent = sectors.extent(start, count).unwrap_or_default();
    table.entries.push(entry(number, kind, slot, extent));
    Ok(())
}

/// Checks that a volume lies on the disk.
///
/// # Errors
/// `Corrupt` when it does not.
pub(super) fn check_inside(sectors: &Sectors<'_>, number: u32, start: u64, count: u64) -> Result<()> {
    let end = start.saturating_add(count);
    if start > 0 && end <= sectors.count() {
        return Ok(());
    }
    let all = sectors.count();
    Err(Error::corrupt(format!(
        "MBR entry {number} is {count} sectors from sector {start} ({count:#x} from {start:#x}) on a disk of {all} \
         sectors ({all:#x})"
    )))
}

/// An entry of an MBR or EBR.
pub(super) fn entry(number: u32, kind: EntryKind, slot: &Slot, extent: Extent) -> Entry {
    Entry {
        number,
        extent,
        kind,
        type_id: format!("{:x}", slot.type_code),
        unique_id: None,
        name: None,
        attributes: 0,
        bootable: slot.is_bootable(),
    }
}

fn warn_of_containers(table: &mut Table) {
    let containers: Vec<_> = table.entries.iter().filter(|entry| entry.kind == EntryKind::Extended).collect();
    let mut warnings = Vec::new();
    if containers.len() > 1 {
        warnings.push(format!("the MBR has {} extended entries; like Linux, all are used", containers.len()));
    }
    for container in containers {
        for other in table.entries.iter().filter(|other| other.number < 5 && other.number != container.number)
        {
            if other.extent.overlaps(container.extent) {
                let (a, b) = (other.number, container.number);
                warnings.push(format!("MBR entry {a} overlaps the extended entry {b}"));
            }
        }
    }
    table.warnings.append(&mut warnings);
}
