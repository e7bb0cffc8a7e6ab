"""What the journal costs a server: the kernel's own account of its programs, and fio with and without it."""

import json
import os
import shutil
import statistics
import subprocess
from pathlib import Path

IOPS = 100_000
SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
SECONDS = 4
LOADS = {"4 KiB random": "--rw=randwrite --bs=4k --iodepth=32", "1 MiB sequential": "--rw=write --bs=1m --iodepth=4"}


class Disk:
    """A loop disk on a file in memory."""

    def __init__(self, folder):
        self.mount, self.file = folder / "memory", folder / "memory/disk.img"
        self.mount.mkdir()

    def __enter__(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", self.mount], check=True)
        with open(self.file, "wb") as file:
            file.truncate(512 << 20)
        # What was written once costs no memory later.
        subprocess.run(["dd", "if=/dev/zero", f"of={self.file}", "bs=1M", "count=512", "conv=notrunc", "status=none"], check=True)
        attached = subprocess.run(["losetup", "--find", "--show", self.file], text=True, capture_output=True, check=True)
        self.node = attached.stdout.strip()
        return self

    def __exit__(self, *_):
        subprocess.run(["losetup", "--detach", self.node], check=False)
        subprocess.run(["umount", self.mount], check=False)
        self.mount.rmdir()

    def fio(self, load):
        """Writes for a while; how many a second."""
        command = ["fio", "--name=x", f"--filename={self.node}", "--direct=1", "--ioengine=libaio", "--time_based",
                   f"--runtime={SECONDS}", "--output-format=json", *load.split()]
        done = subprocess.run(command, text=True, capture_output=True, check=True)
        return json.loads(done.stdout)["jobs"][0]["write"]["iops"]


class Journal:
    """The journal of that disk, while the kernel counts what it costs."""

    def __init__(self, binary, node):
        self.binary, self.node = binary, node

    def __enter__(self):
        self.counted = SWITCH.read_text()
        SWITCH.write_text("1\n")
        subprocess.run([self.binary, "journal", "start", self.node], check=True, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        subprocess.run([self.binary, "journal", "stop", self.node], check=False, stdout=subprocess.DEVNULL)
        SWITCH.write_text(self.counted)

    def nanoseconds(self):
        """Of a write at each of its ends; fails where a write went unseen."""
        said = subprocess.run([self.binary, "journal", "status", "--json"], text=True, capture_output=True, check=False)
        disk = next(disk for disk in json.loads(said.stdout)["disks"] if disk["disk"] == Path(self.node).name)
        if disk["doubt"]:
            print(f"  in doubt: {disk['doubt']}", flush=True)
        return [disk["cost"][end]["nanoseconds"] / max(1, disk["cost"][end]["runs"]) for end in ("issued", "completed")]


def lacking():
    """Why it cannot be measured here, or nothing."""
    if os.geteuid() or not SWITCH.exists():
        return "needs root and a kernel that counts what programs cost"
    return "" if shutil.which("fio") else "fio not installed (scripts/setup installs it)"


def measured(binary, folder, pairs, say):
    """For each load: nanoseconds at both ends, and the writes a second with and without, pair by pair."""
    found = {}
    with Disk(folder) as disk:
        for name, load in LOADS.items():
            costs, with_it, without = [], [], []
            for _ in range(pairs):
                without.append(disk.fio(load))
                with Journal(binary, disk.node) as journal:
                    with_it.append(disk.fio(load))
                    costs.append(journal.nanoseconds())
                say(f"  {name}: {without[-1]:.0f} a second without, {with_it[-1]:.0f} with, {costs[-1][0]:.0f} + {costs[-1][1]:.0f} ns a write")
            cost = [statistics.median(cost[end] for cost in costs) for end in (0, 1)]
            found[name] = (cost, with_it, without)
    return found
