use super::{Cadence, Past, choose};
use crate::schedule::{Clock, Every};
use imager_image::manifest::Kind;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const FULL: Option<Cadence> = Some(Cadence::Monthly);
const DIFFERENTIAL: Option<Cadence> = Some(Cadence::Weekly);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A server that is woken at each slot of a year, with a delay of its own, unless `is_down` then; what it captured.
fn year(every: &str, seed: u64, is_down: impl Fn(Timestamp) -> bool) -> Vec<Past> {
    let every: Every = every.parse().unwrap();
    let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
    let (mut now, end) = (time("2026-01-01T00:00:00Z"), time("2027-01-01T00:00:00Z"));
    let (mut past, mut random): (Vec<Past>, u64) = (Vec::new(), seed);
    while now < end {
        now = every.next(now, Clock::default(), &zone);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = (random >> 33) % (every.length().as_secs() / 10).clamp(1, 600);
        let begins = now + SignedDuration::from_secs(delay.try_into().unwrap());
        if !is_down(begins) {
            let kind = choose(&past, FULL, DIFFERENTIAL, every.length(), begins).kind;
            past.push(Past { kind, time: begins });
        }
    }
    past
}

fn count(past: &[Past], kind: Kind) -> usize {
    past.iter().filter(|past| past.kind == kind).count()
}

fn most_days_between(past: &[Past], kinds: &[Kind]) -> i64 {
    let times: Vec<_> = past.iter().filter(|past| kinds.contains(&past.kind)).map(|past| past.time).collect();
    times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_hours() / 24).max().unwrap_or(0)
}

#[test]
fn a_year_has_twelve_full_captures_and_a_differential_one_in_each_other_week() {
    for (every, captures) in [("1h", 8760), ("15m", 35_040), ("1d", 365)] {
        for seed in 0..20 {
            let past = year(every, seed, |_| false);
            let made = past.len();
            assert!(made.abs_diff(captures) <= 1, "{every}: {made}");
            assert_eq!(past[0].kind, Kind::Full);
            assert!((12..=13).contains(&count(&past, Kind::Full)), "{every}: {}", count(&past, Kind::Full));
            let differentials = count(&past, Kind::Differential);
            assert!((44..=52).contains(&differentials), "{every}: {differentials}");
            assert!(most_days_between(&past, &[Kind::Full]) <= 31);
            assert!(most_days_between(&past, &[Kind::Full, Kind::Differential]) <= 7);
        }
    }
}

#[test]
fn after_weeks_of_downtime_and_failures_the_next_capture_is_what_was_missed_most() {
    let from = |text: &str, to: &str, now: Timestamp| now >= time(text) && now < time(to);
    let past = year("1h", 7, |now| {
        from("2026-03-20T00:00:00Z", "2026-05-10T00:00:00Z", now)
            || from("2026-08-01T11:00:00Z", "2026-08-12T00:00:00Z", now)
            || now.as_second() % 7 == 0
    });
    let first = |after: &str| past.iter().find(|past| past.time >= time(after)).unwrap().kind;
    assert_eq!((first("2026-05-10T00:00:00Z"), first("2026-08-12T00:00:00Z")), (Kind::Full, Kind::Full));
    assert!((11..=12).contains(&count(&past, Kind::Full)));
    let again =
        past.windows(2).filter(|pair| pair[0].kind == pair[1].kind && pair[0].kind != Kind::Incremental);
    assert_eq!(again.count(), 0, "what was missed is made up for once");
}

#[test]
fn a_clock_that_was_wrong_costs_one_full_capture() {
    let hour = Every::Hours(1).length();
    let next = |past: &mut Vec<Past>, now: &str| {
        let kind = choose(past, FULL, DIFFERENTIAL, hour, time(now)).kind;
        past.push(Past { kind, time: time(now) });
        kind
    };
    let mut past = Vec::new();
    assert_eq!(next(&mut past, "2026-01-01T00:00:00Z"), Kind::Full);
    assert_eq!(next(&mut past, "2026-01-01T01:00:00Z"), Kind::Incremental);
    // Ahead, and back again.
    assert_eq!(next(&mut past, "2031-01-01T02:00:00Z"), Kind::Full);
    assert_eq!(next(&mut past, "2026-01-01T03:00:00Z"), Kind::Full);
    assert_eq!(next(&mut past, "2026-01-01T04:00:00Z"), Kind::Incremental);
    // Behind, as without a battery, and right again.
    assert_eq!(next(&mut past, "1970-01-01T00:01:00Z"), Kind::Full);
    assert_eq!(next(&mut past, "1970-01-01T01:01:00Z"), Kind::Incremental);
    assert_eq!(next(&mut past, "2026-01-01T06:00:00Z"), Kind::Full);
    assert_eq!(next(&mut past, "2026-01-01T07:00:00Z"), Kind::Incremental);
}

#[test]
fn copies_count_for_nothing_and_without_rules_only_the_first_is_full() {
    let (hour, begin) = (Every::Hours(1).length(), time("2026-01-01T00:00:00Z"));
    let past = |kind| [Past { kind, time: begin }];
    let later = time("2027-01-01T00:00:00Z");
    assert_eq!(choose(&[], None, None, hour, later).kind, Kind::Full);
    assert_eq!(choose(&past(Kind::Full), None, None, hour, later).kind, Kind::Incremental);
    assert_eq!(choose(&past(Kind::Copy), FULL, None, hour, later).kind, Kind::Full);
    assert_eq!(choose(&past(Kind::Copy), None, None, hour, later).kind, Kind::Incremental);
    assert_eq!(choose(&past(Kind::Full), None, DIFFERENTIAL, hour, later).kind, Kind::Differential);
}
