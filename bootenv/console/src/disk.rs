//! The disks of this machine, as a person tells them apart, and why one cannot be a target.

use crate::documents::inspected::Inspected;
use crate::documents::manifest::CapturedDisk;
use crate::say;

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its path now.
    pub(crate) path: String,
    /// Vendor and model.
    pub(crate) model: String,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Its world-wide name.
    pub(crate) wwn: Option<String>,
    /// Its size.
    pub(crate) size: u64,
    /// Its logical sectors.
    pub(crate) sector: u64,
    /// Whether it is a disk, not a file that stands for one.
    pub(crate) is_block: bool,
    /// Who uses it.
    pub(crate) uses: Vec<String>,
    /// Whether it is the rescue medium.
    pub(crate) is_medium: bool,
    /// Whether the repository lies on it.
    pub(crate) holds_repository: bool,
    /// What is on it, or why that cannot be seen.
    pub(crate) content: Result<Inspected, String>,
}

/// What is to be done with a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Boot and operating system volumes go back into their partitions.
    #[default]
    System,
    /// Chosen volumes do.
    Volumes,
    /// The lost partition table alone.
    Tables,
    /// The disk is made anew.
    BareMetal,
}

impl Disk {
    /// How a person knows it.
    pub(crate) fn describe(&self) -> String {
        let serial = self.serial.as_ref().or(self.wwn.as_ref());
        let serial = serial.map_or("no serial number".to_owned(), |serial| format!("serial {serial}"));
        match self.is_block {
            true => format!("{}, {serial}, {}, {}", self.model, say::size(self.size), self.path),
            false => format!("file {}, {}", self.path, say::size(self.size)),
        }
    }

    /// What is on it, in a line.
    pub(crate) fn summary(&self) -> String {
        match &self.content {
            Ok(content) => content.summary(),
            Err(why) => format!("what is on it cannot be seen: {why}"),
        }
    }

    /// How `imager` is told which one it is: by what stays the same, where that is this disk's alone.
    pub(crate) fn selector(&self, all: &[Self]) -> String {
        let alone = |same: &dyn Fn(&Self) -> bool| all.iter().filter(|disk| same(disk)).count() == 1;
        match (&self.serial, &self.wwn) {
            (Some(serial), _) if alone(&|disk| disk.serial.as_ref() == Some(serial)) => {
                format!("serial:{serial}")
            }
            (_, Some(wwn)) if alone(&|disk| disk.wwn.as_ref() == Some(wwn)) => format!("wwn:{wwn}"),
            _ => self.path.clone(),
        }
    }

    /// How it is named to give up what is on it.
    pub(crate) fn erase_name(&self) -> &str {
        self.serial.as_deref().or(self.wwn.as_deref()).unwrap_or(&self.path)
    }

    /// Whether it is the very disk that was captured.
    pub(crate) fn is(&self, captured: &CapturedDisk) -> bool {
        let same = |ours: &Option<String>, theirs: &Option<String>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.trim().eq_ignore_ascii_case(theirs.trim()),
            _ => false,
        };
        same(&self.wwn, &captured.wwn) || same(&self.serial, &captured.serial)
    }

    /// Why it cannot take what lies on the captured disk up to `end`; what only the plan can tell is left to the plan.
    pub(crate) fn refusal(&self, captured: &CapturedDisk, scope: Scope, end: u64) -> Option<String> {
        if self.is_medium {
            return Some("the rescue medium itself".to_owned());
        }
        if self.holds_repository {
            return Some("the repository lies on it".to_owned());
        }
        // Volumes of a disk may go back while others of it are in use; the plan says whether these may.
        if matches!(scope, Scope::BareMetal | Scope::Tables) && !self.uses.is_empty() {
            return Some(format!("in use: {}", self.uses.join("; ")));
        }
        if !self.is_block {
            return None;
        }
        if self.sector != captured.sector {
            let (ours, theirs) = (self.sector, captured.sector);
            return Some(format!("sectors of {ours} bytes, the captured disk had {theirs}"));
        }
        (self.size < end).then(|| format!("too small: {} are needed", say::size(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, Inspected, Scope};
    use crate::documents::manifest::CapturedDisk;

    fn disk(serial: Option<&str>) -> Disk {
        Disk {
            path: "/dev/sda".to_owned(),
            serial: serial.map(str::to_owned),
            size: 1000,
            sector: 512,
            is_block: true,
            content: Ok(Inspected::default()),
            model: "disk".to_owned(),
            wwn: None,
            uses: Vec::new(),
            is_medium: false,
            holds_repository: false,
        }
    }

    fn captured() -> CapturedDisk {
        CapturedDisk {
            number: 1,
            serial: Some("s1".to_owned()),
            size: 900,
            sector: 512,
            ..CapturedDisk::default()
        }
    }

    #[test]
    fn a_disk_is_named_by_what_is_its_alone() {
        let (one, other) = (disk(Some("S1")), disk(Some("S2")));
        assert_eq!(one.selector(&[one.clone(), other]), "serial:S1");
        assert_eq!(one.selector(&[one.clone(), one.clone()]), "/dev/sda", "two claim that number");
        assert_eq!(disk(None).selector(&[disk(None)]), "/dev/sda");
        assert!(one.is(&captured()) && !disk(None).is(&captured()));
    }

    #[test]
    fn what_cannot_be_a_target_is_told_with_the_reason() {
        let refusal = |change: &dyn Fn(&mut Disk), scope| {
            let mut disk = disk(Some("S1"));
            change(&mut disk);
            disk.refusal(&captured(), scope, 800).unwrap_or_default()
        };
        assert_eq!(refusal(&|_| (), Scope::System), "");
        assert!(refusal(&|disk| disk.size = 700, Scope::System).contains("too small"));
        assert!(refusal(&|disk| disk.sector = 4096, Scope::BareMetal).contains("4096"));
        assert!(refusal(&|disk| disk.is_medium = true, Scope::System).contains("medium"));
        assert!(refusal(&|disk| disk.holds_repository = true, Scope::System).contains("repository"));
        let used = |disk: &mut Disk| disk.uses = vec!["sda3 is mounted".to_owned()];
        assert!(refusal(&used, Scope::BareMetal).contains("sda3"));
        assert_eq!(refusal(&used, Scope::System), "", "the plan says whether the planned volumes are free");
        assert_eq!(
            refusal(&|disk| (disk.is_block, disk.size) = (false, 0), Scope::BareMetal),
            "",
            "files grow"
        );
    }
}
