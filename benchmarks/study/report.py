"""What the study found: figures, ``results.json`` and the page ``study.md``."""

import json
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import matplotlib
import numpy as np
from rich.markdown import Markdown

from benchmarks.page import machine, render
from udp_plugin import functional as F
from udp_plugin.demo.measures import measure_run
from udp_plugin.functional.loss import OFFSET_WEIGHT
from udp_plugin.ui import STYLE, console, say

from . import networks
from .figures import FIGURES
from .networks import Budget, Size, folder_of
from .readings import CONDITIONS

TEMPLATE = Path(__file__).with_name('study.md.j2')


class Results:
    """All figures of a study, as the scripts wrote them into its folder.

    Attributes:
        budget: Its budget.
        figures: By the names of size and seed, then by the name of a test, or
            ``network/readings/condition/reading``; see
            :func:`udp_plugin.demo.measures.measure`.
        errors: Of all keypoints, input px, by the same names.
    """

    def __init__(self, out: Path, budget: Budget) -> None:
        self.budget = budget
        self.figures: Dict[Tuple[str, int], Dict[str, Dict[str, float]]] = {}
        self.errors: Dict[Tuple[str, int], Dict[str, np.ndarray]] = {}
        for size in budget.sizes:
            for seed in range(budget.seeds):
                key, folder = (size.name, seed), folder_of(out, size, seed)
                tests = networks.tests_of(budget, size, seed)
                runs = {test.name: measure_run(folder / test.name) for test in tests}
                self.errors[key] = {name: run.errors for name, run in runs.items()}
                self.figures[key] = {name: run.metrics for name, run in runs.items()}
                for network in networks.READ:
                    at = f'{network}/readings'
                    read = json.loads((folder / at / 'readings.json').read_text())
                    self.figures[key].update({f'{at}/{k}': v for k, v in read.items()})

    def values(
        self,
        size: Size,
        test: str,
        key: str = 'median_px',
        seeds: Optional[Iterable[int]] = None,
        flip: str = '',
    ) -> np.ndarray:
        """A figure for each seed.

        Args:
            size: Of the network.
            test: A name in :attr:`figures`, or an arm: its test under its own config.
            key: See :func:`udp_plugin.demo.measures.measure`.
            seeds: All by default.
            flip: The flip test of an arm, if not its own.
        """
        seeds = range(self.budget.seeds) if seeds is None else seeds
        name = networks.own_test(test, flip).name if test in networks.ARMS else test
        return np.array([self.figures[size.name, seed][name][key] for seed in seeds])

    def cell(self, size: Size, test: str, key: str = 'median_px', **of: object) -> str:
        """Mean and standard deviation of the :meth:`values`, shares in per cent."""
        digits = 1 if key in ('ap', 'within_half_px', 'within_1_px') else 2
        values = self.values(size, test, key, **of)
        if key.startswith('within'):
            values = 100 * values
        if not len(values):
            return '–'
        spread = f' ± {values.std(ddof=1):.{digits}f}' if len(values) > 1 else ''
        return f'{values.mean():.{digits}f}{spread}'

    def best(self, size: Size, test: str, among: Iterable[str], flip: str = '') -> str:
        """The cell of a median error, in bold if it is the lowest of some."""
        means = {one: self.values(size, one, flip=flip).mean() for one in among}
        cell = self.cell(size, test, flip=flip)
        return f'**{cell}**' if test == min(means, key=means.get) else cell

    def medians(self, size: Size, arms: Iterable[str]) -> List[np.ndarray]:
        """The median errors of arms, for each seed."""
        return [self.values(size, arm) for arm in arms]

    def change(self, size: Size, test: str, other: str) -> str:
        """By how many per cent medians differ by seed: mean, least and most."""
        change = 100 * (self.values(size, test) / self.values(size, other) - 1)
        return f'{change.mean():+.0f} ({change.min():+.0f} … {change.max():+.0f})'


def report(out: Path, budget: Budget, command: str, seconds: float) -> Path:
    """Measure and draw what is in the study's folder; returns the page."""
    results = Results(out, budget)
    page = render(
        TEMPLATE,
        out / 'study.md',
        found=results,
        budget=budget,
        networks=networks,
        held_out=[seed for seed in range(budget.seeds) if seed != networks.CHOSEN_ON],
        conditions=CONDITIONS,
        readings=F.READINGS,
        weight=OFFSET_WEIGHT,
        minutes=round(seconds / 60),
    )
    written = [page, out / 'results.json']
    figures = {f'{size}/seed{i}': v for (size, i), v in results.figures.items()}
    content = dict(command=command, seconds=round(seconds), machine=machine())
    content.update(images=budget.images, iterations=budget.iters, figures=figures)
    written[1].write_text(json.dumps(content, indent=1) + '\n')
    (out / 'images').mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for draw in FIGURES:
            written.append(out / 'images' / f'study_{draw.__name__[5:]}.png')
            draw(results).savefig(written[-1])
    console().print(Markdown(page.read_text(encoding='utf-8')))
    for line in ('', *written, f'took {seconds / 60:.0f} min in all'):
        say(line)
    return page
