//! The firmware of a machine, as Debian packages it for QEMU.

use crate::need;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/usr/share/OVMF";

/// What starts a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// A PC's BIOS.
    SeaBios,
    /// UEFI that starts anything.
    Ovmf,
    /// UEFI that starts only what Microsoft's keys vouch for.
    SecureBoot,
}

impl Firmware {
    /// Whether it is installed; says so when not.
    pub fn is_available(self) -> bool {
        let Some((code, variables)) = self.files() else { return true };
        let is_there = [code, variables].iter().all(|name| Path::new(FOLDER).join(name).exists());
        if !is_there {
            need::skip("not installed: ovmf");
        }
        is_there
    }

    /// The memory of a new machine of this kind, made in `folder`; none where there is nothing to remember.
    pub(super) fn new_memory(self, folder: &Path) -> Option<PathBuf> {
        let (_, variables) = self.files()?;
        let memory = folder.join("nvram");
        std::fs::copy(Path::new(FOLDER).join(variables), &memory).expect("the firmware's variables");
        Some(memory)
    }

    /// QEMU's options for it.
    pub(super) fn options(self, memory: Option<&Path>) -> Vec<String> {
        let machine = if self == Self::SecureBoot { "q35,smm=on" } else { "q35" };
        let mut options = vec!["-machine".to_owned(), machine.to_owned()];
        if self == Self::SecureBoot {
            // The variables are writable in system management mode only, which is what makes them trustworthy.
            let secure = ["driver=cfi.pflash01,property=secure,value=on", "ICH9-LPC.disable_s3=1"];
            options.extend(secure.iter().flat_map(|value| ["-global".to_owned(), (*value).to_owned()]));
        }
        if let (Some((code, _)), Some(memory)) = (self.files(), memory) {
            let flash = [
                format!("if=pflash,format=raw,unit=0,readonly=on,file={FOLDER}/{code}"),
                format!("if=pflash,format=raw,unit=1,file={}", memory.display()),
            ];
            options.extend(flash.into_iter().flat_map(|value| ["-drive".to_owned(), value]));
        }
        options
    }

    fn files(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::SeaBios => None,
            Self::Ovmf => Some(("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")),
            Self::SecureBoot => Some(("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd")),
        }
    }
}
