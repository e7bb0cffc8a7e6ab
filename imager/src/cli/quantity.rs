//! Times and rates as people type them.

use imager_units::ByteLen;
use std::time::Duration;

/// A time: a whole number with `s`, `m` (or `min`), `h` or `d` behind it, or just `0`.
///
/// # Errors
/// Says what is expected.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "" if number == "0" => 1,
        _ => return Err(format!("{text:?} is no time such as 90s, 10m or 2h")),
    };
    let number: Option<u64> = number.parse().ok();
    let time = number.and_then(|number| number.checked_mul(seconds)).filter(|time| *time <= 366 * 86_400);
    time.map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no time up to a year, such as 90s, 10m or 2h"))
}

/// Bytes a second: a number with `K`, `M` or `G` (or `KiB`, `MiB`, `GiB`) behind it for powers of 1024, or `KB`, `MB`,
/// `GB` for powers of 1000.
///
/// # Errors
/// Says what is expected.
pub(crate) fn parse_rate(text: &str) -> Result<ByteLen, String> {
    let wrong = || format!("{text:?} is no rate in bytes a second such as 50M, 1.5GiB or 800KB");
    let (number, unit) = split(text);
    let unit: u64 = match unit.to_ascii_lowercase().trim_end_matches("/s") {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: Option<u64> = format!("{whole}{part}").parse().ok();
    let scale = u32::try_from(part.len()).ok().and_then(|len| 10_u64.checked_pow(len)).ok_or_else(wrong)?;
    let bytes = digits.and_then(|digits| digits.checked_mul(unit)).map(|bytes| bytes / scale);
    match bytes {
        Some(bytes) if bytes >= 1024 => Ok(ByteLen::new(bytes)),
        Some(_) => Err(format!("{text:?} is less than 1 KiB a second")),
        None => Err(wrong()),
    }
}

/// The number, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::{parse_rate, parse_time};

    #[test]
    fn times_are_read_with_their_unit_and_refused_without() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("90s", 90), ("10m", 600), ("10 min", 600), ("2h", 7200), ("1d", 86_400)]
        {
            assert_eq!(parse_time(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in
            ["", "10", "m", "-1s", "1.5h", "10x", "99999999999999999999s", "18446744073709551615d", "400d"]
        {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates_are_read_in_every_form() {
        for (text, bytes) in [
            ("50M", 50 << 20),
            ("50MiB", 50 << 20),
            ("50 MiB/s", 50 << 20),
            ("1G", 1 << 30),
            ("1.5m", 3 << 19),
            ("800KB", 800_000),
            ("4096", 4096),
        ] {
            assert_eq!(parse_rate(text).unwrap().get(), bytes, "{text}");
        }
        for text in [
            "",
            "M",
            "0",
            "1",
            "0.5K",
            "-5M",
            "5T",
            "1.2.3M",
            "99999999999G",
            ".",
            "1.00000000000000000000000M",
        ] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
    }
}
