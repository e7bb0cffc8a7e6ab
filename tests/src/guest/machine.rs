//! The machine: QEMU with its console in a file and a port to the first process, watched until it ends.
//!
//! Patience is counted in processor time of QEMU, so that a busy host does not fail a test, with a far larger bound of
//! real time against a guest that waits for ever.

use super::{Disk, Kernel, image};
use crate::qemu::{self, Qemu};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Processor time for one answer; a start takes about six seconds.
const PATIENCE_CPU: Duration = Duration::from_secs(180);
/// Real time for one answer.
const PATIENCE: Duration = Duration::from_secs(480);
/// Real time for a probe of hardware virtualisation, in which a guest has to have started.
const PROBE: Duration = Duration::from_secs(8);

/// A running machine.
pub(super) struct Machine {
    qemu: Qemu,
    port: UnixStream,
    answers: Receiver<Value>,
    /// Answers to what nobody asked about yet.
    kept: Vec<Value>,
    is_over: bool,
    folder: tempfile::TempDir,
}

/// The options for disks and network.
pub(super) fn devices(disks: &[(String, Disk, String)], network: Option<&str>) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
    if disks.iter().any(|(_, disk, _)| matches!(disk, Disk::Scsi(_))) {
        add("-device", "virtio-scsi-pci,id=scsi0".to_owned());
    }
    for (number, (file, disk, serial)) in disks.iter().enumerate() {
        add("-drive", format!("if=none,id=d{number},format=raw,discard=unmap,file={file}"));
        let (drive, serial) = (format!("drive=d{number}"), format!("serial={serial}"));
        add(
            "-device",
            match disk {
                Disk::Nvme(sector) => {
                    let blocks = format!("logical_block_size={sector},physical_block_size=4096");
                    format!("nvme,{drive},{serial},{blocks}")
                }
                Disk::Scsi(wwn) => format!("scsi-hd,bus=scsi0.0,{drive},{serial},wwn={wwn:#018x}"),
                Disk::Virtio => format!("virtio-blk-pci,{drive},{serial}"),
            },
        );
    }
    if let Some(network) = network {
        add("-netdev", format!("user,id=n0,{network}"));
        add("-device", "virtio-net-pci,netdev=n0,romfile=".to_owned());
    }
    options
}

impl Machine {
    /// Starts QEMU on the archive in `folder`.
    pub(super) fn start(
        folder: tempfile::TempDir,
        kernel: Kernel,
        memory_mib: u32,
        devices: &[String],
    ) -> Self {
        let kvm = has_kvm(folder.path(), kernel);
        let (mut qemu, port) = spawn(folder.path(), kernel, kvm, memory_mib, devices);
        let reader = BufReader::new(port.try_clone().expect("a socket"));
        let (sender, answers) = channel();
        let spawned = thread::Builder::new().name("guest answers".to_owned()).spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let answer = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        if spawned.is_err() {
            qemu.kill();
        }
        Self { qemu, port, answers, kept: Vec::new(), is_over: false, folder }
    }

    /// Sends a request.
    pub(super) fn send(&mut self, request: &Value) {
        let sent = self.port.write_all(format!("{request}\n").as_bytes());
        assert!(sent.is_ok(), "the guest is gone: {}", self.console());
    }

    /// Waits for the answer that `pick` wants.
    pub(super) fn receive<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|answer| pick(answer).is_some()) {
            return pick(&self.kept.remove(at)).expect("just picked");
        }
        let (begun, cpu) = (Instant::now(), self.qemu.cpu());
        loop {
            match self.answers.recv_timeout(Duration::from_millis(500)) {
                Ok(answer) => match pick(&answer) {
                    Some(picked) => return picked,
                    None => self.kept.push(answer),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{what}: the guest is gone\n{}", self.console())
                }
                Err(RecvTimeoutError::Timeout) => {
                    let used = self.qemu.cpu().saturating_sub(cpu);
                    if used > PATIENCE_CPU || begun.elapsed() > PATIENCE {
                        let spent = begun.elapsed();
                        panic!(
                            "{what}: no answer after {spent:?} ({used:?} of processor)\n{}",
                            self.console()
                        );
                    }
                }
            }
        }
    }

    /// What the console showed.
    pub(super) fn console(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a clean end.
    pub(super) fn finish(&mut self) {
        let begun = Instant::now();
        let status = loop {
            match self.qemu.ended() {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => panic!("the guest does not end\n{}", self.console()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let console = self.console();
        let marks: Vec<_> = console.lines().filter(|line| line.contains("e2e: ")).map(str::trim).collect();
        assert!(status.success() && marks == ["e2e: pass"], "{status}, {marks:?}\n{console}");
        for complaint in ["Kernel panic", "BUG:", "Oops", "WARNING:"] {
            assert!(!console.contains(complaint), "the guest's kernel complains\n{console}");
        }
        self.is_over = true;
    }

    /// Kills it, as a power cut does.
    pub(super) fn kill(&mut self) {
        self.qemu.kill();
        self.is_over = true;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu.kill();
        if !self.is_over {
            println!("--- console of the guest\n{}\n---", self.console());
        }
    }
}

fn spawn(
    folder: &Path,
    kernel: Kernel,
    kvm: bool,
    memory_mib: u32,
    devices: &[String],
) -> (Qemu, UnixStream) {
    let file = |name: &str| folder.join(name).display().to_string();
    let (accel, cpu) = if kvm { ("kvm", "host") } else { ("tcg,tb-size=256", "max") };
    let port = format!("socket,id=port,path={},server=on,wait=on", file("port"));
    let command = [
        "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on net.ifnames=0",
        // Where much else runs, an emulated timer is late, and the kernel takes it for a broken one.
        "rdinit=/init quiet no_timer_check",
    ]
    .join(" ");
    let memory = memory_mib.to_string();
    let kernel = image::kernel(kernel).join("vmlinux").display().to_string();
    let mut qemu = qemu::command();
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-smp",
        "1",
        "-machine",
        "q35",
    ]);
    qemu.args([
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-m",
        &memory,
        "-kernel",
        &kernel,
        "-initrd",
        &file("initramfs"),
    ]);
    qemu.args(["-append", &command, "-serial", &format!("file:{}", file("console"))]);
    qemu.args([
        "-chardev",
        &port,
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=port,name=e2e",
    ]);
    qemu.args(devices);
    let mut qemu = Qemu::start(qemu, &folder.join("qemu"));
    let begun = Instant::now();
    loop {
        // It waits for us before it runs the guest.
        if let Ok(port) = UnixStream::connect(folder.join("port")) {
            return (qemu, port);
        }
        if qemu.ended().is_some() || begun.elapsed() > Duration::from_secs(120) {
            panic!(
                "QEMU does not start: {}",
                std::fs::read_to_string(folder.join("qemu")).unwrap_or_default()
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether hardware virtualisation really runs our kernel here; where it is emulated it may take for ever. Found out
/// once for each start of this machine, with the archive in `folder`.
fn has_kvm(folder: &Path, kernel: Kernel) -> bool {
    if let Some(known) = known_kvm() {
        return known;
    }
    let (mut probe, port) = spawn(folder, kernel, true, 768, &[]);
    drop(port.set_read_timeout(Some(PROBE)));
    let mut line = String::new();
    let works = BufReader::new(port).read_line(&mut line).is_ok() && line.contains("ready");
    probe.kill();
    drop(std::fs::remove_file(folder.join("port")));
    drop(std::fs::write(note(), format!("{}{}", this_start(), if works { "yes" } else { "no" })));
    println!("hardware virtualisation {}", if works { "works" } else { "does not run a guest: emulating" });
    works
}

/// What is known of it already. Not known is taken for no by who has no guest at hand to find out.
pub(super) fn known_kvm() -> Option<bool> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Some(false);
    }
    let known = std::fs::read_to_string(note()).unwrap_or_default();
    known.strip_prefix(&this_start()).map(|answer| answer == "yes")
}

fn note() -> PathBuf {
    image::folder().join("kvm")
}

fn this_start() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
