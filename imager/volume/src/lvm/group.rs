//! A volume group as its metadata describe it.
//!
//! What is understood completely becomes a plain logical volume: linear or striped over physical volumes, visible, and
//! not a part of anything else. Everything else (thin, cache, RAID, snapshot, mirror, vdo, …) is opaque: only where it
//! lies is known. What could lie anywhere is refused, and then no physical volume of the group has a map.

use super::id;
use super::text::{self, Section, Value};
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};
use std::collections::{BTreeMap, BTreeSet};

/// LVM counts in sectors of 512 bytes.
const SECTOR_BYTES: u64 = 512;
/// Extents begin and end at multiples of this, so that no block of an image reaches across a border between volumes.
const GRAIN_BYTES: u64 = 65_536;
/// A volume in more pieces is copied with its physical volumes: fine stripes of a large one would be millions.
const MOST_PIECES: u64 = 4096;

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its UUID as LVM shows it.
    pub id: String,
    /// How often its metadata changed.
    pub seqno: u64,
    /// Its physical volumes.
    pub physical: Vec<Physical>,
    /// Its logical volumes, hidden ones too.
    pub logical: Vec<Logical>,
}

/// A physical volume as its group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// What the metadata call it.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// Where its extents lie.
    pub extents: Extent,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// Whether it has a node of its own when the group is active.
    pub is_visible: bool,
    /// What it is made of.
    pub shape: Shape,
    /// Everything of physical volumes that it uses itself, in order.
    pub pieces: Vec<Piece>,
}

/// What a logical volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Its pieces one after the other.
    Plain,
    /// Not read; says what it is.
    Opaque(String),
}

/// A piece of a logical volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of the group's physical volumes.
    pub physical: usize,
    /// Which bytes of it.
    pub extent: Extent,
}

impl Group {
    /// Reads the metadata of a volume group.
    ///
    /// # Errors
    /// `Corrupt` when they contradict themselves; `Unsupported`, with the reason, when the group is partial, exported,
    /// shared between machines or has anything that could lie anywhere.
    pub fn parse(metadata: &str) -> Result<Self> {
        let file = text::parse(metadata)?;
        text::check_unique(&file)?;
        if file.text("contents")? != "Text Format Volume Group" || file.number("version")? != 1 {
            return Err(Error::unsupported("its metadata is of another version"));
        }
        let mut sections = file.sections();
        let (Some((name, section)), None) = (sections.next(), sections.next()) else {
            return Err(Error::corrupt("its metadata describes more or less than one volume group"));
        };
        check_status(section)?;
        let extent = sectors(section.number("extent_size")?)?;
        let physical = physical(section, extent)?;
        let names = physical.iter().map(|physical| physical.name.clone()).collect::<Vec<_>>();
        let reader = Reader { extent, physical: &physical, names };
        let logical = reader.logical(section)?;
        let group = Self {
            name: checked_name(name)?,
            id: checked_id(section)?,
            seqno: section.number("seqno")?,
            physical: physical.clone(),
            logical,
        };
        group.check_apart()?;
        Ok(group)
    }

    /// No extent belongs to two volumes.
    fn check_apart(&self) -> Result<()> {
        let mut all: Vec<_> = self.logical.iter().flat_map(|logical| &logical.pieces).collect();
        all.sort_unstable_by_key(|piece| (piece.physical, piece.extent.start()));
        let overlap = all.windows(2).any(|pair| match pair {
            [one, other] => one.physical == other.physical && one.extent.end() > other.extent.start(),
            _ => false,
        });
        match overlap {
            true => Err(Error::corrupt(format!("two logical volumes of {} share extents", self.name))),
            false => Ok(()),
        }
    }
}

/// Whether the group is whole, at rest, and this machine's alone.
fn check_status(group: &Section) -> Result<()> {
    for flag in group.words("status")?.into_iter().chain(group.words("flags")?) {
        let why = match flag {
            "RESIZEABLE" | "READ" | "WRITE" => continue,
            "EXPORTED" => "is exported".to_owned(),
            "PARTIAL" => "is partial".to_owned(),
            "CLUSTERED" | "SHARED" => "is shared between machines".to_owned(),
            other => format!("has a status that is not known ({other})"),
        };
        return Err(Error::unsupported(format!("its volume group {why}")));
    }
    if group.optional_text("lock_type").is_some_and(|kind| kind != "none") {
        return Err(Error::unsupported("its volume group is shared between machines"));
    }
    if group.text("format")? != "lvm2" {
        return Err(Error::unsupported("its volume group is not of LVM2's format"));
    }
    const KNOWN: [&str; 4] =
        ["physical_volumes", "logical_volumes", "historical_logical_volumes", "outdated_physical_volumes"];
    match group.sections().find(|(name, _)| !KNOWN.contains(name)) {
        Some((name, _)) => {
            Err(Error::unsupported(format!("its volume group has {name}, which is not known")))
        }
        None => Ok(()),
    }
}

fn physical(group: &Section, extent: ByteLen) -> Result<Vec<Physical>> {
    let list = group.section("physical_volumes").ok_or_else(|| Error::corrupt("a group without disks"))?;
    let mut ids = BTreeSet::new();
    let read = |(name, section): (&str, &Section)| {
        if let Some(flag) = [section.words("status")?, section.words("flags")?]
            .concat()
            .into_iter()
            .find(|flag| *flag != "ALLOCATABLE")
        {
            return Err(Error::unsupported(format!("physical volume {name} is marked {flag}")));
        }
        let start = sectors(section.number("pe_start")?)?;
        let len = extents(section.number("pe_count")?, extent)?;
        let extents = Extent::new(ByteOffset::new(start.get()), len)
            .ok_or_else(|| Error::corrupt("a physical volume of more than 2^64 bytes"))?;
        if !start.get().is_multiple_of(GRAIN_BYTES)
            || !extent.get().is_multiple_of(GRAIN_BYTES)
            || extent.is_zero()
        {
            return Err(Error::unsupported("its extents do not lie at multiples of 64 KiB"));
        }
        let id = checked_id(section)?;
        if !ids.insert(id.clone()) {
            return Err(Error::corrupt("two physical volumes have one UUID"));
        }
        Ok(Physical { name: name.to_owned(), id, extents })
    };
    list.sections().map(read).collect()
}

struct Reader<'a> {
    extent: ByteLen,
    physical: &'a [Physical],
    names: Vec<String>,
}

impl Reader<'_> {
    fn logical(&self, group: &Section) -> Result<Vec<Logical>> {
        let Some(list) = group.section("logical_volumes") else { return Ok(Vec::new()) };
        let parts = parts_of_others(list);
        list.sections().map(|(name, section)| self.one(name, section, &parts)).collect()
    }

    fn one(&self, name: &str, section: &Section, parts: &BTreeMap<String, String>) -> Result<Logical> {
        let status = section.words("status")?;
        let flags = section.words("flags")?;
        let mut why = parts.get(name).cloned();
        for flag in status.iter().chain(&flags) {
            if !matches!(
                *flag,
                "READ" | "WRITE" | "VISIBLE" | "FIXED_MINOR" | "ACTIVATION_SKIP" | "WRITEMOSTLY"
            ) {
                why = why.or_else(|| Some(flag.to_lowercase()));
            }
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut next = 0;
        let count = section.number("segment_count")?;
        if usize::try_from(count).ok() != Some(section.sections().count()) {
            return Err(Error::corrupt(format!("logical volume {name} has not the segments that it should")));
        }
        for number in 1..=count {
            let segment = section.section(&format!("segment{number}"));
            let segment =
                segment.ok_or_else(|| Error::corrupt(format!("logical volume {name} lacks a segment")))?;
            if segment.number("start_extent")? != next {
                return Err(Error::corrupt(format!("logical volume {name} has a gap between its segments")));
            }
            next = next.saturating_add(segment.number("extent_count")?);
            match segment.text("type")? {
                "striped" | "linear" => self.striped(segment, &mut pieces, &mut why)?,
                other => {
                    self.check_indirect(segment, other)?;
                    why = why.or_else(|| Some(other.to_owned()));
                }
            }
        }
        let is_visible = status.contains(&"VISIBLE");
        if !is_visible {
            why = why.or_else(|| Some("hidden".to_owned()));
        }
        if pieces.is_empty() {
            why = why.or_else(|| Some("empty".to_owned()));
        }
        let shape = why.map_or(Shape::Plain, Shape::Opaque);
        Ok(Logical { name: checked_name(name)?, id: checked_id(section)?, is_visible, shape, pieces })
    }

    /// A segment of a kind that we do not read must refer to logical volumes only: how much of a physical one it
    /// uses is not known.
    fn check_indirect(&self, segment: &Section, kind: &str) -> Result<()> {
        match words_in(segment).find(|word| self.names.iter().any(|name| name == word)) {
            Some(_) => {
                Err(Error::unsupported(format!("a segment of kind {kind} lies on physical volumes itself")))
            }
            None => Ok(()),
        }
    }

    /// Adds the pieces of a segment that is striped over `stripe_count` areas, or linear in one.
    fn striped(&self, segment: &Section, pieces: &mut Vec<Piece>, why: &mut Option<String>) -> Result<()> {
        let count = segment.number("stripe_count")?;
        let len = segment.number("extent_count")?;
        let areas = self.areas(segment, len.checked_div(count).unwrap_or_default())?;
        if u64::try_from(areas.len()) != Ok(count) || len.checked_rem(count) != Some(0) {
            return Err(Error::corrupt("a segment whose stripes do not fit its length"));
        }
        if let [area] = areas.as_slice() {
            push(pieces, *area);
            return Ok(());
        }
        let stripe = sectors(segment.number("stripe_size")?)?;
        let each = areas.first().map_or(ByteLen::ZERO, |area| area.extent.len());
        let rows = each.get().checked_div(stripe.get()).unwrap_or_default();
        if each.get().checked_rem(stripe.get()) != Some(0) {
            return Err(Error::corrupt("a segment whose stripes do not fit its length"));
        }
        if rows.saturating_mul(count).saturating_add(u64::try_from(pieces.len()).unwrap_or(u64::MAX))
            > MOST_PIECES
        {
            *why = why.take().or_else(|| Some(format!("in stripes of {stripe}")));
            areas.into_iter().for_each(|area| push(pieces, area));
            return Ok(());
        }
        for row in 0..rows {
            for area in &areas {
                let skipped = ByteLen::new(row.saturating_mul(stripe.get()));
                let start = area.extent.start().saturating_add(skipped);
                let extent = Extent::between(start, start.saturating_add(stripe));
                push(pieces, Piece { extent, ..*area });
            }
        }
        Ok(())
    }

    /// The areas of `len` extents each: a name and a first extent in turns.
    fn areas(&self, segment: &Section, len: u64) -> Result<Vec<Piece>> {
        let mut areas = Vec::new();
        for pair in segment.list("stripes")?.chunks(2) {
            let [Value::Text(name), Value::Number(first)] = pair else {
                return Err(Error::corrupt("a segment whose stripes are nowhere"));
            };
            let Some(number) = self.names.iter().position(|known| known == name) else {
                return Err(Error::unsupported(format!("a segment that lies on {name}, which is no disk")));
            };
            let all = self.physical.get(number).map(|physical| physical.extents).unwrap_or_default();
            let first = extents(u64::try_from(*first).unwrap_or(u64::MAX), self.extent)?;
            let start = all.start().saturating_add(first);
            let extent = Extent::between(start, start.saturating_add(extents(len, self.extent)?));
            if !all.contains(extent) || extent.is_empty() {
                return Err(Error::corrupt(format!("a segment that lies outside of physical volume {name}")));
            }
            areas.push(Piece { physical: number, extent });
        }
        Ok(areas)
    }
}

/// Every logical volume that another one names in its segments, and what that is.
fn parts_of_others(list: &Section) -> BTreeMap<String, String> {
    let names: BTreeSet<&str> = list.sections().map(|(name, _)| name).collect();
    let mut parts = BTreeMap::new();
    for (_, logical) in list.sections() {
        for (_, segment) in logical.sections() {
            for word in words_in(segment).filter(|word| names.contains(word)) {
                let kind = segment.optional_text("type").unwrap_or("unknown");
                parts.entry(word.to_owned()).or_insert_with(|| format!("part of a {kind}"));
            }
        }
    }
    parts
}

/// Every text in a segment but its kind, in lists too.
fn words_in(segment: &Section) -> impl Iterator<Item = &str> {
    fn words(value: &Value) -> Vec<&str> {
        match value {
            Value::Text(text) => vec![text],
            Value::List(list) => list.iter().flat_map(words).collect(),
            Value::Number(_) => Vec::new(),
        }
    }
    let own = segment.values().filter(|(key, _)| *key != "type").flat_map(|(_, value)| words(value));
    own.chain(segment.sections().flat_map(|(_, inner)| inner.values().flat_map(|(_, value)| words(value))))
}

/// Adds a piece, joined to the one before where it goes on.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last) if last.physical == piece.physical && last.extent.end() == piece.extent.start() => {
            last.extent = Extent::between(last.extent.start(), piece.extent.end());
        }
        _ => pieces.push(piece),
    }
}

fn sectors(count: u64) -> Result<ByteLen> {
    count
        .checked_mul(SECTOR_BYTES)
        .map(ByteLen::new)
        .ok_or_else(|| Error::corrupt("its metadata has a length of more than 2^64 bytes"))
}

fn extents(count: u64, extent: ByteLen) -> Result<ByteLen> {
    let bytes = count.checked_mul(extent.get()).filter(|bytes| *bytes < 1 << 63);
    bytes.map(ByteLen::new).ok_or_else(|| Error::corrupt("its metadata has a length of more than 2^63 bytes"))
}

fn checked_id(section: &Section) -> Result<String> {
    let text = section.text("id")?;
    let letters: String = text.split('-').collect();
    id(&letters).filter(|id| id == text).ok_or_else(|| Error::corrupt("its metadata has a UUID that is none"))
}

/// A name as lvm(8) allows it.
fn checked_name(name: &str) -> Result<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let sound = name.len() < 128 && name.chars().all(is_part) && !name.starts_with('-') && !name.is_empty();
    match sound && !matches!(name, "." | "..") {
        true => Ok(name.to_owned()),
        false => Err(Error::corrupt("its metadata has a name that none can have")),
    }
}
