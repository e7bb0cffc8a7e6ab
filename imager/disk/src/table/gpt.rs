//! A GPT: its two copies, which of them to believe, and the entries.
//!
//! The primary wins when it is sound, as everywhere. The backup is looked for where the primary says, then in the
//! last sector; without a sound primary the other way round, since a header that is not sound may still point right.

use super::field::{bytes, le64};
use super::guid::Guid;
use super::header::{ARRAY_LBA, Flaw, GptCopy, PRIMARY_LBA, alternate_hint};
use super::mbr::Mbr;
use super::sectors::Sectors;
use super::{Entry, EntryKind, RawArea, Table, TableKind, layout};
use imager_units::{ByteOffset, Error, ErrorKind, Result};
use std::collections::BTreeMap;

const UNIQUE_GUID: usize = 16;
const STARTING_LBA: usize = 32;
const ENDING_LBA: usize = 40;
const ATTRIBUTES: usize = 48;
const NAME: usize = 56;
const NAME_UNITS: usize = 36;
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// Both copies of a GPT, at least one of them sound.
pub(super) struct GptPair {
    pub(super) primary: Result<GptCopy, Flaw>,
    pub(super) backup: Result<GptCopy, Flaw>,
}

impl GptPair {
    /// Finds the copies.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong with each when neither is sound.
    pub(super) fn find(sectors: &Sectors<'_>) -> Result<Self> {
        let primary = GptCopy::load(sectors, PRIMARY_LBA);
        let backup = match &primary {
            Ok(copy) => find_backup(sectors, [Some(copy.alternate_lba()), Some(sectors.last())])
                .and_then(|backup| apart(&backup, copy).map(|()| backup)),
            Err(_) => find_backup(sectors, [Some(sectors.last()), alternate_hint(sectors)]),
        };
        match (&primary, &backup) {
            (Err(first), Err(second)) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "neither copy of the GPT is sound: in the primary (sector 1), {first}; in the backup, {second}"
                ),
            )),
            _ => Ok(Self { primary, backup }),
        }
    }

    /// The copy to believe.
    pub(super) fn best(&self) -> Result<&GptCopy> {
        self.primary.as_ref().or(self.backup.as_ref()).map_err(Error::corrupt)
    }

    fn warnings(&self, sectors: &Sectors<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        match (&self.primary, &self.backup) {
            (Err(flaw), Ok(backup)) => warnings.push(format!(
                "the primary GPT (sector 1) is damaged: {flaw}; the backup in sector {} is used, and restoring the \
                 table writes the primary anew",
                backup.my_lba()
            )),
            (Ok(_), Err(flaw)) => warnings.push(format!(
                "the backup GPT is damaged: {flaw}; the primary is used, and restoring the table writes the backup \
                 anew"
            )),
            (Ok(primary), Ok(backup)) if !primary.agrees_with(backup) => warnings.push(format!(
                "the primary GPT and the backup in sector {} are both sound but say different things; the primary is \
                 used",
                backup.my_lba()
            )),
            _ => {}
        }
        if let Ok(backup) = &self.backup
            && backup.my_lba() != sectors.last()
        {
            warnings.push(format!(
                "the backup GPT is in sector {}, not in the disk's last sector {}; on a larger disk it moves to the end",
                backup.my_lba(),
                sectors.last()
            ));
        }
        warnings
    }

    fn raw(&self, sectors: &Sectors<'_>) -> Vec<RawArea> {
        let mut raw: Vec<RawArea> = match &self.primary {
            Ok(copy) => vec![copy.header.clone(), copy.array.clone()],
            // Damaged, but it may be what points to the backup.
            Err(_) => sectors.read(PRIMARY_LBA, 1).into_iter().collect(),
        };
        if let Ok(copy) = &self.backup {
            raw.extend([copy.array.clone(), copy.header.clone()]);
        }
        raw
    }
}

/// The table of a disk whose protective MBR is `mbr` in `boot`.
pub(super) fn table(sectors: &Sectors<'_>, boot: RawArea, mbr: &Mbr, mut pair: GptPair) -> Result<Table> {
    let entries = entries(sectors, pair.best()?)?;
    disown_covered_backup(&mut pair, &entries);
    let best = pair.best()?;
    let mut warnings = mbr.protective_warnings(sectors);
    warnings.extend(pair.warnings(sectors));
    warnings.extend(entry_warnings(best, sectors, &entries));
    let mut raw = vec![boot];
    raw.extend(pair.raw(sectors));
    let table = Table {
        kind: TableKind::Gpt,
        id: Some(best.disk_guid().to_string()),
        sector: sectors.sector(),
        size: sectors.size(),
        entries,
        raw,
        warnings,
    };
    layout::check(&table)?;
    Ok(table)
}

fn find_backup(sectors: &Sectors<'_>, places: [Option<u64>; 2]) -> Result<GptCopy, Flaw> {
    let mut flaws = Vec::new();
    let mut tried = Vec::new();
    for lba in places.into_iter().flatten().filter(|&lba| lba > PRIMARY_LBA) {
        if tried.contains(&lba) {
            continue;
        }
        tried.push(lba);
        match GptCopy::load(sectors, lba) {
            Ok(copy) => return Ok(copy),
            Err(flaw) => flaws.push(format!("sector {lba}: {flaw}")),
        }
    }
    Err(if flaws.is_empty() { "there is none".to_owned() } else { flaws.join("; ") })
}

/// Checks that a backup does not lie in the primary.
fn apart(backup: &GptCopy, primary: &GptCopy) -> Result<(), Flaw> {
    let hit = |mine| primary.extents().into_iter().any(|theirs| theirs.overlaps(mine));
    if backup.extents().into_iter().any(hit) {
        return Err(format!("its entries from sector {} overlap the primary", backup.array_lba()));
    }
    Ok(())
}

/// A backup inside a volume is left over from something; the primary, which says so, is believed.
fn disown_covered_backup(pair: &mut GptPair, entries: &[Entry]) {
    let (Ok(_), Ok(backup)) = (&pair.primary, &pair.backup) else { return };
    let covers = |entry: &&Entry| backup.extents().into_iter().any(|extent| extent.overlaps(entry.extent));
    if let Some(entry) = entries.iter().find(covers) {
        pair.backup =
            Err(format!("its sectors (header {}) lie inside entry {}", backup.my_lba(), entry.number));
    }
}

fn entries(sectors: &Sectors<'_>, copy: &GptCopy) -> Result<Vec<Entry>> {
    let used = (1..).zip(copy.entries()).filter(|(_, stored)| !Guid::read(stored, 0).is_zero());
    used.map(|(number, stored)| entry(sectors, number, stored)).collect()
}

fn entry(sectors: &Sectors<'_>, number: u32, stored: &[u8]) -> Result<Entry> {
    let (start, end) = (le64(stored, STARTING_LBA), le64(stored, ENDING_LBA));
    if start > end || end > sectors.last() || start < ARRAY_LBA {
        let last = sectors.last();
        return Err(Error::corrupt(format!(
            "GPT entry {number} is sectors {start} to {end} ({start:#x} to {end:#x}) on a disk whose last sector is \
             {last} ({last:#x})"
        )));
    }
    let count = end.saturating_sub(start).saturating_add(1);
    let extent = sectors
        .extent(start, count)
        .ok_or_else(|| Error::corrupt(format!("GPT entry {number}: {end:#x}")))?;
    let attributes = le64(stored, ATTRIBUTES);
    Ok(Entry {
        number,
        extent,
        kind: EntryKind::Primary,
        type_id: Guid::read(stored, 0).to_string(),
        unique_id: Some(Guid::read(stored, UNIQUE_GUID).to_string()),
        name: name(stored),
        attributes,
        bootable: attributes & LEGACY_BIOS_BOOTABLE != 0,
    })
}

/// The entry's name, up to its first NUL; `None` when it is empty.
fn name(stored: &[u8]) -> Option<String> {
    let units =
        (0..NAME_UNITS).map(|i| u16::from_le_bytes(bytes(stored, NAME.saturating_add(i.saturating_mul(2)))));
    let units = units.take_while(|&unit| unit != 0);
    let name: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (!name.is_empty()).then_some(name)
}

fn entry_warnings(copy: &GptCopy, sectors: &Sectors<'_>, entries: &[Entry]) -> Vec<String> {
    let mut warnings = Vec::new();
    let usable = (copy.first_usable_lba(), copy.last_usable_lba());
    let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in entries {
        let (start, end) = lbas(sectors, entry);
        if start < usable.0 || end > usable.1 {
            let (first, last) = usable;
            warnings.push(format!(
                "GPT entry {} is sectors {start} to {end}, outside the usable sectors {first} to {last}",
                entry.number
            ));
        }
        let Some(id) = entry.unique_id.as_deref() else { continue };
        if id.bytes().all(|c| matches!(c, b'0' | b'-')) {
            warnings.push(format!("GPT entry {} has no GUID of its own (all zeros)", entry.number));
        } else if let Some(owner) = owners.insert(id, entry.number) {
            warnings.push(format!("GPT entries {owner} and {} have the same GUID {id}", entry.number));
        }
    }
    warnings
}

/// First and last sector of an entry.
fn lbas(sectors: &Sectors<'_>, entry: &Entry) -> (u64, u64) {
    let lba = |offset: ByteOffset| sectors.sector().lba_of(offset).get();
    (lba(entry.extent.start()), lba(entry.extent.end()).saturating_sub(1))
}
