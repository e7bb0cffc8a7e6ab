//! The console inside the rescue medium, by keystrokes: at a terminal on the serial line, on that line without one, and at
//! the machine's own keyboard and screen.

#[expect(dead_code, reason = "the menu's own shell is for other tests")]
mod rescue;

use halfhour_tests::file_server::{Export, FileServer, PASSWORD, USER};
use halfhour_tests::lab::{Bus, Firmware, HOST, Hardware, Machine, Server, Share, Start, Volume};
use halfhour_tests::person::{ENTER, ESC};
use halfhour_tests::{MIB, Person, Scratch, judge, medium, recipe, tool};
use rescue::{MENU, hardware, is_full, ready, sh, start};

/// Clears what was typed.
const CLEAR: &str = "\u{15}";
/// F2, as a terminal sends it.
const F2: &str = "\u{1b}OQ";
/// Refused for safety.
const REFUSED: i32 = 4;
const SERIAL: &str = "LAB0003";

/// The whole way of a person with nothing but the medium, a URL and a token: wrong answers are told, the wrong disks cannot
/// be chosen, nothing is written before the disk's name is typed, and the server starts by itself.
#[test]
fn a_server_is_restored_by_keystrokes_and_starts() {
    let scratch = Scratch::new();
    let Some(hardware) = Hardware::new(&scratch, "keys", Firmware::SeaBios) else { return };
    let Some(server) = Server::build(&scratch, &["--small"]) else { return };
    let share = Share::new(&scratch);
    share.admin.ok(&["capture", &server.disk, "--machine", "web1", "--data", "used"]);
    let Some(iso) = medium::iso(&scratch, "rescue", "", &[]) else { return };
    // As large as a stick, so that its size is not what it is refused for.
    let stick = std::fs::File::options().write(true).open(&iso);
    stick.and_then(|stick| stick.set_len(4096 * MIB)).expect("room");
    let original = server.on(&scratch.copy(&server.disk, "original.img"));
    server.lose();
    let data = server.digest("/srv");

    let small = scratch.file("small.img", 1024 * MIB);
    let hardware = hardware.disk(&server.disk, Bus::Virtio, SERIAL).disk(&small, Bus::Virtio, "SMALL");
    let mut machine = hardware.power_on(&Start::Usb(iso));
    machine.put_terminal();
    opens_the_share(&mut machine, &share);
    machine.picks("web1");
    machine.picks("ago");
    machine.picks("The operating system");
    machine.shows("Captured disk 1");
    let screen = machine.screen();
    println!("{screen}");
    for reason in ["the rescue medium itself", "too small"] {
        assert!(screen.contains(&format!("not possible: {reason}")), "{screen}");
    }
    machine.picks(&format!("serial {SERIAL}, 3.0 GiB"));
    machine.shows(&format!("type {SERIAL}"));
    println!("{}", machine.screen());
    machine.press(&format!("small{ENTER}"));
    machine.shows(&format!("That is not {SERIAL}. Nothing was written."));
    assert_eq!((machine.written_bytes(0), machine.written_bytes(1)), (0, 0));

    machine.press(&format!("{SERIAL}{ENTER}"));
    machine.shows("Under way: restore of web1");
    machine.shows("web1 is restored as of");
    println!("{}", machine.screen());
    machine.shows("all of it read back and right");
    machine.picks("Reboot");
    machine.expect_restart();
    assert_eq!(server.digest("/srv"), data, "the data volume is not written");
    original.assert_same_system(&server, &scratch);
    let reports = share.admin.ok(&["reports", "web1"]).stdout;
    assert!(reports.contains(SERIAL), "the share keeps a report: {reports}");
    machine.restart_from_disk();
    Server::expect_login(&mut machine);
    println!("{:?}", Server::health(&mut machine));
    assert_eq!(machine.written_bytes(1), 0, "the other disk");
    machine.power_off();
}

/// A wrong fingerprint, then a wrong token, then the right ones.
fn opens_the_share(machine: &mut Machine, share: &Share) {
    let (url, token) = share.place("person", "restore");
    let (place, fingerprint) = url.split_once('#').expect("a fingerprint");
    let wrong: String = fingerprint.chars().rev().collect();
    machine.picks("Restore a server");
    machine.picks("A Halfhour share server");
    machine.shows("URL: _");
    machine.press(&format!("{place}#{wrong}{ENTER}"));
    machine.shows("Token: _");
    machine.press(&format!("nonsense{ENTER}"));
    machine.shows("The share cannot be opened");
    // The right one is told.
    machine.shows(fingerprint);
    println!("{}", machine.screen());
    machine.picks("Change the URL");
    machine.shows("URL: https://");
    machine.press(&format!("{CLEAR}{url}{ENTER}"));
    machine.shows("(as before)");
    machine.press(ENTER);
    machine.picks("Type the token again");
    machine.shows("(as before)");
    machine.press(&token);
    machine.shows("Token: ****");
    assert!(!machine.console().contains(&token), "what is secret is not shown");
    machine.press(ENTER);
}

/// A machine that is captured to a share and put onto an empty disk from there, line by line, without a terminal at the end
/// of the line: first over SMB, then over NFS.
#[test]
fn a_machine_goes_over_smb_and_nfs_line_by_line() {
    let scratch = Scratch::new();
    let [smb_folder, nfs_folder] = ["smb", "nfs"].map(|name| scratch.folder(name));
    let export = |folder| [Export { name: "backup", folder, is_writable: true }];
    let Some(samba) = FileServer::samba(&scratch, &export(smb_folder), "") else { return };
    let Some(ganesha) = FileServer::ganesha(&scratch, &export(nfs_folder), "") else { return };
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = hardware(&scratch, "lines") else { return };
    let disk = recipe::machine(&scratch, "web1.img");
    let empty = ["over-smb", "over-nfs"].map(|name| scratch.file(name, recipe::MACHINE_MIB * MIB));
    let hardware = hardware.disk(&disk, Bus::Virtio, "WEB1");
    let hardware = hardware.disk(&empty[0], Bus::Virtio, "EMPTY1").disk(&empty[1], Bus::Nvme, "EMPTY2");
    let mut machine = hardware.power_on(&start);

    let url = format!("smb://{USER}@{HOST}:{}/backup/images", samba.port);
    captures(&mut machine, "A Windows or Samba share", &url, |machine| {
        machine.says("Password (< back): ");
        machine.enters("wrong");
        machine.says("this password");
        machine.picks_line("Type the password again");
        machine.says("Password [as before] (< back): ");
        machine.enters(PASSWORD);
    });
    restores(&mut machine, "EMPTY1");
    let url = format!("nfs://{HOST}:{}/backup/images", ganesha.port);
    captures(&mut machine, "An NFS share", &url, |_| {});
    restores(&mut machine, "EMPTY2");
    assert_eq!(machine.written_bytes(0), 0, "the source is only read");
    assert!(!machine.console().contains(PASSWORD), "what is secret is not shown");
    machine.picks_line("Power off");
    machine.expect_power_off();
    let original = Server::look(&scratch, disk);
    let is_data = |volume: &Volume| volume.role == "data";
    let system = Server {
        volumes: original.volumes.iter().filter(|volume| !is_data(volume)).cloned().collect(),
        ..original.clone()
    };
    for empty in empty {
        assert_holds_all(&system, &empty);
        for volume in original.volumes.iter().filter(|volume| is_data(volume)) {
            assert_is_skeleton(&scratch, volume, &original.disk, &empty);
        }
    }
}

/// A data volume comes back as what it was, with its folders and without its files.
fn assert_is_skeleton(scratch: &Scratch, volume: &Volume, original: &str, target: &str) {
    let [before, after] = [(original, "before"), (target, "after")].map(|(disk, name)| {
        let part = scratch.name(name);
        judge::extract(disk, volume.start, volume.len, &part);
        part
    });
    let said = |part: &str, question: &str| tool("debugfs", &["-R", question, part]);
    let same = |line: &&str| {
        ["Filesystem UUID", "Filesystem features", "Block count", "Inode count"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let superblock = |part: &str| {
        let text = said(part, "show_super_stats -h");
        text.lines().filter(same).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(superblock(&before), superblock(&after));
    assert!(said(&before, "ls -p /files").contains("/29/"), "there were files");
    let left = said(&after, "ls -p /files");
    assert_eq!(left.lines().filter(|line| !line.is_empty()).count(), 2, "the folder is empty: {left}");
    tool("e2fsck", &["-f", "-n", &after]);
}

/// From the menu to a capture of the first disk in a repository that is made for it, and back to the menu.
fn captures(machine: &mut Machine, kind: &str, url: &str, secrets: impl FnOnce(&mut Machine)) {
    machine.picks_line("Capture this server");
    machine.picks_line(kind);
    machine.says("URL");
    machine.enters(url);
    secrets(machine);
    machine.picks_line("Make a repository there");
    machine.says("Machine");
    machine.enters("web1");
    // All disks are chosen at first.
    for empty in ["EMPTY1", "EMPTY2"] {
        machine.says("Number (");
        if machine.printed().lines().any(|line| line.contains("[x]") && line.contains(empty)) {
            machine.picks_line(empty);
        }
    }
    machine.picks_line("Go on");
    machine.picks_line("Go on");
    machine.picks_line("Begin");
    machine.says("web1 is captured");
    println!("{}", machine.printed());
    machine.picks_line("Main menu");
}

/// From the menu to a whole disk made anew from the share that is set, and back to the menu.
fn restores(machine: &mut Machine, serial: &str) {
    machine.picks_line("Restore a server");
    machine.picks_line("The share that is set");
    machine.picks_line("web1");
    machine.picks_line("ago");
    machine.picks_line("The whole disk anew");
    machine.picks_line(serial);
    machine.says("Name of the disk (< back): ");
    println!("{}", machine.printed());
    machine.enters(serial);
    machine.says("web1 is restored as of");
    println!("{}", machine.printed());
    machine.picks_line("Main menu");
}

fn assert_holds_all(original: &Server, target: &str) {
    for volume in &original.volumes {
        let disks = (original.disk.as_str(), target);
        judge::assert_same_bytes((disks.0, volume.start), (disks.1, volume.start), &volume.used, &volume.key);
    }
}

/// Two people, one at the serial line, one at the machine's keyboard: whoever comes second is told what goes on, the shell
/// is no way around it, and when the first one gives up, the second goes on.
#[test]
fn two_people_do_not_restore_onto_one_disk() {
    if !is_full() {
        return;
    }
    let scratch = Scratch::new();
    let disk = recipe::machine(&scratch, "web1.img");
    let share = Share::new(&scratch);
    share.admin.ok(&["capture", &disk, "--machine", "web1", "--data", "used"]);
    let target = scratch.file("target.img", recipe::MACHINE_MIB * MIB);
    let settings = share.share_settings("two", "restore");
    let Some(start) = start(&scratch, "halfhour.limit=128K", &settings) else { return };
    let Some(hardware) = hardware(&scratch, "two") else { return };
    let mut machine = hardware.disk(&target, Bus::Virtio, "WEB1").power_on(&start);
    machine.put_terminal();
    to_the_plan(&mut machine);
    to_the_plan(&mut machine.desk());
    machine.press(&format!("WEB1{ENTER}"));
    machine.shows("Under way: restore of web1");
    let mut desk = machine.desk();
    desk.enters("web1");
    desk.shows("Another console of this machine is at work");
    desk.shows("restore of web1");
    println!("{}", desk.screen());

    is_refused_at_a_shell(&mut machine, &settings);
    machine.shows("Under way: restore of web1");
    machine.press(ESC);
    machine.picks("Stop it");
    machine.shows("The restore was stopped");
    let mut desk = machine.desk();
    desk.shows("The other console is done; nothing was begun here");
    desk.picks("Back");
    desk.shows("type WEB1");
    desk.enters("web1");
    desk.shows("web1 is restored as of");
    println!("{}", desk.screen());
    machine.power_off();
    assert_holds_all(&Server::look(&scratch, disk), &target);
}

/// From the menu to the plan for the only disk, from the share that is set.
fn to_the_plan(person: &mut impl Person) {
    person.shows(MENU);
    person.picks("Restore a server");
    person.picks("The share that is set");
    person.picks("web1");
    person.picks("ago");
    person.picks("The whole disk anew");
    person.picks("WEB1");
    person.shows("type WEB1");
}

/// While a restore runs, a shell comes at its console, and `imager` does not take the disk from it.
fn is_refused_at_a_shell(machine: &mut Machine, settings: &str) {
    machine.press(F2);
    machine.expect("A shell. exit comes back to the console.");
    ready(machine);
    for line in settings.lines() {
        let (name, value) = line.split_once(" = ").expect("a setting");
        sh(machine, &format!("export IMAGER_{}={value}", name.to_uppercase()));
    }
    let restore =
        "imager restore web1 --to serial:WEB1 --bare-metal --erase WEB1 --yes --unprotect --progress none";
    let (code, said) = machine.run(restore);
    println!("{said}");
    assert_eq!(code, REFUSED, "{said}");
    // The console draws as wide as the terminal is said to be.
    sh(machine, "stty cols 80");
    machine.type_in("exit\n");
}
