//! apt with a configuration of its own: it fetches packages into a folder as if nothing were installed, and neither reads
//! nor changes what the machine has. Signatures are checked as always; root is not needed.

use crate::advice::Advice;
use crate::program;
use crate::sources::Sources;
use imager_units::{Context, Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The private apt.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes it in a folder that is there, and fetches the lists of packages.
    ///
    /// # Errors
    /// When the folder cannot be written or no mirror answers.
    pub fn create(folder: &Path, sources: &Sources) -> Result<Self> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).context(|| format!("writing {}", path.display()))
        };
        for name in ["lists/partial", "preferences.d"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).context(|| format!("making {}", path.display()))?;
        }
        write("sources.list", &sources.list())?;
        write("status", "")?;
        write("apt.conf", &configuration(folder))?;
        let apt = Self { folder: folder.to_owned() };
        apt.run(
            "apt-get update",
            apt.command("apt-get").args(["-q", "update", "-o", "APT::Update::Error-Mode=any"]),
        )?;
        Ok(apt)
    }

    /// Fetches these packages, and all that they depend on, into a folder.
    ///
    /// # Errors
    /// When one is unknown or no mirror answers.
    pub fn fetch_with_dependencies(&self, names: &[&str], to: &Path) -> Result<()> {
        fs::create_dir_all(to.join("partial")).context(|| format!("making {}", to.display()))?;
        let mut install = self.command("apt-get");
        install.args(["-q", "-y", "--download-only", "--no-install-recommends"]);
        install.arg("-o").arg(format!("Dir::Cache::Archives={}", to.display())).arg("install").args(names);
        self.run("apt-get install --download-only", &mut install)
    }

    /// Fetches exactly these packages into a folder, each in the version of this suite.
    ///
    /// # Errors
    /// When one is unknown or no mirror answers.
    pub fn fetch(&self, suite: &str, names: &[&str], to: &Path) -> Result<()> {
        fs::create_dir_all(to).context(|| format!("making {}", to.display()))?;
        let mut download = self.command("apt-get");
        download.current_dir(to).args(["-q", "-t", suite, "download"]).args(names);
        self.run("apt-get download", &mut download)
    }

    /// The names of packages that begin like this.
    ///
    /// # Errors
    /// When apt fails.
    pub fn names(&self, begin: &str) -> Result<BTreeSet<String>> {
        let mut names = self.command("apt-cache");
        let said = program::run("apt-cache pkgnames", names.args(["pkgnames", begin]))?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// The newest kernel that a suite's metapackage stands for, such as `linux-image-6.12.95+deb12-amd64`.
    ///
    /// # Errors
    /// When the suite has none.
    pub fn newest_kernel(&self, suite: &str) -> Result<String> {
        let mut show = self.command("apt-cache");
        show.args(["-t", suite, "show", "--no-all-versions", "linux-image-amd64"]);
        let said = program::run("apt-cache show", &mut show)?;
        let depends = said.lines().find_map(|line| line.strip_prefix("Depends: "));
        let name = depends
            .into_iter()
            .flat_map(|line| line.split([' ', ',']))
            .find(|word| word.starts_with("linux-image-"));
        name.map(str::to_owned)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{suite} has no kernel")))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program::command(name);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        match program::run(what, command) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::OutOfSpace => Err(error),
            Err(error) => Err(Advice::error(
                ErrorKind::Io,
                error.to_string(),
                "check that this machine reaches its Debian mirror (apt-get update as root shows why not), then run this again",
            )),
        }
    }
}

/// Quotes as apt's configuration does: there is no way to write a quote in a value, and no need to.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::State \"{folder}\";\nDir::State::Lists \"{folder}/lists\";\nDir::State::Status \"{folder}/status\";\n\
         Dir::Cache \"{folder}\";\nDir::Log \"{folder}\";\n\
         Dir::Etc::SourceList \"{folder}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"{folder}/preferences.d\";\n\
         APT::Sandbox::User \"\";\nAPT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n\
         APT::Default-Release \"\";\nAcquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Retries \"3\";\n"
    )
}
