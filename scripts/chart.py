#!/usr/bin/env python3
"""Draws curves out of a Markdown table, as an SVG that GitHub shows in light and dark.

    scripts/chart.py README.md HEAD OUT.svg --x "pairs known, %" --panel "FOSCTTM" 1:align=1 2:align=0 [--panel ...]

HEAD is the table's first heading. A panel has a title and curves, COLUMN:NAME each, columns counted from 0; COLUMN/PART takes the PART-th of
values between slashes. "0.171 ± 0.006" is a point with its deviation. The pictures in examples/ are drawn so:

    scripts/chart.py README.md "pairs known" examples/jamie-pairs.svg --x "pairs known, %" \\
        --panel FOSCTTM "1:with the inferred correspondence" 2:align=0 --panel "label transfer" "3:with the inferred correspondence" 4:align=0
    scripts/chart.py README.md "pairs" examples/cross-modal-pairs.svg --x "pairs known, %" \\
        --panel "FOSCTTM, held-out cells" 3:published "6:input_dropout=0.5, w_anch=100" --panel "class of the RNA code" 1/1:published \\
        "4/1:input_dropout=0.5, w_anch=100" --panel "knn@50, ATAC to RNA" 2/0:published "5/0:input_dropout=0.5, w_anch=100"
"""
import argparse
import html
import math
import pathlib
import re

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 230, 46, 14, 34, 44
# Told apart in grey, too: dark blue and light orange.
COLOURS = ["#1f5fa8", "#e8833a", "#4d9a55", "#8a6fb0"]


def table(text, head):
    """The rows of the first table whose first heading is `head`."""
    lines = text.splitlines()
    cells = lambda line: [c.strip() for c in line.strip().strip("|").split("|")]
    for at, line in enumerate(lines):
        if line.startswith("|") and cells(line)[0] == head:
            rows = []
            for row in lines[at + 2:]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            return rows
    raise SystemExit(f"no table begins with the heading {head!r}")


def point(cell, part):
    """Value and deviation of one of the values in a cell."""
    numbers = re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", cell.split("/")[part])
    if not numbers:
        raise SystemExit(f"{cell!r}: no number in part {part}")
    return float(numbers[0]), float(numbers[1]) if "±" in cell and len(numbers) > 1 else 0.0


def ticks(low, high):
    """Round numbers, four to eight of them, that cover the range."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(f for f in (5, 2, 1) if (high - low) / (f * step) >= 3)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def panel(title, x_name, curves, left):
    """One set of axes with its curves [(name, [(x, y, deviation)])]."""
    points = [p for _, curve in curves for p in curve]
    xs = ticks(min(p[0] for p in points), max(p[0] for p in points))
    ys = ticks(min(p[1] - p[2] for p in points), max(p[1] + p[2] for p in points))
    to_x = lambda x: left + LEFT + (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT)
    to_y = lambda y: HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM)
    out = [f'<text x="{left + LEFT}" y="18" class="title">{html.escape(title)}</text>']
    for y in ys:
        out.append(f'<path d="M{to_x(xs[0]):.1f} {to_y(y):.1f}H{to_x(xs[-1]):.1f}" class="grid"/>')
        out.append(f'<text x="{to_x(xs[0]) - 6:.1f}" y="{to_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in xs:
        out.append(f'<text x="{to_x(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{(to_x(xs[0]) + to_x(xs[-1])) / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_name)}</text>')
    for colour, (_, curve) in zip(COLOURS, curves):
        line = "L".join(f"{to_x(x):.1f} {to_y(y):.1f}" for x, y, _ in curve)
        out.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, d in curve:
            out.append(f'<path d="M{to_x(x):.1f} {to_y(y - d):.1f}V{to_y(y + d):.1f}" stroke="{colour}" stroke-width="1"/>')
            out.append(f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="3" fill="{colour}"/>')
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("markdown", type=pathlib.Path)
    p.add_argument("head")
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--x", required=True)
    p.add_argument("--panel", nargs="+", action="append", required=True, metavar="WORD")
    a = p.parse_args()
    rows, drawn, names = table(a.markdown.read_text(), a.head), [], []
    for number, (title, *curves) in enumerate(a.panel):
        read = []
        for curve in curves:
            column, name = curve.split(":", 1)
            column, part = [int(n) for n in (column + "/0").split("/")[:2]]
            read.append((name, [(point(row[0], 0)[0], *point(row[column], part)) for row in rows]))
        names = names or [name for name, _ in read]
        drawn += panel(title, a.x, read, number * WIDTH)
    at = LEFT
    for colour, name in zip(COLOURS, names):
        drawn.append(f'<path d="M{at} {HEIGHT + 12}h18" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{at + 24}" y="{HEIGHT + 16}">{html.escape(name)}</text>')
        at += 50 + 7 * len(name)
    width, height = WIDTH * len(a.panel), HEIGHT + 28
    style = ("text{font:12px sans-serif;fill:#555}.title{font-weight:bold}.grid{stroke:#bbb;stroke-width:.5}"
             "@media(prefers-color-scheme:dark){text{fill:#bbb}.grid{stroke:#666}}")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    a.out.write_text("\n".join([head, f"<style>{style}</style>", *drawn, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
