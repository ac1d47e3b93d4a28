"""What a demo found, as a table, as JSON and in pictures."""

import json
import platform
import shlex
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mmpose.registry import KEYPOINT_CODECS

from udp_plugin import functional as F
from udp_plugin import ui
from udp_plugin.files import write_text, written

from .configs import BATCH_SIZE, HEATMAP_SIZE, INPUT_SIZE, KEPT, RUNS, SIGMA
from .measures import Demo, Prediction, Run

COLORS = {name: ui.COLORS[name.replace('udp_', '')] for name in RUNS}
LABELS = {
    **RUNS,
    'stock': f'stock: {RUNS["stock"]}',
    KEPT: 'stock weights, kept',
}
#: Keypoints as annotated and as predicted, with a light rim.
HALO = [withStroke(linewidth=3.2, foreground='white')]
CROSS = dict(
    marker='+', color='black', ls='', markersize=10, mew=1.2, path_effects=HALO
)
RING = dict(marker='o', mfc='none', ls='', markersize=9, mew=1.6, path_effects=HALO)
#: Columns of the table: key of the figure, header, format, and the best of them.
COLUMNS = [
    ('median_px', 'median\n(px)', '{:.2f}', min),
    ('mean_px', 'mean\n(px)', '{:.2f}', min),
    ('p95_px', '95 %\n(px)', '{:.2f}', min),
    ('within_half_px', 'within\n0.5 px', '{:.1%}', max),
    ('within_1_px', 'within\n1 px', '{:.1%}', max),
    ('ap', 'COCO\nAP', '{:.1f}', max),
]


def table(found: Demo) -> ui.Table:
    """The errors of each config; the best of each column stands out."""
    runs = found.runs.values()
    columns = [[LABELS[KEPT] if name == KEPT else name for name in found.runs]]
    for key, _, form, best in COLUMNS:
        figures = [run.metrics[key] for run in runs]
        column, winner = [*map(form.format, figures)], form.format(best(figures))
        columns.append([f'**{t}**' if t == winner else t for t in column])
    first, *medians = (run.metrics['median_px'] for run in runs)
    columns.append(['', *(f'{median / first:.2f}' for median in medians)])
    width, height = INPUT_SIZE
    return ui.Table(
        f'Errors in input px ({width} x {height}) of '
        f'{len(found.runs["stock"].errors)} keypoints, {found.data.title}, '
        'flip test on',
        ['config', *(header for _, header, _, _ in COLUMNS), 'median\nvs. stock'],
        [*map(list, zip(*columns))],
    )


def show(found: Demo) -> None:
    """Print the table, the conclusion, and where the pictures are."""
    console = ui.console()
    console.print()
    table(found).print(console)
    console.print(found.conclusion, style='bold', soft_wrap=True)
    console.print()
    for path in (*found.pictures, found.folder / 'results.json'):
        console.print(str(path), soft_wrap=True)
    best = found.folder / found.best
    checkpoint = best / f'iter_{found.iters}.pth'
    command = ['udp-plugin', 'export', f'{best}.py', str(checkpoint)]
    console.print(
        f'deploy it: {shlex.join([*command, "-o", "model.onnx", "--flip-test"])}',
        soft_wrap=True,
    )
    minutes, rest = divmod(round(found.seconds['all']), 60)
    console.print(f'took {minutes} min {rest} s')


def write_json(found: Demo, command: str) -> None:
    """Write ``results.json``: all figures, and what they were measured with."""
    data, cuda = found.data, torch.cuda.is_available()
    content = dict(
        command=command,
        data=dict(
            title=data.title,
            train_persons=data.train_count,
            test_persons=data.test_count,
            keypoints_measured=len(found.runs['stock'].errors),
        ),
        training=dict(
            iterations=found.iters,
            batch_size=BATCH_SIZE,
            seed=found.seed,
            input_size=INPUT_SIZE,
            heatmap_size=HEATMAP_SIZE,
            sigma=SIGMA,
        ),
        runs={n: dict(codec=RUNS[n], **run.metrics) for n, run in found.runs.items()},
        conclusion=found.conclusion,
        seconds={name: round(value, 1) for name, value in found.seconds.items()},
        machine=dict(
            system=platform.platform(),
            processor=ui.processor()[0],
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if cuda else None,
        ),
        versions=ui.versions(),
    )
    write_text(found.folder / 'results.json', json.dumps(content, indent=2) + '\n')


# --- the pictures ---------------------------------------------------------------------


def typical(runs: Dict[str, Run], count: int) -> List[int]:
    """Indices of the persons nearest to the stock run's median error."""
    stock = runs['stock']
    medians = [np.median(p.errors) for p in stock.predictions]
    order = np.argsort(np.abs(medians - np.median(stock.errors)), kind='stable')
    nearest: Dict[str, int] = {}
    for i in order.tolist():
        nearest.setdefault(stock.predictions[i].img_path, i)
    return list(nearest.values())[:count]


def _read_rgb(path: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def _show_part(ax: Axes, low: np.ndarray, size: np.ndarray) -> None:
    """Show the part of a picture with this upper left corner, without a frame."""
    (left, top), (right, bottom) = low, np.add(low, size)
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _frame(ax: Axes, low: np.ndarray, side: float) -> None:
    """Mark the square that is shown enlarged."""
    frame = Rectangle(low, side, side, fill=False, color='white', linewidth=1.2)
    ax.add_patch(frame)


def draw_predictions(runs: Dict[str, Run], count: int = 3) -> Figure:
    """Annotated and predicted keypoints, enlarged, one run beside the other."""
    #: Side of the enlarged part, input px.
    window = 26
    chosen = typical(runs, count)
    columns = 1 + len(runs)
    figure = Figure(figsize=(2.4 * columns, 2.4 * len(chosen) + 0.5))
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    figure.subplots_adjust(wspace=0.06, hspace=0.2)
    for row, i in zip(axes, chosen):
        person = runs['stock'].predictions[i]
        image = _read_rgb(person.img_path)
        # Around the keypoint whose error is the person's median.
        points = person.annotated[person.labelled]
        side = window * person.pixel
        low = points[np.argsort(person.errors)[len(points) // 2]] - side / 2
        row[0].imshow(image)
        _show_part(row[0], person.center - person.scale / 2, person.scale)
        _frame(row[0], low, side)
        inside = (np.abs(points - low - side / 2) < side / 2).all(-1)
        for ax, (name, run) in zip(row[1:], runs.items()):
            seen = run.predictions[i]
            ax.imshow(image, interpolation='nearest')
            _show_part(ax, low, (side, side))
            predicted = seen.predicted[seen.labelled]
            # Start, end; x or y; keypoint.
            segments = np.stack((points.T, predicted.T), 1)
            ax.plot(*segments, color=COLORS[name], linewidth=1.6, path_effects=HALO)
            ax.plot(*predicted.T, color=COLORS[name], **RING)
            ax.plot(*points.T, **CROSS)
            mean = seen.errors[inside].mean()
            ax.set_xlabel(f'mean error here {mean:.2f} px', color=COLORS[name])
    for ax, name in zip(axes[0][1:], runs):
        ax.set_title(LABELS[name], color=COLORS[name])
    # Input px throughout; the side of the enlarged part gives their size.
    axes[0][0].set_title(f'enlarged: {window} x {window} input px')
    handles = [
        Line2D([], [], label='annotated', **CROSS),
        Line2D([], [], color='0.4', label='predicted', **RING),
    ]
    figure.legend(handles=handles, loc='lower center', ncols=2, frameon=False)
    return figure


def draw_targets(runs: Dict[str, Run]) -> Figure:
    """The target maps of each codec for one keypoint, over the network's input."""
    person = runs['stock'].predictions[typical(runs, 1)[0]]
    image = _read_rgb(person.img_path)
    # The keypoint at which the stock codec is off by its median.
    _, points = _warp(image, person, unbiased=False)
    _, decoded = _code('stock', points)
    off = np.linalg.norm(decoded - points, axis=-1)
    candidates = np.flatnonzero(person.labelled)
    k = candidates[np.argsort(off[candidates])[len(candidates) // 2]]
    #: Half the side of the enlarged part, input px.
    half = 20
    panels = [
        ('stock', 0, 'Gaussian, rounded'),
        ('udp_gaussian', 0, 'Gaussian'),
        ('udp_offset', 0, 'H: disc'),
        ('udp_offset', 1, 'X: offset in x'),
        ('udp_offset', 2, 'Y: offset in y'),
    ]
    figure = Figure(figsize=(14, 2.9))
    axes = figure.subplots(1, 1 + len(panels))
    figure.subplots_adjust(wspace=0.08)
    warped, points = _warp(image, person, unbiased=True)
    axes[0].imshow(warped)
    _show_part(axes[0], (-0.5, -0.5), INPUT_SIZE)
    axes[0].set_title(f"the network's input,\n{INPUT_SIZE[0]} x {INPUT_SIZE[1]} px")
    _frame(axes[0], points[k] - half, 2 * half)
    for ax, (run, channel, title) in zip(axes[1:], panels):
        unbiased = run != 'stock'
        warped, points = _warp(image, person, unbiased)
        maps, (decoded,) = _code(run, points[k : k + 1])
        ax.imshow(warped.mean(-1), cmap='gray', vmin=-255, vmax=255)
        # The pixels' centres lie where they belong in the input.
        stride = F.stride(INPUT_SIZE, HEATMAP_SIZE, unbiased)
        left, top = -stride / 2
        right, bottom = stride * (np.array(HEATMAP_SIZE) - 0.5)
        shown = ax.imshow(
            maps[channel],
            cmap='PuOr',
            vmin=-1,
            vmax=1,
            # Offsets of nothing are no colour.
            alpha=np.clip(4 * maps[0], 0, 0.85),
            extent=(left, right, bottom, top),
            interpolation='nearest',
        )
        ax.plot(*points[k], **CROSS)
        _show_part(ax, points[k] - half, (2 * half, 2 * half))
        ax.set_title(f'{LABELS[run]}\n{title}', color=COLORS[run])
        if channel == 0:
            off = np.linalg.norm(decoded - points[k])
            ax.plot(*decoded, color=COLORS[run], **RING)
            ax.set_xlabel(f'decoded {off:.2f} px off', color=COLORS[run])
    figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01, ticks=[-1, 0, 1])
    return figure


def _warp(
    image: np.ndarray, person: Prediction, unbiased: bool
) -> Tuple[np.ndarray, np.ndarray]:
    """The network's input, and the annotated keypoints in it (K, 2)."""
    box = (person.center, person.scale, 0, INPUT_SIZE, unbiased)
    warped = cv2.warpAffine(image, F.warp_matrix(*box), INPUT_SIZE)
    return warped, F.source_to_input(person.annotated, *box)


def _code(run: str, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Encode keypoints and decode them again, as with a perfect network.

    Args:
        run: Whose codec.
        points: Shape (K, 2), input px.

    Returns:
        tuple: the target maps, and the decoded keypoints (K, 2) in input px.
    """
    sizes = dict(input_size=INPUT_SIZE, heatmap_size=HEATMAP_SIZE, sigma=SIGMA)
    codec = KEYPOINT_CODECS.build(dict(type=RUNS[run], **sizes))
    maps = codec.encode(points[None].astype(np.float32))['heatmaps']
    decoded = codec.decode(maps)[0][0]
    if run != 'stock':
        decoded = F.toolbox_to_input(decoded, INPUT_SIZE)
    return maps, decoded


def draw_errors(runs: Dict[str, Run]) -> Figure:
    """The share of keypoints within a distance, by distance."""
    figure = Figure(figsize=(6.4, 4))
    ax = figure.subplots()
    for name, run in runs.items():
        share = 100 * np.arange(1, len(run.errors) + 1) / len(run.errors)
        median = run.metrics['median_px']
        label = f'{LABELS[name]}: median {median:.2f} px'
        ax.step(np.sort(run.errors), share, color=COLORS[name], label=label)
        ax.plot(median, 50, 'o', color=COLORS[name], markersize=5)
    width, height = INPUT_SIZE
    ax.set(
        xscale='log',
        xlim=(0.05, 20),
        ylim=(0, 100),
        xlabel=f'distance from the annotation (px of the {width} x {height} input)',
        ylabel='keypoints within that distance (%)',
    )
    ax.xaxis.set_major_formatter('{x:g}')
    ax.grid(color='0.9')
    ax.legend(frameon=False)
    return figure


PICTURES = {
    'predictions.png': draw_predictions,
    'targets.png': draw_targets,
    'errors.png': draw_errors,
}


@rc_context(ui.STYLE)
def draw(path: Path, runs: Dict[str, Run]) -> Path:
    """Draw the picture of this name."""
    picture = PICTURES[path.name](runs)
    with written(path) as made:
        picture.savefig(made, bbox_inches='tight', facecolor='white')
    return path
