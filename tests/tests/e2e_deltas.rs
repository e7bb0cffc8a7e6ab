//! A server that works while it is captured: its changes are recorded, the scheduled captures take what changed, it is
//! killed, its system is lost, and the rescue medium puts back the newest of them.

use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine, Server, Share, Start, share};
use halfhour_tests::{Scratch, medium, need, package, tool};
use serde_json::json;

const SERIAL: &str = "LAB0001";
const DATA: &str = "/srv";
const DELTAS: usize = 3;

/// A database of a simple kind: a log, pages, and a head that says how much of the log counts; each is durable before
/// the next is written.
const LEDGER: &str = r#"#!/bin/bash
mkdir -p /var/lib/ledger && cd /var/lib/ledger || exit
n=0
while :; do
    n=$((n + 1))
    echo "$n $(echo "$n" | sha256sum)" >>log && sync log
    dd if=/dev/urandom of=pages bs=4k count=2 seek=$((RANDOM % 4096)) conv=notrunc,fsync status=none
    echo "$n" >head.new && sync head.new && mv head.new head && sync .
    sleep 0.2
done
"#;

/// Fails unless every line of the log is right, and the head is that of the last line or the one before.
const AUDIT: &str = r#"#!/bin/bash
cd /var/lib/ledger || exit
n=0
while read -r line; do
    n=$((n + 1))
    [[ "$line" == "$n $(echo "$n" | sha256sum)" ]] || { echo "line $n: $line"; exit 1; }
done <log
head=$(cat head)
echo "the log has $n, the head is $head"
[[ $head -le $n && $n -le $((head + 1)) ]]
"#;

#[test]
fn a_server_under_load_comes_back_as_of_its_newest_delta() {
    if !need::full() {
        println!("skipped: with HALFHOUR_FULL=1, a server is started, captured while it works, and restored");
        return;
    }
    let scratch = Scratch::new();
    let Some(agent) = package::build(&scratch, "package") else { return };
    let Some(server) = Server::build(&scratch, &["--small"]) else { return };
    let Some(hardware) = Hardware::new(&scratch, "deltas", Firmware::Ovmf) else { return };
    let there = Share::new(&scratch);
    let payload = payload(&scratch, &agent);
    let hardware = hardware.disk(&server.disk, Bus::Virtio, SERIAL).disk(&payload, Bus::Virtio, "PAYLOAD");

    let mut machine = hardware.power_on(&Start::Disk);
    Server::expect_login(&mut machine);
    Server::health(&mut machine);
    install(&mut machine, &there);
    let heads = work(&mut machine);
    machine.cut_power();

    let captures = there.admin.json(&["list", "server"])["captures"].as_array().cloned().unwrap_or_default();
    let consistencies: Vec<_> = captures.iter().map(|capture| &capture["consistency"]).collect();
    assert_eq!(consistencies, vec![&json!("frozen"); 1 + DELTAS]);
    let newest = there.admin.json(&["show", "server@latest"]);
    println!("the newest: {newest}");
    let volumes = newest["volumes"].as_array().cloned().unwrap_or_default();
    let system = volumes.iter().find(|volume| volume["role"] == "os").expect("a system");
    assert_eq!((&newest["kind"], &system["truth"]), (&json!("incremental"), &json!("journal")));

    server.lose();
    let data = server.digest(DATA);
    let disk = format!("serial:{SERIAL}");
    let settings = share::restore_settings(&there.share_settings("restorer", "restore"), "server", &disk, "");
    let Some(iso) = medium::iso(&scratch, "restore", &settings, &[]) else { return };
    let mut machine = hardware.power_on(&Start::Cd(iso));
    machine.expect("halfhour: restore complete");
    machine.expect_restart();
    assert_eq!(server.digest(DATA), data, "the data volume is not written");
    machine.restart_from_disk();
    Server::expect_login(&mut machine);
    Server::health(&mut machine);
    ok(&mut machine, &format!("[ \"$(cat /etc/story | tr -d '\\n')\" = {} ]", story(DELTAS)));
    ok(&mut machine, "bash /root/audit");
    let head = number(&mut machine);
    let (before, after) = heads[DELTAS - 1];
    println!(
        "the ledger is at {head}; it was at {before} before the newest capture, and at {after} after it"
    );
    assert!((before..=after).contains(&head));
    machine.power_off();
    there.admin.ok(&["verify", "--all", "--read-data"]);
}

/// A disk that is an archive of the package and the scripts.
fn payload(scratch: &Scratch, agent: &str) -> String {
    let folder = scratch.folder("payload");
    for (name, text) in [("ledger", LEDGER), ("audit", AUDIT)] {
        std::fs::write(folder.join(name), text).expect("a script");
    }
    std::fs::copy(agent, folder.join("agent.deb")).expect("the package");
    let archive = scratch.name("payload.tar");
    tool("tar", &["-b", "2048", "-C", &folder.display().to_string(), "-cf", &archive, "."]);
    archive
}

/// The agent, its journal, its schedule and the ledger.
fn install(machine: &mut Machine, there: &Share) {
    let (url, token) = there.place("server", "machine:server");
    // The lab's server has no network of its own.
    ok(machine, "i=$(ls /sys/class/net | grep -v lo); ip link set $i up; ip addr add 10.0.2.15/24 dev $i");
    ok(machine, "tar -xf /dev/vdb -C /root && dpkg -i /root/agent.deb");
    ok(machine, &format!("(umask 77; echo {token} >/etc/halfhour/token)"));
    ok(machine, "systemctl start halfhour-journal.service && imager journal status");
    let set = format!(
        "imager schedule set --repo '{url}' --token-file /etc/halfhour/token --every 1h --machine server --disk serial:{SERIAL}"
    );
    ok(machine, &set);
    ok(machine, "(setsid bash /root/ledger </dev/null >/dev/null 2>&1 &)");
    ok(machine, "while ! [ -s /var/lib/ledger/head ]; do sleep 1; done");
}

/// The captures: a whole one and the deltas. Where the ledger was before and after each delta.
fn work(machine: &mut Machine) -> Vec<(u64, u64)> {
    ok(machine, "imager schedule run --progress none");
    let mut heads = Vec::new();
    for delta in 1..=DELTAS {
        ok(machine, &format!("echo {delta} >>/etc/story; sync -f /etc"));
        let before = number(machine);
        // An hour later it is due.
        ok(machine, "systemctl stop halfhour-capture.timer; date -s @$(($(date +%s) + 3600))");
        let (code, said) = machine.run("systemctl start halfhour-capture.service");
        let (_, log) = machine.run("journalctl -b -u halfhour-capture.service --no-pager | tail -n 40");
        println!("server> the capture\n{said}{log}");
        assert_eq!(code, 0, "{log}");
        heads.push((before, number(machine)));
    }
    // This is lost.
    ok(machine, "echo more >>/etc/story; sync -f /etc");
    heads
}

/// What the story says after so many deltas.
fn story(deltas: usize) -> String {
    (1..=deltas).map(|delta| delta.to_string()).collect()
}

/// Where the ledger is.
fn number(machine: &mut Machine) -> u64 {
    let (_, said) = machine.run("cat /var/lib/ledger/head");
    said.trim().parse().unwrap_or_else(|_| panic!("no number: {said}"))
}

fn ok(machine: &mut Machine, line: &str) {
    let (code, said) = machine.run(line);
    println!("server> {line}\n{said}");
    assert_eq!(code, 0, "{line}: {said}");
}
