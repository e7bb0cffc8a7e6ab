//! LZNT1, by which NTFS compresses ([MS-XCA] 2.5): chunks of 4 KiB, each a run of bytes and of pointers back.

use crate::bytes::Bytes;
use imager_units::{Error, Result};

const CHUNK_BYTES: usize = 4096;
const IS_COMPRESSED: u16 = 0x8000;

/// Fills `out` with what `packed` holds, and with zeros behind that.
///
/// # Errors
/// `Corrupt` when it points before the beginning of a chunk or is cut off.
pub(super) fn unpack(packed: &[u8], out: &mut [u8]) -> Result<()> {
    let wrong = || Error::corrupt("compressed content cannot be unpacked");
    let b = Bytes(packed);
    let (mut at, mut ended) = (0_usize, false);
    for chunk in out.chunks_mut(CHUNK_BYTES) {
        let header = b.le16(at).filter(|&header| header != 0 && !ended);
        let Some(header) = header else {
            ended = true;
            chunk.fill(0);
            continue;
        };
        let len = usize::from(header & 0x0FFF).saturating_add(1);
        let body = b.slice(at.saturating_add(2), len).ok_or_else(wrong)?;
        at = at.saturating_add(2).saturating_add(len);
        let filled = if header & IS_COMPRESSED == 0 {
            copy(body, chunk)
        } else {
            expand(body, chunk).ok_or_else(wrong)?
        };
        chunk.get_mut(filled..).unwrap_or_default().fill(0);
    }
    Ok(())
}

fn copy(body: &[u8], chunk: &mut [u8]) -> usize {
    let len = body.len().min(chunk.len());
    for (place, byte) in chunk.iter_mut().zip(body) {
        *place = *byte;
    }
    len
}

/// How much of the chunk there is; `None` where a pointer leads out of it.
fn expand(body: &[u8], chunk: &mut [u8]) -> Option<usize> {
    let (mut at, mut filled) = (0_usize, 0_usize);
    while at < body.len() {
        let flags = *body.get(at)?;
        at = at.checked_add(1)?;
        for bit in 0..8_u32 {
            if at >= body.len() {
                break;
            }
            if flags >> bit & 1 == 0 {
                *chunk.get_mut(filled)? = *body.get(at)?;
                (at, filled) = (at.checked_add(1)?, filled.checked_add(1)?);
                continue;
            }
            let pointer = Bytes(body).le16(at)?;
            at = at.checked_add(2)?;
            // The further into the chunk, the more bits are distance and the fewer length.
            let place = u32::try_from(filled.checked_sub(1)?).ok()?;
            let wide = u32::BITS.saturating_sub(place.leading_zeros()).saturating_sub(4);
            let wide = if place < 16 { 0 } else { wide };
            let length = usize::from(pointer & 0x0FFF >> wide).checked_add(3)?;
            let back = usize::from(pointer.checked_shr(12_u32.checked_sub(wide)?)?).checked_add(1)?;
            for _ in 0..length {
                let byte = *chunk.get(filled.checked_sub(back)?)?;
                *chunk.get_mut(filled)? = byte;
                filled = filled.checked_add(1)?;
            }
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn the_published_example_unpacks() {
        // [MS-XCA] 3.3.
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01,
            0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24,
            0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48,
            0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let text = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# \
                    G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut out = vec![0xAA; 4096];
        unpack(&packed, &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out[..text.len()]).unwrap(), text);
        assert!(out[text.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let mut out = vec![0; 65_536];
        for seed in 0..2000_u32 {
            let mut state = seed;
            let packed: Vec<u8> = (0..300)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                })
                .collect();
            let _either = unpack(&packed, &mut out);
        }
    }
}
