//! A small machine under QEMU with Debian's kernel, for what the kernel of the machine that tests run on lacks: SMB and
//! NFS clients, NVMe and SCSI disks, device mapper, and a power switch.
//!
//! The kernel is started directly with one archive that holds our own first process, the programs of the test and
//! their libraries. The test on the host asks for commands one by one, and sees the exit status and output of each,
//! so a test reads like any other. The host is 10.0.2.2 for the guest; nothing else can be reached.
//! A guest ends cleanly by [`Guest::end`], which the guest itself confirms by `e2e: pass` on its console. Dropped
//! otherwise, it is killed and the console shown.

mod cpio;
mod image;
mod machine;
mod modules;

use crate::imager::Ran;
use crate::need;
use machine::Machine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use image::is_available;

/// The host, as a guest sees it.
pub const HOST: &str = "10.0.2.2";
/// The host's `::1`, as a guest with [`Builder::network6`] sees it.
pub const HOST6: &str = "fec0::2";

/// Whether a guest found out that hardware virtualisation works here.
pub(crate) fn has_kvm() -> bool {
    machine::known_kvm() == Some(true)
}

/// How a file is a disk of the guest.
#[derive(Clone, Debug)]
pub enum Disk {
    /// An NVMe namespace with sectors of so many bytes.
    Nvme(u32),
    /// A SCSI disk with this world-wide name.
    Scsi(u64),
    /// A virtio disk.
    Virtio,
}

/// The kernel of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// That of the Debian which this machine runs.
    Own,
    /// That of another suite of Debian's.
    Of(&'static str),
}

impl Kernel {
    /// All that are supported.
    pub const ALL: [Self; 3] = [Self::Own, Self::Of("bookworm-backports"), Self::Of("trixie")];

    /// Whether it is there; says so when not.
    pub fn is_there(self) -> bool {
        let is_there = image::release(self).is_ok();
        if !is_there {
            need::skip(&format!("no kernel {self:?} for guests: tests/guest/fetch --kernels fetches it"));
        }
        is_there
    }
}

/// What a guest is to be made of.
pub struct Builder {
    kernel: Kernel,
    modules: Vec<String>,
    programs: Vec<PathBuf>,
    files: Vec<(PathBuf, String)>,
    disks: Vec<(String, Disk, String)>,
    /// QEMU's options for it.
    network: Option<&'static str>,
    memory_mib: u32,
}

/// A running guest.
pub struct Guest {
    machine: Machine,
    environment: BTreeMap<String, String>,
    last: u64,
}

/// A command that runs in a guest.
#[derive(Debug)]
pub struct Job {
    number: u64,
    command: String,
}

impl Guest {
    /// A guest to be; `None`, with the reason printed, where this machine cannot run one.
    pub fn builder() -> Option<Builder> {
        if !image::is_available() || !need::programs(&["qemu-system-x86_64", "ldd", "strip"]) {
            return None;
        }
        Some(Builder {
            kernel: Kernel::Own,
            modules: ["virtio_pci", "virtio_console"].map(str::to_owned).into(),
            programs: Vec::new(),
            files: Vec::new(),
            disks: Vec::new(),
            network: None,
            memory_mib: 768,
        })
    }

    /// Sets a variable for all commands from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Runs a command to its end, whatever that is.
    pub fn run<S: AsRef<str>>(&mut self, words: &[S]) -> Ran {
        let job = self.start(words);
        self.wait(&job)
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn ok<S: AsRef<str>>(&mut self, words: &[S]) -> String {
        let ran = self.run(words);
        ran.expect_code(0);
        ran.stdout
    }

    /// Runs a line of shell that has to succeed; what it printed.
    pub fn sh(&mut self, line: &str) -> String {
        self.ok(&["sh", "-ec", line])
    }

    /// Runs `imager` with `--json`, expecting this exit status; the object it printed.
    pub fn imager(&mut self, code: i32, arguments: &[&str]) -> Value {
        let ran = self.run(&[&["imager"], arguments, &["--json"]].concat());
        ran.expect_code(code);
        ran.json()
    }

    /// Starts a command.
    pub fn start<S: AsRef<str>>(&mut self, words: &[S]) -> Job {
        let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        self.last += 1;
        let request = json!({ "id": self.last, "run": words, "env": self.environment });
        println!("guest> {}", words.join(" "));
        self.machine.send(&request);
        Job { number: self.last, command: format!("guest: {}", words.join(" ")) }
    }

    /// The process of a command that was started.
    pub fn process(&mut self, job: &Job) -> String {
        self.machine.receive(&job.command, |answer| {
            (answer["started"] == job.number).then(|| answer["pid"].to_string())
        })
    }

    /// Waits until a command ends. One that was killed by a signal has the exit status -1.
    pub fn wait(&mut self, job: &Job) -> Ran {
        let answer =
            self.machine.receive(&job.command, |answer| (answer["id"] == job.number).then(|| answer.clone()));
        assert!(answer["error"].is_null(), "{}: {}", job.command, answer["error"]);
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let code = answer["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let ran = Ran { code, stdout: text("out"), stderr: text("err"), command: job.command.clone() };
        assert!(!ran.stderr.contains("panicked at") && code != 101, "it panicked: {ran:?}");
        ran
    }

    /// Waits until a node is there; the kernel looks for disks in its own time.
    pub fn expect_node(&mut self, path: &str) {
        self.sh(&format!(
            "for n in $(seq 300); do [ -e {path} ] && exit 0; sleep 0.1; done; ls /dev; exit 1"
        ));
    }

    /// What the console showed so far.
    pub fn console(&self) -> String {
        self.machine.console()
    }

    /// Pulls the plug: what the guest did not hand over to its disks is lost.
    pub fn cut_power(mut self) {
        self.machine.kill();
    }

    /// Shuts down; the guest has to say that all is well, and its kernel to have had nothing to complain about.
    pub fn end(mut self) {
        self.machine.send(&json!({ "end": true }));
        self.machine.finish();
    }
}

impl Builder {
    /// Starts another kernel, which has to be there.
    #[must_use]
    pub fn kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// Loads a kernel module, with what it depends on.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Brings a program of this machine (a name, looked for like a shell does, or a path) with its libraries.
    #[must_use]
    pub fn program(mut self, name: impl AsRef<Path>) -> Self {
        self.programs.push(name.as_ref().to_owned());
        self
    }

    /// Brings a file under another name.
    #[must_use]
    pub fn file(mut self, from: &Path, name: &str) -> Self {
        self.files.push((from.to_owned(), name.to_owned()));
        self
    }

    /// Attaches a file as a disk with a serial number.
    #[must_use]
    pub fn disk(mut self, file: &str, disk: Disk, serial: &str) -> Self {
        let modules: &[&str] = match disk {
            Disk::Nvme(_) => &["nvme"],
            Disk::Scsi(_) => &["virtio_scsi", "sd_mod"],
            Disk::Virtio => &["virtio_blk"],
        };
        modules.iter().for_each(|module| self.modules.push((*module).to_owned()));
        self.disks.push((file.to_owned(), disk, serial.to_owned()));
        self
    }

    /// Connects it to the host's loopback.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = Some("ipv6=off");
        self.module("virtio_net")
    }

    /// The same, with addresses of version 6 too; the guest's own is not there at once.
    #[must_use]
    pub fn network6(self) -> Self {
        Self { network: Some("ipv6=on"), ..self.network() }
    }

    /// Starts it, and waits until it answers.
    pub fn boot(self) -> Guest {
        let folder =
            tempfile::Builder::new().prefix("halfhour-guest-").tempdir().expect("a temporary folder");
        let archive = folder.path().join("initramfs");
        image::write(&archive, self.kernel, &self.modules, &self.programs, &self.files)
            .expect("the guest's archive");
        let devices = machine::devices(&self.disks, self.network);
        let mut machine = Machine::start(folder, self.kernel, self.memory_mib, &devices);
        machine.receive("starting the guest", |answer| (answer["ready"] == true).then_some(()));
        let state = [("IMAGER_STATE_DIR".to_owned(), "/tmp/state".to_owned())];
        Guest { machine, environment: state.into(), last: 0 }
    }
}
