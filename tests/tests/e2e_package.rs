//! The Debian package of the agent: built twice alike, installed in a Debian, used there, and purged; and on a server that
//! runs, whose timer fires and which catches up after a downtime.

use halfhour_tests::lab::{Bus, Firmware, HOST, Hardware, Machine, Server, Share, Start};
use halfhour_tests::{MIB, Scratch, binary, need, package, recipe, tool};
use serde_json::{Value, json};
use std::path::Path;

/// Unpacks the Debian of the lab's server.
fn debian(scratch: &Scratch) -> Option<String> {
    if !need::root() || !need::programs(&["mmdebstrap", "zstd", "unshare"]) {
        return None;
    }
    let lab = binary::repository().join("tests/lab").display().to_string();
    let cache = binary::repository().join("target/lab");
    std::fs::create_dir_all(&cache).expect("a folder");
    let find = "import pathlib, sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True; import rootfs; \
                print(rootfs.tarball('small', pathlib.Path(sys.argv[2]), lambda text: None))";
    let tarball = tool("python3", &["-c", find, &lab, &cache.display().to_string()]);
    let root = scratch.folder("debian").display().to_string();
    tool("tar", &["-C", &root, "--zstd", "--numeric-owner", "-xpf", tarball.trim()]);
    Some(root)
}

/// Runs a line of shell in that Debian, which sees its own /proc and nothing of ours.
fn inside(root: &str, line: &str) -> String {
    let script = r#"mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -ec "$2""#;
    let unshare = ["--mount", "--pid", "--fork", "--net", "--uts", "sh", "-c", script, "sh", root];
    tool("unshare", &[&unshare[..], &[line]].concat())
}

#[test]
fn the_package_installs_in_a_debian_works_there_and_leaves_nothing_of_its_own() {
    let scratch = Scratch::new();
    let Some(package) = package::build(&scratch, "one") else { return };
    let again = package::build(&scratch, "two").expect("as before");
    assert_eq!(std::fs::read(&package).unwrap(), std::fs::read(again).unwrap(), "the same bytes");
    let Some(root) = debian(&scratch) else { return };
    std::fs::copy(&package, Path::new(&root).join("halfhour.deb")).expect("room");
    // With every dependency there: dpkg refuses otherwise.
    inside(&root, "dpkg -i /halfhour.deb; test -z \"$(dpkg --audit)\"; dpkg --verify halfhour");
    let version = inside(&root, "imager --version");
    assert!(version.starts_with("imager "), "{version}");
    assert_eq!(inside(&root, "dpkg -s halfhour | grep ^Version"), version.replace("imager ", "Version: "));
    inside(
        &root,
        "test -s /usr/share/man/man1/imager-schedule-set.1.gz; bash -n /usr/share/bash-completion/completions/imager",
    );
    inside(&root, "systemd-analyze verify --man=no /usr/lib/systemd/system/halfhour-*.service");
    assert_eq!(
        inside(&root, "ls /etc/systemd/system/*.wants | grep -c halfhour || true"),
        "0\n",
        "nothing starts by itself"
    );

    let set = "imager init -r /srv/repo; dd if=/dev/urandom of=/srv/disk.img bs=1M count=4 status=none; \
               imager schedule set --repo /srv/repo --every 1h --disk /srv/disk.img --keep-last 2 --json";
    let set: Value =
        serde_json::from_str(&inside(&root, &format!("{{ {set}; }} | sed -n '/^{{/,$p'"))).expect("JSON");
    let done = set["done"].to_string();
    assert!(done.contains("halfhour-capture.timer") && !done.contains("halfhour-capture.service"), "{done}");
    inside(&root, "systemd-analyze verify --man=no /etc/systemd/system/halfhour-capture.timer");
    let ran: Value = serde_json::from_str(&inside(&root, "imager schedule run --json")).expect("JSON");
    assert_eq!(ran["result"], "done");

    inside(
        &root,
        "touch /etc/halfhour/token /etc/halfhour/hooks.d/10-mine; dpkg -r halfhour; test -e /etc/halfhour/schedule.toml",
    );
    inside(&root, "dpkg -P halfhour");
    let found = r"find / -xdev \( -path /proc -o -path /run \) -prune -o \( -name '*halfhour*' -o -name '*imager*' \) -print";
    let left = inside(&root, &format!("{found} | sort"));
    assert_eq!(left, "/etc/halfhour\n/halfhour.deb\n/srv/repo/halfhour.json\n");
    assert_eq!(
        inside(&root, "find /etc/halfhour | sort"),
        "/etc/halfhour\n/etc/halfhour/hooks.d\n/etc/halfhour/hooks.d/10-mine\n/etc/halfhour/token\n"
    );
}

#[test]
fn on_a_server_the_timer_fires_and_a_downtime_is_made_up_for_once() {
    if !need::full() {
        println!("skipped: with HALFHOUR_FULL=1, a server is started twice");
        return;
    }
    let scratch = Scratch::new();
    let Some(package) = package::build(&scratch, "package") else { return };
    let Some(disk) = recipe::server_disk(&scratch, &["--small"]) else { return };
    let len = std::fs::metadata(&package).expect("the package").len();
    let file = std::fs::File::options().write(true).open(&package).expect("the package");
    file.set_len(len.next_multiple_of(MIB)).expect("room");
    let data = scratch.junk("data.img", 8 * MIB);
    let share = Share::new(&scratch);
    let (url, token) = share.place("lab", "machine:lab");
    let Some(hardware) = Hardware::new(&scratch, "scheduled", Firmware::Ovmf) else { return };
    let hardware = hardware.disk(&disk, Bus::Virtio, "LAB0001").disk(&package, Bus::Virtio, "PACKAGE").disk(
        &data,
        Bus::Virtio,
        "LABDATA",
    );
    let captures = || share.admin.json(&["list", "lab"])["captures"].as_array().cloned().unwrap_or_default();

    let mut server = hardware.power_on(&Start::Disk);
    Server::expect_login(&mut server);
    Server::health(&mut server);
    connect(&mut server);
    ok(&mut server, &format!("head -c {len} /dev/vdb >/tmp/h.deb && dpkg -i /tmp/h.deb"));
    ok(&mut server, "! systemctl is-enabled halfhour-capture.timer");
    ok(&mut server, &format!("(umask 77; echo {token} >/etc/halfhour/token)"));
    assert!(url.contains(HOST), "{url}");
    ok(
        &mut server,
        &format!(
            "imager schedule set --repo '{url}' --token-file /etc/halfhour/token --every 1h --machine lab --disk /dev/vdc"
        ),
    );
    ok(
        &mut server,
        "grep -q serial:LABDATA /etc/halfhour/schedule.toml && systemctl is-active halfhour-capture.timer",
    );
    assert!(captures().is_empty(), "nothing is captured before its time");
    // Past the latest moment that the timer may have chosen: a running systemd notices, and does not wait.
    ok(&mut server, "date -s @$((($(date +%s) / 3600 + 1) * 3600 + 600))");
    ok(
        &mut server,
        "for n in $(seq 420); do [ -s /var/lib/halfhour/last.json ] && break; sleep 1; done; imager schedule show; journalctl -b -u halfhour-capture.service --no-pager",
    );
    ok(&mut server, "systemctl show -p Result halfhour-capture.service | grep -x Result=success");
    let first = captures();
    assert_eq!((first.len(), &first[0]["schedule"]["every_seconds"]), (1, &json!(3600)));
    // A run that is stopped, as by a shutdown, is none that failed.
    ok(
        &mut server,
        "systemctl start --no-block halfhour-capture.service; sleep 1; systemctl stop halfhour-capture.service; ! systemctl is-failed halfhour-capture.service",
    );
    server.power_off();

    let later = tool("date", &["-u", "-d", "9 hours", "+%Y-%m-%dT%H:%M:%S"]);
    let mut server = hardware.option("-rtc", &format!("base={}", later.trim())).power_on(&Start::Disk);
    Server::expect_login(&mut server);
    Server::health(&mut server);
    // Until now the share was away.
    connect(&mut server);
    ok(
        &mut server,
        "for n in $(seq 420); do grep -q incremental /var/lib/halfhour/last.json && break; sleep 1; done; imager schedule show",
    );
    ok(&mut server, "sleep 30; journalctl -b -u halfhour-capture.service --no-pager");
    let both = captures();
    assert_eq!(both.len(), 2, "nine hours are made up for once: {both:?}");
    ok(
        &mut server,
        "dpkg -P halfhour && ls /etc/halfhour && systemctl --failed --no-legend --plain | wc -l | grep -qx 0",
    );
    server.power_off();
}

/// The lab's server has no network of its own.
fn connect(server: &mut Machine) {
    ok(server, "i=$(ls /sys/class/net | grep -v lo); ip link set $i up; ip addr add 10.0.2.15/24 dev $i");
}

fn ok(server: &mut Machine, line: &str) {
    let (code, said) = server.run(line);
    println!("server> {line}\n{said}");
    assert_eq!(code, 0, "{line}: {said}");
}
