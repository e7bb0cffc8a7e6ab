//! The network: every interface asks for an address, or one has the address that the settings say, in a VLAN or over a
//! bond where they say so.

use crate::changes::Changes;
use crate::{log, program};
use bootenv_init::{Address, Settings};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const CLASS: &str = "/sys/class/net";
/// How long to wait for an interface to appear.
const APPEAR: Duration = Duration::from_secs(20);
const BOND: &str = "bond0";
/// There once it was set up: a manager that was started again leaves it as it is.
const DONE: &str = "/run/halfhour/network";

/// Sets the network up.
///
/// # Errors
/// `NotFound` when there is no such interface; `Io` when none gets an address.
pub(crate) fn up(settings: &Settings, changes: &Changes) -> Result<()> {
    if Path::new(DONE).exists() {
        return Ok(());
    }
    fs::write(DONE, "").context(|| format!("writing {DONE}"))?;
    program::run("ip", &["link", "set", "lo", "up"])?;
    if settings.ip == Address::Off {
        return Ok(());
    }
    let mut interfaces = find(settings, changes)?;
    if !settings.bond.is_empty() {
        bond(&interfaces, settings.bond_mode.as_deref().unwrap_or("active-backup"))?;
        interfaces = vec![BOND.to_owned()];
    }
    for interface in &interfaces {
        program::run("ip", &["link", "set", interface, "up"])?;
    }
    if let (Some(vlan), [below]) = (settings.vlan, interfaces.as_slice()) {
        let (name, vlan) = (format!("{below}.{vlan}"), vlan.to_string());
        program::run("modprobe", &["8021q"])?;
        program::run("ip", &["link", "add", "link", below, "name", &name, "type", "vlan", "id", &vlan])?;
        program::run("ip", &["link", "set", &name, "up"])?;
        interfaces = vec![name];
    } else if settings.vlan.is_some() {
        return Err(invalid("vlan is set: say by interface which of several it is on"));
    }
    name_servers(&settings.dns)?;
    match settings.ip {
        Address::Static { address, prefix, gateway } => {
            let [interface] = interfaces.as_slice() else {
                return Err(invalid("ip is an address: say by interface which of several has it"));
            };
            let address = format!("{address}/{prefix}");
            program::run("ip", &["addr", "add", &address, "dev", interface])?;
            if let Some(gateway) = gateway {
                program::run("ip", &["route", "add", "default", "via", &gateway.to_string()])?;
            }
            log::say(&format!("network {interface} {address}"));
        }
        _ => ask(&interfaces)?,
    }
    Ok(())
}

/// Name servers that the settings name: the script of the DHCP client then leaves its own out.
fn name_servers(servers: &[IpAddr]) -> Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let written =
        fs::write("/etc/resolv.conf", lines).and_then(|()| fs::write("/run/halfhour/dns-is-set", ""));
    written.context(|| "writing /etc/resolv.conf".to_owned())
}

/// The interfaces that are meant, once they are there.
fn find(settings: &Settings, changes: &Changes) -> Result<Vec<String>> {
    let wanted: Vec<&str> = if settings.bond.is_empty() {
        settings.interface.iter().map(String::as_str).collect()
    } else {
        settings.bond.iter().map(String::as_str).collect()
    };
    let found = || -> Vec<String> {
        let all = physical();
        if wanted.is_empty() {
            return all;
        }
        wanted.iter().filter_map(|name| all.iter().find(|found| is_called(found, name)).cloned()).collect()
    };
    let enough = || found().len() >= wanted.len().max(1);
    if changes.wait_for(APPEAR, enough) {
        return Ok(found());
    }
    let there = physical();
    let there = if there.is_empty() {
        "there is none at all".to_owned()
    } else {
        format!("there are {}", there.join(", "))
    };
    let what = match wanted.as_slice() {
        [] => "no network interface: its driver may need firmware".to_owned(),
        names => format!("no network interface {}: {there}", names.join(", ")),
    };
    Err(Error::new(ErrorKind::NotFound, what))
}

/// Whether an interface has this name, or this hardware address.
fn is_called(interface: &str, name: &str) -> bool {
    interface == name || address(interface).eq_ignore_ascii_case(name)
}

fn address(interface: &str) -> String {
    fs::read_to_string(format!("{CLASS}/{interface}/address")).unwrap_or_default().trim().to_owned()
}

/// The interfaces that are hardware.
fn physical() -> Vec<String> {
    let entries = fs::read_dir(CLASS).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter(|name| Path::new(&format!("{CLASS}/{name}/device")).exists()).collect();
    names.sort();
    names
}

fn bond(members: &[String], mode: &str) -> Result<()> {
    // Without a bond of its own making.
    program::run("modprobe", &["bonding", "max_bonds=0"])?;
    let write = |to: String, what: &str| fs::write(&to, what).context(|| format!("writing {what} to {to}"));
    write(format!("{CLASS}/bonding_masters"), &format!("+{BOND}"))?;
    write(format!("{CLASS}/{BOND}/bonding/mode"), mode)?;
    write(format!("{CLASS}/{BOND}/bonding/miimon"), "100")?;
    for member in members {
        write(format!("{CLASS}/{BOND}/bonding/slaves"), &format!("+{member}"))?;
    }
    Ok(())
}

/// Asks for addresses on all of them at once; goes on with the first answer, the others may come later.
fn ask(interfaces: &[String]) -> Result<()> {
    let (sender, answers) = channel();
    for interface in interfaces {
        let (sender, interface) = (sender.clone(), interface.clone());
        let spawned = thread::Builder::new().name(format!("dhcp {interface}")).spawn(move || {
            // It answers when it has an address, or goes on asking in the background.
            let words = ["-i", &interface, "-b", "-t", "8", "-T", "2", "-A", "5", "-s", "/etc/udhcpc/script"];
            let asked = program::run("udhcpc", &words);
            let address = ipv4(&interface);
            drop(sender.send(asked.map(|_| (interface, address))));
        });
        spawned.context(|| "asking for an address".to_owned())?;
    }
    drop(sender);
    let mut why = None;
    for answer in answers {
        match answer {
            Ok((interface, Some(address))) => {
                log::say(&format!("network {interface} {address}"));
                return Ok(());
            }
            Ok((interface, None)) => {
                let what = format!("nobody gave {interface} an address; is the cable in? Or set ip by hand");
                why = Some(Error::new(ErrorKind::Io, what));
            }
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| Error::new(ErrorKind::Io, "nobody was asked for an address")))
}

/// The first IPv4 address of an interface.
fn ipv4(interface: &str) -> Option<String> {
    let shown = program::run("ip", &["-4", "addr", "show", "dev", interface]).ok()?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "inet");
    words.nth(1).map(str::to_owned)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, what)
}
