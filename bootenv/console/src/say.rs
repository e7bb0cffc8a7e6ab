//! Sizes, ages and lists as a tired person reads them.

use imager_units::ByteLen;
use jiff::{Timestamp, Unit};

/// A size.
pub(crate) fn size(bytes: u64) -> String {
    ByteLen::new(bytes).to_string()
}

/// How long ago something was; clocks of dead machines are often wrong, and a time to come says so.
pub(crate) fn age(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return "of an unknown time".to_owned() };
    let Ok(seconds) = now.since(time).and_then(|span| span.total(Unit::Second)) else { return String::new() };
    if seconds < -90.0 {
        return "in the future by this machine's clock".to_owned();
    }
    format!("{} ago", span(seconds.max(0.0)))
}

/// A span of time, coarsely.
pub(crate) fn span(seconds: f64) -> String {
    if seconds < 1.0 {
        return "less than a second".to_owned();
    }
    let (count, unit) = match seconds {
        s if s < 90.0 => (s, "second"),
        s if s < 5400.0 => (s / 60.0, "minute"),
        s if s < 129_600.0 => (s / 3600.0, "hour"),
        s => (s / 86_400.0, "day"),
    };
    let count = count.round();
    format!("{count:.0} {unit}{}", if (count - 1.0).abs() < f64::EPSILON { "" } else { "s" })
}

/// A number of things.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A time as people write it, without what machines need.
pub(crate) fn time(time: &str) -> String {
    time.replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

/// Columns, each as wide as it needs; those in `right` end where the others do.
pub(crate) fn columns(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let most = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..most).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{age, columns, count, span, time};

    #[test]
    fn ages_are_told_coarsely() {
        let now = "2026-11-22T05:00:00Z".parse().expect("a time");
        assert_eq!(age("2026-11-22T04:59:00Z", now), "60 seconds ago");
        assert_eq!(age("2026-11-22T03:00:00Z", now), "2 hours ago");
        assert_eq!(age("2026-11-01T05:00:00Z", now), "21 days ago");
        assert_eq!(age("2026-11-23T05:00:00Z", now), "in the future by this machine's clock");
        assert_eq!(age("yesterday", now), "of an unknown time");
        assert_eq!(span(0.4), "less than a second");
        assert_eq!((span(1.0), count(2, "disk")), ("1 second".to_owned(), "2 disks".to_owned()));
        assert_eq!(time("2026-11-22T05:00:00Z"), "2026-11-22 05:00:00 UTC");
    }

    #[test]
    fn columns_line_up() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(columns(&[row("a", "1"), row("bcd", "20")], &[1]), ["a     1", "bcd  20"]);
    }
}
