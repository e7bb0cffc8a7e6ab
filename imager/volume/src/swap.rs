//! Swap volumes.
//!
//! Only the first page counts: the header with UUID and label. What was swapped out belongs to a running system and
//! means nothing to the next one. That holds for a hibernated system too: volumes that a restore leaves alone have
//! moved on since, so resuming the old memory over them would destroy them. A restore therefore turns the header
//! back into a plain one ([`reset`]).
//!
//! Header: include/linux/swap.h, `union swap_header`; hibernation: kernel/power/swap.c, `struct swsusp_header`.

use crate::bytes::Bytes;
use crate::read::{read, read_if_inside};
use crate::{Certainty, Filesystem, State, UsedBlocks, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, Result};

/// The page sizes of the architectures that Linux runs on; a signature ends each one's first page.
const PAGE_BYTES: [u64; 5] = [4096, 8192, 16_384, 32_768, 65_536];
const SIGNATURE_BYTES: usize = 10;
/// `mkswap` and the kernel want ten pages.
const LEAST_BYTES: u64 = 10 * 4096;

const VERSION_OFFSET: usize = 1024;
const LAST_PAGE_OFFSET: usize = 1028;
const UUID_OFFSET: usize = 1036;
const LABEL_OFFSET: usize = 1052;

const PLAIN: [&[u8; SIGNATURE_BYTES]; 2] = [b"SWAPSPACE2", b"SWAP-SPACE"];
/// What the kernel, uswsusp and their ancestors put in place of it while an image is there.
const HIBERNATED: [&[u8; SIGNATURE_BYTES]; 4] =
    [b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"];
/// TuxOnIce leaves the signature alone and marks the page's first bytes.
const TUX_ON_ICE: [u8; 8] = [0xED, 0xC3, 0x02, 0xE9, 0x98, 0x56, 0xE5, 0x0C];

/// Swap, in use by a hibernated system or not.
#[derive(Clone, Copy, Debug)]
pub struct Swap;

/// A first page that ends in a signature.
struct Header<'a> {
    page: &'a [u8],
    signature: Signature,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signature {
    /// Version 0, of 1990s kernels: a bitmap of pages and no fields.
    Old,
    Plain,
    Hibernated,
    TuxOnIce,
}

impl UsedBlocks for Swap {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let pages = first_pages(volume)?;
        Ok(Header::find(&pages).map(|header| header.filesystem(volume)))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let pages = first_pages(volume)?;
        let header = Header::find(&pages).ok_or_else(|| Error::corrupt("there is no swap header"))?;
        let page = ByteLen::of(header.page);
        Ok(UsedMap { extents: Extent::first(page).into(), unit: page, certainty: Certainty::Exact })
    }
}

/// Turns the header of a hibernated system in `page` (the volume's first page, or more) into a plain one, as the
/// kernel does when it resumes: the original signature goes back to its place. Returns whether there was one.
///
/// # Errors
/// `Corrupt` when there is no swap header, or its original signature is not one; `page` is unchanged then.
pub fn reset(page: &mut [u8]) -> Result<bool> {
    let header = Header::find(page).ok_or_else(|| Error::corrupt("there is no swap header"))?;
    let (signature, len) = (header.signature, header.page.len());
    match signature {
        Signature::Old | Signature::Plain => Ok(false),
        Signature::TuxOnIce => {
            page.iter_mut().take(TUX_ON_ICE.len()).for_each(|byte| *byte = 0);
            Ok(true)
        }
        Signature::Hibernated => restore_signature(page.get_mut(..len).unwrap_or_default()).map(|()| true),
    }
}

/// `struct swsusp_header` ends in `orig_sig[10], sig[10]`.
fn restore_signature(page: &mut [u8]) -> Result<()> {
    let fields = page.last_chunk_mut::<{ 2 * SIGNATURE_BYTES }>();
    let (orig_sig, sig) = fields
        .and_then(|fields| fields.split_first_chunk_mut::<SIGNATURE_BYTES>())
        .filter(|(orig_sig, _)| PLAIN.contains(&&**orig_sig))
        .ok_or_else(|| Error::corrupt("the hibernation header does not hold the original swap signature"))?;
    sig.copy_from_slice(orig_sig);
    Ok(())
}

/// As many of the first 64 KiB as there are whole pages of.
fn first_pages(volume: &dyn ReadAt) -> Result<Vec<u8>> {
    let size = volume.geometry().size.get();
    let most = PAGE_BYTES.into_iter().rev().find(|&page| page <= size);
    match most.filter(|_| size >= LEAST_BYTES) {
        Some(most) => read(volume, Extent::first(ByteLen::new(most))),
        None => Ok(read_if_inside(volume, 0, 0)?.unwrap_or_default()),
    }
}

impl<'a> Header<'a> {
    fn find(pages: &'a [u8]) -> Option<Self> {
        let lengths = PAGE_BYTES.into_iter().filter_map(|len| usize::try_from(len).ok());
        lengths.filter_map(|len| pages.get(..len)).find_map(Self::parse)
    }

    fn parse(page: &'a [u8]) -> Option<Self> {
        let found = page.last_chunk::<SIGNATURE_BYTES>()?;
        let signature = if page.starts_with(&TUX_ON_ICE) && PLAIN.contains(&found) {
            Signature::TuxOnIce
        } else if found == PLAIN[0] {
            Signature::Plain
        } else if found == PLAIN[1] {
            Signature::Old
        } else if HIBERNATED.contains(&found) {
            Signature::Hibernated
        } else {
            return None;
        };
        let header = Self { page, signature };
        (signature == Signature::Old || header.last_page().is_some()).then_some(header)
    }

    /// The number of the last page, from a header of version 1 in either byte order.
    fn last_page(&self) -> Option<u32> {
        let b = Bytes(self.page);
        let last_page = match b.le32(VERSION_OFFSET)? {
            1 => b.le32(LAST_PAGE_OFFSET)?,
            0x0100_0000 => b.be32(LAST_PAGE_OFFSET)?,
            _ => 0,
        };
        (last_page > 0).then_some(last_page)
    }

    fn filesystem(&self, volume: &dyn ReadAt) -> Filesystem {
        let b = Bytes(self.page);
        let page = ByteLen::of(self.page);
        let pages = self.last_page().map(|last| u64::from(last).saturating_add(1));
        let identity = self.signature != Signature::Old;
        Filesystem {
            kind: "swap",
            uuid: b.uuid(UUID_OFFSET).filter(|_| identity),
            label: b.text(LABEL_OFFSET, 16).filter(|_| identity),
            block: page,
            size: pages
                .map_or(volume.geometry().size, |pages| ByteLen::new(pages.saturating_mul(page.get()))),
            state: match self.signature {
                Signature::Old | Signature::Plain => State::Clean,
                Signature::Hibernated | Signature::TuxOnIce => State::Hibernated,
            },
            head: Extent::first(page).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HIBERNATED, Swap, TUX_ON_ICE, reset};
    use crate::{State, UsedBlocks};
    use imager_disk::MemoryDisk;
    use imager_units::{ErrorKind, SectorSize};

    fn swap(page: usize, signature: &[u8; 10]) -> Vec<u8> {
        let mut bytes = vec![0; 16 * 65_536];
        bytes[1024] = 1;
        bytes[1028] = 15;
        bytes[1036..1052].fill(0x11);
        bytes[1052..1056].copy_from_slice(b"swap");
        bytes[page - 10..page].copy_from_slice(signature);
        bytes
    }

    fn probe(bytes: &[u8]) -> Option<crate::Filesystem> {
        Swap.probe(&MemoryDisk::from_bytes(bytes, SectorSize::B512)).unwrap()
    }

    #[test]
    fn only_the_first_page_counts_whatever_its_size() {
        for page in [4096, 8192, 16_384, 32_768, 65_536] {
            let bytes = swap(page, b"SWAPSPACE2");
            let found = probe(&bytes).unwrap();
            assert_eq!(
                (found.kind, found.label.as_deref(), found.state),
                ("swap", Some("swap"), State::Clean)
            );
            assert_eq!(found.uuid.as_deref(), Some("11111111-1111-1111-1111-111111111111"));
            assert_eq!(found.size.get(), 16 * page as u64);
            let map = Swap.used(&MemoryDisk::from_bytes(&bytes, SectorSize::B512)).unwrap();
            assert_eq!((map.extents.total(), map.unit), (found.block, found.block));
        }
    }

    #[test]
    fn a_hibernated_header_becomes_the_one_it_was() {
        let plain = swap(4096, b"SWAPSPACE2");
        for signature in HIBERNATED {
            let mut bytes = swap(4096, signature);
            bytes[4076..4086].copy_from_slice(b"SWAPSPACE2");
            assert_eq!(probe(&bytes).unwrap().state, State::Hibernated);
            assert!(reset(&mut bytes[..4096]).unwrap());
            assert_eq!(bytes[4086..], plain[4086..]);
            assert_eq!(probe(&bytes).unwrap().state, State::Clean);
            assert!(!reset(&mut bytes[..4096]).unwrap());
        }
        let mut bytes = swap(4096, b"SWAPSPACE2");
        bytes[..8].copy_from_slice(&TUX_ON_ICE);
        assert_eq!(probe(&bytes).unwrap().state, State::Hibernated);
        assert!(reset(&mut bytes).unwrap());
        assert_eq!(bytes, plain);
    }

    #[test]
    fn what_cannot_be_reset_is_left_alone() {
        let before = swap(4096, b"S1SUSPEND\0");
        let mut after = before.clone();
        assert_eq!(reset(&mut after).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(after, before);
        assert_eq!(reset(&mut [0; 4096]).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(reset(&mut []).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_signature_without_a_header_is_not_swap() {
        let mut bytes = swap(4096, b"SWAPSPACE2");
        bytes[1024] = 2;
        assert_eq!(probe(&bytes), None);
        assert_eq!(probe(&bytes[..4096]), None);
    }
}
