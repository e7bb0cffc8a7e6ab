//! How long a recovery would take, from how fast the share gives back what it would need.

use super::design::is_recovered;
use super::{Finding, Level};
use crate::monitor::{Monitor, check_cancelled};
use crate::view::{CaptureView, DiskView};
use imager_disk::ReadAt;
use imager_image::manifest::Manifest;
use imager_units::{ByteLen, ByteOffset, Extent, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a recovery may take.
const HALF_HOUR: Duration = Duration::from_secs(30 * 60);
/// Starting the rescue medium, choosing, and starting the machine again.
const AROUND: Duration = Duration::from_secs(4 * 60);
/// Places that are read, spread evenly.
const PLACES: u64 = 512;
/// What is read at each.
const PIECE: ByteLen = ByteLen::new(1 << 20);
/// No more than this is read.
const MOST: ByteLen = ByteLen::new(128 << 20);
/// Nor for longer than this.
const LONGEST: Duration = Duration::from_secs(15);
/// Less than this tells nothing.
const LEAST: ByteLen = ByteLen::new(8 << 20);
/// Readers at once: a restore, too, has more than one request under way.
const READERS: usize = 4;

/// How fast a share gave back what a recovery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes of volumes that were read, fetched, opened and checked.
    pub bytes: u64,
    /// What that took.
    pub time: Duration,
}

/// Reads samples of what a recovery of the system would read; `None` where there is too little to tell.
///
/// # Errors
/// Those of the repository; `Cancelled`.
pub fn measure(view: &CaptureView<'_>, monitor: &dyn Monitor) -> Result<Option<Measured>> {
    let pieces = places(view, monitor)?;
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    let read = || -> Result<u64> {
        let (mut bytes, mut buf) = (0_u64, vec![0; PIECE.to_usize().unwrap_or(0)]);
        while started.elapsed() < LONGEST {
            let Some((volume, extent)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            check_cancelled(monitor)?;
            let len = extent.len().to_usize().unwrap_or(0);
            let place = buf.get_mut(..len).unwrap_or_default();
            volume.read_exact_at(extent.start(), place)?;
            bytes = bytes.saturating_add(extent.len().get());
        }
        Ok(bytes)
    };
    let bytes = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let joined = readers.into_iter().map(|reader| reader.join().unwrap_or(Ok(0)));
        joined.sum::<Result<u64>>()
    })?;
    Ok((bytes >= LEAST.get()).then(|| Measured { bytes, time: started.elapsed() }))
}

/// Runs of data in the volumes of the system, evenly spread over them.
fn places<'r>(view: &CaptureView<'r>, monitor: &dyn Monitor) -> Result<Vec<(DiskView<'r>, Extent)>> {
    let volumes: Vec<_> = is_recovered(view.manifest()).filter(|volume| volume.map.is_some()).collect();
    let total: u64 = volumes.iter().map(|volume| volume.size_bytes).sum();
    let (mut found, mut bytes) = (Vec::new(), 0_u64);
    for volume in volumes {
        let bytes_view = view.volume(&volume.key)?;
        let share = u128::from(PLACES).saturating_mul(volume.size_bytes.into()) / u128::from(total.max(1));
        let count = u64::try_from(share).unwrap_or(PLACES).max(1);
        for at in 0..count {
            check_cancelled(monitor)?;
            let start = u128::from(volume.size_bytes).saturating_mul(at.into()) / u128::from(count);
            let start = ByteOffset::new(u64::try_from(start).unwrap_or(u64::MAX) / PIECE.get() * PIECE.get());
            let window = Extent::between(start, start.saturating_add(PIECE));
            for extent in bytes_view.data(window)?.iter() {
                if bytes >= MOST.get() {
                    return Ok(found);
                }
                bytes = bytes.saturating_add(extent.len().get());
                found.push((bytes_view.clone(), extent));
            }
        }
    }
    Ok(found)
}

/// What that means for a recovery.
pub fn examine(manifest: &Manifest, measured: Measured) -> Finding {
    const CHECK: &str = "recovery-time";
    let needed: u64 = is_recovered(manifest).map(|volume| volume.cost.used_bytes).sum();
    let milliseconds = u64::try_from(measured.time.as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = (measured.bytes.saturating_mul(1000) / milliseconds).max(1);
    let reading = Duration::from_secs(needed / speed);
    let all = reading.saturating_add(AROUND);
    let minutes = |time: Duration| time.as_secs().div_ceil(60);
    let said = format!(
        "a recovery would take about {} min: {} of the system at {}/s (as this share gave {} just now), and {} min to start \
         the rescue medium and the machine; a disk that writes more slowly takes longer",
        minutes(all),
        ByteLen::new(needed),
        ByteLen::new(speed),
        ByteLen::new(measured.bytes),
        minutes(AROUND),
    );
    if all <= HALF_HOUR {
        return Finding::good(CHECK, said);
    }
    Finding::new(
        Level::Problem,
        CHECK,
        said,
        "the aim is half an hour",
        "a faster way to the share, or a smaller system: data that lies on the system's volumes comes along each time",
    )
}
