//! The rescue environment's network: real frames, to somebody who answers in one VLAN only; a cable that is pulled; a
//! network on which nobody answers; SSH by key.

#[path = "rescue/peer.rs"]
mod peer;
mod rescue;

use halfhour_tests::{Scratch, need, tool, try_tool};
use peer::Peer;
use rescue::{MENU, hardware, is_full, sh, shell, start};
use serde_json::json;
use std::net::TcpListener;

const PING: &str = "ping -c 1 -W 30 192.0.2.1";

#[test]
fn an_address_in_a_vlan_over_a_bond_survives_a_pulled_cable() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    let line =
        "halfhour.ip=192.0.2.7/24,192.0.2.1 halfhour.vlan=7 halfhour.bond=eth0,eth1 halfhour.dns=192.0.2.53";
    let Some(start) = start(&scratch, line, "") else { return };
    let Some(hardware) = hardware(&scratch, "bond") else { return };
    let (first, second) = (Peer::new(Some(7)), Peer::new(Some(7)));
    let hardware = hardware
        .network(Some(&format!("{},id=net", first.netdev())))
        .option("-netdev", &format!("{},id=net2", second.netdev()))
        .option("-device", "virtio-net-pci,id=card2,netdev=net2,romfile=");
    let mut machine = hardware.power_on(&start);
    machine.expect("halfhour: network bond0.7 192.0.2.7/24");
    shell(&mut machine);
    sh(&mut machine, PING);
    assert_eq!((first.echoes(), second.echoes()), (1, 0));
    machine.execute("set_link", &json!({ "name": "card", "up": false }));
    sh(&mut machine, "until grep -q 'Active Slave: eth1' /proc/net/bonding/bond0; do sleep 1; done");
    sh(&mut machine, PING);
    assert_eq!((first.echoes(), second.echoes()), (1, 1));
    assert!(sh(&mut machine, "cat /etc/resolv.conf").contains("192.0.2.53"));
    machine.power_off();
}

#[test]
fn where_nobody_answers_the_console_comes_all_the_same() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = hardware(&scratch, "silent") else { return };
    let silent = Peer::new(Some(1));
    let netdev = format!("{},id=net", silent.netdev());
    let mut machine = hardware.network(Some(&netdev)).power_on(&start);
    machine.expect("halfhour: the network is not there yet");
    machine.expect(MENU);
    machine.power_off();
}

#[test]
fn without_a_card_the_console_says_so() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    let Some(start) = start(&scratch, "halfhour.ssh_key=none", "") else { return };
    let Some(hardware) = hardware(&scratch, "cardless") else { return };
    let mut machine = hardware.network(None).power_on(&start);
    machine.expect("halfhour: the network is not there yet");
    shell(&mut machine);
    sh(
        &mut machine,
        "until grep -q 'there is none at all\\|no network interface' /run/halfhour/log; do sleep 1; done",
    );
    machine.power_off();
}

#[test]
fn ssh_lets_in_who_has_the_key_and_nobody_else() {
    let scratch = Scratch::new();
    if !is_full() || !need::programs(&["ssh", "ssh-keygen"]) {
        return;
    }
    let (key, other) = (scratch.name("key"), scratch.name("other"));
    for name in [&key, &other] {
        tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", name]);
    }
    let public = std::fs::read_to_string(format!("{key}.pub")).expect("a key");
    // What the command line says goes over what the file says.
    let file = format!("plain = true\nssh_key = \"{}\"\n", public.trim());
    let Some(start) = start(&scratch, "halfhour.plain=false", &file) else { return };
    let Some(hardware) = hardware(&scratch, "ssh") else { return };
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let netdev = format!("user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22");
    let mut machine = hardware.network(Some(&netdev)).power_on(&start);
    machine.expect("halfhour: SSH lets root in");
    machine.expect(MENU);
    let port = port.to_string();
    let common = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    let ssh = |more: &[&str]| {
        let rest = ["-o", "IdentitiesOnly=yes", "-p", &port, "root@127.0.0.1", "cat /etc/halfhour/release"];
        try_tool(
            "ssh",
            &[&common[..], &["-o", "BatchMode=yes", "-o", "ConnectTimeout=300"], more, &rest].concat(),
        )
    };
    let said = ssh(&["-i", &key]).expect("the key lets in");
    assert!(said.starts_with("Halfhour"), "{said}");
    for wrong in [&["-i", &other][..], &["-o", "PubkeyAuthentication=no"]] {
        let said = ssh(wrong).expect_err("nobody else");
        assert!(said.contains("Permission denied (publickey)"), "{said}");
    }
    machine.power_off();
}
