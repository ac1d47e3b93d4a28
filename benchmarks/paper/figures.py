"""The figures of the page, by their names; lines that lie on each other stay visible.

Each is drawn under :data:`udp_plugin.ui.STYLE`.
"""

import numpy as np
from matplotlib.figure import Figure

from udp_plugin import functional as F
from udp_plugin.audit.measures import UNIT_LENGTH
from udp_plugin.audit.theory import expected_flip

from . import measure as m
from .measure import FLIPS, STRIDE, Measured, along, flip_distance, near, text_of

#: Mean errors below this are drawn as this, input px.
LEAST = 1e-3


def _finish(figure: Figure, columns: int, scale: float = 1) -> Figure:
    for ax in figure.axes:
        ax.grid(color='0.92')
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        frameon=False,
        ncols=columns,
        markerscale=scale,
        loc='outside lower center',
    )
    return figure


def draw_flip(measured: Measured) -> Figure:
    """Distances of mirrored maps against the stride; lines are theory."""
    size, strides = measured.plan.input_size, measured.plan.strides
    styles = zip(('#D55E00', '#E69F00', '#0072B2', '#56B4E9'), (9, 6.5, 5, 3))
    styles = dict(zip(FLIPS, styles))
    figure = Figure(figsize=(8.4, 3.6), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for ax, pipeline, title in zip(panels, m.FLIPPED, ('biased', 'unbiased')):
        ax.set_title(f'{title}: {pipeline.label}, {text_of(size)}')
        audits = measured.by_stride(pipeline)
        expected = [expected_flip(one.parts, one.coding) for one in audits]
        for name, (color, width) in styles.items():
            theory = [one[name].x for one in expected]
            ax.plot(strides, theory, color=color, linewidth=1)
            found = [flip_distance(one, name) for one in audits]
            style = dict(color=color, markersize=width, label=FLIPS[name])
            ax.plot(strides, found, 'o', **style)
        ax.set(xscale='log', xlabel='stride')
        ax.set_xticks(strides, list(map(str, strides)))
        ax.minorticks_off()
    panels[0].set_ylabel('distance along x (input px)')
    panels[0].plot([], [], color='0.4', linewidth=1, label='theory')
    return _finish(figure, columns=5)


def draw_coding(measured: Measured) -> Figure:
    """Errors against the sub-pixel position, and mean errors with noise."""
    size, strides = measured.plan.input_size, measured.plan.strides
    figure = Figure(figsize=(9.6, 3.8), layout='constrained')
    first, *others = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    for index, pipeline in enumerate(m.CODED):
        found = measured(pipeline, size)
        coding, parts = found.coding, found.parts
        unbiased = coding.kind == UNIT_LENGTH
        pixel = F.stride(size, parts.heatmap_size, unbiased)[0]
        place = coding.positions[:, 0] / pixel % 1
        order = np.argsort(place)[::4]
        style = dict(color=pipeline.color, markersize=7 - 0.9 * index)
        errors = coding.errors[order, 0]
        first.plot(place[order], errors, '.', label=pipeline.label, **style)
        for ax, which in zip(others, ('errors', 'noisy')):
            audits = measured.by_stride(pipeline)
            means = [np.abs(getattr(one.coding, which)).mean() for one in audits]
            ax.plot(strides, np.maximum(means, LEAST), 'o-', **style)
    first.set(
        title=f'perfect maps, stride {STRIDE}',
        xlabel='sub-pixel position (heatmap px)',
        ylabel='error along x (input px)',
    )
    others[0].set(title='perfect maps', ylabel='mean error an axis (input px)')
    others[1].set(title='with noise')
    ticks = {LEAST: f'≤ {LEAST:g}', 0.01: '0.01', 0.1: '0.1', 1: '1', 10: '10'}
    for ax in others:
        ax.set(xscale='log', yscale='log', xlabel='stride', ylim=(0.8 * LEAST, 10))
        ax.set_xticks(strides, list(map(str, strides)))
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.tick_params(axis='x', which='minor', bottom=False, labelbottom=False)
    return _finish(figure, columns=4, scale=1.5)


def draw_transform(measured: Measured) -> Figure:
    """Errors of random people along the input."""
    figure = Figure(figsize=(8.4, 3.6), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axis, (ax, name) in enumerate(zip(panels, 'xy')):
        for pipeline in m.WARPED:
            style = dict(color=pipeline.color, label=pipeline.label, markersize=2)
            ax.plot(*along(measured.random(pipeline), axis), '.', **style)
        ax.set(xlabel=f'{name} of the keypoint in the input (px)')
        ax.set_title(f'along {name}')
    panels[0].set_ylabel('error (input px)')
    return _finish(figure, columns=3, scale=5)


def draw_ceiling(measured: Measured) -> Figure:
    """COCO AP, mean OKS and precision of a perfect network against the input size."""
    sizes = sorted(measured.plan.ends)
    panels = {
        'COCO AP': lambda one: one.ap,
        'mean OKS': lambda one: one.end_to_end.oks.mean(),
        'keypoints within 1 input px (%)': lambda one: near(one, 1),
    }
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    for ax, (title, value) in zip(figure.subplots(1, 3), panels.items()):
        for index, pipeline in enumerate(m.ENDED):
            ax.plot(
                range(len(sizes)),
                [value(measured(pipeline, size)) for size in sizes],
                '--' if pipeline.shift is False else '-',
                marker='o',
                markersize=8 - 0.7 * index,
                color=pipeline.color,
                label=pipeline.label,
            )
        ax.set(title=title, xlabel='network input (px)')
        ax.set_xticks(range(len(sizes)), list(map(text_of, sizes)), fontsize=7.5)
    return _finish(figure, columns=3)


FIGURES = (draw_flip, draw_coding, draw_transform, draw_ceiling)
