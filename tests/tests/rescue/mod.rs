//! The rescue environment in a machine, started without a boot loader and driven at its serial console.

use halfhour_tests::lab::{Firmware, Hardware, Machine, Start};
use halfhour_tests::{Scratch, binary, medium, need, tool};
use std::fmt::Write;
use std::fs::File;
use std::path::PathBuf;

/// The console's first question.
pub(crate) const MENU: &str = "What is to be done?";
/// What every start says on its command line.
const LINE: &str = "console=tty0 console=ttyS0,115200 quiet no_timer_check";

/// A machine for the rescue environment, with its power off; `None`, with the reason printed, where it could not run.
pub(crate) fn hardware(scratch: &Scratch, name: &str) -> Option<Hardware> {
    Hardware::new(scratch, name, Firmware::SeaBios)
}

/// The rescue environment with these settings on the kernel's command line, and these in a file of the medium.
pub(crate) fn start(scratch: &Scratch, line: &str, file: &str) -> Option<Start> {
    let settings = [("etc/halfhour/rescue.toml", file)];
    start_over(scratch, line, if file.is_empty() { &[] } else { &settings })
}

/// The rescue environment with these settings on the kernel's command line, and files, by name and content, over those of
/// the medium.
pub(crate) fn start_over(scratch: &Scratch, line: &str, files: &[(&str, &str)]) -> Option<Start> {
    let folder = boot_files(scratch)?;
    let (kernel, mut archive) = (folder.join("boot/vmlinuz"), folder.join("boot/initrd.img"));
    if !files.is_empty() {
        if !need::programs(&["cpio"]) {
            return None;
        }
        let with_files = scratch.path("initrd-with-files");
        for (name, content) in files {
            let path = scratch.path("medium").join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, content).expect("a file");
        }
        // The kernel looks for the second archive at a multiple of four bytes.
        let line = "cd \"$1\" && cat \"$2\" >\"$3\" && truncate -s %512 \"$3\" && find . -type f | cpio -o -H newc --quiet >>\"$3\"";
        let names =
            [scratch.path("medium"), archive, with_files.clone()].map(|path| path.display().to_string());
        tool("sh", &["-ec", line, "sh", &names[0], &names[1], &names[2]]);
        archive = with_files;
    }
    Some(Start::Kernel(kernel, archive, format!("{LINE} {line}")))
}

/// The files of this build's rescue environment. They take a while to make, so all tests share them for as long as the
/// programs are the same.
fn boot_files(scratch: &Scratch) -> Option<PathBuf> {
    let folder = medium::cache().join("under-test");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("nobody else makes them");
    let mut now = String::new();
    for path in [binary::init(), binary::imager(), binary::console(), binary::bootenv()] {
        let metadata = path.metadata().expect("a program");
        writeln!(now, "{} {:?}", path.display(), metadata.modified().expect("a time")).expect("a text");
    }
    let (files, made_of) = (folder.join("files"), folder.join("made-of"));
    if std::fs::read_to_string(&made_of).ok().as_deref() != Some(&now) {
        drop(std::fs::remove_dir_all(&files));
        medium::built(scratch, &["--boot-files", &files.display().to_string()])?;
        std::fs::write(&made_of, now).expect("a note");
    }
    Some(files)
}

/// A shell, from the console's menu.
pub(crate) fn shell(machine: &mut Machine) {
    machine.expect(MENU);
    machine.expect("! shell");
    machine.type_in("!\n");
    ready(machine);
}

/// Waits until a shell answers.
pub(crate) fn ready(machine: &mut Machine) {
    machine.expect("# ");
    // The kernel's lines and ours would come in between.
    let (code, said) = machine.run("stty cols 1000");
    assert_eq!(code, 0, "{said}");
}

/// Runs a line of shell that has to succeed; what it printed.
pub(crate) fn sh(machine: &mut Machine, line: &str) -> String {
    let (code, said) = machine.run(line);
    assert_eq!(code, 0, "{line}: {said}");
    said
}

/// Each start takes twenty seconds of processor, so most are for a full run.
pub(crate) fn is_full() -> bool {
    if !need::full() {
        println!("not in a sample: HALFHOUR_FULL=1 runs it");
    }
    need::full()
}
