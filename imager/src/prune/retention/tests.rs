//! Rules and guards, one machine at a time.

use super::{Action, Judged, Rules, State, Times, judge};
use imager_image::CaptureId;
use imager_units::ErrorKind;

/// A good capture number `n` of this time.
fn capture(n: u8, time: &str) -> Judged {
    Judged {
        capture: CaptureId([n; 16]),
        machine: "web".to_owned(),
        time: time.to_owned(),
        received: None,
        sequence: n.into(),
        state: State::Good,
        held: false,
        action: Action::Keep,
        reasons: Vec::new(),
        object: String::new(),
    }
}

/// One capture a day, from the first of January.
fn days(count: u8) -> Vec<Judged> {
    (1..=count)
        .map(|n| capture(n, &format!("2026-{:02}-{:02}T03:00:00Z", 1 + (n - 1) / 28, 1 + (n - 1) % 28)))
        .collect()
}

fn kept(captures: &[Judged]) -> Vec<u64> {
    captures.iter().filter(|c| c.action == Action::Keep).map(|c| c.sequence).collect()
}

fn run(captures: &mut [Judged], rules: &Rules) -> Result<Vec<u64>, imager_units::Error> {
    judge(captures, rules, None, &[], true).map(|()| kept(captures))
}

#[test]
fn each_rule_keeps_what_it_says_and_says_so() {
    let rules = |last, hourly, daily, weekly, monthly| Rules {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        also: Vec::new(),
    };
    let mut captures = days(56);
    assert_eq!(run(&mut captures, &rules(Some(3), None, None, None, None)).unwrap(), [54, 55, 56]);
    assert_eq!(run(&mut captures, &rules(None, None, Some(2), None, None)).unwrap(), [55, 56]);
    assert_eq!(run(&mut captures, &rules(None, None, None, None, Some(9))).unwrap(), [28, 56]);
    // 2026-01-04 is the first Sunday.
    let weekly = run(&mut captures, &rules(None, None, None, Some(3), None)).unwrap();
    assert_eq!(weekly.len(), 3);
    let both = run(&mut captures, &rules(Some(2), None, None, None, Some(2))).unwrap();
    assert_eq!(both, [28, 55, 56]);
    assert!(captures[55].reasons.iter().any(|reason| reason == "the newest of month 2026-02"));
    let mut hours: Vec<_> =
        (0..6).map(|n| capture(n + 1, &format!("2026-01-01T0{}:{}0:00Z", n / 2, n % 2 * 3))).collect();
    assert_eq!(run(&mut hours, &rules(None, Some(2), None, None, None)).unwrap(), [4, 6]);
}

#[test]
fn without_a_rule_nothing_goes() {
    let mut captures = days(5);
    assert_eq!(run(&mut captures, &Rules::default()).unwrap().len(), 5);
}

#[test]
fn the_newest_good_one_and_those_held_never_go() {
    let mut captures = days(6);
    captures[5].state = State::Inconsistent;
    captures[2].state = State::Inconsistent;
    captures[3].state = State::Unreadable;
    captures[0].held = true;
    let rules = Rules { last: Some(0), ..Rules::default() };
    // 6 is newer than every good one, 5 the newest good one, 4 cannot be read, 1 is held.
    assert_eq!(run(&mut captures, &rules).unwrap(), [1, 4, 5, 6]);
    let remove = |captures: &mut Vec<Judged>, n: u8, force| {
        judge(captures, &Rules::default(), None, &[CaptureId([n; 16])], force).map(|()| kept(captures))
    };
    assert_eq!(remove(&mut captures, 1, true).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(remove(&mut captures, 5, false).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(remove(&mut captures, 5, true).unwrap(), [1, 2, 3, 4, 6]);
    assert_eq!(remove(&mut captures, 4, false).unwrap(), [1, 2, 3, 5, 6]);
}

#[test]
fn bad_captures_are_not_counted() {
    let mut captures = days(8);
    (5..8).for_each(|at| captures[at].state = State::Inconsistent);
    let rules = Rules { last: Some(2), ..Rules::default() };
    assert_eq!(run(&mut captures, &rules).unwrap(), [4, 5, 6, 7, 8]);
}

#[test]
fn more_than_half_goes_only_by_force() {
    let rules = Rules { last: Some(4), ..Rules::default() };
    let mut captures = days(8);
    judge(&mut captures, &rules, None, &[], false).unwrap();
    assert_eq!(kept(&captures), [5, 6, 7, 8]);
    let error = judge(&mut days(9), &rules, None, &[], false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    judge(&mut days(9), &rules, None, &[], true).unwrap();
}

#[test]
fn forged_times_are_not_believed() {
    let rules = Rules { daily: Some(5), ..Rules::default() };
    let mut captures = days(8);
    for capture in &mut captures {
        capture.received = Some(capture.time.clone());
    }
    judge(&mut captures, &rules, None, &[], false).unwrap();
    // A machine that was taken over claims times to push its old captures out.
    let mut forged = captures.clone();
    for n in 0..4_u8 {
        let mut capture = capture(9 + n, &format!("2026-02-1{n}T03:00:00Z"));
        capture.received = Some("2026-01-08T04:00:00Z".to_owned());
        forged.push(capture);
    }
    assert_eq!(judge(&mut forged, &rules, None, &[], false).unwrap_err().kind(), ErrorKind::Denied);
    judge(&mut forged, &rules, Some(Times::Received), &[], true).unwrap();
    assert_eq!(kept(&forged), [4, 5, 6, 7, 12]);
    judge(&mut forged, &rules, Some(Times::Claimed), &[], true).unwrap();
    assert_eq!(kept(&forged), [8, 9, 10, 11, 12]);
    // By numbers alone, times do not matter.
    let last = Rules { last: Some(6), ..Rules::default() };
    judge(&mut forged, &last, None, &[], false).unwrap();
}

#[test]
fn a_flood_of_captures_pushes_none_out() {
    let rules = Rules { last: Some(3), ..Rules::default() };
    let mut captures = days(6);
    for capture in &mut captures {
        capture.received = Some(capture.time.clone());
    }
    for n in 7..30 {
        let mut flood = capture(n, "2026-01-06T03:20:00Z");
        flood.received = Some(format!("2026-01-06T03:30:{n:02}Z"));
        captures.push(flood);
    }
    judge(&mut captures, &rules, None, &[], true).unwrap();
    assert_eq!(kept(&captures), (4..30).collect::<Vec<_>>());
    judge(&mut captures, &rules, Some(Times::Claimed), &[], true).unwrap();
    assert_eq!(kept(&captures), [27, 28, 29]);
}

#[test]
fn times_that_contradict_the_order_are_asked_about() {
    let rules = Rules { daily: Some(2), ..Rules::default() };
    let mut captures = days(6);
    captures[3].time = "2025-01-01T00:00:00Z".to_owned();
    let error = judge(&mut captures, &rules, None, &[], true).unwrap_err();
    assert!(error.to_string().contains("--times"), "{error}");
    judge(&mut captures, &rules, Some(Times::Claimed), &[], true).unwrap();
    assert_eq!(kept(&captures), [5, 6]);
    let told = judge(&mut captures, &rules, Some(Times::Received), &[], true).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_asked_to_be_kept_stays_and_nothing_else_because_of_it() {
    let also = |also: &[u8]| Rules {
        last: Some(2),
        also: also.iter().map(|n| CaptureId([*n; 16])).collect(),
        ..Rules::default()
    };
    let mut captures = days(6);
    assert_eq!(run(&mut captures, &also(&[2, 6, 99])).unwrap(), [2, 5, 6]);
    let alone = Rules { last: None, ..also(&[2]) };
    assert_eq!(run(&mut captures, &alone).unwrap(), [1, 2, 3, 4, 5, 6]);
}
