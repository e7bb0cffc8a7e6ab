//! Running the programs of filesystems.

use imager_units::{Context, Error, ErrorKind, Result};
use imager_volume::skeleton::{DEVICE, Recipe, Step};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where administrators' programs are, whatever the path of whoever runs us.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];
/// Programs that refuse to give a filesystem the UUID of another one that is there, as that of a volume always is. They look
/// for it as libblkid does: they are run where nobody sees a block device, and no cache names any.
const BLIND: [&str; 1] = ["btrfstune"];
const BLINDLY: &str =
    "mount -t tmpfs none /sys/block && mount --bind /dev/null /proc/partitions && exec \"$@\"";
/// How much is told of what a program said.
const MOST_SAID: usize = 400;

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether everything that a recipe needs is installed.
///
/// # Errors
/// `Unsupported`, with what to install.
pub(super) fn check_there(recipe: &Recipe) -> Result<()> {
    let steps = recipe.steps.iter().chain(&recipe.finish).chain([&recipe.check]);
    match steps.map(|step| step.program).find(|program| find(program).is_none()) {
        None => Ok(()),
        Some(program) => {
            let what = format!("{program} is not installed (package {})", recipe.package);
            Err(Error::unsupported(what))
        }
    }
}

/// Has the kernel know loop devices, where that is a module which nothing loads by itself.
pub(super) fn know_loops() {
    if !Path::new("/dev/loop-control").exists()
        && let Some(program) = find("modprobe")
    {
        // Where it fails, making a loop device says so.
        drop(Command::new(program).args(["-q", "loop"]).stdin(Stdio::null()).output());
    }
}

/// Runs a step, which has to succeed.
///
/// # Errors
/// `Io`, with what the program said.
pub(super) fn run(step: &Step, device: &Path) -> Result<()> {
    let done = output(step, device)?;
    if done.status.success() { Ok(()) } else { Err(failed(step, &done)) }
}

/// Has a filesystem checked.
///
/// # Errors
/// `Corrupt` when something is wrong with it; `Io`.
pub(super) fn check(step: &Step, device: &Path, lacks_lost_and_found: bool) -> Result<()> {
    let done = output(step, device)?;
    if done.status.success() || (lacks_lost_and_found && is_only_that(&done)) {
        return Ok(());
    }
    Err(Error::with_source(ErrorKind::Corrupt, "what was made is not in order", failed(step, &done)))
}

/// e2fsck wants a `lost+found` that the volume does not have either; whether it wants nothing else.
fn is_only_that(done: &Output) -> bool {
    let text = String::from_utf8_lossy(&done.stdout);
    let asked: Vec<_> = text.lines().filter(|line| line.ends_with("? no")).collect();
    asked.len() == 1 && asked.iter().all(|line| line.starts_with("/lost+found not found"))
}

fn output(step: &Step, device: &Path) -> Result<Output> {
    let say = || format!("running {}", step.program);
    let program = find(step.program).unwrap_or_else(|| step.program.into());
    let device = device.display().to_string();
    let mut command = match BLIND.contains(&step.program) {
        true => blind(&program),
        false => Command::new(program),
    };
    command.args(step.arguments.iter().map(|argument| if argument == DEVICE { &device } else { argument }));
    command.env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if step.input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().context(say)?;
    if let (Some(input), Some(mut stdin)) = (&step.input, child.stdin.take()) {
        // Whoever does not read says why in the end.
        drop(stdin.write_all(input.as_bytes()));
    }
    child.wait_with_output().context(say)
}

/// A program in a mount namespace of its own (unshare(1)), in which there is no block device.
fn blind(program: &Path) -> Command {
    let unshare = find("unshare").unwrap_or_else(|| "unshare".into());
    let mut command = Command::new(unshare);
    command.args(["-m", "sh", "-c", BLINDLY, "sh"]).arg(program).env("BLKID_FILE", "/dev/null");
    command
}

fn failed(step: &Step, done: &Output) -> Error {
    let text = [&*done.stderr, &*done.stdout].map(String::from_utf8_lossy).concat();
    let words: Vec<_> = text.split_whitespace().collect();
    let said: String = words.join(" ").chars().take(MOST_SAID).collect();
    Error::new(ErrorKind::Io, format!("{} {}: {said}", step.program, done.status))
}
