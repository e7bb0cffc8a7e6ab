"""Writes measured rows into tests/RESULTS.md: one line a claim, the last figure stays."""

import time

HEADING = "## Benchmarks"
INTRO = "`scripts/bench --record` writes these lines: ours / peer, medians, interleaved in one run."
HEADER = ["| claim | figure | bar | ours | peer | pairs | date | machine |", "|---|---|---|---|---|---|---|---|"]


def write(path, rows, pairs, machine):
    lines = path.read_text().splitlines() if path.exists() else ["# Results"]
    if HEADING not in lines:
        lines += ["", HEADING, "", INTRO, "", *HEADER]
    fresh = {row.claim: line(row, pairs, machine) for row in rows if row.figure is not None}
    start = lines.index(HEADING)
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    section = [fresh.pop(claim(text), text) for text in lines[start:end]]
    last = max(i for i, text in enumerate(section) if text.startswith("|")) + 1
    section[last:last] = fresh.values()
    path.write_text("\n".join(lines[:start] + section + lines[end:]) + "\n")


def claim(text):
    return text.split("|")[1].strip() if text.startswith("| ") else None


def line(row, pairs, machine):
    places = digits(row.unit)
    bar = "" if row.bar is None else f"{'≥' if row.more else '≤'} {row.bar:.{places}f}{row.unit} {row.verdict}"
    figure = f"{row.figure:.{places}f}{row.unit}"
    return f"| {row.claim} | {figure} | {bar} | {row.ours} | {row.theirs} | {pairs} | {time.strftime('%Y-%m-%d')} | {machine} |"


def digits(unit):
    """Behind the point: ratios and seconds are small, bytes are not."""
    return {"x": 2, " s": 1, " %": 2}.get(unit, 0)
