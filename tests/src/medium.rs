//! The rescue medium of this build. Debian's packages are fetched once and kept in `rescue` of the target folder.

use crate::imager::Ran;
use crate::scratch::Scratch;
use crate::{binary, need, tool};
use std::path::{Path, PathBuf};

/// What `bootenv` says where no mirror answers.
const NO_MIRROR: &str = "check that this machine reaches its Debian mirror";

/// An ISO with these settings (of `rescue.toml`), built with these further options; `None`, with the reason printed,
/// where it cannot be built.
pub fn iso(scratch: &Scratch, name: &str, settings: &str, options: &[&str]) -> Option<PathBuf> {
    let (iso, config) = (scratch.name(&format!("{name}.iso")), scratch.path(&format!("{name}.toml")));
    std::fs::write(&config, settings).expect("writing settings");
    let config = config.display().to_string();
    let given = if settings.is_empty() { &[][..] } else { &["--config", &config] };
    built(scratch, &[&["--output", &iso], given, options].concat())?;
    Some(iso.into())
}

/// The files for booting over a network.
pub fn boot_files(scratch: &Scratch, name: &str, settings: &str, options: &[&str]) -> Option<PathBuf> {
    let (folder, config) = (scratch.name(name), scratch.path(&format!("{name}.toml")));
    std::fs::write(&config, settings).expect("writing settings");
    let config = config.display().to_string();
    let given = if settings.is_empty() { &[][..] } else { &["--config", &config] };
    built(scratch, &[&["--boot-files", &folder], given, options].concat())?;
    Some(folder.into())
}

/// Runs `bootenv build` with these options besides the folders; it has to succeed. `None` where it cannot be run.
pub fn built(scratch: &Scratch, options: &[&str]) -> Option<Ran> {
    if !need::programs(&["apt-get", "dpkg-deb"]) {
        return None;
    }
    let ran = build(&programs(scratch), &cache(), options);
    if ran.code != 0 && ran.stdout.contains(NO_MIRROR) {
        need::skip(&ran.stdout);
        return None;
    }
    ran.expect_code(0);
    Some(ran)
}

/// Runs `bootenv build --json`, whatever comes of it.
pub fn build(programs: &Path, cache: &Path, options: &[&str]) -> Ran {
    let mut command = tool::command(&binary::bootenv().display().to_string());
    command.args(["build", "--json", "--programs"]).arg(programs).arg("--cache").arg(cache).args(options);
    let output = command.stdin(std::process::Stdio::null()).output().expect("bootenv runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        command: format!("bootenv build {}", options.join(" ")),
    };
    assert!(!ran.stderr.contains("panicked at"), "it panicked: {ran:?}");
    ran
}

/// A folder with our programs of this build.
pub fn programs(scratch: &Scratch) -> PathBuf {
    let folder = scratch.folder("programs");
    let ours = [
        ("imager", binary::imager()),
        ("bootenv-console", binary::console()),
        ("bootenv-init", binary::init()),
    ];
    for (name, path) in ours {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(path, link).expect("a link");
        }
    }
    folder
}

/// Where packages are kept, for all tests.
pub fn cache() -> PathBuf {
    binary::profile().parent().expect("profiles lie in the target folder").join("rescue")
}
