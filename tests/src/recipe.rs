//! The sample disks and filesystems that the scripts of this folder make.

use crate::binary::repository;
use crate::need;
use crate::scratch::Scratch;
use crate::tool::{command, tool};

/// The names of all images of the corpus.
pub fn corpus_names() -> Vec<String> {
    let script = repository().join("tests/corpus/make").display().to_string();
    tool(&script, &["--list"]).lines().map(str::to_owned).collect()
}

/// Makes images of the corpus in a folder; those that could be made, with their paths.
pub fn corpus(scratch: &Scratch, names: &[&str]) -> Vec<(String, String)> {
    let tools = [
        "mke2fs",
        "mkfs.btrfs",
        "mkfs.fat",
        "mcopy",
        "mkswap",
        "openssl",
        "debugfs",
        "setfattr",
        "mkntfs",
        "ntfs-3g",
    ];
    if !need::programs(&tools) {
        return Vec::new();
    }
    let folder = scratch.folder("corpus").display().to_string();
    let script = repository().join("tests/corpus/make").display().to_string();
    tool(&script, &[&[folder.as_str()], names].concat());
    let made = names.iter().map(|name| ((*name).to_owned(), format!("{folder}/{name}")));
    let made: Vec<_> = made.filter(|(_, path)| std::path::Path::new(path).exists()).collect();
    println!("{} of {} images made", made.len(), names.len());
    made
}

/// Makes sample disks of partition layouts; their names and paths.
pub fn layouts(scratch: &Scratch, names: &[&str]) -> Vec<(String, String)> {
    if !need::programs(&["sfdisk", "fdisk", "sgdisk", "mkfs.fat", "mkfs.ext4"]) {
        return Vec::new();
    }
    let folder = scratch.folder("layouts").display().to_string();
    let script = repository().join("tests/layouts/make").display().to_string();
    tool(&script, &[&[folder.as_str()], names].concat());
    names.iter().map(|name| ((*name).to_owned(), format!("{folder}/{name}.img"))).collect()
}

/// The names of all layouts.
pub fn layout_names() -> Vec<String> {
    let script = repository().join("tests/layouts/make");
    let text = std::fs::read_to_string(script).expect("the recipe is there");
    let names = text.lines().filter_map(|line| line.strip_prefix("make_")?.split_once("()"));
    names.map(|(name, _)| name.replace('_', "-")).collect()
}

/// Builds the disk of a Debian server; `None`, with the reason printed, where that cannot be done.
pub fn server_disk(scratch: &Scratch, options: &[&str]) -> Option<String> {
    let disk = scratch.name("server.img");
    let script = repository().join("tests/lab/server-disk");
    let made = command("python3").arg(script).args(options).arg(&disk).output().expect("python3 runs");
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        need::skip(&format!("the server's disk cannot be built (that needs packages once): {said}"));
        return None;
    }
    Some(disk)
}

/// Sizes and places of the volumes of [`machine`], in MiB: EFI, root, data, swap.
pub const MACHINE: [(u64, u64); 4] = [(1, 8), (9, 24), (33, 16), (49, 8)];
/// The length of the disk that [`machine`] makes, in MiB.
pub const MACHINE_MIB: u64 = 60;

/// Makes the disk of a very small server: an EFI system partition, a root whose fstab names the others, a data volume,
/// swap. It may also be a block device, which then has to have a table.
pub fn machine(scratch: &Scratch, name: &str) -> String {
    let disk = scratch.file(name, MACHINE_MIB << 20);
    crate::table::write(&disk, &machine_table(512));
    let offset = |index: usize| (MACHINE[index].0 << 20).to_string();
    let mut parts = Vec::new();
    for (index, (_, mib)) in MACHINE.iter().enumerate() {
        parts.push(scratch.file(&format!("part{index}"), mib << 20));
    }
    fill_machine(scratch, &parts);
    for (index, part) in parts.iter().enumerate() {
        let (from, to, seek) =
            (format!("if={part}"), format!("of={disk}"), format!("seek={}", offset(index)));
        tool("dd", &[&from, &to, &seek, "bs=1M", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"]);
    }
    crate::junk::over(std::path::Path::new(&disk), 0, 440);
    disk
}

/// The table of [`machine`] for sfdisk, in sectors of so many bytes.
pub fn machine_table(sector: u64) -> String {
    let types = ["uefi", "linux", "linux", "swap"];
    let mut script = "label: gpt\nlabel-id: 11111111-0000-4000-8000-000000000000\n".to_owned();
    for (index, ((start, mib), kind)) in MACHINE.iter().zip(types).enumerate() {
        let (start, size) = ((start << 20) / sector, (mib << 20) / sector);
        let id = format!("11111111-0000-4000-8000-00000000000{}", index + 1);
        script.push_str(&format!("start={start}, size={size}, type={kind}, uuid={id}\n"));
    }
    script
}

/// Makes the filesystems of [`machine`] in four files or partitions.
pub fn fill_machine(scratch: &Scratch, parts: &[String]) {
    let [esp, root, data, swap] = parts else { panic!("four volumes") };
    let ids = ["22222222-0000-4000-8000-000000000002", "22222222-0000-4000-8000-000000000003"];
    let swap_id = "22222222-0000-4000-8000-000000000004";
    tool("mkfs.fat", &["-n", "ESP", "-i", "12345678", esp]);
    let tree = scratch.folder("tree");
    for (folder, files) in [("root", 60_u64), ("data", 30)] {
        for n in 0..files {
            let mut content = vec![0; usize::try_from(n * 2111).expect("small")];
            crate::junk::Junk::new(n).fill(&mut content);
            std::fs::create_dir_all(tree.join(folder).join("files")).expect("a folder");
            std::fs::write(tree.join(folder).join(format!("files/{n}")), content).expect("a file");
        }
    }
    std::fs::create_dir_all(tree.join("root/etc")).expect("a folder");
    let fstab = format!(
        "UUID={} / ext4 defaults 0 1\nUUID={} /srv ext4 defaults 0 2\nUUID=1234-5678 /boot/efi vfat defaults 0 1\n\
         UUID={swap_id} none swap sw 0 0\n",
        ids[0], ids[1]
    );
    std::fs::write(tree.join("root/etc/fstab"), fstab).expect("a file");
    for ((part, folder), id) in [(root, "root"), (data, "data")].into_iter().zip(ids) {
        let from = tree.join(folder).display().to_string();
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-U", id, "-d", &from, part]);
    }
    let file = tree.join("root/files/50").display().to_string();
    tool("mcopy", &["-i", esp, &file, "::LOADER.EFI"]);
    tool("mkswap", &["-q", "-U", swap_id, swap]);
    std::fs::remove_dir_all(tree).expect("a folder of ours");
}
