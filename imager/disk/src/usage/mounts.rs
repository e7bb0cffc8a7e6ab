//! `/proc/self/mountinfo` (proc(5)) and `/proc/swaps`.

use crate::system::{folders, leaf, number};
use crate::{DeviceNumber, System};
use imager_units::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The kernel's number of the mount.
    pub(super) id: u64,
    /// The number of the device it is on, or one that the file system made up.
    pub(super) device: Option<DeviceNumber>,
    /// Where.
    pub(super) at: PathBuf,
    /// Whether the file system is read-only, whatever this mount of it is.
    pub(super) read_only: bool,
    kind: Vec<u8>,
    source: Vec<u8>,
    options: Vec<u8>,
}

pub(super) fn read(system: &System) -> Result<Vec<Mount>> {
    let path = system.at("proc/self/mountinfo");
    let text = fs::read(&path).context(|| format!("reading {}", path.display()))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = fields.nth(1)?;
        let at = unescape(fields.nth(1)?);
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (behind.next()?.to_vec(), unescape(behind.next()?));
        let of_filesystem = unescape(behind.next().unwrap_or_default());
        Some(Self {
            id,
            device: String::from_utf8_lossy(device).parse().ok(),
            at: PathBuf::from(OsString::from_vec(at)),
            read_only: of_filesystem.split(|&byte| byte == b',').any(|option| option == b"ro"),
            kind,
            source,
            options: of_filesystem,
        })
    }

    /// The kernel's name for the kind of file system.
    pub(super) fn kind(&self) -> String {
        String::from_utf8_lossy(&self.kind).into_owned()
    }

    /// The nodes it was mounted from; bcachefs names several with `:` between.
    fn sources(&self) -> impl Iterator<Item = PathBuf> {
        let paths = self.source.split(|&byte| byte == b':').filter(|source| source.starts_with(b"/"));
        paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())))
    }

    /// The folders that an overlay is made of.
    pub(super) fn layers(&self) -> impl Iterator<Item = PathBuf> {
        let options = self.options.split(|&byte| byte == b',').filter(|_| self.kind == b"overlay");
        let values = options.filter_map(|option| {
            [&b"lowerdir="[..], b"lowerdir+=", b"upperdir="].iter().find_map(|key| option.strip_prefix(*key))
        });
        let paths = values.flat_map(|value| value.split(|&byte| byte == b':'));
        paths
            .filter(|path| path.starts_with(b"/"))
            .map(|path| PathBuf::from(OsString::from_vec(path.to_vec())))
    }
}

impl System {
    /// The block devices that a mounted file system is known to be on.
    pub(super) fn devices_of(&self, mount: &Mount) -> Result<Vec<DeviceNumber>> {
        let mut devices: Vec<_> =
            mount.device.into_iter().filter(|device| self.folder(*device).is_ok()).collect();
        devices.extend(mount.sources().filter_map(|source| self.number_of_node(&source)));
        if mount.kind == b"btrfs" {
            for group in self.btrfs_groups()? {
                if group.iter().any(|member| devices.contains(member)) {
                    devices.extend(group);
                }
            }
        }
        devices.sort();
        devices.dedup();
        Ok(devices)
    }

    /// The devices of each mounted Btrfs.
    fn btrfs_groups(&self) -> Result<Vec<Vec<DeviceNumber>>> {
        let groups = folders(&self.at("sys/fs/btrfs"))?;
        let members = |group: &PathBuf| -> Result<Vec<DeviceNumber>> {
            let devices = folders(&group.join("devices"))?;
            Ok(devices.iter().filter_map(|device| number(&device.join("dev")).ok()).collect())
        };
        groups.iter().map(members).collect()
    }

    /// The device behind a node; in a described machine, the one with the kernel's name.
    pub(super) fn number_of_node(&self, node: &Path) -> Option<DeviceNumber> {
        let named = || number(&self.at("sys/class/block").join(leaf(node)).join("dev")).ok();
        let node_here = DeviceNumber::of_node(&self.at(&node.to_string_lossy()));
        node_here.or_else(|| node.starts_with("/dev").then(named).flatten())
    }

    /// What is swapped to.
    pub(super) fn swaps(&self) -> Result<Vec<PathBuf>> {
        let path = self.at("proc/swaps");
        let text = match fs::read(&path) {
            // A kernel without swap has no such file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            text => text.context(|| format!("reading {}", path.display()))?,
        };
        let lines = text.split(|&byte| byte == b'\n').skip(1);
        let names = lines.filter_map(|line| line.split(|byte| byte.is_ascii_whitespace()).next());
        let names = names.filter(|name| name.starts_with(b"/"));
        Ok(names.map(|name| PathBuf::from(OsString::from_vec(unescape(name)))).collect())
    }
}

/// Undoes the escapes of spaces and the like: a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(first));
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Mount, unescape};
    use std::path::{Path, PathBuf};

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        assert_eq!(unescape(br"/a\040b\134c\011\012"), b"/a b\\c\t\n");
        assert_eq!(unescape(br"\04\9\777\"), br"\04\9\777\");
    }

    #[test]
    fn optional_fields_are_passed_over() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 propagate_from:2 - ext3 /dev/root ro,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.device, mount.at.as_path()), ("98:0".parse().ok(), Path::new("/mnt 2")));
        assert!(mount.read_only);
        assert_eq!(mount.sources().collect::<Vec<_>>(), [PathBuf::from("/dev/root")]);
        let bind = Mount::parse(b"37 35 98:0 / /bound ro - ext4 /dev/sda1 rw").unwrap();
        assert!(!bind.read_only, "a read-only mount of a writable file system");
        assert_eq!(Mount::parse(b""), None);
        assert_eq!(Mount::parse(b"36 35 98:0 / /x rw - ext4"), None);
    }

    #[test]
    fn layers_of_an_overlay_are_folders() {
        let line = b"1 2 0:5 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d";
        let layers: Vec<_> = Mount::parse(line).unwrap().layers().collect();
        assert_eq!(layers, ["/a", "/b", "/c"].map(PathBuf::from));
    }
}
