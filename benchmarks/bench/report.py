"""What the bench leaves: ``bench.json``, a plot, a summary, and the page ``bench.md``.

The tables of the page are laid out in its template, ``bench.md.j2``, which is given
what ``bench.json`` has, and the functions here that write a number.
"""

import json
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.page import render
from udp_plugin.ui import COLORS, STYLE, Table

TEMPLATE = Path(__file__).with_name('bench.md.j2')

#: By operation, and arrangement where there are several: codecs, and times as fast.
Ratios = Dict[str, List[Tuple[str, float]]]


def write(out: Path, content: dict) -> Tuple[Table, List[Path]]:
    """Write what was measured; returns a summary, and the files."""
    ratios: Ratios = {}
    for row in content['results']:
        if row['ours'] and row['axis'] is None:
            for how, times in row['times'].items():
                label = row['operation'] + f', {how}' * (len(row['times']) > 1)
                found = row['codec'], times['times_as_fast']
                ratios.setdefault(label, []).append(found)
    summary = summarize(ratios)
    plot, figures = out / 'images' / 'bench_ratios.png', out / 'bench.json'
    draw(plot, ratios)
    figures.write_text(json.dumps(content, indent=1) + '\n')
    numbers = dict(ms=milliseconds, as_fast=as_fast, mb=megabytes)
    page = render(TEMPLATE, out / 'bench.md', **content, **numbers, summary=summary)
    return summary, [page, plot, figures]


def summarize(ratios: Ratios) -> Table:
    """How many times as fast as the built-ins, over all sizes and batches."""
    rows = []
    for label, found in ratios.items():
        values = [ratio for _, ratio in found]
        slower = sum(value < 0.97 for value in values)
        spread = map(as_fast, (min(values), np.median(values), max(values)))
        rows.append([label, *spread, f'{slower} of {len(values)}'])
    header = ['', 'least', 'median', 'most', 'slower by more than 3 %']
    return Table('Times as fast as the built-ins', header, rows)


def draw(path: Path, ratios: Ratios) -> None:
    """The same in a plot, a dot for each comparison."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout='constrained')
        ax = figure.subplots()
        ax.axvline(1, color='0.3', linewidth=1)
        for shift, codec in ((-0.15, 'gaussian'), (0.15, 'offset')):
            dots = [
                (ratio, place + shift)
                for place, found in enumerate(ratios.values())
                for kind, ratio in found
                if kind == codec
            ]
            ax.scatter(*zip(*dots), s=14, color=COLORS[codec], alpha=0.6, label=codec)
        ax.set_yticks(range(len(ratios)), list(ratios))
        ax.invert_yaxis()
        ax.set(xscale='log', xlabel='times as fast as the built-in')
        ax.xaxis.set_major_formatter('{x:g}×')
        ax.grid(axis='y', color='0.93')
        ax.legend(frameon=False)
        figure.savefig(path)


# --- numbers --------------------------------------------------------------------------


def milliseconds(value: float) -> str:
    """Three digits."""
    digits = max(2 - int(np.floor(np.log10(value))), 0) if value > 0 else 0
    return f'{value:.{min(digits, 4)}f}'


def as_fast(value: float) -> str:
    """Times as fast, 1 being as fast."""
    return f'{value:.{2 if value < 2 else 1 if value < 9.95 else 0}f}×'


def megabytes(value: Optional[int]) -> str:
    """Of memory; less than one is noise."""
    if value is None:
        return '–'
    return '< 1 MB' if value < 1e6 else f'{value / 1e6:.0f} MB'
