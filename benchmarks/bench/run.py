"""The bench's course: what is measured, what is noted of it, and what it leaves."""

import gc
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.page import machine, render
from udp_plugin.errors import UserError
from udp_plugin.files import keep_apart, naming, write_bytes, write_text, written
from udp_plugin.names import CODECS
from udp_plugin.ui import COLORS, STYLE, Table, console, say

from . import cases
from .answers import WrongAnswer
from .cases import BUILTIN, OPENCV, Case
from .data import NOISES, SIZES, Setting, Size
from .measure import ALL, ONE, SHARED, arranged, peak_bytes, time_in_turn
from .pipeline import pipeline_cases

TEMPLATE = Path(__file__).with_name('bench.md.j2')
#: For the rounds of a case, of one where one thing is varied, and in a quick look.
SECONDS, SCALING_SECONDS, QUICK_SECONDS = 0.8, 0.2, 0.02
#: Sizes and batches of the whole pipeline, and those of which only one thing varies.
PIPELINE = [(SIZES[0], 16), (SIZES[1], 8)]
SCALING = {
    'batch': [(Size(17, (48, 64), 2), n) for n in (1, 4, 16, 64, 256)],
    'keypoints': [(Size(k, (48, 64), 2), 16) for k in (17, 34, 68, 136, 272)],
    'pixels of a map': [(Size(17, (24 * s, 32 * s), s), 16) for s in (1, 2, 4, 8)],
}


def run_bench(
    out: Path,
    command: str,
    device: str = 'cpu',
    quick: bool = False,
    json: Optional[str] = None,
) -> None:
    """Measure, print a summary, and write ``bench.md``, a plot and ``bench.json``.

    Args:
        out: The folder.
        command: As it was called, for ``bench.json``.
        device: Where maps and networks are.
        quick: The smallest sizes and few rounds.
        json: A file for the figures, too; ``-`` prints them, and nothing else.

    Raises:
        UserError: There is no such device or folder, or an answer is wrong.
    """
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda, but torch finds no CUDA device here')
    pages = {f'{name} of --out': out / name for name in ('bench.md', 'bench.json')}
    file = None if json in (None, '-') else Path(json)
    keep_apart({'--json': file}, pages)
    with naming(out):
        (out / 'images').mkdir(parents=True, exist_ok=True)
    to, started, results = console(stderr=json == '-'), time.monotonic(), []
    # Only what was asked for may be on the standard output.
    alone = redirect_stdout(sys.stderr) if json == '-' else nullcontext()
    with alone, tempfile.TemporaryDirectory() as folder:
        for case in _cases(device, quick, folder):
            label = f'{case.operation}, {case.setting.label}'
            say(f'{time.monotonic() - started:4.0f} s: {label}', to)
            try:
                with arranged(case.arrangements[0]):
                    case.check()
            except WrongAnswer as error:
                raise WrongAnswer(f'no figures, {label}: {error}') from error
            seconds = SCALING_SECONDS if case.setting.axis else SECONDS
            results.append(_result(case, QUICK_SECONDS if quick else seconds))
            # Its maps, and networks, which are rings of references, go before the next.
            del case
            gc.collect()
    content = dict(
        command=command,
        date=time.strftime('%Y-%m-%d'),
        seconds=round(time.monotonic() - started, 1),
        machine=dict(machine(), device=device),
        results=results,
    )
    summary, files = write(out, content)
    if json == '-':
        print(files[-1].read_text(), end='')
    elif file:
        write_bytes(file, files[-1].read_bytes())
    summary.print(to)
    say('\n'.join(map(str, files)), to)


def _result(case: Case, seconds: float) -> dict:
    """What is noted of a case."""
    setting = case.setting
    others = (BUILTIN, OPENCV)
    contenders = {name: dict(ours=name not in others, times={}) for name in case.calls}
    for how in case.arrangements:
        with arranged(how):
            for name, call in case.calls.items():
                # Of the second call or so: with it, all are warm.
                contenders[name]['peak_bytes'] = peak_bytes(call, setting.device)
            times = time_in_turn(case.calls, seconds, setting.device)
        for name, ms in times.items():
            contenders[name]['times'][how] = dict(
                rounds=len(ms),
                ms=float(np.median(ms)),
                p90_ms=float(np.percentile(ms, 90)),
            )
    return dict(
        operation=case.operation,
        codec=setting.codec,
        keypoints=setting.size.keypoints,
        heatmap_size=setting.size.heatmap_size,
        batch=setting.batch,
        maps=setting.kind,
        axis=setting.axis,
        contenders=contenders,
    )


def _cases(device: str, quick: bool, folder: str) -> Iterator[Case]:
    """All cases, or the least of each kind."""
    for size in [SIZES[0]._replace(batches=(1,))] if quick else SIZES:
        for batch in size.batches:
            for codec in CODECS:
                yield from operations(Setting(codec, size, batch, device))
    for size, batch in [(SIZES[0], 2)] if quick else PIPELINE:
        for codec in CODECS:
            yield from pipeline_cases(Setting(codec, size, batch, device), folder)
    for axis, settings in SCALING.items():
        for size, batch in settings[: 2 if quick else None]:
            for codec in CODECS:
                setting = Setting(codec, size, batch, device, axis=axis)
                yield cases.decode(setting)
                yield cases.encode_batch(setting)


def operations(setting: Setting) -> Iterator[Case]:
    """All operations on maps as a network gives them, and decoding where it is hard."""
    codec, size, batch = setting.codec, setting.size, setting.batch
    in_graphs = all(map(find_spec, ('onnx', 'onnxruntime')))
    yield cases.decode(setting, (ONE, ALL, SHARED))
    if in_graphs and setting.device == 'cpu' and batch in size.batches[:2]:
        yield cases.decode_in_a_graph(setting)
    if batch == 1:
        yield cases.encode(Setting(codec, size, 1))
    yield cases.encode_batch(setting)
    if codec == 'offset':
        yield cases.loss(setting)
    yield cases.flip(setting)
    if batch == size.batches[len(size.batches) // 2]:
        for kind in NOISES:
            yield cases.decode(Setting(codec, size, batch, setting.device, kind))


def write(out: Path, content: dict) -> Tuple[Table, List[Path]]:
    """Write ``bench.md``, a plot and ``bench.json``; returns a summary, and files."""
    ratios: Dict[str, List[Tuple[float, str]]] = {}
    for result in content['results']:
        builtin = result['contenders'][BUILTIN]['times']
        for contender in result['contenders'].values():
            for how, times in contender['times'].items():
                label = result['operation'] + f', {how}' * (len(builtin) > 1)
                label = label if result['maps'] == 'network' else 'decode, no peak'
                if contender['ours'] and result['axis'] is None:
                    ratio = builtin[how]['ms'] / times['ms']
                    ratios.setdefault(label, []).append((ratio, result['codec']))
    rows = []
    for label, found in ratios.items():
        values = [ratio for ratio, _ in found]
        spread = min(values), np.median(values), max(values)
        slower = f'{np.less(values, 0.97).sum()} of {len(values)}'
        rows.append([label, *(f'{value:.3g}×' for value in spread), slower])
    header = ['', 'least', 'median', 'most', 'slower by more than 3 %']
    summary = Table('Times as fast as the built-ins', header, rows)

    plot, figures = out / 'images' / 'bench_ratios.png', out / 'bench.json'
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout='constrained')
        ax = figure.subplots()
        for place, found in enumerate(ratios.values()):
            x, codecs = zip(*found)
            colors = [COLORS[codec] for codec in codecs]
            ax.scatter(x, [place] * len(x), s=14, c=colors, alpha=0.6, zorder=3)
        ax.axvline(1, color='0.3', linewidth=1)
        ax.set_yticks(range(len(ratios)), list(ratios))
        ax.invert_yaxis()
        ax.set(xscale='log', xlabel='times as fast: Gaussian maps blue, offset green')
        ax.xaxis.set_major_formatter('{x:g}×')
        ax.grid(axis='y', color='0.93')
        with written(plot) as made:
            figure.savefig(made)
    write_text(figures, dumps(content, indent=1) + '\n')
    page = render(TEMPLATE, out / 'bench.md', bench=content, summary=summary)
    return summary, [page, plot, figures]
