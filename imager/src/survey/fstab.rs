//! What the captured system itself says its volumes are for: its /etc/fstab.

use ext4_view::{Ext4, Ext4Error};
use imager_disk::ReadAt;
use imager_units::{ByteOffset, Error, ErrorKind};
use imager_volume::{btrfs, chain, xfs};
use std::sync::Arc;

/// Where it lies.
pub const FSTAB: &str = "/etc/fstab";

/// A larger fstab is not one.
const MOST_BYTES: u64 = 1 << 20;

/// One line of an fstab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `UUID=…`, `LABEL=…`, a device, as written.
    pub source: String,
    /// Where it is mounted.
    pub at: String,
}

struct Source(Arc<dyn ReadAt>);

impl ext4_view::Ext4Read for Source {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(ByteOffset::new(start_byte), dst)?)
    }
}

/// Text files of one system, by path.
pub type Texts = Vec<(String, String)>;

/// What a volume holds of systems.
#[derive(Default)]
pub struct Found {
    /// The files of each system in it.
    pub systems: Vec<Texts>,
    /// Why there may be more.
    pub unread: Option<String>,
}

/// Reads small text files of the systems in a filesystem of this kind, which may lie on `others` as well. There is
/// nothing in kinds that we do not look into.
pub fn read_files(kind: &str, volume: &Arc<dyn ReadAt>, others: &[Arc<dyn ReadAt>], paths: &[&str]) -> Found {
    let read = match kind {
        "btrfs" => read_btrfs(volume, others, paths),
        "ext2" | "ext3" | "ext4" => read_ext(Arc::clone(volume), paths).map(|texts| vec![texts]),
        "xfs" => read_xfs(&**volume, paths).map(|texts| vec![texts]),
        _ => Ok(Vec::new()),
    };
    match read {
        Ok(systems) => Found { systems, unread: None },
        Err(why) => Found { systems: Vec::new(), unread: Some(why) },
    }
}

/// What is there of `paths`; only of an fstab it matters why it cannot be read.
fn texts(
    paths: &[&str],
    read: impl Fn(&str) -> std::result::Result<Option<Vec<u8>>, String>,
) -> std::result::Result<Texts, String> {
    let mut texts = Vec::new();
    for &path in paths {
        let bytes = match read(path) {
            Err(why) if path == FSTAB => return Err(format!("{FSTAB}: {why}")),
            read => read.ok().flatten(),
        };
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        texts.extend(text.map(|text| (path.to_owned(), text)));
    }
    Ok(texts)
}

/// ext4-view reads what a journal that was not replayed would put in place.
fn read_ext(volume: Arc<dyn ReadAt>, paths: &[&str]) -> std::result::Result<Texts, String> {
    let why = |error: &dyn std::error::Error| error.to_string();
    let files = Ext4::load(Box::new(Source(volume))).map_err(|error| why(&error))?;
    texts(paths, |path| match files.metadata(path) {
        Ok(file) if file.is_dir() || file.len() > MOST_BYTES => Ok(None),
        Ok(_) => files.read(path).map(Some).map_err(|error| why(&error)),
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
        Err(error) => Err(why(&error)),
    })
}

fn read_xfs(volume: &dyn ReadAt, paths: &[&str]) -> std::result::Result<Texts, String> {
    let Some(files) = xfs::Files::open(volume).map_err(|error| chain(&error))? else {
        return Ok(Vec::new());
    };
    texts(paths, |path| there(files.read(path, MOST_BYTES)))
}

/// A subvolume that has a name is a root when its own fstab says so: a snapshot of it says the same, but is called
/// otherwise. That of one that cannot be read matters only where there is no other.
fn read_btrfs(
    volume: &Arc<dyn ReadAt>,
    others: &[Arc<dyn ReadAt>],
    paths: &[&str],
) -> std::result::Result<Vec<Texts>, String> {
    let devices: Vec<_> = std::iter::once(volume).chain(others).map(|device| &**device).collect();
    let said = |error: Error| chain(&error);
    let Some(files) = btrfs::Files::open(&devices).map_err(said)? else { return Ok(Vec::new()) };
    let (mut systems, mut failure) = (Vec::new(), None);
    for subvolume in files.subvolumes().map_err(said)? {
        let texts = match texts(paths, |path| there(files.read(&subvolume, path, MOST_BYTES))) {
            Err(why) if subvolume.name.is_some() => {
                failure = Some(why);
                continue;
            }
            texts => texts?,
        };
        let fstab = texts.iter().find(|(path, _)| path == FSTAB);
        let is_root = |name: &String| fstab.is_some_and(|(_, text)| is_root_in(text, name));
        if subvolume.name.as_ref().map_or(fstab.is_some(), is_root) {
            systems.push(texts);
        }
    }
    match failure.filter(|_| systems.is_empty()) {
        Some(why) => Err(why),
        None => Ok(systems),
    }
}

/// What is missing, or no file, is not there.
fn there(read: imager_units::Result<Vec<u8>>) -> std::result::Result<Option<Vec<u8>>, String> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}

/// Whether an fstab mounts the subvolume `name` as the root.
fn is_root_in(text: &str, name: &str) -> bool {
    let fields = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_root = |fields: &Vec<String>| match fields.as_slice() {
        [source, at, _, options, ..] if !source.starts_with('#') && at == "/" => {
            let subvolume = options.split(',').find_map(|option| option.strip_prefix("subvol="));
            subvolume.is_some_and(|subvolume| subvolume.trim_start_matches('/') == name)
        }
        _ => false,
    };
    text.lines().map(fields).any(|fields| is_root(&fields))
}

/// The lines of an fstab that mount something (fstab(5)).
pub fn parse(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (source, at) = (fields.next()?, fields.next()?);
        (!source.starts_with('#'))
            .then(|| Mount { source: source.trim_matches('"').to_owned(), at: unescape(at) })
    };
    text.lines().filter_map(mount).collect()
}

/// fstab writes a space as `\040` and so on.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

/// Whether a mount point belongs to the operating system, so that losing it would keep the machine from working.
pub fn is_system(at: &str) -> bool {
    const SYSTEM: [&str; 7] = ["/usr", "/var", "/opt", "/boot", "/efi", "/root", "/etc"];
    at == "/" || is_boot(at) || SYSTEM.iter().any(|dir| below(at, dir))
}

/// Whether a mount point is one the machine boots from.
pub fn is_boot(at: &str) -> bool {
    at.starts_with("/boot") || below(at, "/efi")
}

fn below(at: &str, dir: &str) -> bool {
    at.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::{Mount, is_boot, is_root_in, is_system, parse};

    #[test]
    fn a_subvolume_is_a_root_when_its_own_fstab_says_so() {
        let text = "# UUID=1 / btrfs subvol=@no 0 0\nUUID=1 / btrfs compress=zstd,subvol=/@,noatime 0 0\n\
                    UUID=1 /home btrfs subvol=@home 0 0\n";
        assert!(is_root_in(text, "@"));
        assert!(!["@home", "@no", "", "@2"].iter().any(|other| is_root_in(text, other)));
        assert!(is_root_in("UUID=1 / btrfs defaults,subvol=@rootfs 0 0", "@rootfs"));
        assert!(!is_root_in("UUID=1 / btrfs defaults 0 0", "@"));
    }

    #[test]
    fn an_fstab_is_read_as_mount_reads_it() {
        let text = "# comment\nUUID=12-34 / ext4 defaults 0 1\n\n LABEL=\"my\" /srv\\040data xfs\n/dev/sdb1\t/mnt ext4";
        let mount = |source: &str, at: &str| Mount { source: source.into(), at: at.into() };
        let expected =
            [mount("UUID=12-34", "/"), mount("LABEL=\"my", "/srv data"), mount("/dev/sdb1", "/mnt")];
        assert_eq!(parse(text)[0], expected[0]);
        assert_eq!(parse(text)[1].at, expected[1].at);
        assert_eq!(parse(text)[2], expected[2]);
    }

    #[test]
    fn only_what_lies_outside_the_system_is_data() {
        for at in ["/", "/usr", "/var/lib/mysql", "/boot/efi", "/boot2", "/efi", "/opt/app"] {
            assert!(is_system(at), "{at}");
        }
        for at in ["/srv", "/home", "/data/var", "/usrlocal", "none"] {
            assert!(!is_system(at), "{at}");
        }
        assert!(is_boot("/boot/efi") && is_boot("/boot2") && !is_boot("/srv/boot"));
    }
}
