//! Every setting of the rescue environment, by the one name that it has in the file and on the command line.

use imager_units::{Error, ErrorKind, Result};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// What the rescue environment is told.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The repository's URL.
    pub repo: Option<String>,
    /// The share server's token.
    pub token: Option<String>,
    /// The passphrase of an encrypted repository.
    pub password: Option<String>,
    /// The password of the user of an SMB share.
    pub share_password: Option<String>,
    /// How long a share that does not answer is asked again, as `imager --patience` understands it.
    pub patience: Option<String>,
    /// The rate of all traffic with the share, as `imager --limit` understands it.
    pub limit: Option<String>,
    /// The capture to put back: `MACHINE`, `MACHINE@TIME` or `id:HEX`.
    pub capture: Option<String>,
    /// The disks to put it back to: `serial:X`, `wwn:X` or a path, `D=` before it.
    pub target: Vec<String>,
    /// Only these volumes.
    pub volume: Vec<String>,
    /// Make the disk anew.
    pub bare_metal: bool,
    /// Disks whose contents may go.
    pub erase: Vec<String>,
    /// Volumes whose place a skeleton may take although there is a filesystem.
    pub erase_volume: Vec<String>,
    /// The plan's hash, or `yes` where every target is named by what it is.
    pub confirm: Option<String>,
    /// Whose capture is made.
    pub machine: Option<String>,
    /// The disks to capture.
    pub disk: Vec<String>,
    /// What volumes are for, as `imager capture --role` understands it.
    pub role: Vec<String>,
    /// What is taken of data volumes, as `imager capture --data` understands it.
    pub data: Option<String>,
    /// What happens after success.
    pub after: After,
    /// How the network is set up.
    pub ip: Address,
    /// Name servers, in place of those that DHCP names.
    pub dns: Vec<IpAddr>,
    /// The interface to use, by name or hardware address; all, where none is named.
    pub interface: Option<String>,
    /// The VLAN to be in.
    pub vlan: Option<u16>,
    /// The interfaces to bond.
    pub bond: Vec<String>,
    /// How, as the kernel calls it.
    pub bond_mode: Option<String>,
    /// A public key that may log in by SSH as root.
    pub ssh_key: Option<String>,
    /// Lines instead of a full screen, for terminals that draw badly.
    pub plain: bool,
}

/// What happens after success; after a failure it is always the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// The console shows what was done.
    #[default]
    Console,
    /// The machine starts again, from its disk if the firmware has it so.
    Reboot,
    /// The machine is switched off.
    PowerOff,
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// From the network.
    #[default]
    Dhcp,
    /// Not at all: nothing is touched.
    Off,
    /// `ADDRESS/PREFIX` or `ADDRESS/PREFIX,GATEWAY`.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// How many of its bits name the network.
        prefix: u8,
        /// Where everything else is.
        gateway: Option<Ipv4Addr>,
    },
}

/// The names, in the order of the documentation.
pub(crate) const NAMES: [&str; 26] = [
    "repo",
    "token",
    "password",
    "share_password",
    "patience",
    "limit",
    "capture",
    "target",
    "volume",
    "bare_metal",
    "erase",
    "erase_volume",
    "confirm",
    "machine",
    "disk",
    "role",
    "data",
    "after",
    "ip",
    "dns",
    "interface",
    "vlan",
    "bond",
    "bond_mode",
    "ssh_key",
    "plain",
];

impl Settings {
    /// Gives one setting its value; several where it is a list.
    ///
    /// # Errors
    /// `Invalid` for a name that there is not, or a value that it cannot have.
    pub fn set(&mut self, name: &str, values: &[String]) -> Result<()> {
        match name {
            "repo" => self.repo = Some(one(name, values)?),
            "token" => self.token = Some(one(name, values)?),
            "password" => self.password = Some(one(name, values)?),
            "share_password" => self.share_password = Some(one(name, values)?),
            "patience" => self.patience = Some(one(name, values)?),
            "limit" => self.limit = Some(one(name, values)?),
            "capture" => self.capture = Some(one(name, values)?),
            "target" => self.target = values.to_vec(),
            "volume" => self.volume = values.to_vec(),
            "bare_metal" => self.bare_metal = flag(name, values)?,
            "erase" => self.erase = values.to_vec(),
            "erase_volume" => self.erase_volume = values.to_vec(),
            "data" => self.data = Some(one(name, values)?),
            "confirm" => self.confirm = Some(one(name, values)?),
            "machine" => self.machine = Some(one(name, values)?),
            "disk" => self.disk = values.to_vec(),
            "role" => self.role = values.to_vec(),
            "after" => self.after = one(name, values)?.parse()?,
            "ip" => self.ip = values.join(",").parse()?,
            "dns" => self.dns = values.iter().map(|text| parsed(name, text)).collect::<Result<_>>()?,
            "interface" => self.interface = Some(one(name, values)?),
            "vlan" => self.vlan = Some(vlan(&one(name, values)?)?),
            "bond" => self.bond = values.to_vec(),
            "bond_mode" => self.bond_mode = Some(one(name, values)?),
            "ssh_key" => self.ssh_key = Some(one(name, values)?),
            "plain" => self.plain = flag(name, values)?,
            _ => {
                let what = format!("there is no setting {name:?}; there are {}", NAMES.join(", "));
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        Ok(())
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("repo", &self.repo).field("ip", &self.ip).finish_non_exhaustive()
    }
}

impl FromStr for After {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "console" => Ok(Self::Console),
            "reboot" => Ok(Self::Reboot),
            "poweroff" => Ok(Self::PowerOff),
            _ => Err(wrong("after", text, "console, reboot or poweroff")),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const EXPECTED: &str = "dhcp, off, ADDRESS/PREFIX or ADDRESS/PREFIX,GATEWAY";
        match text {
            "dhcp" => return Ok(Self::Dhcp),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let (address, gateway) = match text.split_once(',') {
            Some((address, gateway)) => (address, Some(gateway)),
            None => (text, None),
        };
        let parse = || {
            let (address, prefix) = address.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            let gateway = gateway.map(str::parse).transpose().ok()?;
            Some(Self::Static { address: address.parse().ok()?, prefix, gateway })
        };
        parse().ok_or_else(|| wrong("ip", text, EXPECTED))
    }
}

fn one(name: &str, values: &[String]) -> Result<String> {
    match values {
        [value] if !value.is_empty() => Ok(value.clone()),
        _ => Err(Error::new(ErrorKind::Invalid, format!("{name} is one value, not {}", values.len()))),
    }
}

fn flag(name: &str, values: &[String]) -> Result<bool> {
    match values {
        // `halfhour.plain` alone on a command line.
        [] => Ok(true),
        [value] if value == "true" || value == "yes" => Ok(true),
        [value] if value == "false" || value == "no" => Ok(false),
        _ => Err(wrong(name, &values.join(","), "true or false")),
    }
}

fn parsed<T: FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| wrong(name, text, "an address"))
}

fn vlan(text: &str) -> Result<u16> {
    let number = text.parse().ok().filter(|number| (1..=4094).contains(number));
    number.ok_or_else(|| wrong("vlan", text, "1 to 4094"))
}

fn wrong(name: &str, value: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{name} is {value:?}, expected is {expected}"))
}

#[cfg(test)]
mod tests {
    use super::{Address, NAMES, Settings};
    use std::net::Ipv4Addr;

    #[test]
    fn every_name_can_be_set() {
        for name in NAMES {
            let value = match name {
                "after" => "reboot",
                "ip" => "192.0.2.7/24,192.0.2.1",
                "dns" => "192.0.2.53",
                "vlan" => "12",
                "bare_metal" | "plain" => "true",
                _ => "value",
            };
            let mut settings = Settings::default();
            settings.set(name, &[value.to_owned()]).expect(name);
            assert!(settings != Settings::default(), "{name} changes nothing");
        }
        let unknown = Settings::default().set("tokn", &["x".to_owned()]).expect_err("there is none");
        assert!(unknown.to_string().contains("tokn"), "{unknown}");
    }

    #[test]
    fn every_name_is_documented_in_order() {
        let rows = include_str!("../SETTINGS.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let names: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn an_address_is_checked() {
        let right = "192.0.2.7/24,192.0.2.1".parse::<Address>().expect("right");
        let gateway = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(right, Address::Static { address: Ipv4Addr::new(192, 0, 2, 7), prefix: 24, gateway });
        for wrong in ["", "192.0.2.7", "192.0.2.7/33", "192.0.2.7/0", "192.0.2.7/24,", "a/8", "dhcp,off"] {
            wrong.parse::<Address>().expect_err(wrong);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = |name: &str| {
            let mut settings = Settings::default();
            settings.set(name, &["hush".to_owned()]).expect("it can be set");
            format!("{settings:?}")
        };
        for name in ["token", "password", "share_password"] {
            assert!(!secret(name).contains("hush"));
        }
    }
}
