//! The chain of extended boot records in an extended MBR entry.
//!
//! Each link holds a volume (relative to the link) and the next link (relative to the container). Walked as Linux
//! does (`parse_extended` in `block/partitions/msdos.c`): numbers from 5 in chain order whatever the order on disk,
//! links without a volume take no number, the third and fourth slot count only where they make sense, a link without
//! boot signature ends the chain. Unlike Linux, a loop or a link off the disk is an error rather than the end: what
//! comes behind it would be missing from the capture.

use super::mbr::{check_inside, entry};
use super::sectors::Sectors;
use super::slot::{Slot, has_boot_signature};
use super::{EntryKind, RawArea, Table};
use imager_units::{Error, Result};

/// Linux has minors for 256 partitions of a disk; nobody has more links than that.
const MOST_LINKS: usize = 256;

/// The container, and the link being looked at.
struct Walk {
    container: u32,
    first: u64,
    end: u64,
    link: u64,
    link_sectors: u64,
}

/// Adds the volumes and links of the extended entry `container`.
///
/// # Errors
/// `Corrupt` for a loop, a link or volume off the disk, or more links than anybody has; else what the disk says.
pub(super) fn walk(sectors: &Sectors<'_>, table: &mut Table, container: u32, slot: &Slot) -> Result<()> {
    let (first, count) = slot.place(0);
    let end = first.saturating_add(count);
    let mut walk = Walk { container, first, end, link: first, link_sectors: count };
    for _ in 0..MOST_LINKS {
        let Some(sector) = read_link(sectors, table, &walk)? else { return Ok(()) };
        let slots = Slot::read_all(&sector.bytes);
        table.raw.push(sector);
        add_volumes(sectors, table, &walk, &slots)?;
        let Some(next) = slots.iter().find(|slot| slot.is_extended()) else { return Ok(()) };
        (walk.link, walk.link_sectors) = next.place(walk.first);
    }
    Err(Error::corrupt(format!("the chain of extended entry {container} has more than {MOST_LINKS} links")))
}

/// The link's sector, or `None` where the chain ends without one.
fn read_link(sectors: &Sectors<'_>, table: &mut Table, walk: &Walk) -> Result<Option<RawArea>> {
    let Walk { container, link, .. } = *walk;
    if link > sectors.last() {
        let last = sectors.last();
        return Err(Error::corrupt(format!(
            "the chain of extended entry {container} leads to sector {link} ({link:#x}) on a disk whose last sector \
             is {last} ({last:#x})"
        )));
    }
    let sector = sectors.read(link, 1)?;
    if table.raw.iter().any(|seen| seen.start == sector.start) {
        return Err(Error::corrupt(format!(
            "the chain of extended entry {container} leads back to sector {link}"
        )));
    }
    if !has_boot_signature(&sector.bytes) {
        let (first, blank) = (link == walk.first, sector.bytes.iter().all(|&byte| byte == 0));
        if !(first && blank) {
            table.warnings.push(format!(
                "the chain of extended entry {container} ends at sector {link}, which has no boot signature"
            ));
        }
        return Ok(None);
    }
    if !(walk.first..walk.end).contains(&link) {
        table.warnings.push(format!("the link in sector {link} lies outside its extended entry {container}"));
    }
    Ok(Some(sector))
}

fn add_volumes(sectors: &Sectors<'_>, table: &mut Table, walk: &Walk, slots: &[Slot; 4]) -> Result<()> {
    for (index, slot) in slots.iter().enumerate() {
        if !slot.is_used() || slot.is_extended() || (index >= 2 && !is_credible(walk, slot)) {
            continue;
        }
        let number = next_number(table);
        let (start, count) = slot.place(walk.link);
        check_inside(sectors, number, start, count)?;
        if start < walk.first || start.saturating_add(count) > walk.end {
            let container = walk.container;
            table
                .warnings
                .push(format!("logical entry {number} reaches outside its extended entry {container}"));
        }
        let extent = sectors.extent(start, count).unwrap_or_default();
        table.entries.push(entry(number, EntryKind::Logical, slot, extent));
    }
    Ok(())
}

/// The third and fourth slot often hold garbage.
fn is_credible(walk: &Walk, slot: &Slot) -> bool {
    let (start, count) = slot.place(walk.link);
    let (offset, _) = slot.place(0);
    offset.saturating_add(count) <= walk.link_sectors
        && start >= walk.first
        && start.saturating_add(count) <= walk.end
}

fn next_number(table: &Table) -> u32 {
    let logicals = table.entries.iter().filter(|entry| entry.kind == EntryKind::Logical).count();
    u32::try_from(logicals).unwrap_or(u32::MAX).saturating_add(5)
}
