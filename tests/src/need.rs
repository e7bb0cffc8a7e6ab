//! What a test needs and a machine may not have.

use std::path::Path;

/// Says why a test is skipped; fails in CI, where nothing may be.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "must not be skipped in CI: {reason}");
    println!("skipped: {reason}");
}

/// Whether these programs are here; says so when not.
#[must_use]
pub fn programs(names: &[&str]) -> bool {
    let missing: Vec<_> = names.iter().filter(|name| !is_program(name)).copied().collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Whether we may mount, and make loop devices; says so when not.
#[must_use]
pub fn root() -> bool {
    let is_root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    });
    let has_loops = Path::new("/dev/loop-control").exists();
    if !(is_root && has_loops) {
        skip("needs root and loop devices");
    }
    is_root && has_loops
}

/// Whether everything is to be run, not a sample.
pub fn full() -> bool {
    std::env::var_os("HALFHOUR_FULL").is_some()
}

/// `count` of `all`, by a seed that is printed (and taken from `HALFHOUR_SEED`); all of them for a full run.
pub fn sample<'a>(what: &str, all: &[&'a str], count: usize) -> Vec<&'a str> {
    if full() {
        return all.to_vec();
    }
    let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
    let mut random = crate::junk::Junk::new(seed);
    let mut left = all.to_vec();
    let mut taken = Vec::new();
    while taken.len() < count && !left.is_empty() {
        let len = left.len() as u64;
        taken.push(left.swap_remove(usize::try_from(random.number() % len).expect("an index")));
    }
    println!("{what}: HALFHOUR_SEED={seed} takes {taken:?} of {}", all.len());
    taken
}

fn is_program(name: &str) -> bool {
    crate::tool::PATH.split(':').any(|folder| Path::new(folder).join(name).exists())
}
