#!/usr/bin/env python3
"""Runs the benchmarks: ours against the peers, interleaved in one run, medians of several pairs, and the bars.

Both sides are timed to the end of `sync -f`; the source is in the page cache. In brackets stand the CPU seconds of all
processes and how many cores other work took meanwhile: compare walls only where that is near 0. Needs root for loop
devices and the aged disk; everything lies below target/bench, about 20 GB at most; the source (5 GB) is kept, --clean removes it.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

import cases
import images
import record
from measure import CommandFailed
from tools import Imager

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("root.img", "huge.img", "last-command.log", "last-command.log.partclone")
SHARED = ("repository-captured", "root.pcl.zst", "target.img")


class Bench:
    """What the cases share: the source, repositories by name, where files go."""

    def __init__(self, args, folder, binary):
        self.project, self.folder, self.binary, self.pairs = PROJECT, folder, binary, args.pairs
        self.log = folder / "last-command.log"
        self.shared = SHARED
        self._args, self._source = args, None

    def source(self):
        if not self._source:
            image = images.root_image(PROJECT, self.folder, self.say)
            node = image if self._args.source == "file" else images.loop_device(image)
            self._source = images.Source(image, node)
            self.say(f"source: {node}: {self._source.describe()}")
        return self._source

    def imager(self, name, password=None):
        return Imager(self.binary, self.folder / f"repository-{name}", self.log, password)

    def captured(self):
        """A repository that holds a capture of the source."""
        imager = self.imager("captured")
        if not getattr(self, "_captured", False):
            imager.init()
            imager.capture(self.source().node)
            self._captured = True
        return imager

    def clear(self, keep=()):
        """Removes what a case leaves behind, but what the next ones share."""
        for path in self.folder.iterdir():
            if path.name not in (*SOURCES, *keep):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self):
        if self._source and self._source.node != self._source.image:
            self._source.handle.close()
            subprocess.run(["losetup", "--detach", self._source.node], check=False)
        self.clear()

    @staticmethod
    def say(text):
        print(text, file=sys.stderr, flush=True)


def main():
    args = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C"
    folder = PROJECT / "target/bench"
    if args.clean:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(args, folder, args.binary or build())
    names, rows, failures = args.cases or list(cases.CASES), [], []
    bench.say(f"cases: {', '.join(names)}; {args.pairs} pairs each; {machine()}")
    try:
        for name in names:
            run_case(bench, name, rows, failures)
    finally:
        bench.close()
    if args.json:
        print(json.dumps(report(rows, failures), indent=2))
    else:
        print_table(rows)
    for name, reason in failures:
        print(f"{name}: not measured: {reason}", file=sys.stderr)
    if args.record:
        record.write(PROJECT / "tests/RESULTS.md", rows, args.pairs, machine())
    return 1 if failures else 0


def run_case(bench, name, rows, failures):
    case = cases.CASES[name]
    bench.say(f"\n{name}: {case.__doc__}")
    started = time.monotonic()
    try:
        rows += case(bench)
    except (cases.Skipped, CommandFailed, OSError, subprocess.CalledProcessError) as error:
        failures.append((name, str(error)))
        bench.say(f"  {name}: {error}")
    bench.clear(keep=SHARED)
    bench.say(f"  {name} took {time.monotonic() - started:.0f} s")


def print_table(rows):
    print(f"\n{'claim':52} {'figure':>9} {'bar':>9} {'':6}  {'pairs':>9}  ours; theirs")
    for row in rows:
        figure, bar = amount(row, row.figure), amount(row, row.bar)
        sign = "" if row.bar is None else (">=" if row.more else "<=")
        sides = "; ".join(filter(None, (row.ours, row.theirs)))
        print(f"{row.claim:52} {figure:>9} {sign + bar:>9} {row.verdict:6}  {row.spread:>9}  {sides}")


def amount(row, value):
    if value is None:
        return ""
    return f"{value:.{record.digits(row.unit)}f}{row.unit}"


def report(rows, failures):
    fields = ("claim", "figure", "bar", "unit", "verdict", "spread", "ours", "theirs", "runs")
    return {"machine": machine(), "rows": [{name: getattr(row, name) for name in fields} for row in rows],
            "not_measured": [{"case": name, "reason": reason} for name, reason in failures]}


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "imager", "-p", "netshare"], cwd=PROJECT, check=True)
    text = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=PROJECT, check=True,
                          text=True, capture_output=True).stdout
    return Path(json.loads(text)["target_directory"]) / "release/imager"


def arguments():
    known = "\n".join(f"  {name:10} {case.__doc__}" for name, case in cases.CASES.items())
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=f"cases:\n{known}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all of them without any")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs (default 3)")
    parser.add_argument("--source", choices=("loop", "file"), default="loop", help="what the source is read through")
    parser.add_argument("--binary", type=Path, help="this imager instead of building one")
    parser.add_argument("--json", action="store_true", help="one object on stdout instead of the table")
    parser.add_argument("--record", action="store_true", help="also writes the rows into tests/RESULTS.md")
    parser.add_argument("--clean", action="store_true", help="removes target/bench and ends")
    args = parser.parse_args()
    if unknown := [name for name in args.cases if name not in cases.CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
