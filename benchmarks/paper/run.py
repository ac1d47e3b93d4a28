"""The paper's claims, measured beside its theory: figures and the page."""

import time
from pathlib import Path
from typing import Optional

import matplotlib
import numpy as np

from benchmarks.page import render
from udp_plugin.audit.theory import expected_coding, expected_flip
from udp_plugin.files import naming, written
from udp_plugin.ui import STYLE, console, say

from . import measure
from .figures import FIGURES
from .measure import FULL, Measured, Plan

TEMPLATE = Path(__file__).with_name('paper.md.j2')


def run_paper(
    out: Path,
    command: str = '',
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    plan: Plan = FULL,
) -> Measured:
    """Measure, draw, and write the page ``paper.md``.

    Args:
        out: The folder for it and its figures.
        command: As it was called; the page has it without folders of the machine.
        ann: Annotations of COCO's keypoints; random people without.
        img: The folder of the images that they name.
        plan: How much is measured.

    Raises:
        UserError: ``ann``, ``img`` or ``out`` do not fit.
    """
    started = time.monotonic()
    with naming(out):
        (out / 'images').mkdir(parents=True, exist_ok=True)
    measured, paths = Measured(plan, ann, img), [out / 'paper.md']
    with console().status('measuring'), matplotlib.rc_context(STYLE):
        for draw in FIGURES:
            paths.append(out / 'images' / f'paper_{draw.__name__[5:]}.png')
            with written(paths[-1]) as made:
                draw(measured).savefig(made)
        render(
            TEMPLATE,
            paths[0],
            measured=measured,
            m=measure,
            expected_coding=expected_coding,
            expected_flip=expected_flip,
            np=np,
            ann=ann and ann.name,
            img=img and img.resolve().name,
            minutes=(time.monotonic() - started) / 60,
        )
    for line in (*paths, f'took {(time.monotonic() - started) / 60:.1f} min'):
        say(line)
    return measured
