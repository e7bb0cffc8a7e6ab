//! The journal under test in a process of its own: in a guest, or to be killed.
//!
//!     halfhour-journal rounds COUNT DISK[,DISK...] LINE    runs a line of shell and compares what changed with what was
//!                                                          marked, so many times; prints a line a round and disk
//!     halfhour-journal harvest DISK CAPTURE KEPT           harvests without an end, a cursor each time; KEPT keeps its own

use halfhour_tests::journal::Round;
use imager_journal::{ChangeLog, Disk, Journal};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["rounds", count, disks, line] => {
            return rounds(count.parse().unwrap_or(1), &disks.split(',').collect::<Vec<_>>(), line);
        }
        ["harvest", disk, capture, kept] => harvest(disk, capture, kept),
        _ => println!("see the source"),
    }
    ExitCode::SUCCESS
}

fn disk(node: &str) -> Disk {
    Disk::at_node(Path::new(node)).expect("a disk")
}

fn rounds(count: u32, nodes: &[&str], line: &str) -> ExitCode {
    let disks: Vec<_> = nodes.iter().map(|node| disk(node)).collect();
    for disk in &disks {
        Journal::start(disk).expect("the journal starts");
    }
    let mut log = Journal::open(&disks).expect("the journal is running");
    let mut missed = 0;
    for number in 0..count {
        let all = Round::of(&mut log, nodes, || {
            let status = std::process::Command::new("sh")
                .args(["-ec", line])
                .env("ROUND", number.to_string())
                .status();
            assert!(status.expect("a shell").success(), "{line}");
        });
        for (node, round) in nodes.iter().zip(all.expect("no doubt")) {
            println!("{node}: {round}");
            missed += round.missed().count();
        }
    }
    drop(log);
    for disk in &disks {
        Journal::stop(disk.name()).expect("it stops");
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn harvest(node: &str, capture: &str, kept: &str) {
    let mut log = Journal::open(&[disk(node)]).expect("the journal is running");
    loop {
        // Half of them as of a frozen machine, which are recorded later.
        let epoch = log.harvest_frozen(&mut |_, _| true).expect("an epoch");
        log.commit(capture, epoch, &[kept.to_owned()]).expect("a cursor");
        log.harvest().expect("an epoch");
        println!("{}", epoch.0);
        std::io::stdout().flush().expect("somebody listens");
    }
}
