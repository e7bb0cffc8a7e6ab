//! Builds the medium: the whole way from packages to an ISO, and to files for booting over a network.

use crate::advice::Advice;
use crate::cache::{Cache, Freshness};
use crate::contents::Ours;
use crate::monitor::Monitor;
use crate::system::{Firmware, System};
use crate::{initramfs, iso, netboot, program};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a build is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ISO to write.
    pub output: Option<PathBuf>,
    /// The folder for the files of a boot over a network.
    pub boot_files: Option<PathBuf>,
    /// Whether what is there may be replaced.
    pub replace: Replace,
    /// Where our programs are.
    pub programs: PathBuf,
    /// Where unpacked packages are kept.
    pub cache: PathBuf,
    /// Whether they are fetched again.
    pub freshness: Freshness,
    /// The settings of the rescue environment.
    pub config: Option<PathBuf>,
    /// Whether firmware that is not free goes along.
    pub firmware: Firmware,
    /// More for the kernel's command line.
    pub kernel_options: Vec<String>,
}

/// Whether what is there may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// No.
    Refused,
    /// Yes.
    Allowed,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Report {
    /// The size of the ISO, if one was asked for.
    pub iso_bytes: Option<u64>,
    /// The size of the archive that the kernel unpacks.
    pub initrd_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// One line a package: name, version, architecture.
    pub packages: String,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

/// Builds what is asked for.
///
/// # Errors
/// When a program or a package is missing, the settings make no sense, or something cannot be written. What was there
/// before is then still there.
pub fn build(options: &Options, monitor: &dyn Monitor) -> Result<Report> {
    check(options)?;
    let arguments = arguments(&options.kernel_options)?;
    let settings = options.config.as_deref().map(read_settings).transpose()?;
    let mut warnings = half_said(settings.as_deref().unwrap_or_default(), &arguments)?;
    if let Some(folder) = options.boot_files.as_ref().filter(|_| settings.is_some()) {
        warnings.push(format!("{} holds the settings: who can boot from it can read them", folder.display()));
    }
    let ours = Ours::find(&options.programs)?;
    let cache = Cache::open(&options.cache)?;
    let system = System::prepare(&cache, options.firmware, options.freshness, monitor)?;
    let work = cache.work()?;
    let boot = work.path().join("iso/boot");
    fs::create_dir_all(&boot).context(|| format!("making {}", boot.display()))?;
    let mut files = vec![boot.join("vmlinuz"), boot.join("initrd.img")];
    copy(system.kernel(), &boot.join("vmlinuz"))?;
    monitor.step("making the archives");
    let ours = stripped(&system, &ours, work.path())?;
    initramfs::make(&cache, &system, &ours, work.path(), &boot.join("initrd.img"), monitor)?;
    if let Some(settings) = &settings {
        files.push(boot.join("config.img"));
        initramfs::make_settings(settings, &boot.join("config.img"))?;
    }
    let mut report = Report {
        iso_bytes: None,
        initrd_bytes: size(&boot.join("initrd.img"))?,
        kernel: system.release().to_owned(),
        packages: system.versions().to_owned(),
        warnings,
    };
    if let Some(folder) = &options.boot_files {
        monitor.step("writing the files for booting over a network");
        netboot::write(system.toolbox(), &files, &arguments, folder)?;
    }
    if let Some(output) = &options.output {
        monitor.step("writing the ISO");
        let new = with_suffix(output, ".unfinished");
        // What an interrupted build left.
        drop(fs::remove_file(&new));
        let made = iso::make(&system, &files, &arguments, work.path(), &new);
        // Settings have passwords and tokens in them.
        let mode = if settings.is_some() { 0o600 } else { 0o644 };
        let done = made.and_then(|()| publish(&new, mode, output));
        report.iso_bytes =
            Some(done.inspect_err(|_| drop(fs::remove_file(&new))).and_then(|()| size(output))?);
    }
    Ok(report)
}

/// Looks at everything that can be wrong before anything is fetched.
fn check(options: &Options) -> Result<()> {
    if options.output.is_none() && options.boot_files.is_none() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "nothing to build: neither --output nor --boot-files is given",
        ));
    }
    if let Some(output) = &options.output {
        let found = fs::symlink_metadata(output).ok().map(|found| found.file_type());
        if found.is_some_and(|kind| !kind.is_file()) {
            return Err(Advice::error(
                ErrorKind::Denied,
                format!("{} is not a file", output.display()),
                "build into a file; bootenv build --help says how it is put on a USB stick",
            ));
        }
        if found.is_some() && options.replace == Replace::Refused {
            return Err(Advice::error(
                ErrorKind::Exists,
                format!("{} is there already", output.display()),
                "name another file, or say --overwrite to have it replaced",
            ));
        }
        let folder = folder_of(output);
        if !folder.is_dir() {
            return Err(Advice::error(
                ErrorKind::NotFound,
                format!("there is no folder {}", folder.display()),
                "make it, or name a file elsewhere by --output",
            ));
        }
    }
    match &options.boot_files {
        Some(folder) if options.replace == Replace::Refused => netboot::check_empty(folder),
        _ => Ok(()),
    }
}

/// The settings, as text that the rescue environment will understand.
fn read_settings(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).context(|| format!("reading the settings {}", path.display()))?;
    bootenv_init::parse_file(&text).context(|| format!("the settings {}", path.display()))?;
    Ok(text)
}

/// What the rescue environment would stop at, unless more is said when it starts.
fn half_said(settings: &str, arguments: &str) -> Result<Vec<String>> {
    let mut settings = bootenv_init::parse_file(settings)?;
    bootenv_init::parse_command_line(arguments, &mut settings)?;
    let task = bootenv_init::Task::of(&settings);
    Ok(task
        .err()
        .map(|error| format!("{error}; the medium will stop there, unless the rest is said when it starts"))
        .into_iter()
        .collect())
}

/// The options as one line that means the same to GRUB, iPXE and the kernel.
fn arguments(options: &[String]) -> Result<String> {
    let odd = |text: &&String| {
        text.chars().any(|letter| !(' '..='~').contains(&letter) || "\"'$\\@`&|;<>{}".contains(letter))
    };
    match options.iter().find(odd) {
        Some(option) => Err(Advice::error(
            ErrorKind::Invalid,
            format!("GRUB and iPXE would not pass on --kernel-option {option:?} as it is"),
            "put it into the file of --config",
        )),
        None => Ok(options.join(" ")),
    }
}

/// Our programs without what only a debugger reads.
fn stripped(system: &System, ours: &Ours, work: &Path) -> Result<Ours> {
    let strip = |path: &Path| {
        let to = work.join(path.file_name().unwrap_or_default());
        let mut strip = system.toolbox().command("strip")?;
        program::run("strip", strip.arg("-o").arg(&to).arg(path)).map(|_| to)
    };
    Ok(Ours { init: strip(&ours.init)?, imager: strip(&ours.imager)?, console: strip(&ours.console)? })
}

/// Gives a finished file its name, once it is on the disk.
fn publish(new: &Path, mode: u32, output: &Path) -> Result<()> {
    let synced = File::open(new).and_then(|file| {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    });
    let named = synced
        .and_then(|()| fs::rename(new, output))
        .and_then(|()| File::open(folder_of(output))?.sync_all());
    named.context(|| format!("writing {}", output.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).context(|| format!("copying {}", from.display()))
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).context(|| format!("looking at {}", path.display()))?.len())
}

#[cfg(test)]
mod tests {
    use super::{arguments, half_said};

    #[test]
    fn a_wrong_setting_is_an_error_and_half_a_task_a_warning() {
        assert!(half_said("", "halfhour.tokn=x").is_err());
        assert_eq!(half_said("repo = \"/mnt\"", "").unwrap(), [""; 0]);
        let warnings = half_said("repo = \"/mnt\"", "halfhour.capture=web-1").unwrap();
        assert!(
            warnings.len() == 1 && warnings.iter().all(|warning| warning.contains("target")),
            "{warnings:?}"
        );
    }

    #[test]
    fn what_grub_would_change_is_refused() {
        let option = |text: &str| arguments(&[text.to_owned()]);
        assert_eq!(
            option("halfhour.repo=https://10.0.2.2:7443/default#ab").unwrap(),
            "halfhour.repo=https://10.0.2.2:7443/default#ab"
        );
        for text in ["a=\"b c\"", "$x", "a;b", "a\nb", "ü"] {
            assert!(option(text).is_err(), "{text}");
        }
    }
}
