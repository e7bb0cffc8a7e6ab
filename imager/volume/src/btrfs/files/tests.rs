//! A tree of a few files made here, and hostile ones made of it. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::folder::hash;
use super::{Files, Subvolume};
use crate::btrfs::tests::recipe::{CHUNK, Item, LOGICAL, NODE, PHYSICAL, Recipe, crc, le, node_at};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt};
use imager_units::{ErrorKind, SectorSize};
use proptest::prelude::{any, prop_assert, proptest};

const TEXT: &[u8] = b"LABEL=data /srv btrfs defaults 0 0\n";
const MOST_BYTES: u64 = 1 << 20;
/// The numbers of nodes: the tree at the top, the subvolume, the checksum tree.
const TOP: u64 = 9;
const SYSTEM: u64 = 10;
const SUMS: u64 = 11;
/// The subvolume in which the system is.
const SUBVOLUME: u64 = 256;
const DATA: u64 = 1 << 20;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;

fn inode(number: u64, mode: u32, size: usize, flags: u64) -> Item {
    let mut item = vec![0; 160];
    item[16..24].copy_from_slice(&(size as u64).to_le_bytes());
    item[52..56].copy_from_slice(&mode.to_le_bytes());
    item[64..72].copy_from_slice(&flags.to_le_bytes());
    ((number, 1, 0), item)
}

fn entry(name: &[u8], to: (u64, u8)) -> Vec<u8> {
    let mut item = to.0.to_le_bytes().to_vec();
    item.push(to.1);
    item.extend([0; 18]);
    item.extend((name.len() as u16).to_le_bytes());
    item.push(1);
    item.extend(name);
    item
}

/// An entry of a folder; before it stands another whose name has the same sum.
fn named(folder: u64, name: &[u8], to: (u64, u8)) -> Item {
    ((folder, 84, hash(name)), [entry(b"another", (999, 1)), entry(name, to)].concat())
}

fn inline(number: u64, compression: u8, ram_bytes: usize, data: &[u8]) -> Item {
    let mut item = le(&[7, ram_bytes as u64]);
    item.extend([compression, 0, 0, 0, 0]);
    item.extend(data);
    ((number, 108, 0), item)
}

fn blocks(number: u64, at: u64, compression: u8, ram_bytes: u64, place: [u64; 4]) -> Item {
    let mut item = le(&[7, ram_bytes]);
    item.extend([compression, 0, 0, 0, 1]);
    item.extend(le(&place));
    ((number, 108, at), item)
}

fn squeezed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// What the blocks hold: as it is, and compressed behind that.
fn data() -> Vec<u8> {
    let mut data: Vec<u8> = (0..8192).map(|n| (n * 7 % 251) as u8).collect();
    data.extend(squeezed(&[b'x'; 10_000]));
    data.resize(12_288, 0);
    data
}

/// The files of a system: `etc/fstab`, compressed; `link` to it; `large`, of blocks, a hole and compressed blocks.
fn system() -> Vec<Item> {
    let mut items = vec![
        inode(256, FOLDER, 0, 0),
        named(256, b"etc", (257, 1)),
        named(256, b"link", (259, 1)),
        named(256, b"large", (260, 1)),
        named(256, b"zlib", (261, 1)),
        inode(257, FOLDER, 0, 0),
        named(257, b"fstab", (258, 1)),
        inode(258, FILE, TEXT.len(), 0),
        inline(258, 3, TEXT.len(), &squeezed(TEXT)),
        inode(259, 0o120_777, 10, 0),
        inline(259, 0, 10, b"/etc/fstab"),
        inode(260, FILE, 25_000, 0),
        blocks(260, 0, 0, 8192, [LOGICAL + DATA, 8192, 4096, 4096]),
        blocks(260, 8192, 3, 10_000, [LOGICAL + DATA + 8192, 4096, 0, 12_288]),
        inode(261, FILE, 9, 0),
        inline(261, 1, 9, b"deflated"),
    ];
    items.sort_by_key(|(key, _)| *key);
    items
}

fn recipe(profile: (u64, u16, u16)) -> Recipe {
    let top = vec![
        inode(256, FOLDER, 0, 0),
        named(256, b"@", (SUBVOLUME, 132)),
        ((256, 96, 2), entry(b"@", (SUBVOLUME, 132))),
    ];
    let sum = |sector: &[u8]| crate::crc32c::crc32c(&[sector]).to_le_bytes();
    let sums = data().chunks(4096).flat_map(sum).collect();
    Recipe {
        profile,
        trees: vec![
            (TOP, 5, top),
            (SYSTEM, SUBVOLUME, system()),
            (SUMS, 7, vec![((u64::MAX - 9, 128, LOGICAL + DATA), sums)]),
        ],
        roots: vec![named(6, b"default", (SUBVOLUME, 132)), ((5, 156, SUBVOLUME), vec![0; 19])],
        ..Recipe::default()
    }
}

/// The device, with its data.
fn make(recipe: &Recipe) -> Vec<u8> {
    let mut bytes = recipe.make().remove(0);
    for copy in 0..2 {
        let at = (PHYSICAL + copy * CHUNK + DATA) as usize;
        bytes[at..at + data().len()].copy_from_slice(&data());
    }
    bytes
}

fn disk(bytes: &[u8]) -> MemoryDisk {
    MemoryDisk::from_bytes(bytes, SectorSize::B512)
}

fn read(disk: &dyn ReadAt, path: &str) -> Result<Vec<u8>, ErrorKind> {
    let kind = |error: imager_units::Error| error.kind();
    let files = Files::open(&[disk]).map_err(kind)?.expect("recognised");
    let first = files.subvolumes().map_err(kind)?.remove(0);
    files.read(&first, path, MOST_BYTES).map_err(kind)
}

fn large() -> Vec<u8> {
    let mut large = data()[4096..8192].to_vec();
    large.resize(8192, 0);
    large.resize(18_192, b'x');
    large.resize(25_000, 0);
    large
}

#[test]
fn files_are_found_in_the_default_subvolume_and_by_its_name() {
    let disk = disk(&make(&recipe((0, 1, 1))));
    for path in ["/etc/fstab", "link", "//etc/./../etc//fstab", "../../link"] {
        assert_eq!(read(&disk, path).as_deref(), Ok(TEXT), "{path}");
    }
    assert_eq!(read(&disk, "large"), Ok(large()));
    for (path, kind) in [
        ("/etc/fsta", ErrorKind::NotFound),
        ("/etc/fstab/x", ErrorKind::NotFound),
        ("/etc", ErrorKind::Unsupported),
        ("zlib", ErrorKind::Unsupported),
    ] {
        assert_eq!(read(&disk, path), Err(kind), "{path}");
    }
    let files = Files::open(&[&disk]).unwrap().unwrap();
    let top = Subvolume { tree: 5, name: None };
    assert_eq!(files.subvolumes().unwrap(), [Subvolume { tree: SUBVOLUME, name: None }, top.clone()]);
    assert_eq!(files.read(&top, "@/etc/fstab", MOST_BYTES).unwrap(), TEXT);
    assert_eq!(files.read(&top, "@/large", 24_999).unwrap_err().kind(), ErrorKind::Unsupported);
    let error = files.read(&top, "@/zlib", MOST_BYTES).unwrap_err();
    assert_eq!(error.to_string(), "it is compressed by zlib");
}

#[test]
fn without_a_default_subvolume_those_in_the_top_one_are_named() {
    let mut recipe = recipe((0, 1, 1));
    recipe.roots.remove(0);
    let disk = disk(&make(&recipe));
    let files = Files::open(&[&disk]).unwrap().unwrap();
    let subvolumes = files.subvolumes().unwrap();
    let named = Subvolume { tree: SUBVOLUME, name: Some("@".to_owned()) };
    assert_eq!(subvolumes, [Subvolume { tree: 5, name: None }, named]);
    assert_eq!(files.read(&subvolumes[1], "etc/fstab", MOST_BYTES).unwrap(), TEXT);
}

/// A snapshot of what is around a subvolume has its name, but not what is in it.
#[test]
fn a_subvolume_is_only_where_it_was_made() {
    let mut recipe = recipe((0, 1, 1));
    recipe.roots.remove(1);
    let disk = disk(&make(&recipe));
    let files = Files::open(&[&disk]).unwrap().unwrap();
    let error = files.read(&Subvolume { tree: 5, name: None }, "@/etc/fstab", MOST_BYTES).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn data_that_is_damaged_is_read_elsewhere_or_not_at_all() {
    let recipe = recipe((1 << 5, 2, 1));
    let mut bytes = make(&recipe);
    let at = (PHYSICAL + DATA + 4096 + 17) as usize;
    bytes[at] ^= 1;
    assert_eq!(read(&disk(&bytes), "large"), Ok(large()));
    bytes[at + CHUNK as usize] ^= 1;
    assert_eq!(read(&disk(&bytes), "large"), Err(ErrorKind::Corrupt));
}

#[test]
fn beside_a_log_only_what_it_does_not_change_is_read() {
    let mut recipe = recipe((0, 1, 1));
    // The log is of inode 257 of the tree at the top.
    recipe.log = Some(vec![(0x18_0000, 0x5000)]);
    assert_eq!(read(&disk(&make(&recipe)), "/etc/fstab").as_deref(), Ok(TEXT), "another subvolume");
    recipe.roots.clear();
    recipe.trees = vec![(TOP, 5, system()), recipe.trees.remove(2)];
    let disk = disk(&make(&recipe));
    assert_eq!(read(&disk, "/etc/fstab"), Err(ErrorKind::Corrupt));
    assert_eq!(read(&disk, "/etc/none"), Err(ErrorKind::Corrupt));
    assert_eq!(read(&disk, "large"), Ok(large()));
}

/// What is done to an item.
type Change<'a> = &'a dyn Fn(&mut Item);

#[test]
fn hostile_items_are_refused() {
    let change = |number: u64, change: Change<'_>| {
        let mut recipe = recipe((0, 1, 1));
        let items = &mut recipe.trees[1].2;
        let which = items.iter_mut().find(|(key, _)| key.0 == number && (key.1 == 108 || number == 257));
        change(which.unwrap());
        recipe.trees[1].2.sort_by_key(|(key, _)| *key);
        read(&disk(&make(&recipe)), if number == 260 { "large" } else { "link" })
    };
    let corrupt: [(&str, u64, Change<'_>); 11] = [
        ("no inode", 257, &|item| item.0.0 = 300),
        ("an inode cut short", 257, &|item| item.1.truncate(60)),
        ("a link to itself", 259, &|item| item.1[21..].copy_from_slice(b"./././link")),
        ("an extent cut short", 258, &|item| item.1.truncate(20)),
        ("an encrypted extent", 258, &|item| item.1[17] = 1),
        ("no frame of zstd", 258, &|item| item.1[21] ^= 1),
        ("more than can be compressed", 258, &|item| item.1[11] = 1),
        ("an extent that begins in a sector", 260, &|item| item.0.2 = 100),
        ("an extent outside", 260, &|item| item.1[28] = 0xFF),
        ("extents over each other", 260, &|item| item.1[45..53].copy_from_slice(&le(&[12_288]))),
        ("an extent without sums", 260, &|item| item.1[21..29].copy_from_slice(&le(&[LOGICAL]))),
    ];
    for (what, number, how) in corrupt {
        assert_eq!(change(number, how), Err(ErrorKind::Corrupt), "{what}");
    }
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let bytes = make(&recipe((1 << 5, 2, 1)));
    let mut failed = 0;
    for nth in 1.. {
        let disk = FaultyDisk::new(disk(&bytes), [Fault::Once { nth }]);
        match read(&disk, "large") {
            Ok(content) => assert_eq!(content, large()),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Io);
                failed += 1;
            }
        }
        if disk.operations() < nth {
            break;
        }
    }
    assert_eq!(
        failed, 3,
        "only the superblock, looked for, read as such and among its copies, is nowhere else"
    );
}

proptest! {
    /// Nodes with any bytes in them, and the right sum.
    #[test]
    fn no_bytes_make_it_panic_or_read_on(
        changes in proptest::collection::vec((0..4_usize, 32..NODE as usize, any::<u8>()), 1..12),
        is_near in any::<bool>(),
    ) {
        let mut bytes = make(&recipe((0, 1, 1)));
        for (node, at, byte) in changes {
            let number = [1, TOP, SYSTEM, SUMS][node];
            // Keys and what they lead to are at the two ends.
            let at = if is_near { 96 + at % 500 } else { NODE as usize - 1 - at % 1500 };
            let start = (PHYSICAL + node_at(number) - LOGICAL) as usize;
            let node = &mut bytes[start..start + NODE as usize];
            node[at] = byte;
            crc(node);
        }
        let disk = disk(&bytes);
        for path in ["/etc/fstab", "link", "large", "@/link"] {
            if let Ok(content) = read(&disk, path) {
                prop_assert!(content.len() <= 1 << 20);
            }
        }
    }
}
