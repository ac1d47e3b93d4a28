"""Figures of a person's crop: the flip test and targets in enlarged parts of it."""

from typing import Any, List, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import map_coordinates
from torch import Tensor

from udp_plugin import functional as F

from .errors import statistics
from .measures import inside_input, locate, network_sees, pixels_of
from .people import Person
from .result import Audit

#: Okabe and Ito's, which colour-blind readers can tell apart: of configs that measure
#: by unit length, and of others, in the order in which they come.
COLORS = {
    True: ('#0072B2', '#009E73', '#56B4E9'),
    False: ('#D55E00', '#CC79A7', '#E69F00'),
}
#: Lines of Gaussians are drawn at these parts of the peak; of a disc, its edge.
LEVELS, EDGE = (0.3, 0.6, 0.9), (0.5,)


def in_px(value: float) -> str:
    """A distance in words."""
    if value < 5e-5:
        return '0 px' if value == 0 else '< 0.0001 px'
    return f'{value:.2f} px' if value >= 0.01 else f'{value:.4f} px'


def flip_on_crop(found: Audit, person: Person) -> Figure:
    """Direct maps, and mirrored ones flipped back, over the network's input."""
    parts, keypoints = found.parts, person.warped.keypoints
    points = network_sees(parts, keypoints[None], person.labelled[None])
    maps, mirrored = parts.encode(points), parts.encode(parts.mirror(points))
    back = F.flip_maps(mirrored, parts.flip_indices(), parts.channels)
    color = COLORS[found.unbiased][0]
    # Each with its color, line style, and the size of its dots.
    looks = (maps, 'black', '-', 13), (back, color, '--', 9)
    places = [locate(parts, found.coding, look[0])[0, parts.outputs] for look in looks]
    off = np.linalg.norm(places[1] - places[0], axis=-1)
    figure, panels, chosen, (_, half) = _sheet(found, person, maps, 1)
    for number, (ax, k) in enumerate(zip(panels, chosen), 1):
        # Pale, so that lines stand out.
        ax.imshow(person.warped.image.mean(-1), cmap='gray', vmin=-300, vmax=255)
        for (one, paint, line, size), place in zip(looks, places):
            heat = one[0, parts.outputs[k] * parts.channels].numpy()
            style = dict(colors=paint, linewidths=2.6, linestyles=line)
            _contours(ax, heat, found, keypoints[k], half, **style)
            if np.isfinite(place[k]).all():
                style = dict(color=paint, mec='white', mew=1.5, markersize=size)
                ax.plot(*place[k], 'o', **style)
        _show_window(ax, keypoints[k], half)
        ax.set(xticks=[], yticks=[])
        apart = f'{off[k]:.2f} px apart' if np.isfinite(off[k]) else 'not found'
        ax.set_title(f'{number}: {apart}', color=color)
    mean = statistics(off[person.labelled & inside_input(parts, keypoints)])['mean']
    apart = '' if mean is None else f':\non average {in_px(mean)} of the input apart'
    labels = ['map of the input', f'map of its mirror image, flipped back{apart}']
    handles = [Line2D([], [], color=c, lw=2.6, ls=line) for _, c, line, _ in looks]
    figure.legend(handles, labels, loc='outside upper center')
    return figure


def targets(found: Audit, person: Person) -> Figure:
    """Targets of a few keypoints, enlarged: of offset codecs all three maps."""
    parts, keypoints = found.parts, person.warped.keypoints
    maps = parts.encode(network_sees(parts, keypoints[None], person.labelled[None]))
    shown = maps[0].numpy()
    peak = np.nanmax(shown[:: parts.channels])
    # Megvii's go to 255.
    peak = float(peak) if np.isfinite(peak) and peak > 1 else 1.0
    heat = dict(cmap='Blues' if found.unbiased else 'Oranges', vmin=0, vmax=peak)
    signed = dict(cmap='PuOr', vmin=-1, vmax=1)
    names, looks = [''], [heat, signed, signed][: parts.channels]
    if parts.channels == 3:
        names = ['  H: disc', '  X: offset in x', '  Y: offset in y']
    figure, panels, chosen, (reach, _) = _sheet(found, person, maps, len(names))
    places = pixels_of(parts, found.coding.kind, keypoints)
    for index, ax in enumerate(panels):
        number, channel = divmod(index, len(names))
        k = chosen[number]
        one = shown[parts.outputs[k] * parts.channels + channel]
        ax.imshow(one, interpolation='nearest', **looks[channel])
        for size, width, color in ((22, 5, 'white'), (20, 2, 'black')):
            ax.plot(*places[k], '+', color=color, markersize=size, mew=width)
        _show_window(ax, places[k], reach)
        ax.set_title(f'{number + 1}{names[channel]}')
        ax.set_xlabel('heatmap px')
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
    if panels and parts.channels == 3:
        bar = dict(location='bottom', shrink=0.9)
        figure.colorbar(panels[0].images[0], ax=panels[::3], ticks=[0, peak], **bar)
        bar.update(ticks=[-1, 0, 1], label='offset / radius')
        figure.colorbar(panels[1].images[0], ax=panels[1::3] + panels[2::3], **bar)
    elif panels:
        ticks = [0, peak / 2, peak]
        figure.colorbar(panels[0].images[0], ax=panels, ticks=ticks)
    return figure


def _choose(found: Audit, person: Person, half: float, most: int) -> List[int]:
    """So many keypoints at most, far from each other, from the top down.

    Their windows, half as wide as this in input px, are in the input if possible.
    """
    parts, points = found.parts, person.warped.keypoints
    shown = person.labelled & inside_input(parts, points)
    whole = inside_input(parts, points - half) & inside_input(parts, points + half)
    candidates = np.flatnonzero(shown & whole if (shown & whole).any() else shown)
    # The highest first, then the one that is farthest from those.
    chosen = [*candidates[np.argsort(points[candidates, 1])[:1]]]
    while chosen and len(chosen) < most:
        gaps = np.abs(points[candidates, None] - points[chosen]).max(-1).min(1)
        if gaps.max() < 1.5 * half:
            break
        chosen.append(candidates[gaps.argmax()])
    # Three would leave a hole.
    chosen = chosen[:2] if len(chosen) == 3 else chosen
    return sorted(chosen, key=lambda k: points[k, 1])


def _sheet(
    found: Audit, person: Person, maps: Tensor, each: int
) -> Tuple[Figure, List[Axes], List[int], Tuple[float, float]]:
    """A crop at the left with numbered frames, and square panels beside it.

    Args:
        found: Of which audit.
        person: Whose crop.
        maps: The person's targets, shape (1, C, H, W).
        each: Panels for each frame, beside each other if there are several.

    Returns:
        tuple: the figure, its panels, the keypoints that have a frame, and half the
        side of frames in heatmap px and in input px.
    """
    parts, (width, height) = found.parts, person.warped.size
    heat = maps[0, :: parts.channels]
    peak = heat.amax((-2, -1), keepdim=True).clamp(min=1e-6)
    area = float((heat > peak / 2).sum((-2, -1)).double().median())
    reach = min(max(2 * np.sqrt(area / np.pi), 4.0), 0.3 * min(parts.heatmap_size))
    half = reach * parts.stride(found.unbiased).max()
    chosen = _choose(found, person, half, 4 if each == 1 else 2)
    columns = each if each > 1 else 1 if len(chosen) == 1 else 2
    count = len(chosen) * each
    rows = max(count // columns, 1)
    side = 4.4 if rows == 1 and columns < 3 else 3.4
    ratios = [float(np.clip(width / height, 0.3, 1.5)) * rows * side, *[side] * columns]
    figure = Figure(figsize=(sum(ratios), rows * side + 1), layout='constrained')
    grid = np.arange(rows * columns).reshape(rows, columns).tolist()
    axes = figure.subplot_mosaic([['input', *row] for row in grid], width_ratios=ratios)
    for empty in range(count, rows * columns):
        axes[empty].set_axis_off()
    ax = axes['input']
    image = np.clip(person.warped.image[..., ::-1], 0, 255).astype(np.uint8)
    ax.imshow(image)
    points = person.warped.keypoints
    shown = points[person.labelled & inside_input(parts, points)]
    size = 6 if len(shown) <= 40 else 3
    ax.plot(*shown.T, 'o', color='white', mec='black', mew=0.8, markersize=size)
    box = dict(boxstyle='square,pad=0.15', color='black', lw=0)
    label: Any = dict(color='white', ha='left', va='top', xytext=(4, -3), bbox=box)
    for number, k in enumerate(chosen, 1):
        corner = points[k] - half
        for line, color in ((3.5, 'black'), (1.8, 'white')):
            style = dict(fill=False, color=color, lw=line)
            ax.add_patch(Rectangle(corner, 2 * half, 2 * half, **style))
        place = np.maximum(corner, 0)
        ax.annotate(str(number), place, textcoords='offset points', **label)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(f'input, {width} × {height} px')
    return figure, [axes[index] for index in range(count)], chosen, (reach, half)


def _contours(
    ax: Axes, heat: np.ndarray, found: Audit, center: np.ndarray, half: float, **style
) -> None:
    """Contour lines of a map (H, W), its pixels where they are in the input.

    Of the axes, which are in input px, a square is shown, by its center and half side.
    """
    # Failed maps have no lines, about which matplotlib would warn.
    if not np.isfinite(heat).all() or heat.max() <= 0:
        return
    disc = found.parts.channels == 3
    axes = np.linspace(center - half, center + half, 256)
    x, y = pixels_of(found.parts, found.coding.kind, axes).T
    # Between pixels: a disc has edges, a Gaussian has none.
    grid = np.meshgrid(y, x, indexing='ij')
    shown = map_coordinates(heat, grid, order=0 if disc else 3)
    levels = float(heat.max()) * np.array(EDGE if disc else LEVELS)
    levels = levels[(shown.min() < levels) & (levels < shown.max())]
    if len(levels):
        ax.contour(*axes.T, shown, levels=levels, **style)


def _show_window(ax: Axes, center: np.ndarray, half: float) -> None:
    (left, top), (right, bottom) = center - half, center + half
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.spines[:].set_visible(True)
