//! Writing a QCOW2 image, version 3: clusters of 64 KiB in the order in which they come, those of zeros not at all.
//!
//! All is appended, each table behind what it speaks of, and every cluster is used once, so all reference counts are 1.
//! Layout: header, L1 table, then data clusters and after those of each 512 MiB their L2 table, then the reference count
//! blocks and their table. Fields and limits are those of QEMU's docs/interop/qcow2.txt; all numbers are big-endian.

use imager_units::{ByteLen, ByteOffset, Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The size of a cluster.
pub(super) const CLUSTER: usize = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = CLUSTER as u64;
/// How many entries of 8 bytes a cluster holds.
const ENTRIES: u64 = CLUSTER_BYTES / 8;
/// How many reference counts of 16 bits a cluster holds.
const REFCOUNTS: u64 = CLUSTER_BYTES / 2;
/// Set in an entry whose cluster is used once.
const COPIED: u64 = 1 << 63;
const HEADER_BYTES: u32 = 104;

/// An image being written.
pub(super) struct Qcow2<'f> {
    file: &'f File,
    size: ByteLen,
    l1: Vec<u64>,
    l2: Vec<u64>,
    /// Which entry of the L1 table the L2 table is for; `None` while it is empty.
    region: Option<usize>,
    /// The first cluster of the file that is not used yet.
    next: u64,
}

impl<'f> Qcow2<'f> {
    /// An empty image of a disk of `size`; a part of a sector at the end becomes a whole one.
    pub(super) fn new(file: &'f File, size: ByteLen) -> Self {
        let size = ByteLen::new(size.get().next_multiple_of(512));
        let regions = usize::try_from(size.get().div_ceil(CLUSTER_BYTES * ENTRIES)).unwrap_or(usize::MAX);
        let next = 1 + (regions as u64).div_ceil(ENTRIES);
        Self { file, size, l1: vec![0; regions], l2: vec![0; CLUSTER / 8], region: None, next }
    }

    /// Writes `bytes` at `offset`, a multiple of the cluster's size; later calls give later offsets.
    ///
    /// # Errors
    /// `OutOfSpace`, `Io` from the system.
    pub(super) fn put(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let mut cluster = offset.get() / CLUSTER_BYTES;
        let mut rest = bytes;
        while !rest.is_empty() {
            let region = usize::try_from(cluster / ENTRIES).unwrap_or(usize::MAX);
            if self.region != Some(region) {
                self.close_region()?;
                self.region = Some(region);
            }
            let room = (ENTRIES - cluster % ENTRIES) * CLUSTER_BYTES;
            let len = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (here, behind) = rest.split_at(len);
            self.write(self.next * CLUSTER_BYTES, here)?;
            for _ in 0..(len as u64).div_ceil(CLUSTER_BYTES) {
                self.l2[usize::try_from(cluster % ENTRIES).unwrap_or(0)] =
                    (self.next * CLUSTER_BYTES) | COPIED;
                self.next += 1;
                cluster += 1;
            }
            rest = behind;
        }
        Ok(())
    }

    /// Writes the L2 table, if there is anything in it.
    fn close_region(&mut self) -> Result<()> {
        let Some(region) = self.region.take() else { return Ok(()) };
        let at = self.next * CLUSTER_BYTES;
        self.write(at, &big_endian(&self.l2))?;
        self.l1[region] = at | COPIED;
        self.l2.fill(0);
        self.next += 1;
        Ok(())
    }

    /// Writes the tables and the header.
    ///
    /// # Errors
    /// `OutOfSpace`, `Io` from the system.
    pub(super) fn finish(mut self) -> Result<()> {
        self.close_region()?;
        let (blocks, table) = refcount_clusters(self.next);
        let (first, total) = (self.next, self.next + blocks + table);
        for block in 0..blocks {
            let counted = total.saturating_sub(block * REFCOUNTS).min(REFCOUNTS);
            let mut bytes = 1_u16.to_be_bytes().repeat(usize::try_from(counted).unwrap_or(0));
            bytes.resize(CLUSTER, 0);
            self.write((first + block) * CLUSTER_BYTES, &bytes)?;
        }
        let entries: Vec<u64> = (first..first + blocks).map(|cluster| cluster * CLUSTER_BYTES).collect();
        self.write((first + blocks) * CLUSTER_BYTES, &big_endian(&entries))?;
        self.write(CLUSTER_BYTES, &big_endian(&self.l1))?;
        self.write(0, &self.header((first + blocks) * CLUSTER_BYTES, table))?;
        // What does not fill its cluster is followed by a hole.
        self.file.set_len(total * CLUSTER_BYTES).context(|| "writing the image".to_owned())
    }

    fn header(&self, refcount_table: u64, refcount_clusters: u64) -> Vec<u8> {
        let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        let mut out = b"QFI\xfb".to_vec();
        out.extend(3_u32.to_be_bytes());
        // No backing file: offset and length.
        out.extend([0; 12]);
        out.extend(CLUSTER_BITS.to_be_bytes());
        out.extend(self.size.get().to_be_bytes());
        // Not encrypted.
        out.extend([0; 4]);
        out.extend(short(self.l1.len() as u64));
        out.extend(CLUSTER_BYTES.to_be_bytes());
        out.extend(refcount_table.to_be_bytes());
        out.extend(short(refcount_clusters));
        // No snapshots: count and offset. No features: incompatible, compatible, autoclear.
        out.extend([0; 12 + 24]);
        // Reference counts of 2^4 bits.
        out.extend(4_u32.to_be_bytes());
        out.extend(HEADER_BYTES.to_be_bytes());
        // The end of the header's extensions: type and length.
        out.extend([0; 8]);
        out
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).context(|| "writing the image".to_owned())
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// How many clusters of reference counts, and of their table, a file of `used` clusters needs beside them.
fn refcount_clusters(used: u64) -> (u64, u64) {
    let (mut blocks, mut table) = (1, 1);
    loop {
        let needed = (used + blocks + table).div_ceil(REFCOUNTS);
        let needed = (needed, needed.div_ceil(ENTRIES));
        if needed == (blocks, table) {
            return needed;
        }
        // Both only grow, so this ends.
        (blocks, table) = (needed.0.max(blocks), needed.1.max(table));
        if blocks * REFCOUNTS >= used + blocks + table && table * ENTRIES >= blocks {
            return (blocks, table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES, REFCOUNTS, refcount_clusters};

    #[test]
    fn reference_counts_count_themselves() {
        for used in
            [1, 2, REFCOUNTS - 3, REFCOUNTS - 2, REFCOUNTS - 1, REFCOUNTS, 9 * REFCOUNTS - 10, 1 << 40]
        {
            let (blocks, table) = refcount_clusters(used);
            assert!(blocks * REFCOUNTS >= used + blocks + table, "{used}");
            assert!(table * ENTRIES >= blocks, "{used}");
            assert!((blocks - 1) * REFCOUNTS < used + blocks + table, "{used}: one too many");
        }
    }
}
