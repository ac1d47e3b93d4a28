"""The figures of the page; each is drawn under :data:`udp_plugin.ui.STYLE`."""

import numpy as np
from matplotlib.figure import Figure

from udp_plugin import functional as F

from .networks import GRID, own_test
from .readings import CONDITIONS

#: Okabe and Ito's, which colour-blind readers can tell apart.
_COLORS = '#D55E00 #E69F00 #CC79A7 #999999 #0072B2 #56B4E9 #009E73'
COLORS = dict(zip(GRID, _COLORS.split(' ')))
READING_COLORS = dict(toolbox='#999999', authors='#56B4E9', voting='#009E73')


def _panels(results, width: float, height: float):
    sizes = results.budget.sizes
    figure = Figure(figsize=(width * len(sizes), height), layout='constrained')
    axes = figure.subplots(1, len(sizes), squeeze=False)[0]
    for ax, size in zip(axes, sizes):
        ax.set_title(str(size))
        ax.grid(color='0.9')
    return figure, list(zip(axes, sizes))


def draw_medians(results) -> Figure:
    """The median error of each arm, with the flip test and without."""
    figure, panels = _panels(results, 5.2, 2.9)
    for ax, size in panels:
        for row, arm in enumerate(GRID):
            color = COLORS[arm]
            for flip, at, alpha in (('off', row - 0.16, 0.2), ('', row + 0.16, 0.55)):
                values = results.values(size, own_test(arm, flip).name)
                ax.barh(at, values.mean(), height=0.3, color=color, alpha=alpha)
                face = 'none' if flip else color
                ax.plot(values, [at] * len(values), 'o', ms=4, color=color, mfc=face)
        ax.set(xlabel='median error (input px)', xlim=(0, None))
        labels = [arm.label for arm in GRID.values()] if ax is panels[0][0] else []
        ax.set_yticks(range(len(GRID)), labels or [''] * len(GRID))
        ax.invert_yaxis()
    ax.plot([], [], 'o', color='0.4', label='flip test')
    ax.plot([], [], 'o', color='0.4', mfc='none', label='without')
    figure.legend(frameon=False, ncols=2, loc='outside lower right')
    return figure


def draw_errors(results) -> Figure:
    """The share of keypoints within a distance, of all seeds."""
    figure, panels = _panels(results, 4.6, 3.4)
    for ax, size in panels:
        for arm, settings in GRID.items():
            seeds = range(results.budget.seeds)
            name = own_test(arm).name
            errors = [results.errors[size.name, seed][name] for seed in seeds]
            errors = np.sort(np.concatenate(errors))
            share = 100 * np.arange(1, len(errors) + 1) / len(errors)
            ax.step(errors, share, color=COLORS[arm], label=settings.label)
        ax.set(xscale='log', xlim=(0.05, 20), ylim=(0, 100))
        ax.set(xlabel='error (input px)', ylabel='keypoints within it (%)')
        ax.xaxis.set_major_formatter('{x:g}')
    panels[0][0].legend(frameon=False, fontsize=7)
    return figure


def draw_readings(results) -> Figure:
    """The median error of each reading under each condition."""
    figure, panels = _panels(results, 4.6, 3)
    for ax, size in panels:
        for i, reading in enumerate(F.READINGS):
            names = [f'udp_offset/readings/{c}/{reading}' for c in CONDITIONS]
            values = np.array([results.values(size, name) for name in names])
            x = np.arange(len(CONDITIONS)) + 0.25 * (i - 1)
            color = READING_COLORS[reading]
            ax.bar(x, values.mean(1), 0.22, color=color, alpha=0.5, label=reading)
            ax.plot(x, values, 'o', color=color, ms=3)
        ax.set_xticks(range(len(CONDITIONS)), CONDITIONS)
        ax.set(ylabel='median error (input px)', ylim=(0, None))
    labels = panels[0][0].get_legend_handles_labels()
    figure.legend(*labels, frameon=False, ncols=3, loc='outside lower center')
    return figure


FIGURES = (draw_medians, draw_errors, draw_readings)
