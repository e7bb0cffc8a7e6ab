//! The console of the rescue environment by keystrokes: the real program on a terminal, the real `imager`, and image
//! files for disks. Screens are read as a terminal shows them.

#[path = "console/terminal.rs"]
mod terminal;

use halfhour_tests::person::{ENTER, ESC};
use halfhour_tests::{Imager, Person, Scratch, ShareServer, judge, junk, need, recipe};
use std::path::Path;
use terminal::{F2, Terminal};

const XTERM: &str = "xterm";
const SIZE: (u16, u16) = (80, 24);

/// A captured machine, and a disk whose system is lost.
struct Lost {
    scratch: Scratch,
    imager: Imager,
    /// The machine's disk.
    disk: String,
    /// A copy of it with junk in the root volume.
    target: String,
}

impl Lost {
    fn new() -> Option<Self> {
        if !need::programs(&["setsid", "sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy"]) {
            return None;
        }
        let scratch = Scratch::new();
        let disk = recipe::machine(&scratch, "web1.img");
        let imager = scratch.imager();
        imager.ok(&["capture", &disk, "--machine", "web1", "--data", "used"]);
        let target = scratch.copy(&disk, "target.img");
        let (start, len) = recipe::MACHINE[1];
        junk::over(Path::new(&target), start << 20, len << 20);
        Some(Self { scratch, imager, disk, target })
    }

    fn console(&self, kind: &str, disks: &[&str], options: &[&str]) -> Terminal {
        let (state, run) = (self.scratch.name("console-state"), self.scratch.name("run"));
        let settings = self.scratch.name("rescue.toml");
        let mut arguments = vec!["--state", &run, "--settings", &settings];
        arguments.extend(disks.iter().flat_map(|disk| ["--disk", disk]));
        arguments.extend(options);
        Terminal::console(kind, SIZE, &arguments, &state)
    }

    fn repository(&self) -> String {
        self.imager.repository.display().to_string()
    }

    /// Tells the console more than it asks.
    fn set(&self, settings: &str) {
        std::fs::write(self.scratch.path("rescue.toml"), settings).expect("a file");
    }

    /// What is not put back is as it was; what is, holds what it did.
    fn assert_restored(&self) {
        self.assert_holds_all(&self.target);
        for index in [0, 2, 3] {
            let (start, len) = recipe::MACHINE[index];
            let digest = |disk: &str| judge::digest(disk, start << 20, len << 20);
            assert_eq!(digest(&self.target), digest(&self.disk), "volume {}", index + 1);
        }
    }

    /// Every byte that a volume used is there.
    fn assert_holds_all(&self, target: &str) {
        let seen = self.imager.json(&["inspect", &self.disk, "--extents"]);
        let volumes = seen["volumes"].as_array().expect("volumes");
        assert_eq!(volumes.len(), recipe::MACHINE.len());
        for volume in volumes {
            let number = |value: &serde_json::Value| value.as_u64().expect("a number");
            let used = volume["used_extents"].as_array().expect("extents").iter();
            let used: Vec<_> = used.map(|extent| (number(&extent[0]), number(&extent[1]))).collect();
            let start = number(&volume["start_byte"]);
            judge::assert_same_bytes((&self.disk, start), (target, start), &used, &volume["key"].to_string());
        }
    }
}

/// From the menu to the plan, on a full screen.
fn comes_to_the_plan(console: &mut Terminal, repository: &str, disk: &str) {
    console.picks("Restore a server");
    console.picks("A folder of this machine");
    console.shows("URL: ");
    console.press(repository);
    console.press(ENTER);
    console.picks("web1");
    console.picks("seconds ago");
    console.shows("What is to be put back?");
    console.picks("The operating system");
    console.shows("Captured disk 1");
    console.picks(disk);
    console.shows("type target.img");
}

#[test]
fn a_server_is_restored_on_a_full_screen() {
    let Some(lost) = Lost::new() else { return };
    let mut console = lost.console(XTERM, &[&lost.disk, &lost.target], &[]);
    comes_to_the_plan(&mut console, &lost.repository(), "target.img");
    println!("{}", console.screen());
    for words in ["write  1", "write  2", "leave  3  /srv", "not touched", "boot code outside volumes"] {
        console.shows(words);
    }
    console.press("target.im");
    console.press(ENTER);
    console.shows("That is not target.img. Nothing was written.");
    console.press("target.img");
    console.press(ENTER);
    console.shows("web1 is restored as of");
    println!("{}", console.screen());
    console.shows("volume 3 was not touched; proven");
    lost.assert_restored();
    console.picks("Main menu");
    console.picks("Leave");
    assert_eq!(console.ends(), Some(0));
    assert!(console.is_usable());
}

#[test]
fn a_server_is_restored_line_by_line() {
    let Some(lost) = Lost::new() else { return };
    for kind in ["dumb", XTERM] {
        let (start, len) = recipe::MACHINE[1];
        junk::over(Path::new(&lost.target), start << 20, len << 20);
        // A terminal that can draw is asked not to.
        let options: &[&str] = if kind == XTERM { &["--plain"] } else { &[] };
        let mut console = lost.console(kind, &[&lost.target], options);
        console.picks_line("Restore a server");
        console.picks_line("A folder of this machine");
        console.says("URL (< back): ");
        console.enters("/nonexistent");
        console.says("there is no folder /nonexistent");
        console.picks_line("Change the URL");
        console.says("URL [/nonexistent] (< back): ");
        console.enters(&lost.repository());
        console.picks_line("web1");
        console.picks_line("ago");
        console.says("Number (");
        console.enters("<");
        console.picks_line("ago");
        console.picks_line("The operating system");
        console.picks_line("target.img");
        console.says("Name of the disk (< back): ");
        println!("{}", console.printed());
        console.enters("web1");
        console.says("That is not target.img. Nothing was written.");
        console.says("Name of the disk (< back): ");
        console.enters("target.img");
        console.says("web1 is restored as of");
        lost.assert_restored();
        console.picks_line("Main menu");
        console.picks_line("Leave");
        assert_eq!(console.ends(), Some(0));
        assert!(console.is_usable());
    }
}

#[test]
fn a_share_server_is_opened_after_wrong_answers_and_a_disk_made_anew() {
    let Some(lost) = Lost::new() else { return };
    let folder = lost.scratch.folder("share");
    let server = ShareServer::start(&folder);
    let (admin, token) = (server.token("admin", "admin"), server.token("r", "restore"));
    let there =
        Imager::new(lost.scratch.path("state"), server.url("default").into()).with("IMAGER_TOKEN", &admin);
    there.ok(&["init"]);
    there.ok(&["capture", &lost.disk, "--machine", "web1", "--data", "used"]);
    // An empty disk that is too short is a file that grows; the other one holds something.
    let (blank, full) = (lost.scratch.file("blank.img", 0), lost.scratch.copy(&lost.target, "full.img"));
    let mut console = lost.console(XTERM, &[&blank, &full], &[]);
    console.picks("Restore a server");
    console.picks("share server");
    console.press(&format!("{}0", server.url("default")));
    console.press(ENTER);
    console.shows("Token: _");
    console.press("nonsense");
    console.shows("Token: ********_");
    console.press(ENTER);
    console.shows("The share cannot be opened");
    println!("{}", console.screen());
    console.picks("Change the URL");
    console.shows("URL: https://");
    console.press("\u{15}");
    console.press(&server.url("default"));
    console.press(ENTER);
    console.shows("(as before)");
    console.press(ENTER);
    console.picks("Type the token again");
    console.shows("(as before)");
    console.press(&format!("\u{1b}[200~{token}\n\u{1b}[201~"));
    console.shows("Token: ****");
    console.press(ENTER);
    console.picks("web1");
    console.picks("ago");
    console.picks("The whole disk anew");
    console.picks("full.img");
    console.shows("is not blank");
    println!("{}", console.screen());
    console.picks("Give up everything on file");
    console.shows("type full.img");
    console.press(ESC);
    console.shows("Onto which disk?");
    console.picks("blank.img");
    console.shows("type blank.img");
    assert!(!console.screen().contains(&token) && !console.screen().contains("--erase"));
    console.press("blank.img\r");
    console.shows("web1 is restored as of");
    lost.assert_holds_all(&blank);
    let table = |disk: &str| judge::digest(disk, 440, (1 << 20) - 440);
    assert_eq!(table(&blank), table(&lost.disk));
}

#[test]
fn a_restore_is_stopped_halfway_and_finished_by_another_console() {
    let Some(lost) = Lost::new() else { return };
    lost.set(&format!("repo = \"{}\"\nlimit = \"64K\"\n", lost.repository()));
    let mut console = lost.console(XTERM, &[&lost.target], &[]);
    console.picks("Restore a server");
    console.picks("The share that is set");
    console.picks("web1");
    console.picks("ago");
    console.picks("The operating system");
    console.picks("target.img");
    console.shows("type target.img");
    console.press("target.img\r");
    console.shows("Under way");
    let mut other = lost.console(XTERM, &[&lost.target], &["--plain"]);
    other.picks_line("Restore a server");
    other.picks_line("The share that is set");
    other.picks_line("web1");
    other.picks_line("ago");
    other.picks_line("The operating system");
    other.picks_line("target.img");
    other.says("Name of the disk");
    other.enters("target.img");
    other.says("Another console of this machine is at work");
    other.says("restore of web1");
    console.press(ESC);
    console.shows("incomplete then: do not start it");
    console.press(ESC);
    console.shows("Under way");
    console.press(ESC);
    console.shows("Stop it?");
    console.picks("Stop it");
    console.shows("The restore was stopped");
    println!("{}", console.screen());
    other.says("nothing was begun here");
    let (start, len) = recipe::MACHINE[1];
    let root = |disk: &str| judge::digest(disk, start << 20, len << 20);
    assert_ne!(root(&lost.target), root(&lost.disk));
    lost.set(&format!("repo = \"{}\"\n", lost.repository()));
    let mut console = lost.console(XTERM, &[&lost.target], &[]);
    console.picks("Restore a server");
    console.picks("The share that is set");
    console.picks("web1");
    console.picks("ago");
    console.picks("The operating system");
    console.picks("target.img");
    console.shows("type target.img");
    console.press("target.img\r");
    console.shows("web1 is restored as of");
    lost.assert_restored();
}

#[test]
fn a_server_is_captured_line_by_line_and_its_roles_are_changed() {
    let Some(lost) = Lost::new() else { return };
    let mut console = lost.console("dumb", &[&lost.disk], &[]);
    console.picks_line("Capture this server");
    console.picks_line("A folder of this machine");
    console.says("URL (< back): ");
    console.enters(&lost.scratch.folder("new").display().to_string());
    console.picks_line("Make a repository there");
    console.says("Machine");
    console.enters("db1");
    console.picks_line("Go on");
    console.picks_line("data    volume 3");
    console.says("swap    volume 3");
    console.picks_line("swap    volume 3");
    console.says("ignore  volume 3");
    console.picks_line("Go on");
    console.says("11111111-0000-4000-8000-000000000003=ignore");
    console.picks_line("Begin");
    console.says("db1 is captured");
    println!("{}", console.printed());
    console.says("not in the image:");
    let there = lost.imager.with_repository(&lost.scratch.path("new"));
    let shown = there.json(&["show", "db1"]);
    assert_eq!(shown["volumes"][2]["role"], "ignore");
    assert_eq!(shown["volumes"][2]["mode"], "none");
}

#[test]
fn the_screen_is_given_away_and_taken_back_and_nothing_ends_it_by_mistake() {
    let Some(lost) = Lost::new() else { return };
    let mut console = lost.console(XTERM, &[&lost.target], &[]);
    console.shows("What is to be done?");
    // Ctrl-C, Ctrl-Z and Ctrl-\ are keys like others.
    console.press("\u{3}\u{1a}\u{1c}");
    console.press(F2);
    console.shows("exit comes back to the console");
    console.press("echo $((6*7)) $PPID\r");
    console.shows("42 ");
    console.press("exit\r");
    console.shows("What is to be done?");
    console.resizes(60, 16);
    console.press("\u{c}");
    console.shows("Restore a server");
    console.resizes(120, 40);
    console.shows("Leave");
    console.picks("Look");
    console.picks("Disks");
    console.shows("target.img");
    console.press(ESC);
    console.shows("Look at what?");
    console.press("!");
    // What is typed while the terminal is given away belongs to nobody; what the first shell left still stands there.
    console.wait_until("the prompt of the second shell", |person| {
        let screen = person.screen();
        screen.matches("A shell.").count() == 2 && screen.trim_end().ends_with('#')
    });
    console.press("exit\r");
    console.shows("Look at what?");
    console.press(ESC);
    console.picks("Leave");
    assert_eq!(console.ends(), Some(0));
    assert!(console.is_usable());
}

#[test]
fn a_small_or_unknown_terminal_is_asked_line_by_line() {
    let Some(lost) = Lost::new() else { return };
    let (state, run) = (lost.scratch.name("console-state"), lost.scratch.name("run"));
    for (kind, size) in [(XTERM, (79, 24)), (XTERM, (80, 23)), ("unknown", (80, 24)), (XTERM, (0, 0))] {
        let mut console = Terminal::console(kind, size, &["--state", &run], &state);
        console.says("Number (< back, ! shell): ");
        console.picks_line("Leave");
        assert_eq!(console.ends(), Some(0), "{kind} {size:?}");
    }
    // A serial line has no size, but the terminal at its end answers.
    let mut console = Terminal::console("vt220", (0, 0), &["--state", &run], &state);
    console.resizes_silently(80, 24);
    console.says("\u{1b}[6n");
    console.press("\u{1b}[24;80R");
    console.shows("What is to be done?");
    assert!(console.screen().is_ascii(), "a serial line gets no drawings");
}
