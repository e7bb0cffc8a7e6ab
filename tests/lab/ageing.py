"""Ages an ext4 volume as months of use would: files lie in pieces, and a quarter as much as is in use lies stale in the
free space. Needs root and a loop device."""

import os
import random
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
ROUNDS = 5
STALE_RATIO = 0.25
WORDS = b"Nov 21 03:15:00 server postfix/smtpd[1234]: connect from unknown[192.0.2.7] status=sent (delivered to mailbox)\n"


def age(image, seed, say):
    chance = random.Random(f"ageing {seed}")
    with mounted(image) as root:
        used = used_bytes(root)
        say(f"ageing {used >> 20} MiB in {ROUNDS} rounds")
        mail, logs, scratch = (root / name for name in ("var/mail-store", "var/log/old", "var/scratch"))
        for folder in (mail, logs, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        for number in range(ROUNDS):
            litter(scratch, chance, number, int(used * STALE_RATIO * 0.75 / ROUNDS))
            grow_together(mail, logs, chance, number)
            replace_files(root / "usr", chance, 0.03)
            os.sync()
            thin_out(mail, chance)
        for file in list(scratch.iterdir()):
            file.unlink()
        scratch.rmdir()
    subprocess.run(["e2fsck", "-fp", str(image)], check=False, capture_output=True)


@contextmanager
def mounted(image):
    with tempfile.TemporaryDirectory(prefix="halfhour-lab-") as place:
        subprocess.run(["mount", "-o", "loop,nodiscard,noatime", str(image), place], check=True, capture_output=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def used_bytes(root):
    stats = os.statvfs(root)
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize


def litter(folder, chance, number, total):
    """What will be deleted: downloads, dumps, build trees. A third are small, so the holes they leave are too."""
    written = 0
    while written < total:
        size = chance.choice((6_000, 40_000, 700_000, 9 * MIB))
        (folder / f"{number}-{written}").write_bytes(content(chance, size))
        written += size


def content(chance, size):
    half = size // 2
    return chance.randbytes(half) + (WORDS * (half // len(WORDS) + 1))[: size - half]


def grow_together(mail, logs, chance, number):
    """Logs and mailboxes appended to in turn, with flushes between, lie in pieces."""
    files = [open(logs / f"log.{number}.{index}", "ab") for index in range(8)]
    files += [open(mail / f"box.{index}", "ab") for index in range(12)]
    for turn in range(60):
        for index, file in enumerate(files):
            file.write(content(chance, 20_000) if index >= 8 else WORDS * 400)
        if turn % 6 == 5:
            for file in files:
                file.flush()
                os.fsync(file.fileno())
    for file in files:
        file.close()
    for message in range(1500):
        (mail / f"message.{number}.{message}").write_bytes(content(chance, chance.choice((900, 3_000, 12_000, 60_000))))


def thin_out(mail, chance):
    for message in sorted(mail.glob("message.*")):
        if chance.random() < 0.4:
            message.unlink()


def replace_files(folder, chance, share):
    """As an upgrade does: the new file beside the old one, then renamed over it."""
    for path in sorted(folder.rglob("*")):
        if chance.random() < share and path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            status, fresh = path.stat(), path.with_name(path.name + ".dpkg-new")
            fresh.write_bytes(path.read_bytes())
            os.chown(fresh, status.st_uid, status.st_gid)
            os.chmod(fresh, status.st_mode & 0o7777)
            os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
            fresh.rename(path)
