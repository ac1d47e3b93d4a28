"""Figures of what an audit measured, for slides."""

from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mmpose.codecs import MSRAHeatmap

from udp_plugin import functional as F
from udp_plugin import ui
from udp_plugin.codecs import UDPGaussianHeatmap
from udp_plugin.files import written

from . import crops
from .crops import COLORS, in_px
from .errors import statistics
from .measures import pixels_of
from .result import Audit
from .theory import expected_flip
from .trained import movement
from .warps import PIXELS, UNIT_LENGTH

#: For slides, larger than what pages have.
STYLE = {
    **ui.STYLE,
    'font.size': 14,
    'axes.titlesize': 15,
    'axes.labelsize': 15,
    'axes.axisbelow': True,
    'grid.color': '0.92',
    'legend.fontsize': 14,
    'legend.frameon': False,
}
#: Of what is compared in :func:`_subpixel`: sigma, and at how many positions.
SIGMA = 2
COMPARED = 320
#: Errors below this many input px are none.
LEAST = 1e-6
#: What the bars of the flip test are called, by Flip's fields.
FLIPS = {
    'alone': 'mirrored\nalone',
    'shifted': 'mirrored,\nshifted',
    'averaged': 'averaged',
    'averaged_shifted': 'averaged,\nshifted',
    'configured': 'as\nconfigured',
}


def draw(audits: Sequence[Audit], folder: Path) -> List[Path]:
    """Draw what was measured, of one audit or of two to compare.

    Returns:
        The files: ``subpixel``, ``flip`` and ``errors``, of each audit ``crop`` and
        ``targets``, and ``jitter`` where there are trained weights.
    """
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, figure in _figures(audits):
            paths.append(folder / f'{name}.png')
            with written(paths[-1]) as made:
                figure.savefig(made, bbox_inches='tight', facecolor='white')
    return paths


def _figures(audits: Sequence[Audit]) -> Iterator[Tuple[str, Figure]]:
    drawn = dict(coding=_subpixel, flip=_flip_bars, end_to_end=_distributions)
    for (needed, figure_of), name in zip(drawn.items(), ('subpixel', 'flip', 'errors')):
        some = [found for found in audits if getattr(found, needed) is not None]
        if some:
            yield name, figure_of(some)
    ended = [found for found in audits if found.end_to_end is not None]
    for index, found in enumerate(ended, 1):
        number = f'_{index}' if len(ended) > 1 else ''
        person = max(found.end_to_end.persons, key=lambda person: person.area)
        yield f'crop{number}', crops.flip_on_crop(found, person)
        yield f'targets{number}', crops.targets(found, person)
    for found in audits:
        if found.trained is not None and found.trained.configured is not None:
            yield 'jitter', _staircases(found)


# --- errors within a pixel ------------------------------------------------------------


def _subpixel(audits: Sequence[Audit]) -> Figure:
    """Errors of coding on the x axis against where in its pixel a keypoint is.

    A single config is shown beside a stock codec of the other kind, of the same sizes.
    """
    # Of each its name, the places within a pixel, the errors there, and its measure.
    curves = [
        (name, _phase(one, one.coding.kind), one.coding.errors[:, 0], one.unbiased)
        for name, one in zip(_labels(audits), audits)
    ]
    pixel = max(one.parts.stride(one.unbiased)[0] for one in audits)
    if len(curves) == 1:
        curves.append(_other_curve(audits[0]))
    colors = _colors([unbiased for *_, unbiased in curves])
    figure = Figure(figsize=(10, 5.6), layout='constrained')
    ax = figure.subplots()
    ax.axhline(0, color='0.6', linewidth=1)
    labels, extent = [], 0.55 * pixel
    # The first one's on top, and smaller, lest it hide what it coincides with.
    for order, ((name, phase, errors, _), color) in enumerate(zip(curves, colors)):
        style = dict(markersize=3 + 2 * order, markeredgewidth=0, color=color)
        ax.plot(phase, errors, 'o', zorder=3 - 0.1 * order, **style)
        errors, mean = np.abs(errors[np.isfinite(errors)]), 'reads nothing'
        if len(errors):
            # Rare errors without bound are not what the figure is about.
            extent = max(extent, min(1.15 * errors.max(), 3 * pixel))
            mean = f'mean |error| {in_px(errors.mean())}'
        labels.append(f'{name}: {mean}')
    ax.set(xlim=(-0.5, 0.5), ylim=(-extent, extent))
    ax.set_xlabel('keypoint from the centre of its pixel (heatmap px)')
    ax.set_ylabel('error in x (input px)')
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5], ['−½', '−¼', '0', '¼', '½'])
    ax.locator_params(axis='y', nbins=8, steps=[1, 2, 5, 10])
    ax.grid()
    _legend(figure, colors, labels)
    return figure


def _phase(found: Audit, kind: str) -> np.ndarray:
    """x within a heatmap px, -0.5 to 0.5, of where keypoints were coded."""
    place = pixels_of(found.parts, kind, found.coding.positions)[:, 0]
    return place - np.round(place)


def _other_curve(found: Audit) -> Tuple[str, np.ndarray, np.ndarray, bool]:
    """The stock Gaussian if the config's coding is accurate, else ours."""
    parts = found.parts
    mean = statistics(np.abs(found.coding.errors[:, 0]))['mean']
    accurate = mean is not None and mean < 0.1 * parts.stride(found.unbiased)[0]
    codec = (MSRAHeatmap if accurate else UDPGaussianHeatmap)(
        parts.input_size, parts.heatmap_size, sigma=SIGMA
    )
    phase = _phase(found, PIXELS if accurate else UNIT_LENGTH)
    # As even in phase as they come, so that few make a line.
    order = np.argsort(phase)
    order = order[np.linspace(0, len(order) - 1, COMPARED).round().astype(int)]
    positions = found.coding.positions[order]
    maps = codec.encode(positions[None].astype(np.float32))['heatmaps']
    places = codec.decode(maps)[0][0]
    if not accurate:
        places = F.toolbox_to_input(places, parts.input_size)
    name = f'{type(codec).__name__}, to compare'
    return name, phase[order], (places - positions)[:, 0], not accurate


# --- the flip test in numbers ---------------------------------------------------------


def _flip_bars(audits: Sequence[Audit]) -> Figure:
    """How far mirrored maps are from direct ones on the x axis, on average."""
    colors = _colors([one.unbiased for one in audits])
    figure = Figure(figsize=(9.5, 5.2), layout='constrained')
    ax = figure.subplots()
    width, tops, known = 0.8 / len(audits), [0.1], False
    for index, (one, color) in enumerate(zip(audits, colors)):
        theory = expected_flip(one.parts, one.coding)
        for place, name in enumerate(FLIPS):
            errors = getattr(one.flip, name)
            x = place + (index - (len(audits) - 1) / 2) * width
            mean = None if errors is None else statistics(np.abs(errors[:, 0]))['mean']
            text = 'off' if errors is None else 'failed'
            height, text = (0.0, text) if mean is None else (mean, f'{mean:.2f}')
            ax.bar(x, height, 0.92 * width, color=color)
            expected = theory[name].x if name in theory else None
            tops.append(max(height, expected or 0.0))
            above = dict(xytext=(0, 5), textcoords='offset points', ha='center')
            ax.annotate(text, (x, tops[-1]), color=color, weight='bold', **above)
            if expected is not None:
                known = True
                ends = [x - 0.46 * width, x + 0.46 * width]
                ax.plot(ends, [expected] * 2, color='black', linewidth=2.5)
    ax.set_xticks(range(len(FLIPS)), list(FLIPS.values()))
    ax.tick_params(axis='x', length=0)
    ax.set(ylim=(0, 1.12 * max(tops)), xlim=(-0.5, len(FLIPS) - 0.5))
    ax.set_ylabel('misalignment in x (input px)')
    ax.grid(axis='y')
    theory = [('black', 'theory')] if known else []
    _legend(figure, *zip(*zip(colors, _labels(audits)), *theory))
    return figure


# --- distributions of errors ----------------------------------------------------------


def _distributions(audits: Sequence[Audit]) -> Figure:
    """Distributions of errors: of encoding and decoding alone, and end to end."""
    colors = _colors([one.unbiased for one in audits])
    panels = {
        'encode, decode': [one.coding.errors for one in audits],
        'end to end': [one.end_to_end.input_px for one in audits],
    }
    figure = Figure(figsize=(11, 5), layout='constrained')
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    # Shares on a log axis, since errors lie five powers of ten apart: a curve says
    # how many keypoints are within a distance, whatever bins would be.
    drawn = [_distances(one) for errors in panels.values() for one in errors]
    high = max(10.0, 1.5 * np.percentile(np.concatenate([*drawn, [0]]), 99.9))
    for ax, (title, errors) in zip(axes, panels.items()):
        for index, (color, one) in enumerate(zip(colors, errors)):
            distances = _distances(one)
            if not len(distances):
                continue
            # Of all, read or not.
            share = 100 * np.arange(1, len(distances) + 1) / len(one)
            at = [1e-9, *np.maximum(distances, 1e-9), 1e9]
            # Curves may coincide.
            style = dict(color=color, linewidth=1 + 2 * (len(errors) - index))
            ax.step(at, [0, *share, share[-1]], where='post', **style)
            middle = len(distances) // 2
            median = float(distances[middle])
            if median > LEAST:
                ax.plot(median, share[middle], 'o', color=color, markersize=10)
            # In a row above, where texts cannot meet.
            place = (index + 0.5) / len(errors), 1.03
            style = dict(color=color, weight='bold', transform=ax.transAxes)
            ax.text(*place, f'median {in_px(median)}', ha='center', **style)
        ax.set_title(title, pad=34)
        ax.set_xlabel('error (input px)')
        ax.grid()
    axes[0].set(xscale='log', xlim=(LEAST, high), ylim=(0, 103))
    axes[0].set_ylabel('keypoints within it (%)')
    ticks = [tick for tick in (1e-6, 1e-4, 0.01, 1, 100) if tick <= high]
    axes[0].set_xticks(ticks, ['10⁻⁶', *(f'{tick:g}' for tick in ticks[1:])])
    axes[0].minorticks_off()
    _legend(figure, colors, _labels(audits))
    return figure


def _distances(errors: np.ndarray) -> np.ndarray:
    """Lengths of finite errors (M, 2), sorted."""
    distances = np.linalg.norm(errors, axis=-1)
    return np.sort(distances[np.isfinite(distances)])


# --- a trained network ----------------------------------------------------------------


def _staircases(found: Audit) -> Figure:
    """Predicted against true displacement of a typical keypoint on each axis."""
    trained, stride = found.trained, found.parts.stride(unbiased=False)
    names = dict(configured='as configured', kept='weights kept (--keep-weights)')
    figure = Figure(figsize=(10, 5.9), layout='constrained')
    colors, labels = [], []
    axes, stairs = figure.subplots(1, 2), trained.stairs()
    for order, (name, one) in enumerate(trained.readings.items()):
        color = COLORS[name == 'kept'][0]
        x, y = one.jitter
        colors.append(color)
        labels.append(f'{names[name]}: jitter {x:.2f} px in x, {y:.2f} px in y')
        style = dict(color=color, marker='o', markersize=6, linewidth=2.5)
        for ax, places, pixel in zip(axes, stairs[name], stride):
            ax.plot(movement() * pixel, places * pixel, zorder=3 + order, **style)
    for ax, axis, pixel in zip(axes, 'xy', stride):
        ends = np.array([-1.3, 1.3]) * pixel
        ax.plot(ends, ends, color='0.6', linewidth=5, zorder=1, alpha=0.6)
        ax.set(xlim=ends, ylim=ends, aspect='equal')
        ticks = np.arange(-1, 1.5, 0.5) * pixel
        texts = [f'{tick:.3g}'.replace('-', '−') for tick in ticks]
        ax.set_xticks(ticks, texts)
        ax.set_yticks(ticks, texts)
        ax.grid()
        ax.set_xlabel(f'true displacement in {axis} (input px)')
    axes[0].set_ylabel('predicted displacement (input px)')
    _legend(figure, [*colors, '0.6'], [*labels, 'what moves, and a perfect prediction'])
    return figure


# --- what all have --------------------------------------------------------------------


def _colors(unbiased: Sequence[bool]) -> List[str]:
    """A colour for each config."""
    return [
        COLORS[one][unbiased[:index].count(one) % len(COLORS[one])]
        for index, one in enumerate(unbiased)
    ]


def _labels(audits: Sequence[Audit]) -> List[str]:
    """Names as matplotlib shows them as they are, not too long, and different."""
    labels: List[str] = []
    for found in audits:
        # The font lacks others.
        name = found.name.encode('latin-1', 'replace').decode('latin-1')
        if len(name) > 60:
            name = f'{name[:28]}…{name[-30:]}'
        # What starts with an underscore is left out of legends.
        name = f' {name}' if name.startswith('_') else name
        labels.append(f'{name} (2)' if name in labels else name)
    return labels


def _legend(figure: Figure, colors: Sequence[str], labels: Sequence[str]) -> None:
    handles = [Line2D([], [], color=color, linewidth=5) for color in colors]
    legend = figure.legend(handles, labels, loc='outside upper center')
    for text in legend.get_texts():
        text.set_parse_math(False)
