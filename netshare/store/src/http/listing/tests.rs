use super::{LINE_BYTES_MAX, Listing};
use imager_units::{ErrorKind, Result};
use proptest::prelude::{any, prop, proptest};

/// The names of a listing that comes in pieces of `size` bytes.
fn read(folder: &str, text: &[u8], size: usize) -> Result<Vec<String>> {
    let mut listing = Listing::new(folder)?;
    let mut names = Vec::new();
    for piece in text.chunks(size) {
        listing.take(piece, &mut |entry| {
            names.push(entry.name.to_string());
            Ok(())
        })?;
    }
    listing.finish().map(|()| names)
}

const WHOLE: &str = concat!(
    r#"{"name":"packs/00/a","len":7,"received":"2026-11-22T01:02:03.5Z"}"#,
    "\n",
    r#"{"name":"packs/00/b","len":0,"received":null,"more":1}"#,
    "\n",
    r#"{"end":true,"count":2}"#,
    "\n"
);

#[test]
fn a_listing_is_read_however_it_is_cut() {
    for size in 1..=WHOLE.len() {
        assert_eq!(read("packs", WHOLE.as_bytes(), size).unwrap(), ["packs/00/a", "packs/00/b"]);
    }
}

#[test]
fn without_its_last_line_it_is_cut_off() {
    for end in 0..WHOLE.len() {
        let error = read("", &WHOLE.as_bytes()[..end], 50).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{end}");
    }
}

#[test]
fn hostile_lines_are_errors() {
    let entry = |name: &str| format!("{{\"name\":\"{name}\",\"len\":1}}\n");
    let end = |count: u64| format!("{{\"end\":true,\"count\":{count}}}\n");
    for text in [
        entry("other/x") + &end(1),
        entry("packs/../x") + &end(1),
        entry("packs/.hidden") + &end(1),
        entry("packs") + &end(1),
        entry("packs/a") + &entry("packs/a") + &end(2),
        entry("packs/a") + &end(2),
        end(0) + &end(0),
        end(0) + &entry("packs/a"),
        format!("{{\"name\":\"packs/a\",\"len\":-1}}\n{}", end(1)),
        format!("{{\"name\":\"packs/a\",\"len\":1,\"received\":\"now\"}}\n{}", end(1)),
        "x".repeat(LINE_BYTES_MAX + 1),
        "x".repeat(LINE_BYTES_MAX + 1) + "\n",
        "\n".to_owned() + &end(0),
        "<html>\n".to_owned(),
        "{}\n".to_owned(),
        "[]\n".to_owned(),
        "null\n".to_owned(),
    ] {
        for size in [1, 7, 100_000] {
            let error = read("packs", text.as_bytes(), size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
        let _any = read("packs", &text, size);
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0..WHOLE.len(), byte in any::<u8>()) {
        let mut text = WHOLE.as_bytes().to_vec();
        text[at] = byte;
        let _any = read("packs", &text, 9);
    }
}
