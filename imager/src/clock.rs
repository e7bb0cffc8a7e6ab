//! Wall-clock time in the two forms we write: RFC 3339 in documents, compact in names. Always UTC, whole seconds.

use imager_units::{Error, ErrorKind, Result};
use jiff::Timestamp;

/// Now, as documents say it: `2026-11-21T03:15:00Z`.
pub fn now_rfc3339() -> String {
    rfc3339(Timestamp::now())
}

/// `time` as documents say it.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A document's time as names say it: `20261121T031500Z`.
pub fn compact(rfc3339: &str) -> String {
    rfc3339.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// A time a person typed: RFC 3339, compact, or a local date and time without zone.
///
/// # Errors
/// `Invalid` when it is none of these.
pub fn parse(text: &str) -> Result<Timestamp> {
    let invalid = |e: jiff::Error| {
        let what = format!("{text:?} is no time such as 2026-11-21T03:15 (local) or 2026-11-21T03:15:00Z");
        Error::with_source(ErrorKind::Invalid, what, e)
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some(date_time) = text.strip_suffix('Z') {
        let civil = date_time.parse::<jiff::civil::DateTime>().map_err(invalid)?;
        return Ok(civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(invalid)?.timestamp());
    }
    let civil = text.parse::<jiff::civil::DateTime>().map_err(invalid)?;
    Ok(civil.to_zoned(jiff::tz::TimeZone::system()).map_err(invalid)?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::{compact, parse, rfc3339};

    #[test]
    fn times_are_read_in_each_form() {
        for text in
            ["2026-11-21T03:15:00Z", "20261121T031500Z", "2026-11-21T03:15Z", "2026-11-21T04:15:00+01:00"]
        {
            assert_eq!(rfc3339(parse(text).unwrap()), "2026-11-21T03:15:00Z");
        }
        assert!(parse("yesterday").is_err());
        assert_eq!(compact("2026-11-21T03:15:00Z"), "20261121T031500Z");
    }
}
