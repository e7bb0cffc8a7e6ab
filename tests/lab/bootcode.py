"""GRUB's BIOS stages, written as grub-install would: boot.img into the MBR, core.img into the BIOS boot partition (GPT)
or the gap behind the MBR."""

SECTOR = 512
PARTITION_TABLE = 0x1B8  # disk signature and entries, which stay


def read(root):
    """(boot.img, core.img); call it before the root tree is made into a filesystem."""
    core = root.parent / "boot" / "core.img"
    return (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(), core.read_bytes()


def install(boot, layout, disk):
    first, core = bytearray(boot[0]), bytearray(boot[1])
    partition = layout.get("biosboot")
    lba = partition.start // SECTOR if partition else 1
    sectors = -(-len(core) // SECTOR)
    room = (partition.size if partition else layout.partitions[0].start - SECTOR) // SECTOR
    if sectors > room:
        raise OSError(f"GRUB's core is {sectors} sectors, there is room for {room}")
    first[0x5C:0x64] = lba.to_bytes(8, "little")
    first[0x66:0x68] = b"\x90\x90"  # always boot from the disk this sector came from
    core[0x1F4:0x200] = (lba + 1).to_bytes(8, "little") + (sectors - 1).to_bytes(2, "little") + (0x0820).to_bytes(2, "little")
    with open(disk, "r+b") as out:
        out.write(first[:3])
        out.seek(0x5A)
        out.write(first[0x5A:PARTITION_TABLE])
        out.seek(lba * SECTOR)
        out.write(core)
