"""Figures of what an audit measured, for slides."""

from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple

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
from udp_plugin import ui
from udp_plugin.codecs import UDPGaussianHeatmap

from .measures import inside_input, locate, network_sees, pixels_of
from .parts import Parts
from .people import Person
from .result import Audit
from .theory import expected_flip
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
#: Okabe and Ito's, which colour-blind readers can tell apart: of configs that measure
#: by unit length, and of others, in the order in which they come.
COLORS = {
    True: ('#0072B2', '#009E73', '#56B4E9'),
    False: ('#D55E00', '#CC79A7', '#E69F00'),
}
#: Lines of Gaussians are drawn at these parts of the peak; of a disc, its edge.
LEVELS, EDGE = (0.3, 0.6, 0.9), (0.5,)
#: Of what is compared in :func:`_subpixel`: sigma, and at how many positions.
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


def draw(audits: Sequence[Audit], folder: Path) -> List[Path]:
    """Draw what was measured, of one audit or of two to compare.

    Returns:
        The files: ``subpixel``, ``flip`` and ``errors``, and of each audit ``crop`` and
        ``targets``.
    """
    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in _figures(audits):
            written.append(folder / f'{name}.png')
            figure.savefig(written[-1], bbox_inches='tight', facecolor='white')
    return written


def _figures(audits: Sequence[Audit]) -> Iterator[Tuple[str, Figure]]:
    coded = [found for found in audits if found.coding is not None]
    flipped = [found for found in coded if found.flip is not None]
    ended = [found for found in coded if found.end_to_end is not None]
    if coded:
        yield 'subpixel', _subpixel(coded)
    if flipped:
        yield 'flip', _flip_bars(flipped)
    if ended:
        yield 'errors', _distributions(ended)
    for index, found in enumerate(ended, 1):
        number = f'_{index}' if len(ended) > 1 else ''
        person = max(found.end_to_end.persons, key=lambda person: person.area)
        yield f'crop{number}', _flip_on_crop(found, person)
        yield f'targets{number}', _targets(found, person)


# --- errors within a pixel ------------------------------------------------------------


class _Curve(NamedTuple):
    """Errors against sub-pixel positions: phase (M,) in heatmap px, error (M,)."""

    name: str
    phase: np.ndarray
    error: np.ndarray
    unbiased: bool


def _subpixel(audits: Sequence[Audit]) -> Figure:
    """Errors of coding on the x axis against where in its pixel a keypoint is.

    A single config is shown beside a stock codec of the other kind, of the same sizes.
    """
    curves = [
        _Curve(name, _phase(one), one.coding.errors[:, 0], _is_unbiased(one))
        for name, one in zip(_labels(audits), audits)
    ]
    pixel = max(_stride(one)[0] for one in audits)
    if len(curves) == 1:
        curves.append(_other_curve(audits[0]))
    colors = _colors([curve.unbiased for curve in curves])
    figure = Figure(figsize=(10, 5.6), layout='constrained')
    ax = figure.subplots()
    ax.axhline(0, color='0.6', linewidth=1)
    labels, extent = [], 0.55 * pixel
    # The first one's on top, and smaller, lest it hide what it coincides with.
    for order, (curve, color) in enumerate(zip(curves, colors)):
        known = np.isfinite(curve.error)
        style = dict(markersize=3 + 2 * order, markeredgewidth=0, color=color)
        shown = curve.phase[known], curve.error[known]
        ax.plot(*shown, 'o', zorder=3 - 0.1 * order, **style)
        errors, mean = np.abs(curve.error[known]), 'reads nothing'
        if len(errors):
            # Rare errors without bound are not what the figure is about.
            extent = max(extent, min(1.15 * errors.max(), 3 * pixel))
            mean = f'mean |error| {_px(errors.mean())}'
        labels.append(f'{curve.name}: {mean}')
    ax.set(xlim=(-0.5, 0.5), ylim=(-extent, extent))
    ax.set_xlabel('keypoint from the centre of its pixel (heatmap px)')
    ax.set_ylabel('error in x (input px)')
    ax.set_xticks([-0.5, -0.25, 0, 0.25, 0.5], ['−½', '−¼', '0', '¼', '½'])
    ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ax.grid()
    _legend(figure, colors, labels)
    return figure


def _phase(found: Audit, kind: str = '') -> np.ndarray:
    """x within a heatmap px, -0.5 to 0.5, of where keypoints were coded."""
    positions, kind = found.coding.positions, kind or found.coding.kind
    place = pixels_of(found.parts, kind, positions)[:, 0]
    return place - np.round(place)


def _other_curve(found: Audit) -> _Curve:
    """The stock Gaussian if the config's coding is accurate, else ours."""
    parts = found.parts
    errors = np.abs(found.coding.errors[:, 0])
    errors = errors[np.isfinite(errors)]
    accurate = len(errors) > 0 and errors.mean() < 0.1 * _stride(found)[0]
    codec = (MSRAHeatmap if accurate else UDPGaussianHeatmap)(
        parts.input_size, parts.heatmap_size, sigma=SIGMA
    )
    phase = _phase(found, PIXELS if accurate else UNIT_LENGTH)
    # As even in phase as they come, so that few make a line.
    order = np.argsort(phase)
    order = order[np.linspace(0, len(order) - 1, COMPARED).round().astype(int)]
    positions = found.coding.positions[order]
    size = max(NUMBERS_AT_ONCE // int(np.prod(parts.heatmap_size)), 1)
    read = []
    for start in range(0, len(positions), size):
        points = positions[None, start : start + size].astype(np.float32)
        read.append(codec.decode(codec.encode(points)['heatmaps'])[0][0])
    places = np.concatenate(read)
    if not accurate:
        places = F.toolbox_to_input(places, parts.input_size)
    name = f'{type(codec).__name__}, to compare'
    return _Curve(name, phase[order], (places - positions)[:, 0], not accurate)


# --- the flip test in numbers ---------------------------------------------------------


def _flip_bars(audits: Sequence[Audit]) -> Figure:
    """How far mirrored maps are from direct ones on the x axis, on average."""
    colors = _colors(list(map(_is_unbiased, audits)))
    figure = Figure(figsize=(9.5, 5.2), layout='constrained')
    ax = figure.subplots()
    width, tops, known = 0.8 / len(audits), [0.1], False
    for index, (one, color) in enumerate(zip(audits, colors)):
        theory = expected_flip(one.parts, one.coding)
        for place, name in enumerate(FLIPS):
            errors = getattr(one.flip, name)
            x = place + (index - (len(audits) - 1) / 2) * width
            height, text = 0.0, 'off' if errors is None else 'failed'
            distances = np.abs([] if errors is None else errors[:, 0])
            distances = distances[np.isfinite(distances)]
            if len(distances):
                height = float(distances.mean())
                text = f'{height:.2f}'
            ax.bar(x, height, 0.92 * width, color=color)
            expected = theory[name].x if name in theory else None
            tops.append(max(height, expected or 0.0))
            _text(ax, text, (x, tops[-1]), xytext=(0, 5), color=color, weight='bold')
            if expected is not None:
                known = True
                ends = [x - 0.46 * width, x + 0.46 * width]
                ax.plot(ends, [expected] * 2, color='black', linewidth=2.5)
    ax.set_xticks(range(len(FLIPS)), list(FLIPS.values()))
    ax.tick_params(axis='x', length=0)
    ax.set(ylim=(0, 1.12 * max(tops)), xlim=(-0.5, len(FLIPS) - 0.5))
    ax.set_ylabel('misalignment in x (input px)')
    ax.grid(axis='y')
    _legend(
        figure,
        [*colors, 'black'][: len(colors) + known],
        [*_labels(audits), 'theory'][: len(colors) + known],
    )
    return figure


# --- distributions of errors ----------------------------------------------------------


def _distributions(audits: Sequence[Audit]) -> Figure:
    """Distributions of errors: of encoding and decoding alone, and end to end."""
    colors = _colors(list(map(_is_unbiased, audits)))
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
            style = dict(xycoords='axes fraction', color=color, weight='bold')
            _text(ax, f'median {_px(median)}', place, **style)
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


# --- a crop, and enlarged parts of it -------------------------------------------------


def _flip_on_crop(found: Audit, person: Person) -> Figure:
    """Direct maps, and mirrored ones flipped back, over the network's input."""
    parts, keypoints = found.parts, person.warped.keypoints
    points = network_sees(parts, keypoints[None], person.labelled[None])
    maps = parts.encode(points)
    mirrored = parts.encode(parts.mirror(points))
    back = F.flip_maps(mirrored, parts.flip_indices(), parts.channels)
    color = COLORS[_is_unbiased(found)][0]
    # Each with its color, line style, and the size of its dots.
    looks = (maps, 'black', '-', 13), (back, color, '--', 9)
    places = [
        locate(parts, found.coding, one)[0, parts.outputs] for one in (maps, back)
    ]
    off = np.linalg.norm(places[1] - places[0], axis=-1)
    half = _reach(parts, maps) * _stride(found).max()
    chosen = _choose(parts, person, half, 4)
    columns = 1 if len(chosen) == 1 else 2
    figure, panels = _sheet(
        found, person, chosen, half, (-(-len(chosen) // 2) or 1, columns), (0.25, 0.55)
    )
    image = _rgb(person.warped.image).mean(-1)
    for number, (ax, k) in enumerate(zip(panels.flat, chosen), 1):
        # Pale, so that lines stand out.
        ax.imshow(image, cmap='gray', vmin=-300, vmax=255)
        for (one, paint, line, size), place in zip(looks, places):
            heat = one[0, parts.outputs[k] * parts.channels].numpy()
            style = dict(colors=paint, linewidths=2.6, linestyles=line)
            _contours(ax, heat, found, keypoints[k], half, **style)
            if np.isfinite(place[k]).all():
                style = dict(color=paint, mec='white', mew=1.5, markersize=size)
                ax.plot(*place[k], 'o', **style)
        _window(ax, keypoints[k], half)
        ax.set(xticks=[], yticks=[])
        apart = f'{off[k]:.2f} px apart' if np.isfinite(off[k]) else 'not found'
        ax.set_title(f'{number}: {apart}', color=color)
    counted = off[person.labelled & inside_input(parts, keypoints)]
    counted = counted[np.isfinite(counted)]
    mean = ''
    if len(counted):
        mean = f':\non average {_px(counted.mean())} of the input apart'
    labels = ['map of the input', f'map of its mirror image, flipped back{mean}']
    handles = [
        Line2D([], [], color=paint, linewidth=2.6, linestyle=line)
        for _, paint, line, _ in looks
    ]
    above = (0.5, 1 + 0.3 / figure.get_figheight())
    figure.legend(handles, labels, loc='lower center', bbox_to_anchor=above)
    return figure


def _targets(found: Audit, person: Person) -> Figure:
    """Targets of a few keypoints, enlarged: of offset codecs all three maps."""
    parts, keypoints = found.parts, person.warped.keypoints
    maps = parts.encode(network_sees(parts, keypoints[None], person.labelled[None]))
    reach = _reach(parts, maps)
    half = reach * _stride(found).max()
    offsets = parts.channels == 3
    chosen = _choose(parts, person, half, 2 if offsets else 4)
    shown = maps[0].numpy()
    peak = np.nanmax(shown[:: parts.channels])
    # Megvii's go to 255.
    peak = float(peak) if np.isfinite(peak) and peak > 1 else 1.0
    cmap = 'Blues' if _is_unbiased(found) else 'Oranges'
    looks = [('H: disc' if offsets else '', dict(cmap=cmap, vmin=0, vmax=peak))]
    if offsets:
        signed = dict(cmap='PuOr', vmin=-1, vmax=1)
        looks += [('X: offset in x', signed), ('Y: offset in y', signed)]
    columns = 3 if offsets else 1 if len(chosen) == 1 else 2
    rows = -(-len(chosen) * len(looks) // columns) or 1
    figure, panels = _sheet(found, person, chosen, half, (rows, columns), (0.75, 0.85))
    places = pixels_of(parts, found.coding.kind, keypoints)
    drawn: List[Any] = []
    axes = iter(panels.flat)
    for number, k in enumerate(chosen, 1):
        for channel, (name, look) in enumerate(looks):
            ax = next(axes)
            one = shown[parts.outputs[k] * parts.channels + channel]
            drawn.append(ax.imshow(one, interpolation='nearest', **look))
            for size, width, color in ((22, 5, 'white'), (20, 2, 'black')):
                ax.plot(*places[k], '+', color=color, markersize=size, mew=width)
            _window(ax, places[k], reach)
            ax.set_title(f'{number}  {name}' if name else str(number))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in panels[-1]:
        ax.set_xlabel('heatmap px')
    if not chosen:
        return figure
    # Boxes are in sides of a panel, from the lower left corner of one.
    side = panels[0, 0].get_position().height * figure.get_figheight()
    if offsets:
        below = dict(orientation='horizontal')
        bar = panels[-1, 0].inset_axes([0, -1.1 / side, 1, 0.2 / side])
        figure.colorbar(drawn[0], bar, ticks=[0, peak], **below)
        bar = [0, -1.1 / side, 2 + 0.75 / side, 0.2 / side]
        bar = panels[-1, 1].inset_axes(bar)
        figure.colorbar(
            drawn[1], bar, ticks=[-1, 0, 1], label='offset / radius', **below
        )
    else:
        tall = figure.get_figheight() / side
        bar = panels[-1, -1].inset_axes([1 + 0.3 / side, 0, 0.2 / side, tall])
        figure.colorbar(drawn[0], bar, ticks=[0, peak / 2, peak])
    return figure


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
    inside = np.flatnonzero(person.labelled & inside_input(parts, points))
    whole = inside_input(parts, points - half) & inside_input(parts, points + half)
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


def _sheet(
    found: Audit,
    person: Person,
    chosen: Sequence[int],
    half: float,
    shape: Tuple[int, int],
    gap: Tuple[float, float],
) -> Tuple[Figure, np.ndarray]:
    """A crop at the left, and square panels beside it, those that are used.

    Args:
        found: Of which audit.
        person: Whose crop.
        chosen: The keypoints that have a numbered frame.
        half: Half the side of the frames, input px.
        shape: Rows and columns of panels.
        gap: Width and height in inches between panels.
    """
    (rows, columns), (width, height) = shape, person.warped.size
    side = 4.4 if rows == 1 and columns < 3 else 2.8
    tall = rows * side + (rows - 1) * gap[1]
    crop = float(np.clip(tall * width / height, 1.5, 1.5 * tall))
    ratios = crop, max(gap[0], 0.35), columns * side + (columns - 1) * gap[0]
    figure = Figure(figsize=(sum(ratios), tall))
    grid = figure.add_gridspec(
        1, 3, width_ratios=ratios, left=0, right=1, bottom=0, top=1, wspace=0
    )
    inner = grid[2].subgridspec(*shape, wspace=gap[0] / side, hspace=gap[1] / side)
    panels = inner.subplots(squeeze=False)
    for ax in panels.flat[len(chosen) * (columns if columns == 3 else 1) :]:
        ax.set_axis_off()
    ax = figure.add_subplot(grid[0])
    ax.imshow(_rgb(person.warped.image))
    points = person.warped.keypoints
    shown = points[person.labelled & inside_input(found.parts, points)]
    size = 6 if len(shown) <= 40 else 3
    ax.plot(*shown.T, 'o', color='white', mec='black', mew=0.8, markersize=size)
    for number, k in enumerate(chosen, 1):
        corner = points[k] - half
        for line, color in ((3.5, 'black'), (1.8, 'white')):
            style = dict(fill=False, color=color, lw=line)
            ax.add_patch(Rectangle(corner, 2 * half, 2 * half, **style))
        box = dict(boxstyle='square,pad=0.15', color='black', lw=0)
        place = dict(xytext=(4, -3), ha='left', va='top')
        _text(ax, number, np.maximum(corner, 0), color='white', bbox=box, **place)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(f'input, {width} × {height} px')
    return figure, panels


def _rgb(image: np.ndarray) -> np.ndarray:
    """For matplotlib, uint8, of an image as OpenCV has it."""
    image = np.atleast_3d(np.clip(image, 0, 255).astype(np.uint8))
    if image.shape[-1] == 1:
        return np.repeat(image, 3, -1)
    return cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2RGB)


def _contours(
    ax: Axes, heat: np.ndarray, found: Audit, center: np.ndarray, half: float, **style
) -> None:
    """Contour lines of a map (H, W), its pixels where they are in the input.

    Args:
        ax: In input px.
        heat: The map.
        found: Whose it is.
        center, half: Of the square that is shown, input px.
        **style: Of the lines.
    """
    disc = found.parts.channels == 3
    # Failed maps have no lines, about which matplotlib would warn.
    if not np.isfinite(heat).all() or heat.max() <= 0:
        return
    axes = np.linspace(center - half, center + half, 256)
    places = pixels_of(found.parts, found.coding.kind, axes)
    # Between pixels: a disc has edges, a Gaussian has none (Lanczos).
    rows = []
    for at, pixels in zip(places.T, heat.shape[::-1]):
        away = at[:, None] - np.arange(pixels)
        near = np.abs(away) < (0.5 if disc else 3)
        rows.append(near * (1.0 if disc else np.sinc(away) * np.sinc(away / 3)))
    shown = rows[1] @ heat @ rows[0].T
    levels = float(heat.max()) * np.array(EDGE if disc else LEVELS)
    levels = levels[(shown.min() < levels) & (levels < shown.max())]
    if len(levels):
        ax.contour(*axes.T, shown, levels=levels, **style)


def _window(ax: Axes, center: np.ndarray, half: float) -> None:
    (left, top), (right, bottom) = center - half, center + half
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.spines[:].set_visible(True)


# --- what all have --------------------------------------------------------------------


def _is_unbiased(found: Audit) -> bool:
    return found.coding.kind == UNIT_LENGTH


def _stride(found: Audit) -> np.ndarray:
    """Input px per heatmap px on each axis."""
    return F.stride(
        found.parts.input_size, found.parts.heatmap_size, _is_unbiased(found)
    )


def _colors(unbiased: Sequence[bool]) -> List[str]:
    """A colour for each config."""
    return [
        COLORS[one][unbiased[:index].count(one) % len(COLORS[one])]
        for index, one in enumerate(unbiased)
    ]


def _px(value: float) -> str:
    if value < 5e-5:
        return '0 px' if value == 0 else '< 0.0001 px'
    return f'{value:.2f} px' if value >= 0.01 else f'{value:.4f} px'


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


def _text(ax: Axes, text: object, place: Sequence[float], **style) -> None:
    """A text at a place, or so many points beside it."""
    style = dict(dict(textcoords='offset points', xytext=(0, 0), ha='center'), **style)
    ax.annotate(str(text), place, **style)


def _legend(figure: Figure, colors: Sequence[str], labels: Sequence[str]) -> None:
    handles = [Line2D([], [], color=color, linewidth=5) for color in colors]
    legend = figure.legend(handles, labels, loc='outside upper center')
    for text in legend.get_texts():
        text.set_parse_math(False)
