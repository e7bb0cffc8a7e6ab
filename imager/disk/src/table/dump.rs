//! The table as text, in the words of `sfdisk --dump`, so that anybody can make it again without us.
//!
//! sfdisk has no word for GPT attribute bits 3 to 47; they are lost here as they are there. The raw sectors have them.

use super::gpt::GptPair;
use super::raw::Areas;
use super::{Entry, Table, TableKind};
use std::fmt::Write as _;

impl Table {
    /// What `sfdisk --dump` prints for this table on `device`, and what `sfdisk` takes to make it; empty without a
    /// table.
    pub fn sfdisk_dump(&self, device: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_dump(&mut text, device);
        text
    }

    fn write_dump(&self, text: &mut String, device: &str) -> std::fmt::Result {
        let label = match self.kind {
            TableKind::Gpt => "gpt",
            TableKind::Mbr => "dos",
            TableKind::None => return Ok(()),
        };
        writeln!(text, "label: {label}")?;
        writeln!(text, "label-id: {}", self.id.as_deref().unwrap_or_default())?;
        writeln!(text, "device: {device}\nunit: sectors")?;
        self.write_gpt_head(text)?;
        writeln!(text, "sector-size: {}", self.sector.get())?;
        if !self.entries.is_empty() {
            writeln!(text)?;
        }
        self.entries.iter().try_for_each(|entry| self.write_entry(text, device, entry))
    }

    fn write_gpt_head(&self, text: &mut String) -> std::fmt::Result {
        if self.kind != TableKind::Gpt {
            return Ok(());
        }
        let areas = Areas::new(&self.raw, self.sector, self.size);
        let pair = GptPair::find(&areas.sectors());
        let Some(copy) = pair.as_ref().ok().and_then(|pair| pair.best().ok()) else { return Ok(()) };
        writeln!(text, "first-lba: {}", copy.first_usable_lba())?;
        writeln!(text, "last-lba: {}", copy.last_usable_lba())?;
        if copy.slots() != 128 {
            writeln!(text, "table-length: {}", copy.slots())?;
        }
        Ok(())
    }

    fn write_entry(&self, text: &mut String, device: &str, entry: &Entry) -> std::fmt::Result {
        let node = format!("{device}{}{}", partition_separator(device), entry.number);
        let start = self.sector.lba_of(entry.extent.start()).get();
        let size = self.sector.sectors_in(entry.extent.len());
        write!(text, "{node} : start={start:>12}, size={size:>12}, type={}", entry.type_id)?;
        if let Some(id) = &entry.unique_id {
            write!(text, ", uuid={id}")?;
        }
        if let Some(name) = &entry.name {
            write!(text, ", name=\"{}\"", quoted(name))?;
        }
        let attributes = attribute_words(entry.attributes);
        if !attributes.is_empty() {
            write!(text, ", attrs=\"{attributes}\"")?;
        }
        if self.kind == TableKind::Mbr && entry.bootable {
            write!(text, ", bootable")?;
        }
        writeln!(text)
    }
}

/// What the kernel and udev put between the name of a disk and the number of its partition.
fn partition_separator(device: &str) -> &'static str {
    let linked = ["/dev/disk/by-id", "/dev/disk/by-path", "/dev/disk/by-uuid", "/dev/disk/by-label"];
    match device.bytes().last() {
        _ if linked.iter().any(|place| device.starts_with(place)) => "-part",
        Some(last) if last.is_ascii_digit() => "p",
        _ => "",
    }
}

/// As libfdisk quotes: everything but plain printable ASCII by its bytes.
fn quoted(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'"' | b'\\' | b'`' | b'$' => text.push_str(&format!("\\x{byte:02x}")),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
        text
    })
}

fn attribute_words(attributes: u64) -> String {
    const NAMED: [&str; 3] = ["RequiredPartition", "NoBlockIOProtocol", "LegacyBIOSBootable"];
    let is_set = |bit: u32| attributes.checked_shr(bit).is_some_and(|rest| rest & 1 == 1);
    let mut words: Vec<String> =
        (0..).zip(NAMED).filter(|(bit, _)| is_set(*bit)).map(|(_, word)| word.to_owned()).collect();
    let bits: Vec<String> = (48..64).filter(|&bit| is_set(bit)).map(|bit| bit.to_string()).collect();
    if !bits.is_empty() {
        words.push(format!("GUID:{}", bits.join(",")));
    }
    words.join(" ")
}
