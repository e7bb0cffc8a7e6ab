//! The devices of one filesystem, and reading tree nodes from them.

use super::chunk::{Chunk, Chunks};
use super::superblock::{SUPER_BYTES, SUPER_OFFSETS, Superblock};
use crate::read::{read_if_inside, read_into};
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};

/// One device.
pub(super) struct Device<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) sb: Superblock,
}

/// All devices of a filesystem. The first is the one whose map is asked for.
pub(super) struct Devices<'a>(Vec<Device<'a>>);

impl<'a> Devices<'a> {
    /// The devices on `volumes`, which must be all that the filesystem has.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where a superblock is damaged or two do not belong together; `Unsupported` for what is not
    /// understood, and where a device is missing.
    pub(super) fn open(volumes: &[&'a dyn ReadAt]) -> Result<Self> {
        let devices: Vec<_> = volumes.iter().map(|volume| open(*volume)).collect::<Result<_>>()?;
        let first = devices.first().ok_or_else(|| Error::corrupt("a filesystem without a device"))?;
        let (here, all) = (devices.len(), first.sb.num_devices);
        for (number, device) in devices.iter().enumerate() {
            if !first.sb.is_of_one_set_with(&device.sb) {
                return Err(Error::corrupt("its devices are not of the same moment"));
            }
            let devid = device.sb.devid;
            if devices.iter().take(number).any(|other| other.sb.devid == devid) {
                return Err(Error::corrupt(format!("its device {devid} is here twice")));
            }
            // The device that another is being replaced by.
            if devid == 0 {
                return Err(Error::unsupported("one of its devices is being replaced"));
            }
        }
        if u64::try_from(here) != Ok(all) {
            let what = format!("it lies on {all} devices, of which only {here} can be read together");
            return Err(Error::unsupported(what));
        }
        Ok(Self(devices))
    }

    /// The one whose map is asked for.
    pub(super) fn first(&self) -> Result<&Device<'a>> {
        self.0.first().ok_or_else(|| Error::corrupt("a filesystem without a device"))
    }

    /// The sum of the lengths of all.
    pub(super) fn total_bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, device| sum.saturating_add(device.sb.dev_total_bytes))
    }

    /// Whether a device has this number and UUID.
    pub(super) fn has(&self, devid: u64, uuid: [u8; 16]) -> bool {
        self.0.iter().any(|device| device.sb.devid == devid && device.sb.dev_uuid == uuid)
    }

    /// Checks that every stripe of `chunks` lies on a device.
    ///
    /// # Errors
    /// `Corrupt` when one does not.
    pub(super) fn check(&self, chunks: &Chunks) -> Result<()> {
        for chunk in chunks.iter() {
            for stripe in &chunk.stripes {
                let end = stripe.offset.checked_add(chunk.stripe_bytes);
                let is_on = |device: &Device<'_>| {
                    device.sb.devid == stripe.devid
                        && device.sb.dev_uuid == stripe.dev_uuid
                        && end.is_some_and(|end| end <= device.sb.dev_total_bytes)
                };
                if !self.0.iter().any(is_on) {
                    let (at, devid) = (chunk.logical, stripe.devid);
                    return Err(Error::corrupt(format!("the chunk at {at:#x} lies outside device {devid}")));
                }
            }
        }
        Ok(())
    }

    /// Reads `buffer` from `logical`, of the copy number `copy`.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where there is no such place.
    pub(super) fn read(&self, chunk: &Chunk, logical: u64, copy: u64, buffer: &mut [u8]) -> Result<()> {
        let mut at = logical.saturating_sub(chunk.logical);
        let mut rest = buffer;
        while !rest.is_empty() {
            let place = chunk.profile.locate(at, copy);
            let len = usize::try_from(place.run).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            let stripe = usize::try_from(place.stripe).ok().and_then(|number| chunk.stripes.get(number));
            let stripe = stripe.ok_or_else(|| Error::corrupt("a chunk without its stripes"))?;
            let device = self.0.iter().find(|device| device.sb.devid == stripe.devid);
            let device = device.ok_or_else(|| Error::corrupt("a chunk on a device that is not there"))?;
            let start = ByteOffset::new(stripe.offset.saturating_add(place.at));
            let extent = Extent::new(start, ByteLen::of(part));
            let bounds = device.volume.geometry().extent();
            if !extent.is_some_and(|extent| bounds.contains(extent)) {
                return Err(Error::corrupt(format!("the tree node at {logical:#x} lies outside its device")));
            }
            device.volume.read_exact_at(start, part)?;
            at = at.saturating_add(ByteLen::of(part).get());
            rest = behind;
        }
        Ok(())
    }
}

/// The superblock of a volume, if it has one.
///
/// # Errors
/// `Io`.
pub(super) fn superblock(volume: &dyn ReadAt) -> Result<Option<Superblock>> {
    let [primary, ..] = SUPER_OFFSETS;
    let bytes = read_if_inside(volume, primary, SUPER_BYTES)?;
    Ok(bytes.as_deref().and_then(Superblock::parse))
}

/// A device whose superblock and its copies are in order.
fn open(volume: &dyn ReadAt) -> Result<Device<'_>> {
    let sb = superblock(volume)?.ok_or_else(|| Error::corrupt("there is no Btrfs superblock"))?;
    sb.check()?;
    let (size, total) = (volume.geometry().size.get(), sb.dev_total_bytes);
    if total > size {
        let what = format!("device {} should have {total} bytes and has {size}", sb.devid);
        return Err(Error::corrupt(what));
    }
    for offset in SUPER_OFFSETS {
        // As the kernel's `write_dev_supers`: copies are only where the device goes on behind them.
        if offset.saturating_add(SUPER_BYTES) >= total {
            break;
        }
        let mut bytes = Vec::new();
        let extent = Extent::new(ByteOffset::new(offset), ByteLen::new(SUPER_BYTES)).unwrap_or_default();
        read_into(volume, extent, &mut bytes)?;
        let copy = Superblock::parse(&bytes).filter(|copy| copy.bytenr == offset && sb.has_copy(copy));
        if copy.is_none() {
            let what = format!("the superblock at {offset:#x} is not a copy of the first");
            return Err(Error::corrupt(what));
        }
    }
    Ok(Device { volume, sb })
}

/// Whether a read failed because of what is stored, so that another copy may do better.
pub(super) fn may_try_another(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt)
}
