//! Compiles the program that the kernel runs. What needs it is said in words, since a missing compiler is the one thing
//! a newcomer will meet.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const SOURCE: &str = "src/journal.bpf.c";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let variable =
        |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("cargo does not set {name}"));
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86"]);
    // libbpf brings headers of its own; those of the kernel are where the C library's are.
    clang.arg("-I").arg(variable("DEP_BPF_INCLUDE")?).args(["-I", "/usr/include/x86_64-linux-gnu"]);
    clang.args(["-c", SOURCE, "-o"]).arg(variable("OUT_DIR")?.join("journal.bpf.o"));
    match clang.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("clang failed on {SOURCE}: {status}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("clang is not installed; scripts/setup installs it (Debian's package clang)".to_owned())
        }
        Err(error) => Err(format!("clang does not run: {error}")),
    }
}
