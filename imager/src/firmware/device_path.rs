//! Device paths: how UEFI firmware names what it starts (UEFI 2.10, chapter 10.3).
//!
//! A list of nodes, each with a type, a sub-type and its own length. Two of them matter here: the partition of a hard
//! drive (10.3.5.1), told by what the table says of it, and the path of a file on it (10.3.5.4). Whatever stands before
//! the partition is how one machine reached the disk; a path that begins with the partition means the same on any other
//! (10.3.1.2, "short-form").

use imager_units::{Error, Lba, Result};
use std::fmt;

const HEADER_BYTES: usize = 4;
const MEDIA: u8 = 4;
const MEDIA_HARD_DRIVE: u8 = 1;
const MEDIA_FILE: u8 = 4;
const END: u8 = 0x7f;
const HARD_DRIVE_BYTES: usize = 42;

/// One node of a path, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its type.
    pub kind: u8,
    /// Its sub-type.
    pub subtype: u8,
    /// What follows its header.
    pub data: &'a [u8],
    /// The path from this node on.
    pub rest: &'a [u8],
}

/// What tells a partition's disk or the partition itself from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The partition's own GUID, as stored in a GPT.
    Gpt([u8; 16]),
    /// The signature of an MBR disk.
    Mbr(u32),
    /// Nothing that this version knows.
    None,
}

/// The node that names a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardDrive {
    /// Its number in the table.
    pub number: u32,
    /// Where it starts.
    pub start: Lba,
    /// How many logical sectors it has.
    pub sectors: u64,
    /// What it is recognised by.
    pub signature: Signature,
}

/// The nodes of a path before its end; of several paths in one list, the first.
///
/// # Errors
/// `Corrupt` when a node is cut off or the end is missing.
pub fn nodes(path: &[u8]) -> Result<Vec<Node<'_>>> {
    let mut nodes = Vec::new();
    let mut rest = path;
    loop {
        let (&[kind, subtype, low, high], _) = rest.split_first_chunk().ok_or_else(cut_off)?;
        if kind == END {
            return Ok(nodes);
        }
        let len = usize::from(u16::from_le_bytes([low, high]));
        let data = rest.get(HEADER_BYTES..len).ok_or_else(cut_off)?;
        nodes.push(Node { kind, subtype, data, rest });
        rest = rest.get(len..).unwrap_or_default();
    }
}

fn cut_off() -> Error {
    Error::corrupt("a device path that is cut off")
}

/// The partition that a path leads to, and the path from there on.
///
/// # Errors
/// As [`nodes`].
pub fn partition(path: &[u8]) -> Result<Option<(HardDrive, &[u8])>> {
    let nodes = nodes(path)?;
    Ok(nodes.iter().find_map(|node| Some((HardDrive::of(node)?, node.rest))))
}

/// The file that a path leads to, with `\` between its parts.
///
/// # Errors
/// As [`nodes`].
pub fn file(path: &[u8]) -> Result<Option<String>> {
    let nodes = nodes(path)?;
    let parts = nodes.iter().filter(|node| (node.kind, node.subtype) == (MEDIA, MEDIA_FILE));
    let mut file = String::new();
    for part in parts.map(|node| text(node.data)) {
        // A long name may be spread over several nodes, with or without the separator between them.
        if !file.is_empty() && !file.ends_with('\\') && !part.starts_with('\\') {
            file.push('\\');
        }
        file.push_str(&part);
    }
    Ok((!file.is_empty()).then_some(file))
}

/// UCS-2 up to its NUL, without what would control the terminal that shows it.
pub(super) fn text(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let text = String::from_utf16_lossy(&units);
    text.chars()
        .map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
        .collect()
}

impl HardDrive {
    /// What a node says, if it is one for a partition.
    fn of(node: &Node<'_>) -> Option<Self> {
        let is_one = (node.kind, node.subtype) == (MEDIA, MEDIA_HARD_DRIVE);
        let (number, rest) = node.data.split_first_chunk().filter(|_| is_one)?;
        let (start, rest) = rest.split_first_chunk()?;
        let (sectors, rest) = rest.split_first_chunk()?;
        let (signature, rest) = rest.split_first_chunk::<16>()?;
        let [_, kind, ..] = rest else { return None };
        let signature = match (kind, signature) {
            (1, [a, b, c, d, ..]) => Signature::Mbr(u32::from_le_bytes([*a, *b, *c, *d])),
            (2, guid) => Signature::Gpt(*guid),
            _ => Signature::None,
        };
        let (start, sectors) = (Lba::new(u64::from_le_bytes(*start)), u64::from_le_bytes(*sectors));
        Some(Self { number: u32::from_le_bytes(*number), start, sectors, signature })
    }

    /// The node.
    pub fn encode(&self) -> Vec<u8> {
        let mut node = vec![MEDIA, MEDIA_HARD_DRIVE];
        node.extend(u16::try_from(HARD_DRIVE_BYTES).unwrap_or_default().to_le_bytes());
        node.extend(self.number.to_le_bytes());
        node.extend(self.start.get().to_le_bytes());
        node.extend(self.sectors.to_le_bytes());
        let (format, kind, signature) = match self.signature {
            Signature::Gpt(guid) => (2, 2, guid),
            Signature::Mbr(id) => {
                let mut signature = [0; 16];
                signature.iter_mut().zip(id.to_le_bytes()).for_each(|(to, from)| *to = from);
                (1, 1, signature)
            }
            Signature::None => (0, 0, [0; 16]),
        };
        node.extend(signature);
        node.extend([format, kind]);
        node
    }
}

impl Signature {
    /// The GUID of a partition or the signature of a disk, as a table's dump shows it.
    ///
    /// # Errors
    /// `Corrupt` when it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::corrupt(format!("{text:?} is no GUID and no disk signature"));
        if let Some(digits) = text.strip_prefix("0x") {
            return u32::from_str_radix(digits, 16).map(Self::Mbr).map_err(|_| wrong());
        }
        let groups: Vec<_> = text.split('-').collect();
        let is_sound = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
        let mut guid: [u8; 16] = hex::decode(groups.concat())
            .ok()
            .filter(|_| is_sound)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(wrong)?;
        swap_ends(&mut guid);
        Ok(Self::Gpt(guid))
    }
}

/// The first three groups of a GUID are stored little-endian (UEFI 2.10, appendix A).
fn swap_ends(guid: &mut [u8; 16]) {
    for group in [0..4, 4..6, 6..8] {
        guid.get_mut(group).unwrap_or_default().reverse();
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Mbr(id) => write!(f, "{id:#010x}"),
            Self::Gpt(guid) => {
                let mut guid = *guid;
                swap_ends(&mut guid);
                let text = hex::encode_upper(guid);
                let group = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
                let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(group);
                f.write_str(&groups.join("-"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HardDrive, Signature, file, nodes, partition};
    use imager_units::Lba;
    use proptest::prelude::{any, proptest};

    const GUID: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

    fn drive() -> HardDrive {
        let signature = Signature::parse(GUID).unwrap();
        HardDrive { number: 1, start: Lba::new(2048), sectors: 1_048_576, signature }
    }

    fn file_node(path: &str) -> Vec<u8> {
        let name: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let mut node = vec![4, 4];
        node.extend(u16::try_from(name.len() + 4).unwrap().to_le_bytes());
        node.extend(name);
        node
    }

    fn path(parts: &[Vec<u8>]) -> Vec<u8> {
        [parts.concat(), vec![0x7f, 0xff, 4, 0]].concat()
    }

    #[test]
    fn a_partition_and_its_file_are_found_behind_what_leads_to_the_disk() {
        // PciRoot(0x0)/Pci(0x4,0x0)
        let pci = [2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, 4].to_vec();
        let whole = path(&[pci, drive().encode(), file_node("\\EFI\\debian"), file_node("shimx64.efi")]);
        let (found, from_there) = partition(&whole).unwrap().unwrap();
        assert_eq!(found, drive());
        assert_eq!(from_there, &whole[18..]);
        assert_eq!(file(&whole).unwrap().as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
        assert_eq!(nodes(&whole).unwrap().len(), 5);
    }

    #[test]
    fn a_path_that_is_cut_off_is_damaged() {
        let whole = path(&[drive().encode(), file_node("\\a")]);
        for len in 0..whole.len() - 3 {
            assert!(nodes(&whole[..len]).is_err(), "{len}");
        }
        // A node that is shorter than its own header would never end.
        assert!(nodes(&[4, 4, 3, 0, 0x7f, 0xff, 4, 0]).is_err());
        assert_eq!(partition(&path(&[vec![4, 1, 6, 0, 0, 0]])).unwrap(), None);
    }

    #[test]
    fn signatures_read_as_tables_show_them() {
        for text in [GUID, "0x00c0ffee"] {
            assert_eq!(Signature::parse(text).unwrap().to_string(), text);
        }
        let Signature::Gpt(stored) = drive().signature else { panic!("a GUID") };
        assert_eq!(stored[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
        for wrong in ["", "0x", "c12a7328", "C12A7328F81F11D2BA4B00A0C93EC93B", "0x123456789"] {
            assert!(Signature::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn partitions_are_encoded_as_they_are_read() {
        for signature in [drive().signature, Signature::Mbr(0xc0ff_ee00), Signature::None] {
            let drive = HardDrive { signature, ..drive() };
            let whole = path(&[drive.encode()]);
            assert_eq!(whole.len(), 46);
            assert_eq!(partition(&whole).unwrap().unwrap().0, drive);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(nodes) = nodes(&bytes) {
                assert!(nodes.iter().all(|node| node.rest.len() <= bytes.len()));
            }
            let _any = (partition(&bytes), file(&bytes));
        }
    }
}
