//! A machine with its power off: disks, the firmware's memory, a network card.

use super::firmware::Firmware;
use super::machine::Machine;
use crate::scratch::Scratch;
use crate::{guest, need};
use std::path::{Path, PathBuf};

/// What a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A virtual machine's.
    Virtio,
    /// A serial ATA port; the lab's server does not start from it, since its kernel, made for clouds, has no driver.
    Ahci,
    /// An NVMe namespace.
    Nvme,
    /// One with sectors of 4096 bytes.
    Nvme4096,
}

/// What the machine starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its first disk.
    Disk,
    /// This image, as a CD.
    Cd(PathBuf),
    /// This image, as a USB stick.
    Usb(PathBuf),
    /// The network: a folder served by TFTP, and the file in it to begin with.
    Network(PathBuf, String),
    /// This kernel with this archive and command line, as a boot loader would hand them over.
    Kernel(PathBuf, PathBuf, String),
}

#[derive(Clone, Debug)]
struct Disk {
    file: String,
    bus: Bus,
    serial: String,
}

/// A machine with its power off.
#[derive(Debug)]
pub struct Hardware {
    firmware: Firmware,
    disks: Vec<Disk>,
    memory_mib: u32,
    folder: PathBuf,
    nvram: Option<PathBuf>,
    network: Option<String>,
    more: Vec<String>,
}

impl Hardware {
    /// A new one of this name, without disks; `None`, with the reason printed, where it could not run.
    pub fn new(scratch: &Scratch, name: &str, firmware: Firmware) -> Option<Self> {
        if !need::programs(&["qemu-system-x86_64"]) || !firmware.is_available() {
            return None;
        }
        let folder = scratch.folder(name);
        let nvram = firmware.new_memory(&folder);
        let network = Some("user,id=net,ipv6=off".to_owned());
        let more = Vec::new();
        Some(Self { firmware, disks: Vec::new(), memory_mib: 1024, folder, nvram, network, more })
    }

    /// With one more disk: a file of raw bytes.
    #[must_use]
    pub fn disk(mut self, file: &str, bus: Bus, serial: &str) -> Self {
        self.disks.push(Disk { file: file.to_owned(), bus, serial: serial.to_owned() });
        self
    }

    /// With this network behind its card, as QEMU's `-netdev` takes it; it is called `net`. None: no card.
    #[must_use]
    pub fn network(mut self, network: Option<&str>) -> Self {
        self.network = network.map(str::to_owned);
        self
    }

    /// With one more option of QEMU's.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.more.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Switches it on.
    pub fn power_on(&self, start: &Start) -> Machine {
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or("machine");
        let folder = tempfile::Builder::new().prefix("on-").tempdir_in(&self.folder).expect("a folder");
        Machine::start(name, folder, self.options(start), start.device())
    }

    fn options(&self, start: &Start) -> Vec<String> {
        let mut options = self.firmware.options(self.nvram.as_deref());
        let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
        let (accel, cpu) = if guest::has_kvm() { ("kvm", "host") } else { ("tcg,tb-size=512", "max") };
        add("-accel", accel.to_owned());
        add("-cpu", cpu.to_owned());
        add("-m", self.memory_mib.to_string());
        // A second processor costs more than it brings where both are emulated.
        add("-smp", "1".to_owned());
        add("-vga", "std".to_owned());
        for (number, disk) in self.disks.iter().enumerate() {
            let file = &disk.file;
            add(
                "-drive",
                format!("if=none,id=file{number},format=raw,cache=unsafe,discard=unmap,file={file}"),
            );
            let model = match disk.bus {
                Bus::Virtio => "virtio-blk-pci".to_owned(),
                Bus::Ahci => format!("ide-hd,bus=ide.{number}"),
                Bus::Nvme => "nvme".to_owned(),
                Bus::Nvme4096 => "nvme,logical_block_size=4096,physical_block_size=4096".to_owned(),
            };
            let index = if *start == Start::Disk { 0 } else { 5 } + number;
            let serial = &disk.serial;
            add(
                "-device",
                format!("{model},id=disk{number},drive=file{number},serial={serial},bootindex={index}"),
            );
        }
        let mut network = self.network.clone().unwrap_or_default();
        let mut card = "virtio-net-pci,id=card,netdev=net".to_owned();
        match start {
            Start::Disk => card.push_str(",romfile="),
            Start::Kernel(kernel, archive, line) => {
                card.push_str(",romfile=");
                add("-kernel", kernel.display().to_string());
                add("-initrd", archive.display().to_string());
                add("-append", line.clone());
            }
            Start::Cd(image) => {
                card.push_str(",romfile=");
                add(
                    "-drive",
                    format!("if=none,id=image,format=raw,media=cdrom,readonly=on,file={}", image.display()),
                );
                add("-device", "ide-cd,bus=ide.5,id=medium,drive=image,bootindex=0".to_owned());
            }
            Start::Usb(image) => {
                card.push_str(",romfile=");
                add("-drive", format!("if=none,id=image,format=raw,snapshot=on,file={}", image.display()));
                add("-device", "qemu-xhci".to_owned());
                add("-device", "usb-storage,id=medium,removable=on,drive=image,bootindex=0".to_owned());
            }
            Start::Network(folder, file) => {
                network.push_str(&format!(",tftp={},bootfile={file}", folder.display()));
                // UEFI has drivers of its own; a BIOS needs those in the card's memory.
                card.push_str(if self.firmware == Firmware::SeaBios {
                    ",bootindex=0"
                } else {
                    ",romfile=,bootindex=0"
                });
            }
        }
        if !network.is_empty() {
            add("-netdev", network);
            add("-device", card);
        }
        options.extend(self.more.iter().cloned());
        options
    }
}

impl Start {
    /// QEMU's name of what is tried before the disks.
    fn device(&self) -> Option<&'static str> {
        match self {
            Self::Disk | Self::Kernel(..) => None,
            Self::Cd(_) | Self::Usb(_) => Some("medium"),
            Self::Network(..) => Some("card"),
        }
    }
}

/// Where the logs of failed machines are kept.
pub(super) fn logs() -> PathBuf {
    let profile = crate::binary::profile();
    profile.parent().unwrap_or(Path::new("target")).join("lab-logs")
}
