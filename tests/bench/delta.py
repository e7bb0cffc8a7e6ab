"""A capture of a running filesystem of which a hundredth changed: by the journal, against comparing everything."""

import json
import os
import random
import subprocess
from pathlib import Path

BLOCK = 64 << 10
SIZE = int(os.environ.get("HALFHOUR_DELTA_MIB", 16384)) << 20
FILL = SIZE // 8 * 7
LEAST_SECONDS = 20


def blocks(count):
    """Different blocks that take a sixteenth of the room when compressed, so that the repository fits beside them."""
    return b"".join(random.randbytes(BLOCK // 16) * 16 for _ in range(count))


class Running:
    """A filesystem on a loop disk, full of blocks that are all different, with its journal."""

    def __init__(self, binary, folder):
        self.binary, self.image, self.mount = binary, folder / "delta.img", folder / "delta"
        self.mount.mkdir()

    def __enter__(self):
        with open(self.image, "wb") as file:
            file.truncate(SIZE)
        attached = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", self.image], text=True, capture_output=True, check=True)
        self.node = attached.stdout.strip()
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.node], check=True)
        subprocess.run(["mount", self.node, self.mount], check=True)
        self.file = self.mount / "data"
        with open(self.file, "wb") as file:
            for _ in range(FILL >> 20):
                file.write(blocks((1 << 20) // BLOCK))
            os.fsync(file.fileno())
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        subprocess.run(["umount", self.mount], check=False)
        subprocess.run(["losetup", "--detach", self.node], check=False)
        self.image.unlink()
        self.mount.rmdir()

    def start(self):
        subprocess.run([self.binary, "journal", "start", self.node], check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        subprocess.run([self.binary, "journal", "stop", self.node], check=False, stdout=subprocess.DEVNULL)

    def change(self, percent):
        """Writes so many percent of the blocks anew, anywhere; how many bytes."""
        places = random.sample(range(FILL // BLOCK), FILL // BLOCK * percent // 100)
        with open(self.file, "r+b") as file:
            for place in places:
                file.seek(place * BLOCK)
                file.write(blocks(1))
            file.flush()
            os.fsync(file.fileno())
        return len(places) * BLOCK


def measured(binary, imager, folder, pairs, say):
    """For each pair: the run and report of a capture by the journal and of one that compares, and the bytes changed."""
    random.seed(1)
    found = []
    with Running(binary, Path(folder)) as running:
        imager.init()
        imager.capture(running.node, "--json")
        for _ in range(pairs):
            pair = []
            for truth in ("journal", "compare"):
                changed = running.change(1)
                if truth == "compare":
                    running.stop()
                    running.start()
                run = imager.capture(running.node, "--json")
                report = json.loads(run.output)
                volume = report["volumes"][0]
                if volume["truth"] != truth:
                    raise OSError(f"by {volume['truth']}, not {truth}: {report['warnings']}")
                passes = [each["read_bytes"] for each in report["running"]["passes"]]
                say(f"  {truth}: {report['elapsed_seconds']:.1f} s, {volume['read_bytes'] >> 20} MiB read (passes {[n >> 20 for n in passes]}),"
                    f" {volume.get('audited_bytes', 0) >> 20} audited, {volume['stored_bytes'] >> 20} stored, {changed >> 20} changed,"
                    f" others {run.others:.1f} cores")
                if truth == "compare" and report["elapsed_seconds"] < LEAST_SECONDS:
                    say(f"  the bar speaks of comparing for {LEAST_SECONDS} s or more: HALFHOUR_DELTA_MIB={SIZE >> 20} is too little here")
                pair.append((report["elapsed_seconds"], volume, passes, changed))
            found.append(pair)
    return found
