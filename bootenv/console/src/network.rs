//! The network as it is: for whoever wonders why the share does not answer.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::collections::BTreeMap;

/// Each interface with its addresses, then the name servers.
pub(crate) fn lines() -> Vec<String> {
    let mut interfaces: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    for interface in getifaddrs().into_iter().flatten() {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let (runs, addresses) = interfaces.entry(interface.interface_name).or_default();
        *runs = interface.flags.contains(InterfaceFlags::IFF_RUNNING);
        let address = interface.address.as_ref();
        let four = address.and_then(|address| Some(address.as_sockaddr_in()?.ip().to_string()));
        let six = address.and_then(|address| Some(address.as_sockaddr_in6()?.ip().to_string()));
        addresses.extend(four.or(six));
    }
    let mut lines: Vec<_> =
        interfaces.iter().map(|(name, (runs, addresses))| line(name, *runs, addresses)).collect();
    if lines.is_empty() {
        lines.push("no interface: is its driver loaded, and the cable in?".to_owned());
    }
    let servers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<_> =
        servers.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::trim).collect();
    lines.push(match servers.as_slice() {
        [] => "no name server: shares are named by address".to_owned(),
        servers => format!("names from {}", servers.join(", ")),
    });
    lines
}

fn line(name: &str, runs: bool, addresses: &[String]) -> String {
    let link = if runs { "" } else { " (no link)" };
    match addresses {
        [] => format!("{name}: no address{link}"),
        addresses => format!("{name}: {}{link}", addresses.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(line("eth0", true, &["192.0.2.7".to_owned()]), "eth0: 192.0.2.7");
        assert_eq!(line("eth1", false, &[]), "eth1: no address (no link)");
    }
}
