"""What the benchmark found: ``results.json``, a picture, and the page."""

import json
from itertools import product
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import trim_mean

from benchmarks.page import machine, render
from udp_plugin.demo.configs import Data
from udp_plugin.demo.measures import Prediction, measure_run
from udp_plugin.files import write_bytes, write_text, written
from udp_plugin.functional import PIXELS, UNIT_LENGTH
from udp_plugin.ui import STYLE, say

from .networks import (
    DRAWN,
    LABELS,
    LADDER,
    SHIFTED,
    SWAPPED,
    TESTS,
    Kind,
    networks_of,
    step_of,
)

TEMPLATE = Path(__file__).with_name('keep.md.j2')
#: Okabe and Ito's: of what the toolbox does, and of kept weights.
COLORS = dict(zip(TESTS, ('#D55E00', '#E69F00', '#56B4E9', '#0072B2', '#009E73')))
#: By which networks are trained: MSRAHeatmap, and UDPHeatmap.
MEASURES = PIXELS, UNIT_LENGTH
#: The largest and the smallest of signed errors are left out, a part at each end:
#: left and right mixed up is no bias.
TRIMMED = 0.05


def signed_errors(predictions: Sequence[Prediction]) -> np.ndarray:
    """Signed errors (x, y) of the labelled keypoints, input px, without the largest."""
    errors = [(p.predicted - p.annotated)[p.labelled] / p.pixel for p in predictions]
    return trim_mean(np.concatenate(errors), TRIMMED)


class Results:
    """All figures of the benchmark, as the scripts wrote them into its folder.

    Attributes:
        figures: By kind of data, network, test and seed; see
            :func:`udp_plugin.demo.measures.measure`, besides ``x_px`` and ``y_px``.
        audits: What the audit told, by kind, network and seed.
        ladders: By kind, arm, part of a training and seed, as ``figures``.
    """

    def __init__(self, out: Path, kinds: Sequence[Kind], seeds: int) -> None:
        self.kinds, self.seeds = kinds, range(seeds)
        self.figures: Dict[Tuple[str, str, str, int], Dict[str, float]] = {}
        self.audits: Dict[Tuple[str, str, int], dict] = {}
        self.ladders: Dict[Tuple[str, str, int, int], Dict[str, float]] = {}
        for arm, part, seed in product(SWAPPED, (1, *LADDER), self.seeds):
            home = out / DRAWN.name / f'seed{seed}'
            at = home / arm if part == 1 else home / 'stock_biased' / step_of(arm, part)
            self.ladders[DRAWN.name, arm, part, seed] = measure_run(at / 'test').metrics
        for kind in kinds:
            for network in networks_of(kind):
                for seed in self.seeds:
                    home = out / kind.name / f'seed{seed}' / network
                    for test in TESTS:
                        run = measure_run(home / test)
                        x, y = map(float, signed_errors(run.predictions))
                        found = dict(run.metrics, x_px=x, y_px=y)
                        self.figures[kind.name, network, test, seed] = found
                    told = (home / 'audit' / 'audit.json').read_text(encoding='utf-8')
                    self.audits[kind.name, network, seed] = json.loads(told)

    def ladder(self, kind: str, arm: str, part: int, key: str) -> np.ndarray:
        """A figure after a part of a training with names swapped, for each seed.

        Args:
            kind: Of data.
            arm: A key of :data:`.networks.SWAPPED`.
            part: 1 is a whole training from the beginning, others go on from kept
                weights of ``MSRAHeatmap``.
            key: As for :attr:`figures`.
        """
        return np.array(
            [self.ladders[kind, arm, part, seed][key] for seed in self.seeds]
        )

    def values(
        self, kind: str, network: str, test: str, key: str = 'median_px'
    ) -> np.ndarray:
        """A figure for each seed."""
        where = kind, network, test
        return np.array([self.figures[(*where, seed)][key] for seed in self.seeds])

    def lower(self, kind: str, network: str, test: str) -> np.ndarray:
        """By how many per cent a median is lower than the toolbox's, for each seed."""
        ours, stock = (self.values(kind, network, one) for one in (test, 'stock'))
        return 100 * (1 - ours / stock)

    def moved(self, kind: str, test: str) -> float:
        """How far a flip test moves predictions of ``MSRAHeatmap`` in x, input px."""
        both = (
            self.values(kind, 'stock_biased', name, 'x_px').mean()
            for name in (test, f'{test}_off')
        )
        return float(np.subtract(*both))

    def jitter(self, kind: str, network: str, reading: str) -> List[Optional[float]]:
        """The jitter on the worse axis, input px, for each seed; None if untold."""
        found = (each.get(reading) for each in self.told(kind, network, 'jitter_px'))
        return [each and max(each.values()) for each in found]

    def told(self, kind: str, network: str, key: str) -> list:
        """What the audit told, for each seed."""
        return [self.audits[kind, network, seed][key] for seed in self.seeds]

    def reported(self, kind: str, network: str) -> bool:
        """Whether the audit reports the labels in each seed."""
        return all('label-offset' in f for f in self.told(kind, network, 'findings'))

    def confused(self) -> List[Tuple[str, str, int]]:
        """Networks of which the audit tells another measure than was trained."""
        return [
            where
            for where, told in self.audits.items()
            if told['measure'] != MEASURES[where[1] == 'stock_udp']
        ]


def draw_medians(results: Results) -> Figure:
    """The median error of each network under each test."""
    columns = len(results.kinds)
    figure = Figure(figsize=(1 + 3.7 * columns, 3.2), layout='constrained')
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax, kind in zip(axes, results.kinds):
        networks = [network for network in networks_of(kind) if network != SHIFTED]
        for index, (test, color) in enumerate(COLORS.items()):
            x = np.arange(len(networks)) + 0.17 * (index - 2)
            values = [results.values(kind.name, n, test) for n in networks]
            means = [each.mean() for each in values]
            ax.bar(x, means, 0.15, color=color, alpha=0.6, label=TESTS[test])
            ax.plot(x, values, 'o', color=color, ms=3)
        names = [LABELS[n].replace('`', '').replace(', ', ',\n') for n in networks]
        ax.set_xticks(range(len(networks)), names)
        ax.set(title=kind.title, ylabel='median error (input px)', ylim=(0, None))
    labels = axes[0].get_legend_handles_labels()
    figure.legend(*labels, frameon=False, ncols=3, loc='outside lower center')
    return figure


def report(
    out: Path,
    kinds: Sequence[Kind],
    data: Dict[str, Data],
    seeds: int,
    command: str,
    seconds: float,
) -> Path:
    """Measure and draw what is in the benchmark's folder; returns the page."""
    results = Results(out, kinds, seeds)
    page = render(
        TEMPLATE,
        out / 'keep.md',
        found=results,
        kinds=kinds,
        networks_of=networks_of,
        labels=LABELS,
        tests=TESTS,
        sizes=data,
        shifted=SHIFTED,
        swapped=SWAPPED,
        ladder=LADDER,
    )
    paths = [page, out / 'results.json', out / 'images' / 'keep_medians.png']
    figures = {'/'.join(map(str, k)): v for k, v in results.figures.items()}
    audits = {'/'.join(map(str, k)): v for k, v in results.audits.items()}
    content = dict(command=command, seconds=round(seconds), machine=machine())
    ladders = {'/'.join(map(str, k)): v for k, v in results.ladders.items()}
    content.update(figures=figures, audits=audits, ladders=ladders)
    write_text(paths[1], json.dumps(content, indent=1) + '\n')
    with matplotlib.rc_context(STYLE), written(paths[2]) as made:
        draw_medians(results).savefig(made)
    # Of the first network, as the audit has drawn it.
    first = kinds[0]
    audit = out / first.name / 'seed0' / first.networks[0] / 'audit' / 'jitter.png'
    if audit.exists():
        paths.append(
            write_bytes(paths[2].with_name('keep_staircase.png'), audit.read_bytes())
        )
    # What was found; the page has all of it.
    say(page.read_text(encoding='utf-8').partition('![')[0])
    for line in (*paths, f'took {seconds / 60:.0f} min'):
        say(line)
    return page
