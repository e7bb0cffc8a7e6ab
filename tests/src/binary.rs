//! Where the program under test is: built into the same target folder, with the same profile, as the running test.

use crate::tool::try_tool;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The only machines we build for.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The `imager` of this build; `HALFHOUR_IMAGER` names another. Built first where it is absent or older than its
/// source.
pub fn imager() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| program("imager", "HALFHOUR_IMAGER", &["imager", "netshare/store"]))
}

/// The `netshare` of this build; `HALFHOUR_NETSHARE` names another.
pub fn netshare() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        program("netshare", "HALFHOUR_NETSHARE", &["imager/units", "imager/image", "netshare"])
    })
}

/// The `bootenv` of this build; `HALFHOUR_BOOTENV` names another.
pub fn bootenv() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        program("bootenv", "HALFHOUR_BOOTENV", &["imager/units", "bootenv/src", "bootenv/files"])
    })
}

/// The console of the rescue environment; `HALFHOUR_CONSOLE` names another.
pub fn console() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| program("bootenv-console", "HALFHOUR_CONSOLE", &["imager/units", "bootenv/console"]))
}

/// The first process of the rescue environment, a static program; `HALFHOUR_INIT` names another.
pub fn init() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("HALFHOUR_INIT") {
            return path.into();
        }
        let profile = profile();
        let target = profile.parent().expect("profiles lie in the target folder");
        let built =
            target.join(HOST).join(profile.file_name().expect("a profile's name")).join("bootenv-init");
        if modified(&built) < newest(&["bootenv/init", "imager/disk", "imager/units"]) {
            // Static: with flags of its own, and so in a folder of its own.
            let flags = "RUSTFLAGS=-C target-feature=+crt-static";
            run_cargo("env", &[flags, cargo()], &profile, "bootenv-init", &["--target", HOST]);
        }
        built
    })
}

fn program(name: &str, variable: &str, sources: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let profile = profile();
    let path = profile.join(name);
    if modified(&path) < newest(sources) {
        build(&profile, name);
    }
    assert!(path.is_file(), "{} is not there: cargo build -p {name} makes it", path.display());
    path
}

/// Another program of this build, made together with the running test.
pub fn built(name: &str) -> PathBuf {
    let path = profile().join(name);
    assert!(path.is_file(), "{} is not there: cargo build -p halfhour-tests makes it", path.display());
    path
}

/// The folder of this build.
pub(crate) fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").to_owned()
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the repository")
}

fn build(profile: &Path, package: &str) {
    run_cargo(cargo(), &[], profile, package, &[]);
}

fn cargo() -> &'static str {
    option_env!("CARGO").unwrap_or("cargo")
}

fn run_cargo(program: &str, before: &[&str], profile: &Path, package: &str, options: &[&str]) {
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's name");
    let name = if name == "debug" { "dev" } else { name };
    let target = profile.parent().expect("profiles lie in the target folder").display().to_string();
    let manifest = repository().join("Cargo.toml").display().to_string();
    let arguments = ["build", "-q", "-p", package, "--profile", name];
    let folders = ["--target-dir", &target, "--manifest-path", &manifest];
    let built = try_tool(program, &[before, &arguments, &folders, options].concat());
    assert!(built.is_ok(), "{package} does not build: {}", built.expect_err("it failed"));
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn newest(sources: &[&str]) -> Option<SystemTime> {
    let mut folders: Vec<_> = sources.iter().map(|source| repository().join(source)).collect();
    let mut newest = None;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                None if path.is_dir() => folders.push(path),
                Some("rs" | "toml" | "py" | "txt" | "c") => newest = newest.max(modified(&path)),
                _ => {}
            }
        }
    }
    newest
}
