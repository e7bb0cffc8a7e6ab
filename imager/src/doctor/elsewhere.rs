//! What would keep the machine from starting on other hardware.

use super::design::Design;
use super::{Finding, Level, Tree};
use crate::firmware::Kind;
use crate::survey::fstab::{self, FSTAB};

/// What names a device by where it is, or by when the kernel found it.
const UNSTABLE: [&str; 9] = [
    "/dev/sd",
    "/dev/hd",
    "/dev/vd",
    "/dev/xvd",
    "/dev/nvme",
    "/dev/mmcblk",
    "/dev/disk/by-path/",
    "/dev/disk/by-id/",
    "/dev/disk/by-diskseq/",
];

/// Files in which network interfaces are known by their address.
const NETWORK: [&str; 4] =
    ["/etc/netplan", "/etc/systemd/network", "/etc/sysconfig/network-scripts", "/etc/udev/rules.d"];
/// How they say it.
const BY_ADDRESS: [&str; 4] = ["macaddress:", "MACAddress=", "HWADDR=", "ATTR{address}=="];

/// Looks at what is bound to this hardware.
pub(super) fn examine(design: &Design, tree: Option<&Tree>) -> Vec<Finding> {
    let mut findings: Vec<_> = mounts(design).into_iter().collect();
    findings.extend(keys(design));
    findings.extend(loaders(design));
    if let Some(tree) = tree {
        findings.extend(root(tree));
        findings.extend(drivers(tree));
        findings.extend(addresses(tree));
    }
    findings
}

fn is_unstable(source: &str) -> bool {
    UNSTABLE.iter().any(|prefix| source.starts_with(prefix))
}

/// Mounts that another controller or another order of disks would miss.
fn mounts(design: &Design) -> Option<Finding> {
    const CHECK: &str = "names";
    let fstab = design.file(FSTAB);
    if fstab.is_empty() {
        return None;
    }
    let unstable: Vec<_> = fstab::parse(fstab)
        .into_iter()
        .filter(|mount| is_unstable(&mount.source))
        .map(|m| m.source)
        .collect();
    if unstable.is_empty() {
        return Some(Finding::good(CHECK, "/etc/fstab names volumes by what stays the same"));
    }
    Some(Finding::new(
        Level::Problem,
        CHECK,
        format!("/etc/fstab names {}", unstable.join(", ")),
        "on another controller, or with the disks in another order, these names are other disks' or nobody's: the machine \
         stops in emergency mode, or mounts the wrong disk",
        "write UUID=… instead (blkid shows it)",
    ))
}

/// Disks that only this machine opens.
fn keys(design: &Design) -> Vec<Finding> {
    const CHECK: &str = "keys";
    let lines =
        design.file("/etc/crypttab").lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let bound = lines.filter(|line| line.contains("tpm2-device=") || line.contains("fido2-device="));
    let finding = |line: &str| {
        let name = line.split_ascii_whitespace().next().unwrap_or("?");
        Finding::new(
            Level::Problem,
            CHECK,
            format!("{name} of /etc/crypttab is opened by a key of this machine (TPM or token)"),
            "on other hardware that key is not there, and without another one the volume stays closed for ever",
            "enrol a recovery key (systemd-cryptenroll --recovery-key DEVICE) and keep it elsewhere",
        )
    };
    bound.map(finding).collect()
}

/// What a machine that knows no boot entries would start.
fn loaders(design: &Design) -> Vec<Finding> {
    const CHECK: &str = "loader";
    let of = |kind: Kind| design.ways.iter().filter(move |way| way.firmware == kind);
    let fallback: Vec<_> = of(Kind::Uefi).filter(|way| way.check == "fallback loader").collect();
    let is_uefi = match design.firmware.as_deref() {
        Some(kind) => kind == Kind::Uefi.word(),
        None => !fallback.is_empty(),
    };
    if is_uefi && !fallback.is_empty() {
        let ok = fallback.iter().any(|way| way.ok);
        return vec![match ok {
            true => Finding::good(CHECK, "the fallback loader is there: it starts without boot entries"),
            false => Finding::new(
                Level::Warning,
                CHECK,
                "there is no fallback loader: the machine starts by the firmware's boot entries alone",
                "a new mainboard knows no boot entries; a recovery writes them, if it was started by UEFI too",
                "install the loader as \\EFI\\BOOT\\BOOTX64.EFI as well (grub-install --force-extra-removable, bootctl install)",
            ),
        }];
    }
    let codes: Vec<_> = of(Kind::Bios).collect();
    let wrong = codes.iter().filter(|way| !way.ok).map(|way| way.message.clone()).collect::<Vec<_>>();
    if codes.is_empty() || (design.firmware.is_none() && wrong.len() == codes.len()) {
        return Vec::new();
    }
    if wrong.len() < codes.len() || wrong.is_empty() {
        return vec![Finding::good(CHECK, "a disk has boot code that leads somewhere")];
    }
    vec![Finding::new(
        Level::Warning,
        CHECK,
        wrong.join("; "),
        "what does not start now does not start after a recovery either",
        "install the boot loader anew (grub-install)",
    )]
}

/// How the kernel was told of its root.
fn root(tree: &Tree) -> Option<Finding> {
    let told = tree.text("/proc/cmdline")?;
    let root = told.split_ascii_whitespace().find_map(|word| word.strip_prefix("root="))?;
    is_unstable(root).then(|| {
        Finding::new(
            Level::Problem,
            "names",
            format!("the kernel was told root={root}"),
            "on another controller that is another disk or none, and the machine does not start",
            "have the boot loader say root=UUID=… (remove GRUB_DISABLE_LINUX_UUID from /etc/default/grub, then update-grub)",
        )
    })
}

/// Whether the initramfs was built for this hardware alone.
fn drivers(tree: &Tree) -> Option<Finding> {
    const CHECK: &str = "drivers";
    let told = |path: &str, key: &str| {
        let text = tree.text(path)?;
        let value = |line: &str| {
            Some(
                line.trim()
                    .strip_prefix(key)?
                    .trim_start()
                    .strip_prefix('=')?
                    .trim()
                    .trim_matches('"')
                    .to_owned(),
            )
        };
        text.lines().filter_map(value).next_back()
    };
    let mut debian = vec!["/etc/initramfs-tools/initramfs.conf".to_owned()];
    debian.extend(tree.list("/etc/initramfs-tools/conf.d"));
    let modules = debian.iter().filter_map(|path| told(path, "MODULES")).next_back();
    let mut dracut = vec!["/etc/dracut.conf".to_owned()];
    dracut.extend(
        ["/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d"].iter().flat_map(|folder| tree.list(folder)),
    );
    let is_dracut = tree.resolved("/usr/lib/dracut").is_some() && modules.is_none();
    let host_only = dracut.iter().filter_map(|path| told(path, "hostonly")).next_back();
    let narrow = |what: String, todo: &str| {
        Finding::new(
            Level::Warning,
            CHECK,
            what,
            "on a machine with another disk controller the root is not found; a recovery onto other hardware has to add the \
             drivers first",
            todo,
        )
    };
    match (modules.as_deref(), is_dracut, host_only.as_deref()) {
        (Some("dep"), ..) => Some(narrow(
            "the initramfs holds the drivers of this hardware alone (MODULES=dep)".to_owned(),
            "write MODULES=most into /etc/initramfs-tools/initramfs.conf, then update-initramfs -u -k all",
        )),
        (Some(_), ..) => {
            Some(Finding::good(CHECK, "the initramfs is built with the drivers of most hardware"))
        }
        (None, true, Some("no")) => Some(Finding::good(CHECK, "the initramfs is built for any hardware")),
        (None, true, _) => Some(narrow(
            "the initramfs holds the drivers of this hardware alone (dracut's hostonly)".to_owned(),
            "write hostonly=\"no\" into a file of /etc/dracut.conf.d, then dracut --regenerate-all --force",
        )),
        (None, false, _) => None,
    }
}

/// Networks that another card would not have.
fn addresses(tree: &Tree) -> Vec<Finding> {
    let is_bound = |path: &String| {
        tree.text(path).is_some_and(|text| {
            let said = |line: &str| {
                !line.trim_start().starts_with('#') && BY_ADDRESS.iter().any(|by| line.contains(by))
            };
            text.lines().any(said)
        })
    };
    let files: Vec<_> = NETWORK.iter().flat_map(|folder| tree.list(folder)).filter(is_bound).collect();
    if files.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(
        Level::Advice,
        "network",
        format!("network cards are known by their addresses in {}", files.join(", ")),
        "another machine has other cards: it starts, and nobody reaches it",
        "know these files; after a recovery onto other hardware the new addresses belong there",
    )]
}
