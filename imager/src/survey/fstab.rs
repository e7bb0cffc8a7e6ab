//! What the captured system itself says its volumes are for: its /etc/fstab.

use ext4_view::Ext4;
use imager_disk::ReadAt;
use imager_units::ByteOffset;
use imager_volume::xfs;
use std::sync::Arc;

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

/// Reads small text files of a filesystem of this kind; those that are not there or cannot be read are left out: of a
/// kind that we do not look into, or with a log that was not replayed, all.
pub fn read_files(kind: &str, volume: Arc<dyn ReadAt>, paths: &[&str]) -> Vec<(String, String)> {
    match kind {
        "ext2" | "ext3" | "ext4" => read_ext(volume, paths),
        "xfs" => read_xfs(&*volume, paths),
        _ => Vec::new(),
    }
}

fn read_ext(volume: Arc<dyn ReadAt>, paths: &[&str]) -> Vec<(String, String)> {
    let Ok(files) = Ext4::load(Box::new(Source(volume))) else { return Vec::new() };
    let small = |path: &str| files.metadata(path).is_ok_and(|file| file.len() <= MOST_BYTES);
    let read = |path: &str| Some((path.to_owned(), files.read_to_string(path).ok()?));
    paths.iter().copied().filter(|path| small(path)).filter_map(read).collect()
}

fn read_xfs(volume: &dyn ReadAt, paths: &[&str]) -> Vec<(String, String)> {
    let Ok(Some(files)) = xfs::Files::open(volume) else { return Vec::new() };
    let read = |path: &str| {
        let text = String::from_utf8(files.read(path, MOST_BYTES).ok()?).ok()?;
        Some((path.to_owned(), text))
    };
    paths.iter().copied().filter_map(read).collect()
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
    use super::{Mount, is_boot, is_system, parse};

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
