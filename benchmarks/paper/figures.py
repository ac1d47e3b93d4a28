"""The figures of ``udp-plugin paper``."""

from pathlib import Path
from typing import List, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from udp_plugin import functional as F
from udp_plugin.audit.measures import NOISE, UNIT_LENGTH, EndToEnd, Flip
from udp_plugin.ui import STYLE

from . import run as paper
from .run import Ended, Measured, Pipeline, Size

#: Okabe and Ito's, which colour-blind readers can tell apart; dashed without a shift.
COLORS = {
    paper.UNSHIFTED: '#D55E00',
    paper.MSRA: '#D55E00',
    paper.MEGVII: '#999999',
    paper.DARK_UNSHIFTED: '#CC79A7',
    paper.DARK: '#CC79A7',
    paper.HALF: '#E69F00',
    paper.GAUSSIAN: '#56B4E9',
    paper.COMBINED: '#000000',
    paper.OUR_GAUSSIAN: '#0072B2',
    paper.OUR_OFFSET: '#009E73',
}
#: The four ways to use mirrored maps, with what they are called.
FLIPS = dict(
    alone='mirrored alone',
    shifted='mirrored, shifted',
    averaged='averaged',
    averaged_shifted='averaged, shifted',
)
#: Distances that keypoints may have, input px.
NEAR = (0.25, 1.0)


def text_of(size: Size) -> str:
    """A size for people."""
    return '{}×{}'.format(*size)


def along(end: EndToEnd, axis: int) -> Tuple[np.ndarray, np.ndarray]:
    """Where keypoints are along an axis, and their errors there, input px."""
    places, errors = [], []
    for person in end.persons:
        size = person.warped.image.shape[1::-1]
        per_source = F.unit_length(size)[axis] / person.warped.scale[axis]
        places.append(person.warped.keypoints[:, axis])
        error = (person.predicted - person.annotated)[:, axis] * per_source
        errors.append(error)
    return np.concatenate(places), np.concatenate(errors)


def near(end: EndToEnd, most: float) -> float:
    """The share of keypoints within a distance in input px."""
    return float(np.mean(np.hypot(*end.input_px.T) <= most))


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, facecolor='white')
    return path


def flip_distance(flip: Flip, name: str) -> float:
    """How far maps are apart on the average, along x in input px."""
    return float(np.abs(getattr(flip, name)[:, 0]).mean())


def _theory(width: int, stride: int, unbiased: bool, name: str) -> float:
    """The same by Eq. 36, 39 and 46."""
    maps = width // stride
    distance = F.flip_misalignment(width, maps, unbiased, 'shifted' in name)
    pixel = float(F.stride((width, width), (maps, maps), unbiased)[0])
    return abs(distance) * pixel / (2 if 'averaged' in name else 1)


def draw_flip(folder: Path, measured: Measured) -> Path:
    """Distances of mirrored maps against the stride; lines are theory."""
    size, strides = measured.plan.input_size, measured.plan.strides
    between = range(min(strides), max(strides) + 1)
    whole = [stride for stride in between if size[0] % stride == 0]
    colors = ('#D55E00', '#E69F00', '#0072B2', '#56B4E9')
    # What lies on each other stays visible.
    widths = (9, 6.5, 5, 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout='constrained')
        panels = figure.subplots(1, 2, sharey=True)
        for ax, pipeline in zip(panels, paper.FLIPPED):
            unbiased = pipeline is paper.OUR_GAUSSIAN
            measure = 'unbiased' if unbiased else 'biased'
            ax.set_title(f'{measure}: {pipeline.label}, {text_of(size)}')
            for (name, label), color, width in zip(FLIPS.items(), colors, widths):
                theory = [_theory(size[0], s, unbiased, name) for s in whole]
                ax.plot(whole, theory, color=color, linewidth=1)
                found = [
                    flip_distance(measured.flips[pipeline, size, stride][0], name)
                    for stride in strides
                ]
                style = dict(color=color, markersize=width, label=label)
                ax.plot(strides, found, 'o', **style)
            ax.set(xscale='log', xlabel='stride')
            ax.set_xticks(strides, list(map(str, strides)))
            ax.minorticks_off()
            ax.grid(color='0.92')
        panels[0].set_ylabel('distance along x (input px)')
        panels[0].plot([], [], color='0.4', linewidth=1, label='theory')
        _legend(figure, columns=5)
        return _save(figure, folder / 'paper_flip.png')


def _legend(figure: Figure, columns: int, scale: float = 1) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        frameon=False,
        ncols=columns,
        markerscale=scale,
        loc='outside lower center',
    )


#: Mean errors below this are drawn as this, input px.
LEAST = 1e-3


def draw_coding(folder: Path, measured: Measured) -> Path:
    """Errors against the sub-pixel position, and mean errors with noise."""
    size, strides = measured.plan.input_size, measured.plan.strides
    maps = [pixels // paper.STRIDE for pixels in size]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout='constrained')
        axes = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        for index, pipeline in enumerate(paper.CODED):
            coding, _ = measured.codings[pipeline, paper.STRIDE]
            pixel = F.stride(size, maps, coding.kind == UNIT_LENGTH)[0]
            place = coding.positions[:, 0] / pixel % 1
            order = np.argsort(place)[::4]
            # What lies on each other stays visible.
            dot = 7 - 0.9 * index
            style = dict(color=COLORS[pipeline], label=pipeline.label)
            axes[0].plot(
                place[order], coding.errors[order, 0], '.', markersize=dot, **style
            )
            for ax, which in zip(axes[1:], ('errors', 'noisy')):
                means = [
                    np.abs(getattr(measured.codings[pipeline, s][0], which)).mean()
                    for s in strides
                ]
                means = np.maximum(means, LEAST)
                ax.plot(strides, means, 'o-', markersize=dot, **style)
        axes[0].set(
            title=f'perfect maps, stride {paper.STRIDE}',
            xlabel='sub-pixel position (heatmap px)',
            ylabel='error along x (input px)',
        )
        axes[1].set(title='perfect maps', ylabel='mean error an axis (input px)')
        axes[2].set(title=f'{NOISE:.0%} noise')
        for ax in axes:
            ax.grid(color='0.92')
        for ax in axes[1:]:
            ax.set(xscale='log', yscale='log', xlabel='stride', ylim=(0.8 * LEAST, 10))
            ax.set_xticks(strides, list(map(str, strides)))
            ax.set_yticks(
                [LEAST, 0.01, 0.1, 1, 10], [f'≤ {LEAST:g}', '0.01', '0.1', '1', '10']
            )
            ax.tick_params(axis='x', which='minor', bottom=False, labelbottom=False)
        _legend(figure, columns=4, scale=1.5)
        return _save(figure, folder / 'paper_coding.png')


def draw_transform(folder: Path, measured: Measured) -> Path:
    """Errors of random people along the input."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout='constrained')
        panels = figure.subplots(1, 2, sharey=True)
        for axis, ax in enumerate(panels):
            for pipeline, (_, _, end) in measured.warps.items():
                places, errors = along(end, axis)
                ax.plot(
                    places,
                    errors,
                    '.',
                    markersize=2,
                    color=COLORS[pipeline],
                    label=pipeline.label,
                )
            name = 'xy'[axis]
            ax.set(xlabel=f'{name} of the keypoint in the input (px)')
            ax.set_title(f'along {name}')
            ax.grid(color='0.92')
        panels[0].set_ylabel('error (input px)')
        _legend(figure, columns=3, scale=5)
        return _save(figure, folder / 'paper_transform.png')


def draw_ceiling(folder: Path, measured: Measured) -> Path:
    """COCO AP, mean OKS and precision of a perfect network against the input size."""
    sizes = sorted(measured.plan.ends)
    most = NEAR[-1]

    def found(pipeline: Pipeline) -> Sequence[Ended]:
        return [measured.ends[pipeline, size] for size in sizes]

    panels = {
        'COCO AP': lambda one: one.ap,
        'mean OKS': lambda one: one.end.oks.mean(),
        f'keypoints within {most:g} input px (%)': lambda one: (
            100 * near(one.end, most)
        ),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout='constrained')
        for ax, (title, value) in zip(figure.subplots(1, 3), panels.items()):
            for index, pipeline in enumerate(paper.ENDED):
                values: List[float] = [value(one) for one in found(pipeline)]
                ax.plot(
                    range(len(sizes)),
                    values,
                    '--' if pipeline.shift is False else '-',
                    marker='o',
                    # What lies on each other stays visible.
                    markersize=8 - 0.7 * index,
                    color=COLORS[pipeline],
                    label=pipeline.label,
                )
            ax.set(title=title, xlabel='network input (px)')
            ax.set_xticks(range(len(sizes)), list(map(text_of, sizes)), fontsize=7.5)
            ax.grid(color='0.92')
        _legend(figure, columns=3)
        return _save(figure, folder / 'paper_ceiling.png')
