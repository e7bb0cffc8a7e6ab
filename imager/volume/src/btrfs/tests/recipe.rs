//! A very small Btrfs, made by hand: one chunk of everything, each tree a leaf but for the extent tree.

use crate::btrfs::profile::Profile;
use imager_disk::MemoryDisk;
use imager_units::SectorSize;

pub(in crate::btrfs) const NODE: u64 = 16_384;
pub(in crate::btrfs) const LOGICAL: u64 = 16 << 20;
pub(in crate::btrfs) const CHUNK: u64 = 3 << 20;
/// Where each device has its stripe.
pub(in crate::btrfs) const PHYSICAL: u64 = 0x11_0000;
pub(in crate::btrfs) const DEVICE: u64 = 8 << 20;
/// Behind the filesystem on each device.
pub(in crate::btrfs) const TAIL: u64 = 777;
const FSID: [u8; 16] = *b"filesystem's id.";
const GENERATION: u64 = 7;
const LOG: u64 = u64::MAX - 5;

pub(in crate::btrfs) type Item = ((u64, u8, u64), Vec<u8>);
pub(in crate::btrfs) type Place = (u64, u64);

/// What is to be made.
#[derive(Clone)]
pub(in crate::btrfs) struct Recipe {
    /// Bits of the chunk's type beside what it holds, stripes, `sub_stripes`.
    pub(in crate::btrfs) profile: (u64, u16, u16),
    pub(in crate::btrfs) devices: u64,
    /// Bytes of data by their place in the chunk.
    pub(in crate::btrfs) data: Vec<Place>,
    /// Such as only the log knows; `None` for no log.
    pub(in crate::btrfs) log: Option<Vec<Place>>,
    pub(in crate::btrfs) block_group_tree: bool,
    pub(in crate::btrfs) replace_state: u64,
    /// What is added to the group's and the superblock's count.
    pub(in crate::btrfs) wrong: (u64, u64),
    /// Items of the extent tree instead of those that are right.
    pub(in crate::btrfs) extents: Option<Vec<Item>>,
    /// What the second leaf of the extent tree is said to be: itself, or another node.
    pub(in crate::btrfs) second_leaf: u64,
    pub(in crate::btrfs) incompat: u64,
    pub(in crate::btrfs) flags: u64,
    /// More trees of one leaf each: its number, the tree's, the items.
    pub(in crate::btrfs) trees: Vec<(u64, u64, Vec<Item>)>,
    /// More items of the root tree.
    pub(in crate::btrfs) roots: Vec<Item>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            profile: (0, 1, 1),
            devices: 1,
            data: vec![(1 << 20, 4096), (0x11_2000, 0x3_0000), (0x20_0000, 0x8000)],
            log: None,
            block_group_tree: false,
            replace_state: 0,
            wrong: (0, 0),
            extents: None,
            second_leaf: 3,
            incompat: 0x341,
            flags: 1,
            trees: Vec::new(),
            roots: Vec::new(),
        }
    }
}

/// The nodes, by their number: chunk tree, root tree, extent tree and its two leaves, device tree, block groups, log.
const CHUNKS: u64 = 0;
const ROOTS: u64 = 1;
pub(in crate::btrfs) const EXTENTS: u64 = 2;
const FIRST_LEAF: u64 = 4;
const DEVICES: u64 = 5;
const GROUPS: u64 = 6;
const LOGS: u64 = 7;
const LOG_TREE: u64 = 8;

/// Where a node lies.
pub(in crate::btrfs) fn node_at(number: u64) -> u64 {
    LOGICAL + number * NODE
}

pub(in crate::btrfs) fn le(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(in crate::btrfs) fn crc(block: &mut [u8]) {
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

fn header(number: u64, owner: u64, level: u8, entries: usize, generation: u64) -> Vec<u8> {
    let mut node = vec![0; NODE as usize];
    node[32..48].copy_from_slice(&FSID);
    node[48..56].copy_from_slice(&node_at(number).to_le_bytes());
    node[80..96].copy_from_slice(&le(&[generation, owner]));
    node[96..100].copy_from_slice(&(entries as u32).to_le_bytes());
    node[100] = level;
    node
}

fn key(node: &mut [u8], at: usize, key: (u64, u8, u64)) {
    node[at..at + 8].copy_from_slice(&key.0.to_le_bytes());
    node[at + 8] = key.1;
    node[at + 9..at + 17].copy_from_slice(&key.2.to_le_bytes());
}

fn leaf(number: u64, owner: u64, items: &[Item], generation: u64) -> Vec<u8> {
    let mut node = header(number, owner, 0, items.len(), generation);
    let mut end = node.len();
    for (index, (at, data)) in items.iter().enumerate() {
        let place = 101 + index * 25;
        end -= data.len();
        key(&mut node, place, *at);
        node[place + 17..place + 21].copy_from_slice(&((end - 101) as u32).to_le_bytes());
        node[place + 21..place + 25].copy_from_slice(&(data.len() as u32).to_le_bytes());
        node[end..end + data.len()].copy_from_slice(data);
    }
    crc(&mut node);
    node
}

fn root_item(number: u64, level: u8, generation: u64) -> Vec<u8> {
    let mut item = vec![0; 439];
    item[160..168].copy_from_slice(&generation.to_le_bytes());
    item[176..184].copy_from_slice(&node_at(number).to_le_bytes());
    item[238] = level;
    item
}

impl Recipe {
    fn kind(&self) -> u64 {
        7 | self.profile.0
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = (CHUNKS..=DEVICES).collect();
        numbers.extend(self.block_group_tree.then_some(GROUPS));
        numbers
    }

    /// Everything allocated, by its place in the chunk, log included.
    pub(in crate::btrfs) fn allocated(&self) -> Vec<Place> {
        let mut nodes = self.numbers();
        nodes.extend(self.log.iter().flat_map(|_| [LOGS, LOG_TREE]));
        let nodes = nodes.into_iter().map(|number| (number * NODE, NODE));
        nodes.chain(self.data.iter().copied()).chain(self.log.iter().flatten().copied()).collect()
    }

    fn used(&self) -> u64 {
        self.numbers().len() as u64 * NODE + self.data.iter().map(|(_, len)| len).sum::<u64>()
    }

    fn chunk_item(&self) -> Vec<u8> {
        let (_, stripes, sub) = self.profile;
        let mut item = le(&[CHUNK, 2, 65_536, self.kind()]);
        item.extend([0; 12]);
        item.extend(stripes.to_le_bytes());
        item.extend(sub.to_le_bytes());
        for stripe in 0..u64::from(stripes) {
            // More stripes than devices lie one behind the other.
            let (device, turn) = (stripe % self.devices, stripe / self.devices);
            item.extend(le(&[device + 1, PHYSICAL + turn * CHUNK]));
            item.extend([device as u8 + 1; 16]);
        }
        item
    }

    /// The items of the extent tree.
    pub(in crate::btrfs) fn extent_items(&self) -> Vec<Item> {
        let mut items: Vec<Item> =
            self.numbers().into_iter().map(|number| ((node_at(number), 169, 0), vec![0; 33])).collect();
        items.extend(self.data.iter().map(|&(at, len)| ((LOGICAL + at, 168, len), vec![0; 53])));
        if !self.block_group_tree {
            items.insert(1, self.group());
        }
        items
    }

    fn group(&self) -> Item {
        ((LOGICAL, 192, CHUNK), le(&[self.used() + self.wrong.0, 256, self.kind()]))
    }

    fn nodes(&self) -> Vec<(u64, Vec<u8>)> {
        let mut device_item = vec![0; 98];
        let mut chunks: Vec<Item> = (1..=self.devices)
            .map(|devid| {
                device_item[66..82].fill(devid as u8);
                ((1, 216, devid), device_item.clone())
            })
            .collect();
        chunks.push(((256, 228, LOGICAL), self.chunk_item()));
        let mut roots = vec![
            ((2, 132, 0), root_item(EXTENTS, 1, GENERATION)),
            ((4, 132, 0), root_item(DEVICES, 0, GENERATION)),
        ];
        let mut nodes = Vec::new();
        if self.block_group_tree {
            roots.push(((11, 132, 0), root_item(GROUPS, 0, GENERATION)));
            nodes.push((GROUPS, leaf(GROUPS, 11, &[self.group()], GENERATION)));
        }
        if let Some(log) = &self.log {
            let item = ((LOG, 132, 5), root_item(LOG_TREE, 0, GENERATION + 1));
            nodes.push((LOGS, leaf(LOGS, LOG, &[item], GENERATION + 1)));
            let file = |(number, &(at, len)): (u64, &Place)| {
                let mut item = vec![0; 53];
                item[20] = 1;
                item[21..37].copy_from_slice(&le(&[LOGICAL + at, len]));
                ((257, 108, number << 20), item)
            };
            let items: Vec<_> = (0..).zip(log).map(file).collect();
            nodes.push((LOG_TREE, leaf(LOG_TREE, LOG, &items, GENERATION + 1)));
        }
        for (number, tree, items) in &self.trees {
            roots.push(((*tree, 132, 0), root_item(*number, 0, GENERATION)));
            nodes.push((*number, leaf(*number, *tree, items, GENERATION)));
        }
        roots.extend(self.roots.iter().cloned());
        roots.sort_by_key(|(key, _)| *key);
        let items = self.extents.clone().unwrap_or_else(|| self.extent_items());
        let (first, second) = items.split_at(items.len() / 2);
        let mut top = header(EXTENTS, 2, 1, 2, GENERATION);
        for (index, (child, items)) in [(FIRST_LEAF, first), (self.second_leaf, second)].iter().enumerate() {
            let place = 101 + index * 33;
            key(&mut top, place, items[0].0);
            top[place + 17..place + 33].copy_from_slice(&le(&[node_at(*child), GENERATION]));
        }
        crc(&mut top);
        let mut replace = le(&[1, 0, 0, 0, self.replace_state]);
        replace.extend([0; 32]);
        nodes.extend([
            (CHUNKS, leaf(CHUNKS, 3, &chunks, GENERATION)),
            (ROOTS, leaf(ROOTS, 1, &roots, GENERATION)),
            (EXTENTS, top),
            (FIRST_LEAF, leaf(FIRST_LEAF, 2, first, GENERATION)),
            (3, leaf(3, 2, second, GENERATION)),
            (DEVICES, leaf(DEVICES, 4, &[((0, 250, 0), replace)], GENERATION)),
        ]);
        nodes
    }

    fn superblock(&self, devid: u64) -> Vec<u8> {
        let mut sb = vec![0; 4096];
        let mut put = |at: usize, value: &[u8]| sb[at..at + value.len()].copy_from_slice(value);
        put(0x20, &FSID);
        put(0x30, &le(&[65_536, self.flags]));
        put(0x40, b"_BHRfS_M");
        let log = if self.log.is_some() { node_at(LOGS) } else { 0 };
        put(0x48, &le(&[GENERATION, node_at(ROOTS), node_at(CHUNKS), log]));
        put(0x70, &le(&[DEVICE * self.devices, self.used() + self.wrong.1, 6, self.devices]));
        put(0x90, &4096_u32.to_le_bytes());
        put(0x94, &(NODE as u32).to_le_bytes());
        let chunk = self.chunk_item();
        put(0xA0, &(17 + chunk.len() as u32).to_le_bytes());
        put(0xA4, &le(&[GENERATION]));
        put(0xB4, &le(&[u64::from(self.block_group_tree) * 8, self.incompat]));
        put(0xC9, &le(&[devid, DEVICE]));
        put(0xC9 + 66, &[devid as u8; 16]);
        put(0xC9 + 82, &FSID);
        put(0x12B, b"by hand");
        put(0x32B, &le(&[256]));
        put(0x333, &[228]);
        put(0x334, &le(&[LOGICAL]));
        put(0x33C, &chunk);
        crc(&mut sb);
        sb
    }

    /// Its devices' bytes. What is not in use holds 0xEE.
    pub(in crate::btrfs) fn make(&self) -> Vec<Vec<u8>> {
        let (kind, stripes, sub) = self.profile;
        let profile = Profile::new(kind | 7, stripes.into(), sub.into()).unwrap();
        let mut devices: Vec<_> = (1..=self.devices)
            .map(|devid| {
                let mut device = vec![0xEE; (DEVICE + TAIL) as usize];
                device[65_536..69_632].copy_from_slice(&self.superblock(devid));
                device
            })
            .collect();
        for (number, node) in self.nodes() {
            for copy in 0..profile.copies(stripes.into()) {
                let place = profile.locate(number * NODE, copy);
                assert!(place.run >= NODE);
                let (device, turn) = (place.stripe % self.devices, place.stripe / self.devices);
                let at = (PHYSICAL + turn * CHUNK + place.at) as usize;
                devices[device as usize][at..at + node.len()].copy_from_slice(&node);
            }
        }
        devices
    }

    /// Its devices.
    pub(in crate::btrfs) fn disks(&self) -> Vec<MemoryDisk> {
        self.make().into_iter().map(|bytes| MemoryDisk::from_bytes(&bytes, SectorSize::B512)).collect()
    }
}
