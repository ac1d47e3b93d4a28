"""What the study found: tables, plots, ``results.json`` and the page ``study.md``."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple, Sequence, Tuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.fileio import load
from rich.console import Console

from udp_plugin import functional as F
from udp_plugin.demo.measures import errors_of, measure, read_predictions
from udp_plugin.functional.loss import OFFSET_WEIGHT
from udp_plugin.ui import STYLE, Table, processor, versions

from .networks import (
    ABLATION,
    ARMS,
    GRID,
    MISMATCHES,
    RADIUS_FACTOR,
    READ,
    TRIED,
    Size,
    own_flip,
    tests,
)
from .readings import CONDITIONS
from .run import CHOSEN_ON, Budget, folder_of, is_chosen_on

#: Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = dict(
    stock_biased='#D55E00',
    stock_dark='#E69F00',
    stock_udp='#CC79A7',
    stock_combined='#999999',
    udp_gaussian='#0072B2',
    udp_gaussian_narrow='#56B4E9',
    udp_offset='#009E73',
)
READING_COLORS = dict(toolbox='#999999', authors='#56B4E9', voting='#009E73')

Figures = Dict[str, float]


class Results(NamedTuple):
    """All figures of a study, by size and seed."""

    sizes: Sequence[Size]
    seeds: Sequence[int]
    #: By ``network/test`` (see :class:`.networks.Test`).
    tests: Dict[Tuple[str, int], Dict[str, Figures]]
    #: By network, condition and reading.
    readings: Dict[Tuple[str, int], Dict[str, Dict[str, Dict[str, Figures]]]]

    def over_seeds(
        self, size: Size, test: str, key: str, held_out: bool = False
    ) -> np.ndarray:
        """A figure of a test for each seed, or for each held-out one."""
        return np.array(
            [
                self.tests[size.name, seed][test][key]
                for seed in self.seeds
                if not held_out or seed != CHOSEN_ON
            ]
        )

    def read(
        self, size: Size, network: str, condition: str, reading: str, key: str
    ) -> np.ndarray:
        """A figure of a reading for each seed."""
        return np.array(
            [
                self.readings[size.name, seed][network][condition][reading][key]
                for seed in self.seeds
            ]
        )


def report(args: Namespace, budget: Budget, seconds: float, console: Console) -> None:
    """Measure, tabulate and draw what is in the study's folder."""
    results = gather(args.out, budget)
    tables = [
        *(grid_table(results, size) for size in results.sizes),
        paired_table(results),
        *(readings_table(results, size) for size in results.sizes),
        *(ablation_table(results, size) for size in results.sizes),
        mismatch_table(results),
        tried_table(results),
    ]
    pictures = args.out / 'images'
    pictures.mkdir(exist_ok=True)
    drawn = [
        draw_medians(pictures, results),
        draw_errors(pictures, results, args.out),
        draw_readings(pictures, results),
    ]
    write_json(args, budget, results, seconds)
    page = args.out / 'study.md'
    page.write_text(write_page(budget, results, tables, seconds), encoding='utf-8')
    # The page has them all.
    for table in tables[: len(results.sizes) + 1]:
        console.print()
        table.print(console)
    console.print(conclusion(results).replace('**', ''), style='bold', soft_wrap=True)
    console.print()
    for path in (page, *drawn, args.out / 'results.json'):
        console.print(str(path), soft_wrap=True)
    console.print(f'took {seconds / 60:.0f} min in all')


# --- figures --------------------------------------------------------------------------


def gather(out: Path, budget: Budget) -> Results:
    """Read what the toolbox's scripts wrote into the study's folder."""
    seeds = range(budget.seeds)
    measured: Dict[Tuple[str, int], Dict[str, Figures]] = {}
    readings = {}
    for size in budget.sizes:
        for seed in seeds:
            folder = folder_of(out, size, seed)
            measured[size.name, seed] = {
                f'{test.network}/{test.name}': _figures(
                    folder / test.network / test.name
                )
                for test in tests(is_chosen_on(budget, size, seed))
            }
            readings[size.name, seed] = {
                network: json.loads(
                    (folder / network / 'readings/readings.json').read_text()
                )
                for network in READ
            }
    return Results(budget.sizes, seeds, measured, readings)


def _figures(folder: Path) -> Figures:
    ap = load(str(folder / 'metrics.json'))['coco/AP']
    return measure(read_predictions(folder / 'predictions.pkl'), ap)


def _own(arm: str, flip: str = '') -> str:
    """The name of the test of a network under its own config."""
    return f'{arm}/{arm}_{flip or own_flip(arm)}'


def _spread(values: np.ndarray, digits: int = 2, scale: float = 1) -> str:
    """Mean and standard deviation over seeds."""
    values = scale * values
    if not len(values):
        return '–'
    if len(values) < 2:
        return f'{values.mean():.{digits}f}'
    return f'{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}'


def _boldest(cells: Dict[str, np.ndarray], shown: Callable[[np.ndarray], str]):
    """The cells as text, the one with the lowest mean in bold."""
    best = min(cells, key=lambda name: cells[name].mean())
    return {
        name: f'**{shown(values)}**' if name == best else shown(values)
        for name, values in cells.items()
    }


# --- tables ---------------------------------------------------------------------------


def grid_table(results: Results, size: Size) -> Table:
    """All arms at one size."""
    medians = {
        flip: _boldest(
            {
                arm: results.over_seeds(
                    size, _own(arm, 'off' if flip == 'off' else ''), 'median_px'
                )
                for arm in GRID
            },
            _spread,
        )
        for flip in ('off', 'on')
    }
    rows = []
    for arm, settings in GRID.items():

        def cell(key, digits=2, scale=1, arm=arm):
            return _spread(results.over_seeds(size, _own(arm), key), digits, scale)

        rows.append(
            [
                settings.label,
                medians['off'][arm],
                medians['on'][arm],
                _spread(
                    results.over_seeds(size, _own(arm), 'median_px', held_out=True)
                ),
                cell('mean_px'),
                cell('p95_px'),
                cell('within_half_px', 1, 100),
                cell('within_1_px', 1, 100),
                cell('ap', 1),
                cell('score_rank'),
            ]
        )
    return Table(
        f'{size.label}',
        [
            'config',
            'median, flip off (px)',
            'median (px)',
            'held-out seeds (px)',
            'mean (px)',
            '95 % (px)',
            'within 0.5 px (%)',
            'within 1 px (%)',
            'AP',
            'score rank',
        ],
        rows,
    )


#: (better, than): median errors with the flip test, seed by seed.
PAIRS = [
    ('udp_gaussian', 'stock_biased'),
    ('udp_offset', 'stock_biased'),
    ('udp_gaussian', 'stock_dark'),
    ('udp_offset', 'stock_dark'),
    ('udp_gaussian', 'stock_udp'),
    ('udp_offset', 'stock_combined'),
    ('udp_offset', 'udp_gaussian'),
    ('udp_offset', 'udp_gaussian_narrow'),
]


def paired_table(results: Results) -> Table:
    """Ratios of median errors, seed by seed."""
    rows = []
    for arm, other in PAIRS:
        row = [f'{GRID[arm].label} against {GRID[other].label}']
        for size in results.sizes:
            for seed in results.seeds:
                figures = results.tests[size.name, seed]
                ratio = (
                    figures[_own(arm)]['median_px'] / figures[_own(other)]['median_px']
                )
                row.append(f'{100 * (ratio - 1):+.0f} %')
        rows.append(row)
    header = [
        f'{size.label}, seed {seed}' + (' (chosen on)' if seed == CHOSEN_ON else '')
        for size in results.sizes
        for seed in results.seeds
    ]
    return Table(
        'Median error with the flip test, seed by seed',
        ['', *header],
        rows,
        f'Loss and reading of the offset codec were chosen on seed {CHOSEN_ON}, its '
        'images included; the other seeds are held out.',
    )


def readings_table(results: Results, size: Size) -> Table:
    """The same maps read in several ways."""
    rows = []
    for network, label in (
        ('udp_offset', 'UDPOffsetHeatmap, its own loss'),
        ('stock_combined', 'stock combined, the published loss'),
    ):
        for condition in CONDITIONS:
            cells = {
                reading: results.read(size, network, condition, reading, 'median_px')
                for reading in F.READINGS
            }
            shown = _boldest(cells, _spread)

            def against(other, cells=cells):
                ratio = 100 * (cells['voting'] / cells[other] - 1)
                return f'{ratio.mean():+.0f} ({ratio.min():+.0f} … {ratio.max():+.0f})'

            def other(key, digits, network=network, condition=condition):
                means = [
                    results.read(size, network, condition, reading, key).mean()
                    for reading in F.READINGS
                ]
                return ' / '.join(f'{mean:.{digits}f}' for mean in means)

            rows.append(
                [
                    f'{label}: {condition}',
                    *(shown[reading] for reading in F.READINGS),
                    against('toolbox'),
                    against('authors'),
                    other('mean_px', 2),
                    other('ap', 1),
                    other('score_rank', 2),
                ]
            )
    width = 2 * RADIUS_FACTOR * max(size.heatmap_size)
    return Table(
        f'Readings of the same maps, {size.label}',
        [
            'network: images',
            *(f"'{reading}' (px)" for reading in F.READINGS),
            'voting against toolbox (%)',
            'voting against authors (%)',
            'mean error (px)',
            'AP',
            'score rank',
        ],
        rows,
        'Median errors with the flip test. The changes are means over seeds, with the '
        "least and the most. Whatever the disc, 'authors' blurs it by 15 px and "
        f"'toolbox' by 23 px; here it is {width:.2g} heatmap px wide. The last three "
        f'columns are of {", ".join(F.READINGS)}, in this order.',
    )


def ablation_table(results: Results, size: Size) -> Table:
    """The paper's ablation: transform and codec, with and without the shift."""
    rows = []
    for (transform, codec), arm in ABLATION.items():
        rows.append(
            [
                'unbiased' if transform else 'biased',
                'unbiased' if codec else 'biased',
                *(
                    _spread(results.over_seeds(size, _own(arm, flip), 'median_px'))
                    for flip in ('off', 'plain', 'shifted')
                ),
            ]
        )
    return Table(
        f'Transform and codec, {size.label}',
        ['transform', 'codec', 'flip off (px)', 'flip (px)', 'flip, shifted (px)'],
        rows,
        'Median errors of Gaussian targets.',
    )


def mismatch_table(results: Results) -> Table:
    """Trained one way and tested the other."""
    rows = []
    for network, arm in MISMATCHES:
        name = f'{network}/{arm}_{own_flip(arm)}'
        for size in results.sizes:
            wrong = results.over_seeds(size, name, 'median_px')
            right = results.over_seeds(size, _own(network), 'median_px')
            ratio = 100 * (wrong / right - 1)
            rows.append(
                [
                    f'trained {_way(network)}, tested {_way(arm)}: {size.label}',
                    _spread(right),
                    _spread(wrong),
                    f'{ratio.mean():+.0f} ({ratio.min():+.0f} … {ratio.max():+.0f})',
                ]
            )
    return Table(
        'Where training and testing disagree',
        ['', 'tested as trained (px)', 'tested the other way (px)', 'change (%)'],
        rows,
        'Median errors with the flip test, of sub-pixel Gaussians read with DARK.',
    )


def _way(arm: str) -> str:
    return 'biased' if ARMS[arm].shift else 'unbiased'


def tried_table(results: Results) -> Table:
    """Losses and radii that were tried."""
    size = results.sizes[0]
    rows = []
    for arm, settings in {**TRIED, 'udp_offset': GRID['udp_offset']}.items():
        figures = results.tests[size.name, CHOSEN_ON][f'{arm}/{arm}_plain']
        label = settings.label if arm in TRIED else 'the default'
        rows.append(
            [
                label,
                *(f'{figures[key]:.2f}' for key in ('median_px', 'mean_px', 'p95_px')),
                f'{100 * figures["within_1_px"]:.1f}',
                f'{figures["ap"]:.1f}',
            ]
        )
    return Table(
        f'Losses of the offset codec, {size.label}, seed {CHOSEN_ON}',
        ['', 'median (px)', 'mean (px)', '95 % (px)', 'within 1 px (%)', 'AP'],
        rows,
        f'The default is the absolute error with weight {OFFSET_WEIGHT:g} and a radius '
        f'of {RADIUS_FACTOR:.2g} of the longer side; each row is that but for what it '
        "says. All are read by 'voting', with the flip test.",
    )


# --- files ----------------------------------------------------------------------------


def machine() -> Dict[str, object]:
    """What the study ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    name, cores = processor()
    return dict(processor=name, cores=cores, gpu=gpu, **versions())


def write_json(
    args: Namespace, budget: Budget, results: Results, seconds: float
) -> None:
    """Write ``results.json``: all figures, and what they were measured with."""
    content = dict(
        command=args.command,
        seeds=list(results.seeds),
        images=budget.images,
        iterations=budget.iters,
        tests={f'{s}/seed{i}': v for (s, i), v in results.tests.items()},
        readings={f'{s}/seed{i}': v for (s, i), v in results.readings.items()},
        seconds=round(seconds),
        machine=machine(),
    )
    (args.out / 'results.json').write_text(json.dumps(content, indent=1) + '\n')


PAGE = """\
# The study: what UDP changes in trained networks

<!-- Written by `udp-plugin study`; `make study` puts it here. -->

{conclusion}

A slim ResNet-18 is trained under each config with an equal budget of {iters} iterations
of 32 on {images} drawn figures whose keypoints are known exactly, and tested on {tests}
others, through MMPose's own `tools/train.py` and `tools/test.py`; for each of {seeds} seeds
figures and weights are drawn anew. Errors are distances in px of the network's input;
figures are mean ± standard deviation over the seeds. *AP* is COCO's, *score rank* is
Spearman's correlation between the scores of keypoints and their negative errors: what a
score is worth for ranking. The flip test is on unless it says otherwise, with the stock
one-pixel shift where the stock configs have it. Gaussians have the zoo's sigma, a 32nd of
the longer side of the maps, but at least 1 heatmap px ({sigma}), and in one row a narrower
one of which DARK makes more here; discs have the default radius, {radius:.2g} of the longer side,
which is the zoo's. DARK's blur fits the sigma everywhere. `UDPHeatmap` reads combined
targets through a fixed blur of 23 px, which is wider than small maps: see the readings.

`udp-plugin study` ({minutes} minutes on {machine}) makes this page.

![Median errors of all configs](images/study_medians.png)

![Distribution of the errors](images/study_errors.png)

{tables}
![Median errors of the readings](images/study_readings.png)
"""  # noqa: E501


def conclusion(results: Results) -> str:
    """What the figures say, in a few sentences."""
    lines = []
    for size in results.sizes:
        medians = {
            arm: results.over_seeds(size, _own(arm), 'median_px') for arm in GRID
        }
        mean = {arm: f'{values.mean():.2f}' for arm, values in medians.items()}
        gain = medians['stock_biased'] / medians['udp_offset']
        gaussian = np.minimum(medians['udp_gaussian'], medians['udp_gaussian_narrow'])
        change = 100 * (medians['udp_offset'] / gaussian - 1)
        lines.append(
            f'At {size.label} the median error with the flip test is '
            f'{mean["stock_biased"]} px with `MSRAHeatmap`, {mean["stock_dark"]} with '
            f'DARK, {mean["udp_gaussian"]} with `UDPGaussianHeatmap` '
            f'({mean["udp_gaussian_narrow"]} with a narrower Gaussian) and '
            f'**{mean["udp_offset"]}** with `UDPOffsetHeatmap`: by seed, '
            f'{gain.min():.1f} to {gain.max():.1f} times less than the first, and '
            f'{change.min():+.0f} to {change.max():+.0f} % against the better Gaussian.'
        )
    return '\n\n'.join(lines)


def write_page(
    budget: Budget, results: Results, tables: Sequence[Table], seconds: float
) -> str:
    """The result page in Markdown."""
    found = machine()
    name = found['gpu'] or f'{found["cores"]} cores of an {found["processor"]}'
    return PAGE.format(
        conclusion=conclusion(results),
        sigma='; '.join(f'{size.sigma:g} at {size.label}' for size in budget.sizes),
        radius=RADIUS_FACTOR,
        iters=budget.iters,
        images=budget.images,
        tests=max(budget.images // 3, 1),
        seeds=budget.seeds,
        minutes=round(seconds / 60),
        machine=f'{name}, torch {found["torch"]}',
        tables='\n'.join(table.markdown() for table in tables),
    )


# --- plots ----------------------------------------------------------------------------


def _panels(results: Results, width: float, height: float):
    figure = Figure(figsize=(width * len(results.sizes), height), layout='constrained')
    axes = figure.subplots(1, len(results.sizes), squeeze=False)[0]
    for ax, size in zip(axes, results.sizes):
        ax.set_title(size.label)
    return figure, list(zip(axes, results.sizes))


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, facecolor='white')
    return path


def draw_medians(folder: Path, results: Results) -> Path:
    """The median error of each arm, with the flip test and without."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(results, 5.2, 2.9)
        for ax, size in panels:
            for row, arm in enumerate(GRID):
                for flip, offset in (('off', -0.16), ('', 0.16)):
                    values = results.over_seeds(size, _own(arm, flip), 'median_px')
                    style = dict(color=COLORS[arm], mfc='none' if flip else COLORS[arm])
                    ax.barh(
                        row + offset,
                        values.mean(),
                        height=0.3,
                        color=COLORS[arm],
                        alpha=0.2 if flip else 0.55,
                    )
                    ax.plot(values, [row + offset] * len(values), 'o', ms=4, **style)
            ax.set(xlabel='median error (input px)', xlim=(0, None))
            ax.set_yticks(range(len(GRID)), [arm.label for arm in GRID.values()])
            ax.invert_yaxis()
            ax.grid(axis='x', color='0.9')
        for ax, _ in panels[1:]:
            ax.set_yticklabels([])
        panels[-1][0].plot([], [], 'o', color='0.4', label='flip test')
        panels[-1][0].plot([], [], 'o', color='0.4', mfc='none', label='without')
        figure.legend(frameon=False, ncols=2, loc='outside lower right')
        return _save(figure, folder / 'study_medians.png')


def draw_errors(folder: Path, results: Results, out: Path) -> Path:
    """The share of keypoints within a distance, of all seeds."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(results, 4.6, 3.4)
        for ax, size in panels:
            for arm, settings in GRID.items():
                errors = np.concatenate(list(_errors(results, out, size, arm)))
                share = 100 * np.arange(1, len(errors) + 1) / len(errors)
                ax.step(np.sort(errors), share, color=COLORS[arm], label=settings.label)
            ax.set(xscale='log', xlim=(0.05, 20), ylim=(0, 100))
            ax.set(xlabel='error (input px)', ylabel='keypoints within it (%)')
            ax.xaxis.set_major_formatter('{x:g}')
            ax.grid(color='0.9')
        panels[0][0].legend(frameon=False, fontsize=7)
        return _save(figure, folder / 'study_errors.png')


def _errors(results: Results, out: Path, size: Size, arm: str) -> Iterator[np.ndarray]:
    for seed in results.seeds:
        folder = folder_of(out, size, seed) / _own(arm)
        yield errors_of(read_predictions(folder / 'predictions.pkl'))


def draw_readings(folder: Path, results: Results) -> Path:
    """The median error of each reading under each condition."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(results, 4.6, 3)
        for ax, size in panels:
            for i, reading in enumerate(F.READINGS):
                x = np.arange(len(CONDITIONS)) + 0.25 * (i - 1)
                values = np.array(
                    [
                        results.read(size, 'udp_offset', c, reading, 'median_px')
                        for c in CONDITIONS
                    ]
                )
                color = READING_COLORS[reading]
                ax.bar(x, values.mean(1), 0.22, color=color, alpha=0.5, label=reading)
                ax.plot(x, values, 'o', color=color, ms=3)
            ax.set_xticks(range(len(CONDITIONS)), CONDITIONS)
            ax.set(ylabel='median error (input px)', ylim=(0, None))
            ax.grid(axis='y', color='0.9')
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(
            handles, labels, frameon=False, ncols=3, loc='outside lower center'
        )
        return _save(figure, folder / 'study_readings.png')
