//! Where packages come from: the Debian mirrors that the machine's own apt uses, and of them only Debian's.

use crate::advice::Advice;
use crate::program;
use imager_units::{Context, ErrorKind, Result};
use std::collections::BTreeSet;

/// What apt trusts Debian's archives by.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Releases whose kernel is too old (no ntfs3, no ublk), and which therefore take the one of their backports.
const BACKPORTED: [&str; 1] = ["bookworm"];

/// The lines of a `sources.list`, and the release they are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    release: String,
    suites: BTreeSet<(String, String)>,
}

impl Sources {
    /// Those of this machine.
    ///
    /// # Errors
    /// When this is no Debian, or apt has no sources for it.
    pub fn of_machine() -> Result<Self> {
        let os =
            std::fs::read_to_string("/etc/os-release").context(|| "reading /etc/os-release".to_owned())?;
        let mut list = program::command("apt-get");
        list.args(["indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)"]);
        list.arg("Created-By: Packages");
        Self::parse(&os, &program::run("apt-get indextargets", &mut list)?)
    }

    fn parse(os_release: &str, targets: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let release = field("VERSION_CODENAME");
        if field("ID") != "debian" || release.is_empty() {
            return Err(Advice::error(
                ErrorKind::Unsupported,
                "the medium is made of Debian's packages and this machine is no Debian",
                "build it on Debian 12 or 13, a container of it will do",
            ));
        }
        let ours = [release.clone(), format!("{release}-updates"), format!("{release}-security")];
        let suites = targets.lines().filter_map(|line| {
            let [origin, suite, component, uri] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
            let is_ours = origin == "Debian" && component == "main" && ours.iter().any(|name| name == suite);
            is_ours.then(|| (suite.to_owned(), uri.to_owned()))
        });
        let sources = Self { suites: suites.collect(), release };
        if sources.mirror().is_none() {
            return Err(Advice::error(
                ErrorKind::NotFound,
                format!("apt has no sources of Debian {}", sources.release),
                "look at /etc/apt/sources.list and sources.list.d, run apt-get update, then this again",
            ));
        }
        Ok(sources)
    }

    /// The release's name, such as `bookworm`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The suite that the kernel is taken from.
    #[must_use]
    pub fn kernel_suite(&self) -> String {
        let backported = BACKPORTED.contains(&self.release.as_str());
        if backported { format!("{}-backports", self.release) } else { self.release.clone() }
    }

    fn mirror(&self) -> Option<&str> {
        self.suites.iter().find(|(suite, _)| *suite == self.release).map(|(_, uri)| uri.as_str())
    }

    /// As apt reads them: the machine's suites, the one of the kernel, and firmware besides.
    #[must_use]
    pub fn list(&self) -> String {
        let mut suites = self.suites.clone();
        suites.extend(self.mirror().map(|mirror| (self.kernel_suite(), mirror.to_owned())));
        let line = |(suite, uri): &(String, String)| {
            format!("deb [signed-by={KEYRING}] {uri} {suite} main non-free-firmware\n")
        };
        suites.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Sources;

    const DEBIAN: &str = "ID=debian\nVERSION_CODENAME=bookworm\nNAME=\"Debian\"\n";

    #[test]
    fn only_debians_own_suites_are_taken_and_backports_added() {
        let targets = "Debian|bookworm|main|http://mirror/debian/\nDebian|bookworm|contrib|http://mirror/debian/\n\
            Debian|bookworm-security|main|http://mirror/security/\nDebian|sid|main|http://mirror/debian/\n\
            Others|bookworm|main|http://others/\nbroken line\n";
        let list = Sources::parse(DEBIAN, targets).unwrap().list();
        let words = |line: &str| line.split(' ').skip(2).take(2).collect::<Vec<_>>().join(" ");
        let suites: Vec<_> = list.lines().map(words).collect();
        assert_eq!(
            suites,
            [
                "http://mirror/debian/ bookworm",
                "http://mirror/debian/ bookworm-backports",
                "http://mirror/security/ bookworm-security"
            ]
        );
    }

    #[test]
    fn a_newer_release_takes_its_own_kernel() {
        let os = DEBIAN.replace("bookworm", "trixie");
        let sources = Sources::parse(&os, "Debian|trixie|main|http://mirror/debian/").unwrap();
        assert_eq!(sources.kernel_suite(), "trixie");
        assert_eq!(sources.list().lines().count(), 1);
    }

    #[test]
    fn without_debian_or_its_sources_the_error_says_so() {
        assert!(Sources::parse("ID=other\n", "").unwrap_err().to_string().contains("no Debian"));
        assert!(
            Sources::parse(DEBIAN, "").unwrap_err().to_string().contains("no sources of Debian bookworm")
        );
    }
}
