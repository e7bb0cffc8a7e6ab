//! What the rescue environment does by itself: it waits for its disk and its share, says how it went until somebody has
//! read it, is stopped in order by the power button, and never begins twice.

mod rescue;

use halfhour_tests::lab::{Bus, HOST, Hardware, Server};
use halfhour_tests::{Imager, Scratch, ShareServer, judge, junk, need, recipe};
use rescue::{MENU, hardware, is_full, ready, sh, shell, start};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A captured machine, its lost disk, and the server that has the capture.
struct Lost {
    scratch: Scratch,
    server: ShareServer,
    disk: String,
    target: String,
    token: String,
}

impl Lost {
    fn new() -> Option<Self> {
        if !is_full() || !need::programs(&["sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy"]) {
            return None;
        }
        let scratch = Scratch::new();
        let disk = recipe::machine(&scratch, "web1.img");
        let server = ShareServer::start(&scratch.path("share"));
        let admin = server.token("admin", "admin");
        let imager = Imager::new(scratch.path("state"), PathBuf::from(server.url("default")));
        let imager = imager.with("IMAGER_TOKEN", &admin);
        imager.ok(&["init"]);
        imager.ok(&["capture", &disk, "--machine", "web1", "--data", "used"]);
        let token = server.token("medium", "restore");
        let target = scratch.copy(&disk, "target.img");
        let (from, len) = recipe::MACHINE[1];
        junk::over(Path::new(&target), from << 20, len << 20);
        Some(Self { scratch, server, disk, target, token })
    }

    /// The task's settings. The token is in the file, as documented: the command line is no place for it.
    fn file(&self) -> String {
        let place = format!("{HOST}:{}", self.server.address().port()).parse().expect("an address");
        let url = self.server.url_through(place, "default");
        format!(
            "repo = \"{url}\"\ntoken = \"{}\"\ncapture = \"web1@latest\"\ntarget = \"serial:WEB1\"\nconfirm = \"yes\"\n\
             patience = \"3s\"\n",
            self.token
        )
    }

    fn hardware(&self, name: &str) -> Option<Hardware> {
        Some(hardware(&self.scratch, name)?.disk(&self.target, Bus::Virtio, "WEB1"))
    }

    fn assert_restored(&self) {
        let server = Server::look(&self.scratch, self.disk.clone());
        for volume in &server.volumes {
            let (disk, target) = ((self.disk.as_str(), volume.start), (self.target.as_str(), volume.start));
            judge::assert_same_bytes(disk, target, &volume.used, &volume.key);
        }
        let (from, len) = recipe::MACHINE[2];
        let data = |disk| judge::digest(disk, from << 20, len << 20);
        assert_eq!(data(&self.target), data(&self.disk), "the data volume was touched");
    }
}

#[test]
fn a_task_waits_for_its_disk_and_its_share_and_its_end_is_told_until_enter() {
    let Some(mut lost) = Lost::new() else { return };
    lost.server.kill();
    let Some(start) = start(&lost.scratch, "halfhour.after=console", &lost.file()) else { return };
    let Some(hardware) = hardware(&lost.scratch, "late") else { return };
    let drive = format!("if=none,id=late,format=raw,cache=unsafe,file={}", lost.target);
    let hardware = hardware.option("-device", "virtio-scsi-pci,id=hba").option("-drive", &drive);
    let mut machine = hardware.power_on(&start);
    machine.expect("halfhour: a task is set; Enter brings a shell meanwhile");
    machine.type_in("\n");
    ready(&mut machine);
    assert_ne!(machine.run("pidof imager").0, 0, "there is no disk yet");
    machine.type_in("exit\n");
    machine.expect("halfhour: the task goes on");
    let disk =
        json!({ "driver": "scsi-hd", "bus": "hba.0", "drive": "late", "serial": "WEB1", "id": "web1" });
    machine.execute("device_add", &disk);
    machine.expect("halfhour: waiting for the share");
    machine.expect("running it again in");
    lost.server.restart();
    machine.expect("halfhour: share open: capture of ");
    machine.expect("halfhour: restore complete");
    machine.expect("halfhour: press Enter for the console");
    machine.type_in("\n");
    shell(&mut machine);
    for node in ["/dev/sda", "/dev/sda2"] {
        assert_eq!(sh(&mut machine, &format!("blockdev --getro {node}")).trim(), "1", "{node}");
    }
    sh(&mut machine, &format!("! grep -r {} /run/halfhour", lost.token.get(..20).expect("a token")));
    // Not even what was just typed is all of it.
    let console = machine.console();
    assert!(!console.contains(&lost.token), "{console}");
    machine.power_off();
    lost.assert_restored();
}

#[test]
fn a_task_outlives_its_manager_is_not_begun_again_and_ends_in_order_at_the_power_button() {
    let Some(lost) = Lost::new() else { return };
    let Some(slow) = start(&lost.scratch, "halfhour.limit=100K", &lost.file()) else { return };
    let Some(hardware) = lost.hardware("slow") else { return };
    let mut machine = hardware.power_on(&slow);
    machine.expect("halfhour: running imager restore");
    machine.expect("left");
    machine.type_in("\n");
    ready(&mut machine);
    machine.type_in("kill -9 $(pidof init | tr ' ' '\\n' | grep -vx 1)\n");
    machine.expect("halfhour: failed: the manager ended");
    machine.expect("this goes on; nothing else is begun by itself");
    machine.type_in("\n");
    ready(&mut machine);
    assert_eq!(sh(&mut machine, "pidof imager | wc -w").trim(), "1");
    machine.execute("system_powerdown", &json!({}));
    machine.expect("as soon as what runs has stopped in order");
    machine.expect_power_off();
    assert_eq!(machine.console().matches("running imager restore").count(), 1);
    assert!(!machine.console().contains("it does not stop"));
    machine.cut_power();

    let Some(again) = start(&lost.scratch, "halfhour.after=poweroff", &lost.file()) else { return };
    let mut machine = hardware.power_on(&again);
    machine.expect("halfhour: restore complete");
    machine.expect_power_off();
    lost.assert_restored();
}

#[test]
fn a_task_that_fails_leaves_the_machine_on_with_its_reason() {
    let Some(lost) = Lost::new() else { return };
    let Some(start) = start(&lost.scratch, "halfhour.capture=web2 halfhour.after=reboot", &lost.file())
    else {
        return;
    };
    let Some(hardware) = lost.hardware("failing") else { return };
    let mut machine = hardware.power_on(&start);
    machine.expect("halfhour: failed: the task: ");
    machine.expect("exit status 11");
    machine.expect("halfhour: the machine stays as it is");
    machine.expect("halfhour: press Enter for the console");
    machine.type_in("\n");
    machine.expect(MENU);
    machine.power_off();
}
