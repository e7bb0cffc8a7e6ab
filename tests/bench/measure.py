"""Runs a command to the end of its last write and says what it cost."""

import os
import statistics
import subprocess
import time
from dataclasses import dataclass


@dataclass
class Run:
    wall: float  # seconds, to the end of `sync -f`
    cpu: float  # user + system seconds of the command and all its children
    peak_bytes: int  # largest resident memory of any one process; this script's own 30 MB are its floor
    others: float  # cores that other work took meanwhile
    output: str


class CommandFailed(Exception):
    pass


def run(command, sync, env=None, log=None):
    """Times `command`, a list or a shell pipeline, and the flush of the filesystem that holds `sync`."""
    words = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else [str(word) for word in command]
    subprocess.run(["sync", "-f", str(sync)], check=True)  # what was written before is not this command's
    with open(log or os.devnull, "w+") as errors:
        busy, started = busy_seconds(), time.monotonic()
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
                                 env={**os.environ, **(env or {})})
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        subprocess.run(["sync", "-f", str(sync)], check=True)
        wall, busy = time.monotonic() - started, busy_seconds() - busy
        if child.returncode:
            errors.seek(0)
            tail = errors.read()[-2000:]
            raise CommandFailed(f"exit {child.returncode}: {' '.join(words)}\n{output[-2000:]}{tail}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, usage.ru_maxrss * 1024, max(0.0, (busy - cpu) / wall), output)


def busy_seconds():
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def median(runs, field="wall"):
    return statistics.median(getattr(run, field) for run in runs)


def interleave(pairs, sides, say):
    """Runs every side once per round, in turning order so that none always goes first. Returns {side: [Run]}."""
    runs = {name: [] for name in sides}
    for number in range(pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            runs[name].append(sides[name](number))
            last = runs[name][-1]
            say(f"  {name}, run {number + 1}: {last.wall:.2f} s wall, {last.cpu:.2f} s cpu, others {last.others:.1f} cores")
    return runs
