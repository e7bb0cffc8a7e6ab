use super::{Clock, Every};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::process::Command;

const PERIODS: [&str; 10] = ["1m", "5m", "15m", "30m", "1h", "2h", "6h", "12h", "1d", "1w"];
/// Clocks that jump at two, at midnight, by half an hour; and one that does not.
const ZONES: [&str; 4] = ["Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe", "UTC"];

fn zone(name: &str) -> Option<TimeZone> {
    let zone = TimeZone::get(name);
    if zone.is_err() {
        println!("skipped: this machine does not know the time zone {name}");
    }
    zone.ok()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn periods_are_read_and_those_that_do_not_divide_a_day_refused() {
    for text in PERIODS {
        assert_eq!(text.parse::<Every>().unwrap().to_string(), text);
    }
    for (text, meant) in
        [("60m", "1h"), ("24h", "1d"), ("7d", "1w"), ("hourly", "1h"), ("daily", "1d"), ("weekly", "1w")]
    {
        assert_eq!(text.parse::<Every>().unwrap().to_string(), meant);
    }
    for text in ["", "0m", "7m", "90m", "5h", "0h", "2d", "2w", "1", "m", "1y", "-1h", "99999h", "65535w"] {
        assert!(text.parse::<Every>().is_err(), "{text:?}");
    }
    for text in ["", "4", "24:00", "04:00:00", "4:00", "midnight"] {
        assert!(text.parse::<Clock>().is_err(), "{text:?}");
    }
}

#[test]
fn slots_follow_one_another_and_every_moment_lies_in_one() {
    for zone in ZONES.into_iter().filter_map(zone) {
        for (period, at) in PERIODS.iter().flat_map(|period| [(period, "04:00"), (period, "02:30")]) {
            let (every, at): (Every, Clock) = (period.parse().unwrap(), at.parse().unwrap());
            for begin in ["2026-03-27T22:17:33Z", "2026-04-23T12:00:00Z", "2026-10-24T11:59:59Z"] {
                let mut now = time(begin);
                for _ in 0..300 {
                    let (slot, next) = (every.slot(now, at, &zone), every.next(now, at, &zone));
                    assert!(slot <= now && now < next, "{period} {zone:?}: {slot} {now} {next}");
                    assert_eq!((every.slot(next, at, &zone), every.next(slot, at, &zone)), (next, next));
                    now = next + jiff::SignedDuration::from_secs(17);
                }
            }
        }
    }
}

#[test]
fn an_hour_is_an_hour_when_the_clocks_change_and_a_night_is_a_night() {
    let Some(berlin) = zone("Europe/Berlin") else { return };
    let (hour, day, at) = (Every::Hours(1), Every::Day, Clock::default());
    assert_eq!(hour.next(time("2026-10-25T00:30:00Z"), at, &berlin), time("2026-10-25T01:00:00Z"));
    assert_eq!(hour.next(time("2026-10-25T01:00:00Z"), at, &berlin), time("2026-10-25T02:00:00Z"));
    assert_eq!(day.next(time("2026-10-24T12:00:00Z"), at, &berlin), time("2026-10-25T03:00:00Z"));
    assert_eq!(day.next(time("2026-03-28T12:00:00Z"), at, &berlin), time("2026-03-29T02:00:00Z"));
    assert_eq!(day.slot(time("2026-03-29T01:59:59Z"), at, &berlin), time("2026-03-28T03:00:00Z"));
}

#[test]
fn systemd_wakes_us_at_the_same_moments() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    let mut compared = 0;
    for name in ZONES {
        let Some(zone) = zone(name) else { continue };
        for (period, at) in
            PERIODS.iter().flat_map(|period| [(period, "04:00"), (period, "02:30"), (period, "00:00")])
        {
            let (every, at): (Every, Clock) = (period.parse().unwrap(), at.parse().unwrap());
            for base in ["2026-03-28 20:10:00 UTC", "2026-04-22 20:59:59 UTC", "2026-10-24 21:00:01 UTC"] {
                let output = Command::new("systemd-analyze")
                    .env("TZ", name)
                    .args(["calendar", "--iterations=6", "--base-time", base, &every.calendar(at)])
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
                let mut now = time(&format!("{}Z", base.trim_end_matches(" UTC").replace(' ', "T")));
                let said: Vec<_> = utc_times(&text, name == "UTC" || every.calendar(at).ends_with("UTC"));
                assert_eq!(said.len(), 6, "{text}");
                for said in said {
                    now = every.next(now, at, &zone);
                    assert_eq!(now, said, "{period} at {at} in {name}: {text}");
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} moments compared with systemd's");
}

/// The moments it says, which are local ones with the same in UTC below, or in UTC alone.
fn utc_times(text: &str, is_utc: bool) -> Vec<Timestamp> {
    let wanted = |line: &&str| match line.contains("(in UTC)") {
        true => true,
        false => is_utc && line.contains(" UTC") && (line.contains("elapse") || line.contains("Iter")),
    };
    let parse = |line: &str| {
        let mut words = line.split_whitespace().rev().skip(1);
        let (clock, date) = (words.next().unwrap(), words.next().unwrap());
        time(&format!("{date}T{clock}Z"))
    };
    let mut times: Vec<_> = text.lines().filter(wanted).map(parse).collect();
    times.dedup();
    times
}
