"""The benchmarks. Each takes a Bench and returns rows; a bar is on a ratio ours / theirs, or on bytes."""

from dataclasses import dataclass, field

import json
import os
import subprocess

import delta as changes
import images
import measure
import overhead
from measure import interleave, median
from tools import Borg, Ntfsclone, Partclone, Share, missing
from used import used_bytes

MIB = 1 << 20


@dataclass
class Row:
    claim: str
    figure: float | None  # what the bar is on; None where there is none
    bar: float | None
    more: bool = False  # the bar is a least, not a most
    unit: str = "x"
    ours: str = ""
    theirs: str = ""
    spread: str = ""
    runs: dict = field(default_factory=dict)  # the seconds behind the figure, for --json

    @property
    def verdict(self):
        if self.bar is None or self.figure is None:
            return ""
        return "ok" if (self.figure >= self.bar if self.more else self.figure <= self.bar) else "MISSED"


class Skipped(Exception):
    pass


def capture(bench):
    """A first capture of the root volume, against Clonezilla's pipe; time and bytes."""
    need(Partclone)
    source, peer = bench.source(), Partclone(bench.folder / "root.pcl.zst", bench.log)
    fast, small = bench.imager("capture-fast"), bench.imager("capture-small")

    def ours(imager, *options):
        def once(_):
            imager.init()
            source.warm()
            return imager.capture(source.node, *options)
        return once

    def theirs(_):
        source.warm()
        return peer.capture(source.node)

    runs = interleave(bench.pairs, {"fast": ours(fast), "small": ours(small, "--compression", "small"), "partclone": theirs}, bench.say)
    stored = peer.image.stat().st_size
    return [
        wall_row("capture, time", runs["fast"], runs["partclone"], 0.45),
        cpu_row("capture, cpu", runs["fast"], runs["partclone"]),
        bytes_row("capture, bytes", fast.stored_bytes(), stored, 1.12),
        wall_row("capture --compression small, time", runs["small"], runs["partclone"], 0.60),
        bytes_row("capture --compression small, bytes", small.stored_bytes(), stored, 1.08),
    ]


def restore(bench):
    """A restore of the root volume onto junk, against Clonezilla's pipe; every result is compared with the source."""
    need(Partclone)
    source, imager, peer = bench.source(), bench.captured(), Partclone(bench.folder / "root.pcl.zst", bench.log)
    if not peer.image.exists():
        peer.capture(source.node)
    target = bench.folder / "target.img"

    def onto_junk(command):
        def once(_):
            images.fill_with_junk(target, source.size)
            run = command()
            wrong = source.differing_bytes(target)
            if wrong:
                raise measure.CommandFailed(f"restored, but {wrong >> 10} KiB of the used blocks are wrong")
            return run
        return once

    runs = interleave(bench.pairs, {
        "ours": onto_junk(lambda: imager.restore(target)),
        "ours, no read-back": onto_junk(lambda: imager.restore(target, "--no-read-back")),
        "partclone": onto_junk(lambda: peer.restore(target)),
    }, bench.say)
    return [
        wall_row("restore with read-back, time", runs["ours"], runs["partclone"], 0.45),
        wall_row("restore --no-read-back, time", runs["ours, no read-back"], runs["partclone"], 0.30),
        cpu_row("restore with read-back, cpu", runs["ours"], runs["partclone"]),
    ]


def repair(bench):
    """A restore where 1 % of the used blocks are damaged, against only reading the used blocks (O_DIRECT, depth 8)."""
    source, imager, target = bench.source(), bench.captured(), bench.folder / "target.img"
    extents = bench.folder / "extents.json"
    extents.write_text(json.dumps(source.extents))
    images.fill_with_junk(target, source.size)
    imager.restore(target)
    reader = bench.project / "tests/bench/reader.py"

    def ours(number):
        images.damage(target, source.extents, 0.01, number)
        run = imager.restore(target)
        if wrong := source.differing_bytes(target):
            raise measure.CommandFailed(f"repaired, but {wrong >> 10} KiB of the used blocks are wrong")
        return run

    def floor(_):
        images.forget(target)
        return measure.run(f"python3 -S '{reader}' '{target}' < '{extents}'", target, log=bench.log)

    runs = interleave(bench.pairs, {"ours": ours, "read only": floor}, bench.say)
    return [wall_row("repair of 1 % damage, time against a read", runs["ours"], runs["read only"], 1.5)]


def unchanged(bench):
    """A second capture of a volume that did not change, against borg's second create."""
    need(Borg)
    source, imager, borg = bench.source(), bench.imager("unchanged"), Borg(bench.folder / "borg", bench.log)
    imager.init()
    imager.capture(source.node)
    borg.init()
    borg.create("first", source.node)

    def ours(_):
        source.warm()
        return imager.capture(source.node)

    def theirs(number):
        source.warm()
        return borg.create(f"again-{number}", source.node)

    runs = interleave(bench.pairs, {"ours": ours, "borg": theirs}, bench.say)
    return [wall_row("unchanged second capture, time against borg", runs["ours"], runs["borg"], 0.35)]


def encrypted(bench):
    """A first capture into an encrypted repository, against the same into a plain one."""
    source = bench.source()
    plain, sealed = bench.imager("plain"), bench.imager("sealed", password="benchmark")

    def once(imager):
        def run(_):
            imager.init()
            source.warm()
            return imager.capture(source.node)
        return run

    runs = interleave(bench.pairs, {"sealed": once(sealed), "plain": once(plain)}, bench.say)
    rows = [wall_row("encrypted capture, speed against plain", runs["plain"], runs["sealed"], 0.85),
            cpu_row("encrypted capture, plain cpu against its", runs["plain"], runs["sealed"])]
    for row in rows:
        row.more, row.ours, row.theirs = True, row.theirs, row.ours
    return rows


def https(bench):
    """A first capture and a restore over HTTPS on loopback, against the same on a local folder."""
    source, target = bench.source(), bench.folder / "target.img"
    local = bench.imager("local")
    with Share(bench.binary.parent / "netshare", bench.folder / "share", bench.log) as share:
        remote = share.imager(bench.binary)

        def captured(imager):
            def once(_):
                imager.init()
                source.warm()
                return imager.capture(source.node)
            return once

        def restored(imager):
            def once(_):
                images.fill_with_junk(target, source.size)
                run = imager.restore(target)
                if wrong := source.differing_bytes(target):
                    raise measure.CommandFailed(f"restored, but {wrong >> 10} KiB of the used blocks are wrong")
                return run
            return once

        captures = interleave(bench.pairs, {"https": captured(remote), "folder": captured(local)}, bench.say)
        restores = interleave(bench.pairs, {"https": restored(remote), "folder": restored(local)}, bench.say)
    return [speed_row("capture over https, speed against a folder", captures["https"], captures["folder"], 0.8),
            speed_row("restore over https, speed against a folder", restores["https"], restores["folder"], 0.6),
            memory_row("peak memory, capture over https", captures["https"][0], 128),
            memory_row("peak memory, restore over https", restores["https"][0], 128)]


def memory(bench):
    """Peak resident memory of a capture and a restore of the root volume."""
    source, imager, target = bench.source(), bench.imager("memory"), bench.folder / "target.img"
    imager.init()
    captured = imager.capture(source.node)
    images.fill_with_junk(target, source.size)
    restored = imager.restore(target)
    size = f"{used_bytes(source.extents) / 1e9:.1f} GB volume"
    return [memory_row(f"peak memory, capture of a {size}", captured, 128),
            memory_row(f"peak memory, restore of a {size}", restored, 128)]


def huge(bench):
    """Peak resident memory of a capture and a restore of a sparse disk of almost 16 TiB."""
    disk, imager, target = images.huge_disk(bench.folder), bench.imager("huge"), bench.folder / "huge-target.img"
    imager.init()
    captured = imager.capture(disk)
    bench.say(f"  captured in {captured.wall:.1f} s")
    target.unlink(missing_ok=True)
    with open(target, "wb") as file:
        file.truncate(disk.stat().st_size)
    try:
        restored = imager.restore(target, "--bare-metal")
        images.check_huge(target)
    finally:
        target.unlink()
    return [memory_row("peak memory, capture of a sparse 16 TiB disk", captured, 256),
            memory_row("peak memory, restore of a sparse 16 TiB disk", restored, 256)]


def story(bench):
    """From power-on to login after a server lost its system, by stage, in an emulated machine; the end-to-end test prints it."""
    command = ["cargo", "test", "--workspace", "--locked", "--test", "e2e_story", "--", "--nocapture", "--test-threads", "1"]
    own = {"HALFHOUR_FULL": "1", "HALFHOUR_IMAGER": str(bench.binary), "HALFHOUR_NETSHARE": str(bench.binary.with_name("netshare"))}
    ran = subprocess.run(command, cwd=bench.project, env=os.environ | own, text=True, stdout=subprocess.PIPE, check=False)
    bench.log.write_text(ran.stdout)
    if ran.returncode:
        raise measure.CommandFailed(f"e2e_story failed, see {bench.log}")
    stories = [json.loads(line.split("story: ", 1)[1]) for line in ran.stdout.splitlines() if "story: {" in line]
    if not stories:
        raise Skipped(f"e2e_story told no times, see {bench.log}")
    return [seconds_row(f"story, {told['firmware']}, {told['share']}: {stage}", figure)
            for told in stories for stage, figure in (told["seconds"] | {"from power-on to login": told["total"]}).items()]


def filesystems(bench):
    """A first capture and a restore of filesystems other than ext4, each against partclone's pipe for it."""
    rows = []
    for kind, filesystem in images.FILESYSTEMS.items():
        peers = {"partclone": (Partclone(bench.folder / f"{kind}.pcl.zst", bench.log, filesystem.partclone), 0.45)}
        if kind == "ntfs":
            peers["ntfsclone"] = (Ntfsclone(bench.folder / "ntfs.clone.zst", bench.log), 0.6)
        for peer, _ in peers.values():
            need(peer)
        image = images.filled(bench.folder, kind, filesystem, bench.say)
        source = images.Source(image, image, filesystem.used_extents)
        rows += captured_and_restored(bench, kind, source, peers)
        source.handle.close()
        bench.clear(keep=bench.shared)
    return rows


def captured_and_restored(bench, kind, source, peers):
    """Rows against each peer (and its bar): name → (peer, bar)."""
    imager, target = bench.imager(kind), bench.folder / "target.img"

    def ours(_):
        imager.init()
        source.warm()
        return imager.capture(source.node)

    def theirs(peer):
        def once(_):
            source.warm()
            return peer.capture(source.node)
        return once

    def onto_junk(command):
        def once(_):
            images.fill_with_junk(target, source.size)
            run = command(target)
            if wrong := source.differing_bytes(target):
                raise measure.CommandFailed(f"restored, but {wrong >> 10} KiB of the used blocks are wrong")
            return run
        return once

    captures = interleave(bench.pairs, {"ours": ours} | {name: theirs(peer) for name, (peer, _) in peers.items()}, bench.say)
    stored = imager.stored_bytes()
    back = {"ours": imager.restore} | {name: peer.restore for name, (peer, _) in peers.items()}
    restores = interleave(bench.pairs, {name: onto_junk(command) for name, command in back.items()}, bench.say)
    rows = []
    for name, (_, bar) in peers.items():
        for what, runs in ((f"capture of {kind}, time", captures), (f"restore of {kind} with read-back, time", restores)):
            rows.append(wall_row(f"{what} against {name}", runs["ours"], runs[name], bar))
        rows.append(cpu_row(f"capture of {kind}, cpu against {name}", captures["ours"], captures[name]))
        rows.append(bytes_row(f"capture of {kind}, bytes against {name}", stored, peers[name][0].image.stat().st_size, None))
    return rows


def journal(bench):
    """What the change journal costs a server that writes: its programs by the kernel's account, and fio with and without."""
    if why := overhead.lacking():
        raise Skipped(why)
    rows = []
    for load, (cost, with_it, without) in overhead.measured(bench.binary, bench.folder, bench.pairs, bench.say).items():
        share = sum(cost) * overhead.IOPS / 1e9 * 100
        told = f"{cost[0]:.0f} ns when issued, {cost[1]:.0f} ns when completed"
        rows.append(Row(f"journal, {load} writes: of a core at 100 000 a second", share, 2.0, unit=" %", ours=told))
        ratios = sorted(one / other for one, other in zip(with_it, without))
        rows.append(Row(f"journal, {load} writes a second, with it against without", ratios[len(ratios) // 2], None,
                        ours=f"{median_of(with_it):.0f}", theirs=f"{median_of(without):.0f}", spread=f"{ratios[0]:.2f}-{ratios[-1]:.2f}"))
    return rows


def delta(bench):
    """A capture of a running filesystem of which a hundredth of the blocks changed, against one that compares everything."""
    if os.geteuid():
        raise Skipped("needs root")
    pairs = changes.measured(bench.binary, bench.imager("delta"), bench.folder, bench.pairs, bench.say)
    times = sorted(one[0] / other[0] for one, other in pairs)
    reads = sorted(one[2][0] / one[3] for one, _ in pairs)
    stored = sorted(one[1]["stored_bytes"] / other[1]["stored_bytes"] for one, other in pairs)
    spread = lambda ratios: f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
    seconds = [f"{median_of([pair[side][0] for pair in pairs]):.1f} s" for side in (0, 1)]
    audited = median_of([one[1].get("audited_bytes", 0) / one[3] for one, _ in pairs])
    return [
        Row("delta by the journal, time against comparing", median_of(times), 0.15, ours=seconds[0], theirs=seconds[1], spread=spread(times)),
        Row("delta by the journal, first pass read against what changed", median_of(reads), 1.5, spread=spread(reads),
            ours=f"the audit reads {audited:.2f} x as much beside"),
        Row("delta by the journal, stored against comparing", median_of(stored), 1.3, spread=spread(stored)),
    ]


def median_of(values):
    return sorted(values)[len(values) // 2]


CASES = {case.__name__: case for case in (capture, restore, repair, unchanged, encrypted, https, memory, huge, filesystems, journal, delta, story)}


def need(tool):
    if lacking := missing(tool):
        raise Skipped(f"{', '.join(lacking)} not installed (scripts/setup installs it)")


def seconds_row(claim, figure):
    return Row(claim, figure, None, unit=" s")


def wall_row(claim, ours, theirs, bar):
    pairs = [a.wall / b.wall for a, b in zip(ours, theirs)]
    return Row(claim, median(ours) / median(theirs), bar, ours=seconds(ours), theirs=seconds(theirs),
               spread=f"{min(pairs):.2f}-{max(pairs):.2f}", runs={"ours": figures(ours), "theirs": figures(theirs)})


def speed_row(claim, ours, theirs, bar):
    """How fast ours is, as a share of theirs: a least."""
    row = wall_row(claim, theirs, ours, bar)
    row.more, row.ours, row.theirs = True, row.theirs, row.ours
    return row


def cpu_row(claim, ours, theirs):
    return Row(claim, median(ours, "cpu") / median(theirs, "cpu"), None, ours=f"{median(ours, 'cpu'):.1f} s",
               theirs=f"{median(theirs, 'cpu'):.1f} s")


def bytes_row(claim, ours, theirs, bar):
    return Row(claim, ours / theirs, bar, ours=f"{ours / 1e6:.1f} MB", theirs=f"{theirs / 1e6:.1f} MB")


def memory_row(claim, run, bar):
    return Row(claim, run.peak_bytes / MIB, bar, unit=" MiB", runs={"ours": figures([run])}, ours=f"{run.wall:.1f} s wall, {run.cpu:.1f} s cpu")


def figures(runs):
    return [{"wall_seconds": run.wall, "cpu_seconds": run.cpu, "other_cores": run.others} for run in runs]


def seconds(runs):
    return f"{median(runs):.2f} s ({median(runs, 'cpu'):.1f} cpu, {median(runs, 'others'):.1f} others)"
