"""The paper's claims, measured beside its theory: tables, figures and the page."""

import time
from pathlib import Path
from typing import Optional

import matplotlib

from benchmarks.page import render
from udp_plugin.ui import STYLE, UserError, console, say

from .figures import FIGURES
from .measure import FULL, MSRA, Measured, Plan
from .tables import make_tables

TEMPLATE = Path(__file__).with_name('paper.md.j2')
#: Of the tables where nothing says how wide they may be.
PLAIN_WIDTH = 150


def paper(
    out: Path, ann: Optional[Path] = None, img: Optional[Path] = None, plan: Plan = FULL
) -> Path:
    """Measure, draw, print the tables, and write the page; returns its path.

    Args:
        out: The folder for it and its figures.
        ann: Annotations of COCO's keypoints; random people without.
        img: The folder of the images that they name.
        plan: How much is measured.

    Raises:
        UserError: ``ann``, ``img`` or ``out`` do not fit.
    """
    started = time.monotonic()
    terminal = console()
    if not terminal.is_terminal:
        terminal.width = PLAIN_WIDTH
    images = out / 'images'
    try:
        images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}') from error
    drawn = [images / f'paper_{draw.__name__[5:]}.png' for draw in FIGURES]
    measured, tables = Measured(plan, ann, img), {}
    with terminal.status('measuring'):
        for name, table in make_tables(measured):
            terminal.print()
            table.print(terminal)
            tables[name] = table
        with matplotlib.rc_context(STYLE):
            for path, draw in zip(drawn, FIGURES):
                draw(measured).savefig(path)
    people = measured(MSRA, plan.input_size).end_to_end.persons
    minutes = (time.monotonic() - started) / 60
    page = render(
        TEMPLATE,
        out / 'paper.md',
        tables=tables,
        minutes=minutes,
        people=len(people),
        photos=len({person.sample.img_path for person in people}),
        # Without folders of the machine.
        ann=ann and ann.name,
        img=img and img.resolve().name,
    )
    for line in ('', page, *drawn, f'took {minutes:.1f} min'):
        say(line)
    return page
