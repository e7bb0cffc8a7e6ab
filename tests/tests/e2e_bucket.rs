//! A repository in a bucket of a real S3 service, by the command line. Run where `HALFHOUR_S3` names a bucket
//! (`tests/s3/radosgw` brings one up); otherwise it says that it is skipped.

use halfhour_tests::{Imager, MIB, Scratch, judge, junk};
use std::path::{Path, PathBuf};

const DISK_MIB: u64 = 40;

#[test]
fn the_whole_story_in_a_bucket() {
    let Ok(bucket) = std::env::var("HALFHOUR_S3") else {
        println!("skipped: HALFHOUR_S3 names no bucket of a real service");
        return;
    };
    let scratch = Scratch::new();
    let place = scratch.path("x");
    let own = place.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a name");
    let url = format!("{bucket}/{own}");
    let imager = Imager::new(scratch.path("state"), PathBuf::from(&url));
    imager.fails(10, &["list"]);
    imager.ok(&["init"]);
    imager.fails(1, &["init"]);

    let disk = scratch.junk("disk.img", DISK_MIB * MIB);
    imager.ok(&["capture", &disk, "--machine", "m"]);
    packs_went_in_parts(own);
    junk::over(Path::new(&disk), 7 * MIB, 3 * MIB);
    let second = imager.json(&["capture", &disk, "--machine", "m", "--limit", "50M"]);
    let stored = second["volumes"][0]["stored_bytes"].as_u64().expect("a number");
    assert!(stored < 5 * MIB, "{stored} bytes of a disk that changed in 3 MiB");
    let target = scratch.file("target.img", DISK_MIB * MIB);
    imager.ok(&["restore", "m", "--bare-metal", "--to", &target, "--yes"]);
    assert_eq!(judge::whole(&target), judge::whole(&disk));
    imager.ok(&["verify", "--read-data"]);

    let stranger = imager.with("AWS_SECRET_ACCESS_KEY", "wrong");
    assert_eq!(stranger.fails(12, &["list"])["kind"], "denied");
    let nobody = imager.with("AWS_ACCESS_KEY_ID", "").with("HOME", "/nonexistent");
    assert_eq!(nobody.fails(12, &["list"])["kind"], "denied");
    let clear = imager.with("AWS_ENDPOINT_URL", "http://192.0.2.1");
    assert_eq!(clear.fails(64, &["list"])["kind"], "invalid");
}

/// Where the service's log can be read: a part of each pack that is larger than one, and each made whole.
fn packs_went_in_parts(own: &str) {
    let Ok(log) = std::env::var("HALFHOUR_S3_LOG") else {
        println!("not looked at: HALFHOUR_S3_LOG names no log of the service");
        return;
    };
    let log = std::fs::read_to_string(log).expect("a log");
    let packs = format!("{own}/packs/");
    let asked = |words: [&str; 2]| {
        let of_pack = log.lines().filter(|line| line.contains(&packs));
        of_pack.filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    let begun = asked(["\"POST ", "?uploads"]);
    let parts = asked(["\"PUT ", "partNumber="]);
    let completed = asked(["\"POST ", "?uploadId="]);
    println!("{begun} uploads, {parts} parts, {completed} completed");
    assert!(begun > 0 && begun == completed, "{begun} uploads, {completed} completed");
    assert!(parts > begun, "{parts} parts of {begun} packs");
}
