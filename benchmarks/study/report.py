"""What the study found: figures, ``results.json`` and the page ``study.md``."""

import json
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.page import machine, render
from udp_plugin import functional as F
from udp_plugin.demo.measures import measure_run
from udp_plugin.files import write_text, written
from udp_plugin.functional.loss import OFFSET_WEIGHT
from udp_plugin.ui import STYLE, say

from . import networks
from .networks import CHOSEN_ON, GRID, Budget, Size, own_test
from .readings import CONDITIONS

TEMPLATE = Path(__file__).with_name('study.md.j2')
#: Okabe and Ito's, which colour-blind readers can tell apart.
_COLORS = '#D55E00 #E69F00 #CC79A7 #999999 #0072B2 #56B4E9 #009E73'
COLORS = dict(zip(GRID, _COLORS.split(' ')))
READING_COLORS = dict(voting='#009E73', authors='#56B4E9', toolbox='#999999')


class Results:
    """All figures of a study, as the scripts wrote them into its folder.

    Attributes:
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
                folder = out / size.name / f'seed{seed}'
                figures, errors = {}, {}
                for test in networks.tests_of(budget, size, seed):
                    run = measure_run(folder / test.name)
                    figures[test.name], errors[test.name] = run.metrics, run.errors
                for network in networks.READ:
                    at = f'{network}/readings'
                    read = json.loads((folder / at / 'readings.json').read_text())
                    figures.update({f'{at}/{name}': v for name, v in read.items()})
                self.figures[size.name, seed] = figures
                self.errors[size.name, seed] = errors

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
        name = own_test(test, flip).name if test in networks.ARMS else test
        return np.array([self.figures[size.name, seed][name][key] for seed in seeds])


# --- figures --------------------------------------------------------------------------


def _panels(results: Results, width: float, height: float) -> Tuple[Figure, List]:
    sizes = results.budget.sizes
    figure = Figure(figsize=(width * len(sizes), height), layout='constrained')
    axes = figure.subplots(1, len(sizes), squeeze=False)[0]
    for ax, size in zip(axes, sizes):
        ax.set_title(str(size))
        ax.grid(color='0.9')
        ax.set_axisbelow(True)
    return figure, list(zip(axes, sizes))


def draw_medians(results: Results) -> Figure:
    """The median error of each arm, with the flip test and without."""
    figure, panels = _panels(results, 5.2, 2.9)
    for ax, size in panels:
        for row, arm in enumerate(GRID):
            color = COLORS[arm]
            for flip, at, alpha in (('off', row - 0.16, 0.2), ('', row + 0.16, 0.55)):
                values = results.values(size, arm, flip=flip)
                ax.barh(at, values.mean(), height=0.3, color=color, alpha=alpha)
                face = 'none' if flip else color
                ax.plot(values, [at] * len(values), 'o', ms=4, color=color, mfc=face)
        labels = [arm.label if ax is panels[0][0] else '' for arm in GRID.values()]
        ax.set_yticks(range(len(GRID)), labels)
        ax.set(xlabel='median error (input px)', xlim=(0, None))
        ax.invert_yaxis()
    ax.plot([], [], 'o', color='0.4', label='flip test')
    ax.plot([], [], 'o', color='0.4', mfc='none', label='without')
    figure.legend(frameon=False, ncols=2, loc='outside lower right')
    return figure


def draw_errors(results: Results) -> Figure:
    """The share of keypoints within a distance, of all seeds."""
    figure, panels = _panels(results, 4.6, 3.4)
    for ax, size in panels:
        for arm, settings in GRID.items():
            of_seeds = (
                results.errors[size.name, n] for n in range(results.budget.seeds)
            )
            name = own_test(arm).name
            errors = np.sort(np.concatenate([errors[name] for errors in of_seeds]))
            share = 100 * np.arange(1, len(errors) + 1) / len(errors)
            ax.step(errors, share, color=COLORS[arm], label=settings.label)
        ax.set(xscale='log', xlim=(0.05, 20), ylim=(0, 100))
        ax.set(xlabel='error (input px)', ylabel='keypoints within it (%)')
        ax.xaxis.set_major_formatter('{x:g}')
    panels[0][0].legend(frameon=False, fontsize=7)
    return figure


def draw_readings(results: Results) -> Figure:
    """The median error of each reading under each condition."""
    figure, panels = _panels(results, 4.6, 3)
    for ax, size in panels:
        for i, (reading, color) in enumerate(READING_COLORS.items()):
            x = np.arange(len(CONDITIONS)) + 0.25 * (i - 1)
            names = [f'udp_offset/readings/{c}/{reading}' for c in CONDITIONS]
            values = np.array([results.values(size, name) for name in names])
            ax.bar(x, values.mean(1), 0.22, color=color, alpha=0.5, label=reading)
            ax.plot(x, values, 'o', color=color, ms=3)
        ax.set_xticks(range(len(CONDITIONS)), CONDITIONS)
        ax.set(ylabel='median error (input px)', ylim=(0, None))
    labels = panels[0][0].get_legend_handles_labels()
    figure.legend(*labels, frameon=False, ncols=3, loc='outside lower center')
    return figure


# --- files ----------------------------------------------------------------------------


def report(out: Path, budget: Budget, command: str, seconds: float) -> Path:
    """Measure and draw what is in the study's folder; returns the page."""
    results = Results(out, budget)
    page = render(
        TEMPLATE,
        out / 'study.md',
        found=results,
        budget=budget,
        networks=networks,
        held_out=[seed for seed in range(budget.seeds) if seed != CHOSEN_ON],
        conditions=CONDITIONS,
        readings=F.READINGS,
        weight=OFFSET_WEIGHT,
        minutes=round(seconds / 60),
    )
    paths, images = [page, out / 'results.json'], out / 'images'
    figures = {f'{size}/seed{n}': v for (size, n), v in results.figures.items()}
    content = dict(command=command, seconds=round(seconds), machine=machine())
    content.update(images=budget.images, iterations=budget.iters, figures=figures)
    write_text(paths[1], json.dumps(content, indent=1) + '\n')
    with matplotlib.rc_context(STYLE):
        for draw in (draw_medians, draw_errors, draw_readings):
            paths.append(images / f'study_{draw.__name__[5:]}.png')
            with written(paths[-1]) as made:
                draw(results).savefig(made)
    # What was found; the page has all of it.
    say(page.read_text(encoding='utf-8').partition('![')[0])
    for line in (*paths, f'took {seconds / 60:.0f} min in all'):
        say(line)
    return page
