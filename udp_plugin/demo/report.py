"""What the runs predicted: measured, tabulated, drawn."""

import json
import platform
from argparse import Namespace
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import cv2
import matplotlib.cm
import matplotlib.colors
import matplotlib.lines
import matplotlib.patches
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.fileio import load
from mmpose.registry import KEYPOINT_CODECS
from rich.console import Console
from rich.table import Table

from udp_plugin import functional as F
from udp_plugin.ui import STYLE, versions

from .configs import (
    BATCH_SIZE,
    CODECS,
    HEATMAP_SIZE,
    INPUT_SIZE,
    SIGMA,
    STOCK_CODEC,
    Data,
)
from .measures import COLUMNS, Prediction, errors_of, measure, read_predictions

CODEC_OF = {'stock': STOCK_CODEC, **{f'udp_{k}': v for k, v in CODECS.items()}}
LABELS = {**CODEC_OF, 'stock': f'stock: {STOCK_CODEC}'}
#: Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = dict(stock='#D55E00', udp_gaussian='#0072B2', udp_offset='#009E73')

#: Median error in input px, above which a network has not learnt its task.
UNTRAINED = 8


class Run(NamedTuple):
    """The results of one config."""

    predictions: List[Prediction]
    #: Errors of all labelled keypoints, input px.
    errors: np.ndarray
    metrics: Dict[str, float]


def measure_runs(out: Path, runs: Sequence[str]) -> Dict[str, Run]:
    """Measure the predictions of each run in the demo's folder."""
    results = {}
    for name in runs:
        predictions = read_predictions(out / name / 'predictions.pkl')
        ap = load(str(out / name / 'metrics.json'))['coco/AP']
        figures = measure(predictions, ap)
        results[name] = Run(predictions, errors_of(predictions), figures)
    return results


# --- the table ------------------------------------------------------------------------


def conclusion(results: Dict[str, Run], iters: int) -> str:
    """One sentence that says what the figures say."""
    stock = results['stock'].metrics['median_px']
    best = min(
        (name for name in results if name != 'stock'),
        key=lambda name: results[name].metrics['median_px'],
    )
    median = results[best].metrics['median_px']
    compared = f'a median error of {median:.2f} input px against {stock:.2f}'
    if median < 0.95 * stock and median < UNTRAINED:
        return (
            f'The same network, trained alike, is {stock / median:.1f} times as '
            f'accurate with UDP: {compared} ({CODEC_OF[best]}).'
        )
    return (
        f'After {iters} iterations there is no gain to tell: {compared}. The bias '
        'that UDP removes shows once a network is right to a few px: raise --iters.'
    )


def show(
    console: Console,
    data: Data,
    iters: int,
    results: Dict[str, Run],
    pictures: Sequence[Path],
    seconds: float,
) -> None:
    """Print the table, the conclusion, and where the pictures are."""
    width, height = INPUT_SIZE
    count = len(results['stock'].errors)
    table = Table(
        title=f'Errors in input px ({width} x {height}) of {count} keypoints, '
        f'{data.title}, flip test on',
        title_justify='left',
    )
    table.add_column('config')
    for _, header, _, _ in COLUMNS:
        table.add_column(header, justify='right', no_wrap=True)
    table.add_column('median\nvs. stock', justify='right', no_wrap=True)
    best = {
        key: (max if more else min)(run.metrics[key] for run in results.values())
        for key, _, _, more in COLUMNS
    }
    stock = results['stock'].metrics['median_px']
    for name, run in results.items():
        cells = []
        for key, _, form, _ in COLUMNS:
            text = form.format(run.metrics[key])
            is_best = text == form.format(best[key])
            cells.append(f'[bold green]{text}[/]' if is_best else text)
        ratio = f'{run.metrics["median_px"] / stock:.2f}'
        table.add_row(name, *cells, '' if name == 'stock' else ratio)
    console.print()
    console.print(table)
    console.print(conclusion(results, iters), style='bold', soft_wrap=True)
    console.print()
    for path in (*pictures, pictures[0].parent / 'results.json'):
        console.print(str(path), soft_wrap=True)
    out = pictures[0].parent
    best_run = min(
        list(results)[1:], key=lambda name: results[name].metrics['median_px']
    )
    console.print(
        f'deploy it: udp-plugin export {out / best_run}.py '
        f'{out / best_run / f"iter_{iters}.pth"} -o model.onnx --flip-test',
        soft_wrap=True,
    )
    minutes, rest = divmod(round(seconds), 60)
    console.print(f'took {minutes} min {rest} s')


def write_json(
    args: Namespace,
    data: Data,
    iters: int,
    results: Dict[str, Run],
    seconds: Dict[str, float],
) -> None:
    """Write ``results.json``: all figures, and what they were measured with."""
    cuda = torch.cuda.is_available()
    content = dict(
        command=args.command,
        data=dict(
            title=data.title,
            train_persons=data.train_count,
            test_persons=data.test_count,
            keypoints_measured=len(results['stock'].errors),
        ),
        training=dict(
            iterations=iters,
            batch_size=BATCH_SIZE,
            seed=args.seed,
            input_size=INPUT_SIZE,
            heatmap_size=HEATMAP_SIZE,
            sigma=SIGMA,
        ),
        runs={
            name: dict(codec=CODEC_OF[name], **run.metrics)
            for name, run in results.items()
        },
        conclusion=conclusion(results, iters),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        machine=dict(
            system=platform.platform(),
            processor=platform.processor() or platform.machine(),
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if cuda else None,
        ),
        versions=versions(),
    )
    (args.out / 'results.json').write_text(json.dumps(content, indent=2) + '\n')


# --- the pictures ---------------------------------------------------------------------


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, bbox_inches='tight', facecolor='white')
    return path


def _read_rgb(path: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _bare(ax) -> None:
    """Leaves out ticks and frame of a picture."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def typical(results: Dict[str, Run], count: int) -> List[int]:
    """Indices of the persons nearest to the stock run's median error."""
    stock = results['stock']
    medians = [np.median(p.errors) for p in stock.predictions]
    order = np.argsort(np.abs(medians - np.median(stock.errors)), kind='stable')
    chosen, paths = [], set()
    for i in order.tolist():
        if stock.predictions[i].img_path not in paths:
            chosen.append(i)
            paths.add(stock.predictions[i].img_path)
    return chosen[:count]


def draw_predictions(out: Path, results: Dict[str, Run], count: int = 3) -> Path:
    """Annotated and predicted keypoints, enlarged, one run beside the other."""
    #: Side of the enlarged part, input px.
    window = 26
    chosen = typical(results, count)
    with matplotlib.rc_context(STYLE):
        columns = 1 + len(results)
        figure = Figure(figsize=(2.4 * columns, 2.4 * len(chosen) + 0.5))
        axes = figure.subplots(len(chosen), columns, squeeze=False)
        figure.subplots_adjust(wspace=0.06, hspace=0.2)
        for row, i in zip(axes, chosen):
            persons = {name: run.predictions[i] for name, run in results.items()}
            person = persons['stock']
            image = _read_rgb(person.img_path)
            # Around the keypoint whose error is the person's median.
            points = person.annotated[person.labelled]
            half = window / 2 * person.pixel
            low = points[np.argsort(person.errors)[len(points) // 2]] - half

            row[0].imshow(image)
            low_box = person.center - person.scale / 2
            row[0].set(
                xlim=(low_box[0], low_box[0] + person.scale[0]),
                ylim=(low_box[1] + person.scale[1], low_box[1]),
            )
            frame = matplotlib.patches.Rectangle(
                low, 2 * half, 2 * half, fill=False, color='white', linewidth=1.2
            )
            row[0].add_patch(frame)
            _bare(row[0])
            for ax, (name, seen) in zip(row[1:], persons.items()):
                ax.imshow(image, interpolation='nearest')
                ax.set(
                    xlim=(low[0], low[0] + 2 * half), ylim=(low[1] + 2 * half, low[1])
                )
                _draw_pairs(ax, seen, COLORS[name])
                _bare(ax)
                inside = (np.abs(points - low - half) < half).all(-1)
                mean = seen.errors[inside].mean()
                ax.set_xlabel(f'mean error here {mean:.2f} px', color=COLORS[name])
        for ax, name in zip(axes[0][1:], results):
            ax.set_title(LABELS[name], color=COLORS[name])
        # Input px throughout; the side of the enlarged part gives their size.
        axes[0][0].set_title(f'enlarged: {window} x {window} input px')
        handles = [
            matplotlib.lines.Line2D(
                [], [], color='black', marker='+', linestyle='', markersize=8
            ),
            matplotlib.lines.Line2D(
                [], [], color='0.4', marker='o', mfc='none', linestyle='', markersize=6
            ),
        ]
        figure.legend(
            handles,
            ['annotated', 'predicted'],
            loc='lower center',
            ncols=2,
            frameon=False,
        )
        return _save(figure, out / 'predictions.png')


def _draw_pairs(ax, person: Prediction, color: str) -> None:
    annotated = person.annotated[person.labelled].T
    predicted = person.predicted[person.labelled].T
    # Start, end; x or y; keypoint.
    segments = np.stack((annotated, predicted), 1)
    for width, shade in ((3.2, 'white'), (1.6, color)):
        ax.plot(*segments, color=shade, linewidth=width)
    _ring(ax, predicted, color)
    _mark(ax, annotated)


def _mark(ax, points: np.ndarray) -> None:
    """Crosses at annotated keypoints, shape (2,) or (2, K)."""
    for size, width, shade in ((12, 3, 'white'), (10, 1.2, 'black')):
        ax.plot(*points, '+', color=shade, markersize=size, mew=width)


def _ring(ax, points: np.ndarray, color: str) -> None:
    """Rings at predicted keypoints, shape (2,) or (2, K)."""
    for width, shade in ((3.2, 'white'), (1.6, color)):
        ax.plot(*points, 'o', color=shade, mfc='none', markersize=9, mew=width)


def draw_targets(out: Path, results: Dict[str, Run]) -> Path:
    """The target maps of each codec for one keypoint, over the network's input."""
    person = results['stock'].predictions[typical(results, 1)[0]]
    image = _read_rgb(person.img_path)
    k = _typical_keypoint(person, image)
    #: Half the side of the enlarged part, input px.
    half = 20
    panels = [
        ('stock', 0, 'Gaussian, rounded'),
        ('udp_gaussian', 0, 'Gaussian'),
        ('udp_offset', 0, 'H: disc'),
        ('udp_offset', 1, 'X: offset in x'),
        ('udp_offset', 2, 'Y: offset in y'),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 2.9))
        axes = figure.subplots(1, 1 + len(panels))
        figure.subplots_adjust(wspace=0.08)
        warped, points = _warp(image, person, unbiased=True)
        axes[0].imshow(warped)
        axes[0].set_title(f"the network's input,\n{INPUT_SIZE[0]} x {INPUT_SIZE[1]} px")
        frame = matplotlib.patches.Rectangle(
            points[k] - half, 2 * half, 2 * half, fill=False, color='white'
        )
        axes[0].add_patch(frame)
        _bare(axes[0])
        for ax, (run, channel, title) in zip(axes[1:], panels):
            unbiased = run != 'stock'
            warped, points = _warp(image, person, unbiased)
            maps, (decoded,) = _code(run, points[k : k + 1])
            ax.imshow(warped.mean(-1), cmap='gray', vmin=-255, vmax=255)
            stride = F.stride(INPUT_SIZE, HEATMAP_SIZE, unbiased)
            # Offsets of nothing are no colour.
            alpha = np.clip(4 * maps[0], 0, 0.85)
            shown = _overlay(ax, maps[channel], alpha, stride)
            _mark(ax, points[k])
            ax.set(
                xlim=(points[k, 0] - half, points[k, 0] + half),
                ylim=(points[k, 1] + half, points[k, 1] - half),
            )
            _bare(ax)
            ax.set_title(f'{LABELS[run]}\n{title}', color=COLORS[run])
            if channel == 0:
                off = np.linalg.norm(decoded - points[k])
                _ring(ax, decoded, COLORS[run])
                ax.set_xlabel(f'decoded {off:.2f} px off', color=COLORS[run])
        figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01, ticks=[-1, 0, 1])
        return _save(figure, out / 'targets.png')


def _warp(image: np.ndarray, person: Prediction, unbiased: bool):
    """The network's input, and the annotated keypoints in it (K, 2)."""
    box = (person.center, person.scale, 0, INPUT_SIZE, unbiased)
    warped = cv2.warpAffine(image, F.warp_matrix(*box), INPUT_SIZE)
    return warped, F.source_to_input(person.annotated, *box)


def _code(run: str, points: np.ndarray):
    """Encode keypoints and decode them again, as with a perfect network.

    Args:
        run: Whose codec.
        points: Shape (K, 2), input px.

    Returns:
        tuple: the target maps, and the decoded keypoints (K, 2) in input px.
    """
    codec = KEYPOINT_CODECS.build(
        dict(
            type=CODEC_OF[run],
            input_size=INPUT_SIZE,
            heatmap_size=HEATMAP_SIZE,
            sigma=SIGMA,
        )
    )
    maps = codec.encode(points[None].astype(np.float32))['heatmaps']
    decoded = codec.decode(maps)[0][0]
    if run != 'stock':
        decoded = F.toolbox_to_input(decoded, INPUT_SIZE)
    return maps, decoded


def _typical_keypoint(person: Prediction, image: np.ndarray) -> int:
    """The keypoint at which the stock codec is off by its median."""
    _, points = _warp(image, person, unbiased=False)
    _, decoded = _code('stock', points)
    candidates = np.flatnonzero(person.labelled)
    off = np.linalg.norm(decoded - points, axis=-1)[candidates]
    return int(candidates[np.argsort(off)[len(off) // 2]])


def _overlay(ax, target: np.ndarray, alpha: np.ndarray, stride: np.ndarray):
    """Draw a map over the input, its pixels' centres where they belong."""
    height, width = target.shape
    right, bottom = stride * (width - 0.5, height - 0.5)
    left, top = -stride / 2
    ax.imshow(
        target,
        cmap='PuOr',
        vmin=-1,
        vmax=1,
        alpha=alpha,
        extent=(left, right, bottom, top),
        interpolation='nearest',
    )
    return matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(-1, 1), 'PuOr')


def draw_errors(out: Path, results: Dict[str, Run]) -> Path:
    """The share of keypoints within a distance, by distance."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4))
        ax = figure.subplots()
        for name, run in results.items():
            share = 100 * np.arange(1, len(run.errors) + 1) / len(run.errors)
            median = run.metrics['median_px']
            ax.step(
                np.sort(run.errors),
                share,
                color=COLORS[name],
                label=f'{LABELS[name]}: median {median:.2f} px',
            )
            ax.plot(median, 50, 'o', color=COLORS[name], markersize=5)
        ax.set(
            xscale='log',
            xlim=(0.05, 20),
            ylim=(0, 100),
            xlabel=f'distance from the annotation (px of the {INPUT_SIZE[0]} x '
            f'{INPUT_SIZE[1]} input)',
            ylabel='keypoints within that distance (%)',
        )
        ax.xaxis.set_major_formatter('{x:g}')
        ax.grid(color='0.9')
        ax.legend(frameon=False)
        return _save(figure, out / 'errors.png')
