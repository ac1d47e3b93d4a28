"""Figures of what an audit measured, for slides."""

from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from mmpose.codecs import MSRAHeatmap
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs import UDPGaussianHeatmap
from udp_plugin.ui import STYLE

from .measures import (
    CELLS,
    PIXELS,
    UNIT_LENGTH,
    Coding,
    EndToEnd,
    Flip,
    Person,
    locate,
)
from .parts import Parts

STYLE = {
    **STYLE,
    'font.size': 14,
    'axes.titlesize': 15,
    'axes.labelsize': 15,
    'legend.fontsize': 14,
}
#: Okabe and Ito's, which colour-blind readers can tell apart: of configs that measure
#: by unit length, and of others, in the order in which they come.
UNBIASED = ('#0072B2', '#009E73', '#56B4E9')
BIASED = ('#D55E00', '#CC79A7', '#E69F00')
#: Lines of Gaussians are drawn at these parts of the peak; of a disc, its edge.
LEVELS = (0.3, 0.6, 0.9)
#: Of what is compared in :func:`draw_subpixel`: sigma, and at how many positions.
SIGMA = 2
COMPARED = 320
#: Maps that are made at once, in numbers.
NUMBERS_AT_ONCE = 2**22
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


class _Curve(NamedTuple):
    """Errors against sub-pixel positions: phase (M,) in heatmap px, error (M,)."""

    name: str
    phase: np.ndarray
    error: np.ndarray
    unbiased: bool


# --- 1. errors within a pixel ---------------------------------------------------------


def draw_subpixel(path: Path, codings: Mapping[str, Tuple[Parts, Coding]]) -> None:
    """Errors of coding on the x axis against where in its pixel a keypoint is.

    A single config is shown beside a stock codec of the other kind, of the same sizes.

    Args:
        path: The PNG.
        codings: Configs by name.
    """
    curves = [
        _Curve(
            name,
            _phase(coding.positions, parts, coding.kind),
            coding.errors[:, 0],
            coding.kind == UNIT_LENGTH,
        )
        for name, (parts, coding) in codings.items()
    ]
    pixel = max(_stride(parts, coding.kind)[0] for parts, coding in codings.values())
    if len(curves) == 1:
        curves.append(_other_curve(*next(iter(codings.values()))))
    colors = _colors([curve.unbiased for curve in curves])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), layout='constrained')
        ax = figure.subplots()
        ax.axhline(0, color='0.6', linewidth=1)
        handles, labels, extent = [], [], 0.55 * pixel
        # The first one's on top, and smaller, lest it hide what it coincides with.
        for order, (curve, color) in enumerate(zip(curves, colors)):
            known = np.isfinite(curve.error)
            ax.plot(
                curve.phase[known],
                curve.error[known],
                'o',
                color=color,
                markersize=3 + 2 * order,
                markeredgewidth=0,
                zorder=3 - 0.1 * order,
            )
            handles.append(Line2D([], [], color=color, linewidth=5))
            errors = np.abs(curve.error[known])
            if len(errors):
                # Rare errors without bound are not what the figure is about.
                extent = max(extent, min(1.15 * errors.max(), 3 * pixel))
            mean = (
                f'mean |error| {_px(errors.mean())}' if len(errors) else 'reads nothing'
            )
            labels.append(f'{_label(curve.name)}: {mean}')
        ax.set(
            xlim=(-0.5, 0.5),
            ylim=(-extent, extent),
            xlabel='keypoint from the centre of its pixel (heatmap px)',
            ylabel='error in x (input px)',
        )
        ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5], ['−½', '−¼', '0', '¼', '½'])
        ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        ax.grid(color='0.92')
        ax.set_axisbelow(True)
        _legend(figure, handles, labels)
        _save(figure, path)


def _phase(positions: np.ndarray, parts: Parts, kind: str) -> np.ndarray:
    """x within a heatmap px, -0.5 to 0.5, of positions (M, 2) in input px."""
    place = positions[:, 0] / _stride(parts, kind)[0] - (0.5 if kind == CELLS else 0)
    return place - np.round(place)


def _stride(parts: Parts, kind: str) -> np.ndarray:
    return F.stride(parts.input_size, parts.heatmap_size, kind == UNIT_LENGTH)


def _other_curve(parts: Parts, coding: Coding) -> _Curve:
    """The stock Gaussian if the config's coding is accurate, else ours."""
    errors = np.abs(coding.errors[:, 0])
    errors = errors[np.isfinite(errors)]
    accurate = len(errors) > 0 and errors.mean() < 0.1 * _stride(parts, coding.kind)[0]
    sizes = dict(input_size=parts.input_size, heatmap_size=parts.heatmap_size)
    codec = (MSRAHeatmap if accurate else UDPGaussianHeatmap)(**sizes, sigma=SIGMA)
    kind = PIXELS if accurate else UNIT_LENGTH
    # As even in phase as they come, so that few make a line.
    order = np.argsort(_phase(coding.positions, parts, kind))
    order = order[np.linspace(0, len(order) - 1, COMPARED).round().astype(int)]
    positions = coding.positions[order]
    width, height = parts.heatmap_size
    size = max(NUMBERS_AT_ONCE // (width * height), 1)
    read = []
    for start in range(0, len(positions), size):
        points = positions[None, start : start + size].astype(np.float32)
        read.append(codec.decode(codec.encode(points)['heatmaps'])[0][0])
    found = np.concatenate(read)
    if not accurate:
        found = F.toolbox_to_input(found, parts.input_size)
    return _Curve(
        f'{type(codec).__name__}, to compare',
        _phase(positions, parts, kind),
        (found - positions)[:, 0],
        not accurate,
    )


# --- 2. the flip test on a crop -------------------------------------------------------


def draw_flip(path: Path, parts: Parts, coding: Coding, person: Person) -> None:
    """Direct maps, and mirrored ones flipped back, over the network's input.

    Args:
        path: The PNG.
        parts: The config's.
        coding: Its coding.
        person: On the way through the config.
    """
    points, mirrored = _points(parts, person)
    maps = parts.encode(points, np.ones(points.shape[:2]))
    back = F.flip_maps(
        parts.encode(
            np.nan_to_num(mirrored, nan=-1e4), np.isfinite(mirrored[..., 0]) * 1.0
        ),
        parts.flip_indices(),
        parts.channels,
    )
    both = (maps, back)
    found = [locate(parts, coding, one)[0, parts.outputs] for one in both]
    off = np.linalg.norm(found[1] - found[0], axis=-1)
    color = (UNBIASED if coding.kind == UNIT_LENGTH else BIASED)[0]
    styles = (
        dict(colors='black', linewidths=2.6),
        dict(colors=color, linewidths=2.6, linestyles='--'),
    )
    stride = _stride(parts, coding.kind)
    keypoints = person.warped.keypoints
    half = _reach(parts, maps) * stride.max()
    chosen = _choose(parts, person, half, 4)
    with matplotlib.rc_context(STYLE):
        columns = 1 if len(chosen) == 1 else 2
        sheet = _sheet(person, -(-len(chosen) // 2) or 1, columns, (0.25, 0.55))
        _draw_crop(sheet.crop, parts, person, chosen, half)
        image = _rgb(person.warped.image).mean(-1)
        for number, (ax, k) in enumerate(zip(sheet.panels.flat, chosen), 1):
            # Pale, so that lines stand out.
            ax.imshow(image, cmap='gray', vmin=-300, vmax=255)
            for one, style, places in zip(both, styles, found):
                heat = one[0, parts.outputs[k] * parts.channels].numpy()
                _draw_lines(ax, heat, parts, coding, keypoints[k], half, **style)
                _dot(ax, places[k], style['colors'])
            _window(ax, keypoints[k], half)
            ax.set(xticks=[], yticks=[])
            apart = f'{off[k]:.2f} px apart' if np.isfinite(off[k]) else 'not found'
            ax.set_title(f'{number}: {apart}', color=color)
        for ax in sheet.panels.flat[len(chosen) :]:
            ax.set_axis_off()
        counted = off[person.labelled & _inside(parts, keypoints)]
        counted = counted[np.isfinite(counted)]
        mean = ''
        if len(counted):
            mean = f':\non average {_px(counted.mean())} of the input apart'
        handles = [
            Line2D([], [], color=style['colors'], linewidth=2.6, linestyle=line)
            for style, line in zip(styles, ('-', '--'))
        ]
        labels = ['map of the input', f'map of its mirror image, flipped back{mean}']
        sheet.figure.legend(
            handles,
            labels,
            frameon=False,
            loc='lower center',
            bbox_to_anchor=(0.5, 1 + 0.3 / sheet.size[1]),
        )
        _save(sheet.figure, path)


def _points(parts: Parts, person: Person) -> Tuple[np.ndarray, np.ndarray]:
    """Keypoints of the maps (1, K, 2), and their mirror images, in input px."""
    middle = np.asarray(parts.input_size) / 2
    points = np.full((1, parts.num_keypoints, 2), middle)
    places = np.where(person.labelled[:, None], person.warped.keypoints, middle)
    points[0, parts.outputs] = np.clip(places, 0, F.unit_length(parts.input_size))
    return points, parts.mirror(points)


def _inside(parts: Parts, keypoints: np.ndarray) -> np.ndarray:
    end = F.unit_length(parts.input_size)
    return ((keypoints >= 0) & (keypoints <= end)).all(-1)


def _reach(parts: Parts, maps: Tensor) -> float:
    """Half the side of a window around a target, heatmap px."""
    heat = maps[0, :: parts.channels]
    peak = heat.amax((-2, -1), keepdim=True).clamp(min=1e-6)
    area = float((heat > peak / 2).sum((-2, -1)).double().median())
    return min(max(2 * np.sqrt(area / np.pi), 4.0), 0.3 * min(parts.heatmap_size))


def _choose(parts: Parts, person: Person, half: float, most: int) -> List[int]:
    """Keypoints far from each other, from the top down, windows inside if possible.

    Args:
        parts: The config's.
        person: Whose.
        half: Half the side of their windows, input px.
        most: So many at most.
    """
    points = person.warped.keypoints
    inside = np.flatnonzero(person.labelled & _inside(parts, points))
    end = np.asarray(F.unit_length(parts.input_size))
    whole = ((points >= half) & (points <= end - half)).all(-1)
    for candidates in (inside[whole[inside]], inside):
        chosen = list(candidates[np.argsort(points[candidates, 1])[:1]])
        while chosen and len(chosen) < most:
            gaps = np.abs(points[candidates, None] - points[chosen]).max(-1).min(1)
            if gaps.max() < 1.5 * half:
                break
            chosen.append(candidates[gaps.argmax()])
        if chosen:
            break
    # Three would leave a hole.
    chosen = chosen[:2] if len(chosen) == 3 else chosen
    return sorted(map(int, chosen), key=lambda k: points[k, 1])


class _Sheet(NamedTuple):
    """A crop at the left, and square panels beside it, placed by hand.

    What lays axes out by itself is slow here, and leaves holes beside pictures.
    """

    figure: Figure
    crop: Axes
    #: Shape (rows, columns).
    panels: np.ndarray
    #: Width and height in inches.
    size: Tuple[float, float]

    def add(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a place in inches; what is outside is saved all the same."""
        box = np.array([left, bottom, width, height]) / (self.size * 2)
        return self.figure.add_axes(box)

    def place(self, ax: Axes) -> np.ndarray:
        """Left, bottom, width and height of axes in inches."""
        return np.array(ax.get_position().bounds) * (self.size * 2)


def _sheet(person: Person, rows: int, columns: int, gap: Tuple[float, float]) -> _Sheet:
    """Empty axes.

    Args:
        person: Whose crop.
        rows, columns: Of panels.
        gap: Width and height in inches between panels.
    """
    height, width = person.warped.image.shape[:2]
    side = 4.4 if rows == 1 and columns < 3 else 2.8
    tall = rows * side + (rows - 1) * gap[1]
    crop = float(np.clip(tall * width / height, 1.5, 1.5 * tall))
    left = crop + max(gap[0], 0.35)
    size = (left + columns * side + (columns - 1) * gap[0], tall)
    figure = Figure(figsize=size)
    sheet = _Sheet(figure, figure.add_axes([0, 0, crop / size[0], 1]), None, size)
    panels = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        panels[row, column] = sheet.add(
            left + column * (side + gap[0]),
            tall - side - row * (side + gap[1]),
            side,
            side,
        )
    return sheet._replace(panels=panels)


def _draw_crop(
    ax: Axes, parts: Parts, person: Person, chosen: Sequence[int], half: float
) -> None:
    """The input with its keypoints, and a numbered frame for each enlarged part."""
    ax.imshow(_rgb(person.warped.image))
    points = person.warped.keypoints
    shown = points[person.labelled & _inside(parts, points)]
    size = 6 if len(shown) <= 40 else 3
    ax.plot(*shown.T, 'o', color='white', mec='black', mew=0.8, markersize=size)
    for number, k in enumerate(chosen, 1):
        for width, color in ((3.5, 'black'), (1.8, 'white')):
            corner = points[k] - half
            ax.add_patch(
                Rectangle(corner, 2 * half, 2 * half, fill=False, color=color, lw=width)
            )
        ax.annotate(
            str(number),
            np.maximum(corner, 0),
            xytext=(4, -3),
            textcoords='offset points',
            ha='left',
            va='top',
            color='white',
            bbox=dict(boxstyle='square,pad=0.15', color='black', lw=0),
        )
    height, width = person.warped.image.shape[:2]
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(f'input, {width} × {height} px')


def _rgb(image: np.ndarray) -> np.ndarray:
    """For matplotlib, uint8, of an image as OpenCV has it."""
    image = np.atleast_3d(np.clip(image, 0, 255).astype(np.uint8))
    if image.shape[-1] == 1:
        return np.repeat(image, 3, -1)
    return cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2RGB)


def _draw_lines(
    ax: Axes,
    heat: np.ndarray,
    parts: Parts,
    coding: Coding,
    center: np.ndarray,
    half: float,
    **style,
) -> None:
    """Contour lines of a map, its pixels where they are in the input.

    Args:
        ax: In input px.
        heat: Shape (H, W).
        parts: The config's.
        coding: Its coding.
        center, half: Of the square that is shown, input px.
        **style: Of the lines.
    """
    disc = parts.channels == 3
    # Failed maps have no lines, about which matplotlib would warn.
    if not np.isfinite(heat).all() or heat.max() <= 0:
        return
    first = 0.5 if coding.kind == CELLS else 0.0
    axes = np.linspace(center - half, center + half, 256, axis=-1)
    places = axes / _stride(parts, coding.kind)[:, None] - first
    # Between pixels: a disc has edges, a Gaussian has none (Lanczos).
    rows = []
    for at, pixels in zip(places, heat.shape[::-1]):
        away = at[:, None] - np.arange(pixels)
        near = np.abs(away) < (0.5 if disc else 3)
        rows.append(near * (1.0 if disc else np.sinc(away) * np.sinc(away / 3)))
    shown = rows[1] @ heat @ rows[0].T
    levels = [level * float(heat.max()) for level in ((0.5,) if disc else LEVELS)]
    levels = [level for level in levels if shown.min() < level < shown.max()]
    if levels:
        ax.contour(*axes, shown, levels=levels, **style)


def _dot(ax: Axes, place: np.ndarray, color: str) -> None:
    black = color == 'black'
    size = 13 if black else 9
    if np.isfinite(place).all():
        ax.plot(*place, 'o', color=color, mec='white', mew=1.5, markersize=size)


def _window(ax: Axes, center: np.ndarray, half: float) -> None:
    ax.set(
        xlim=(center[0] - half, center[0] + half),
        ylim=(center[1] + half, center[1] - half),
    )
    ax.spines[:].set_visible(True)


# --- 3. distributions of errors -------------------------------------------------------


def draw_histograms(path: Path, results: Mapping[str, Tuple[Coding, EndToEnd]]) -> None:
    """Distributions of errors: of encoding and decoding alone, and end to end.

    Args:
        path: The PNG.
        results: Configs by name.
    """
    colors = _colors([coding.kind == UNIT_LENGTH for coding, _ in results.values()])
    panels = {
        'encode, decode': [coding.errors for coding, _ in results.values()],
        'end to end': [end.input_px for _, end in results.values()],
    }
    with matplotlib.rc_context(STYLE):
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
                ax.step(
                    [1e-9, *np.maximum(distances, 1e-9), 1e9],
                    [0, *share, share[-1]],
                    where='post',
                    color=color,
                    # Curves may coincide.
                    linewidth=max(3 + 2 * (len(errors) - 1 - index), 3),
                )
                middle = len(distances) // 2
                median = float(distances[middle])
                if median > LEAST:
                    ax.plot(median, share[middle], 'o', color=color, markersize=10)
                # In a row above, where texts cannot meet.
                ax.annotate(
                    f'median {_px(median)}',
                    ((index + 0.5) / len(errors), 1.03),
                    xycoords='axes fraction',
                    ha='center',
                    color=color,
                    fontweight='bold',
                )
            ax.set_title(title, pad=34)
            ax.set_xlabel('error (input px)')
            ax.grid(color='0.92')
            ax.set_axisbelow(True)
        axes[0].set(
            xscale='log',
            xlim=(LEAST, high),
            ylim=(0, 103),
            ylabel='keypoints within it (%)',
        )
        ticks = [tick for tick in (1e-6, 1e-4, 0.01, 1, 100) if tick <= high]
        axes[0].set_xticks(ticks, ['10⁻⁶', *(f'{tick:g}' for tick in ticks[1:])])
        axes[0].minorticks_off()
        handles = [Line2D([], [], color=color, linewidth=4) for color in colors]
        _legend(figure, handles, list(map(_label, results)))
        _save(figure, path)


def _distances(errors: np.ndarray) -> np.ndarray:
    """Lengths of finite errors (M, 2), sorted."""
    distances = np.linalg.norm(errors, axis=-1)
    return np.sort(distances[np.isfinite(distances)])


# --- 4. targets -----------------------------------------------------------------------


def draw_targets(path: Path, parts: Parts, coding: Coding, person: Person) -> None:
    """Targets of a few keypoints, enlarged: of offset codecs all three maps.

    Args:
        path: The PNG.
        parts, coding: The config's.
        person: On the way through the config.
    """
    kind = coding.kind
    points, _ = _points(parts, person)
    maps = parts.encode(points, np.ones(points.shape[:2]))
    reach = _reach(parts, maps)
    stride = _stride(parts, kind)
    offsets = parts.channels == 3
    chosen = _choose(parts, person, reach * stride.max(), 2 if offsets else 4)
    shown = maps[0].numpy()
    peak = np.nanmax(shown[:: parts.channels])
    # Megvii's go to 255.
    peak = float(peak) if np.isfinite(peak) and peak > 1 else 1.0
    unbiased = kind == UNIT_LENGTH
    heat = dict(cmap='Blues' if unbiased else 'Oranges', vmin=0, vmax=peak)
    looks = [heat, *[dict(cmap='PuOr', vmin=-1, vmax=1)] * 2][: parts.channels]
    names = ['H: disc', 'X: offset in x', 'Y: offset in y'] if offsets else ['']
    rows = (len(chosen) if offsets else -(-len(chosen) // 2)) or 1
    with matplotlib.rc_context(STYLE):
        columns = 3 if offsets else 1 if len(chosen) == 1 else 2
        sheet = _sheet(person, rows, columns, (0.75, 0.85))
        panels = sheet.panels
        _draw_crop(sheet.crop, parts, person, chosen, reach * stride.max())
        places = (person.warped.keypoints / stride) - (0.5 if kind == CELLS else 0)
        drawn = {}
        axes = iter(panels.flat)
        for number, k in enumerate(chosen, 1):
            for channel, (look, name) in enumerate(zip(looks, names)):
                ax = next(axes)
                one = shown[parts.outputs[k] * parts.channels + channel]
                drawn[channel] = ax.imshow(one, interpolation='nearest', **look)
                for size, width, color in ((22, 5, 'white'), (20, 2, 'black')):
                    ax.plot(*places[k], '+', color=color, markersize=size, mew=width)
                _window(ax, places[k], reach)
                ax.set_title(f'{number}  {name}' if name else str(number))
                for axis in (ax.xaxis, ax.yaxis):
                    axis.set_major_locator(MaxNLocator(4, integer=True))
        for ax in axes:
            ax.set_axis_off()
        for ax in panels[-1]:
            ax.set_xlabel('heatmap px')
        if chosen:
            left, bottom, width, height = sheet.place(panels[-1, -1])
            start = sheet.place(panels[-1, 0])[0]
            if offsets:
                bar = sheet.add(start, bottom - 1.1, width, 0.2)
                sheet.figure.colorbar(
                    drawn[0], bar, orientation='horizontal', ticks=[0, peak]
                )
                start = sheet.place(panels[-1, 1])[0]
                bar = sheet.add(start, bottom - 1.1, left + width - start, 0.2)
                sheet.figure.colorbar(
                    drawn[1],
                    bar,
                    orientation='horizontal',
                    ticks=[-1, 0, 1],
                    label='offset / radius',
                )
            else:
                bar = sheet.add(left + width + 0.3, bottom, 0.2, sheet.size[1] - bottom)
                sheet.figure.colorbar(drawn[0], bar, ticks=[0, peak / 2, peak])
        _save(sheet.figure, path)


# --- 5. the flip test in numbers ------------------------------------------------------


def draw_flip_bars(
    path: Path, flips: Mapping[str, Tuple[Flip, Dict[str, Optional[float]]]]
) -> None:
    """How far mirrored maps are from direct ones on the x axis, on average.

    Args:
        path: The PNG.
        flips: Configs by name, with what theory says of Flip's fields, in input px.
    """
    colors = _colors([_is_unbiased(*one) for one in flips.values()])
    width = 0.8 / max(len(flips), 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 5.2), layout='constrained')
        ax = figure.subplots()
        tops, known = [0.1], False
        for index, (flip, theory) in enumerate(flips.values()):
            for place, name in enumerate(FLIPS):
                x = place + (index - (len(flips) - 1) / 2) * width
                mean = _mean_x(getattr(flip, name))
                height = mean if mean is not None else 0.0
                ax.bar(x, height, 0.92 * width, color=colors[index])
                if mean is not None:
                    text = f'{mean:.2f}'
                else:
                    text = 'off' if getattr(flip, name) is None else 'failed'
                expected = theory.get(name)
                top = max(height, expected or 0.0)
                tops.append(top)
                ax.annotate(
                    text,
                    (x, top),
                    xytext=(0, 5),
                    textcoords='offset points',
                    ha='center',
                    color=colors[index],
                    fontweight='bold',
                )
                if expected is not None:
                    known = True
                    ends = [x - 0.46 * width, x + 0.46 * width]
                    ax.plot(ends, [expected] * 2, color='black', linewidth=2.5)
        ax.set_xticks(range(len(FLIPS)), list(FLIPS.values()))
        ax.tick_params(axis='x', length=0)
        ax.set(
            ylim=(0, 1.12 * max(tops)),
            xlim=(-0.5, len(FLIPS) - 0.5),
            ylabel='misalignment in x (input px)',
        )
        ax.grid(axis='y', color='0.92')
        ax.set_axisbelow(True)
        handles = [Line2D([], [], color=color, linewidth=8) for color in colors]
        labels = list(map(_label, flips))
        if known:
            handles.append(Line2D([], [], color='black', linewidth=2.5))
            labels.append('theory')
        _legend(figure, handles, labels)
        _save(figure, path)


def _mean_x(errors: Optional[np.ndarray]) -> Optional[float]:
    """Mean of |x| of errors (M, 2), None where there is none."""
    if errors is None:
        return None
    x = np.abs(errors[:, 0])
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else None


def _is_unbiased(flip: Flip, theory: Mapping[str, Optional[float]]) -> bool:
    """Whether mirrored maps fit as they are."""
    alone = theory.get('alone')
    alone = _mean_x(flip.alone) if alone is None else alone
    return alone is not None and alone < 0.1


# --- what all have --------------------------------------------------------------------


def _colors(unbiased: Sequence[bool]) -> List[str]:
    """A colour for each config."""
    left = {True: list(UNBIASED), False: list(BIASED)}
    colors = []
    for one in unbiased:
        color = left[one].pop(0)
        left[one].append(color)
        colors.append(color)
    return colors


def _px(value: float) -> str:
    if value < 5e-5:
        return '0 px' if value == 0 else '< 0.0001 px'
    return f'{value:.2f} px' if value >= 0.01 else f'{value:.4f} px'


def _label(name: str) -> str:
    """A config's name as matplotlib shows it as it is, and not too long."""
    # The font lacks others.
    name = name.encode('latin-1', 'replace').decode('latin-1')
    if len(name) > 60:
        name = f'{name[:28]}…{name[-30:]}'
    # What starts with an underscore is left out of legends.
    return f' {name}' if name.startswith('_') else name


def _legend(figure: Figure, handles: list, labels: Sequence[str]) -> None:
    legend = figure.legend(handles, labels, frameon=False, loc='outside upper center')
    for text in legend.get_texts():
        text.set_parse_math(False)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches='tight', facecolor='white')
