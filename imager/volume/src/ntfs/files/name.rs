//! Names in UTF-16 as the bytes that Linux shows.

/// UTF-8; half a surrogate pair, which no text has, becomes three bytes as if it were a character.
pub(super) fn to_bytes(utf16: &[u8]) -> Vec<u8> {
    let units = utf16.chunks_exact(2).filter_map(|unit| Some(u16::from_le_bytes(unit.try_into().ok()?)));
    let mut bytes = Vec::with_capacity(utf16.len());
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(letter) => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let [low, high] = half.unpaired_surrogate().to_le_bytes();
                bytes.extend([0xE0 | high >> 4, 0x80 | (high & 0x0F) << 2 | low >> 6, 0x80 | low & 0x3F]);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::to_bytes;

    #[test]
    fn halves_of_pairs_are_kept_apart() {
        let utf16: Vec<u8> =
            "aß€😀".encode_utf16().chain([0xD83D, 0x61]).flat_map(u16::to_le_bytes).collect();
        assert_eq!(to_bytes(&utf16), ["aß€😀".as_bytes(), &[0xED, 0xA0, 0xBD, b'a']].concat());
    }
}
