"""Tables and a plot from the CSV files of fleet_simulation.

    fleet_report.py OUT.md OUT.svg RUN.csv...

Runs of several seeds are averaged. The table compares the default policy with
each other policy's best setting in that very cell, for the mean and for the
99th percentile apart: harder than any one setting.
"""

import csv
import sys
from collections import defaultdict

POLICIES = ("round_robin", "cache_aware", "overlap_cost")
DEFAULTS = {
    "cost": "default",
    "round_robin": "default",
    "cache_aware": "32/1.1",
    "overlap_cost": "1",
}
COLOURS = {
    "cost": "#d62728",
    "round_robin": "#7f7f7f",
    "cache_aware": "#1f77b4",
    "overlap_cost": "#2ca02c",
}
PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 210, 120, 34


def read(paths):
    """{(trace, load): {(policy, setting): {column: mean over the files}}}"""
    sums = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    for path in paths:
        with open(path, encoding="utf-8") as file:
            rows = csv.DictReader(line for line in file if line[0] != "#")
            for row in rows:
                run = sums[row["trace"], row["load"]]
                cell = run[row["policy"], row["setting"]]
                for column, value in row.items():
                    if column not in ("trace", "load", "policy", "setting"):
                        cell[column] += float(value) / len(paths)
    return sums


def against(cell, policy, column):
    """The policy's best setting for the column, and how ours compares."""
    best, setting = min(
        (figures[column], name[1])
        for name, figures in cell.items()
        if name[0] == policy
    )
    ours = cell["cost", "default"][column]
    return f"{best:.2f} ({setting}) {100 * (ours / best - 1):+.0f} %"


def table(cells):
    lines = [
        "| trace, load | | cost | " + " | ".join(POLICIES) + " |",
        "| --- | --- | --- |" + " --- |" * len(POLICIES),
    ]
    for (trace, load), cell in cells.items():
        for column in ("mean", "p99"):
            ours = cell["cost", "default"][column]
            others = " | ".join(against(cell, p, column) for p in POLICIES)
            lines.append(
                f"| {trace} {load} | {column} | {ours:.2f} | {others} |"
            )
    return "\n".join(lines)


def curve(figures, limit):
    """The distribution as an SVG path in a panel whose width is `limit` s."""
    points = []
    for percent in range(0, 101, 5):
        x = min(figures[f"q{percent}"] / limit, 1) * PANEL_WIDTH
        points.append(f"{x:.1f},{PANEL_HEIGHT * (1 - percent / 100):.1f}")
    return "M" + " L".join(points)


def panel(trace, load, cell, left, top):
    limit = max(
        cell[p, DEFAULTS[p]]["q95"] for p in ("cost", "cache_aware")
    ) * 1.3
    parts = [
        f'<g transform="translate({left},{top})">',
        f'<rect width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="none" '
        'stroke="#999"/>',
        f'<text y="-4">{trace}, load {load}; 0 to {limit:.1f} s</text>',
    ]
    for policy, setting in DEFAULTS.items():
        path = curve(cell[policy, setting], limit)
        parts.append(
            f'<path d="{path}" fill="none" stroke="{COLOURS[policy]}"/>'
        )
    return "\n".join(parts) + "\n</g>"


def plot(cells):
    step_x, step_y = PANEL_WIDTH + MARGIN, PANEL_HEIGHT + MARGIN
    rows = (len(cells) + 2) // 3
    width, height = 3 * step_x + MARGIN, rows * step_y + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, (policy, colour) in enumerate(COLOURS.items()):
        parts.append(
            f'<text x="{MARGIN + 120 * i}" y="16" fill="{colour}" '
            f'font-size="12">{policy}</text>'
        )
    for i, ((trace, load), cell) in enumerate(cells.items()):
        left = MARGIN + (i % 3) * step_x
        parts.append(panel(trace, load, cell, left, 50 + (i // 3) * step_y))
    return "\n".join(parts) + "\n</svg>\n"


def main():
    markdown, picture, *runs = sys.argv[1:]
    cells = read(runs)
    with open(markdown, "w", encoding="utf-8") as file:
        file.write(table(cells) + "\n")
    with open(picture, "w", encoding="utf-8") as file:
        file.write(plot(cells))


if __name__ == "__main__":
    main()
