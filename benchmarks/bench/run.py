"""The bench's course: what is measured, in which order, and what is noted of it."""

import gc
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
import torch
from rich.console import Console

from benchmarks.page import machine
from udp_plugin.names import CODECS
from udp_plugin.ui import UserError, console, progress, say

from . import cases
from .answers import WrongAnswer
from .cases import BUILTIN, OTHERS, Case
from .data import NOISES, SIZES, Setting, Size
from .measure import ALL, ONE, SHARED, arranged, peak_bytes, time_in_turn
from .pipeline import pipeline_cases
from .report import write

#: For the rounds of a case, of one where one thing is varied, and in a quick look.
SECONDS, SCALING_SECONDS, QUICK_SECONDS = 2.0, 0.3, 0.02
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
    to = console(stderr=json == '-')
    try:
        (out / 'images').mkdir(parents=True, exist_ok=True)
        # Only what was asked for may be there.
        with redirect_stdout(sys.stderr) if json == '-' else nullcontext():
            content = dict(command=command, **measure(device, quick, to))
        summary, *files = write(out, content)
        figures = (out / 'bench.json').read_text()
        if json == '-':
            print(figures, end='')
        elif json:
            Path(json).write_text(figures)
    except WrongAnswer as error:
        raise UserError(f'a wrong answer, so there are no figures: {error}') from error
    except OSError as error:
        raise UserError(str(error)) from error
    summary.print(to)
    for line in (*content['left_out'], *files):
        say(line, to)


def measure(device: str, quick: bool, to: Console) -> dict:
    """Compare and time everything; returns what ``bench.json`` has.

    Raises:
        WrongAnswer: A contender does not compute what it should.
    """
    started = time.monotonic()
    found = dict(
        date=time.strftime('%Y-%m-%d'),
        machine=dict(machine(), device=device),
        maps_compared=0,
        left_out=[],
        results=[],
    )
    with tempfile.TemporaryDirectory() as folder, progress(to) as bar:
        task = bar.add_task('cases', total=None, note='')
        for case in _cases(device, quick, folder, found['left_out']):
            label = f'{case.operation}, {case.setting.label}'
            bar.update(task, advance=1, note=label)
            if not to.is_terminal:
                say(f'{time.monotonic() - started:4.0f} s: {label}', to)
            try:
                with arranged(case.arrangements[0]):
                    found['maps_compared'] += case.check()
            except WrongAnswer as error:
                raise WrongAnswer(f'{label}: {error}') from error
            seconds = SCALING_SECONDS if case.setting.axis else SECONDS
            found['results'] += _timed(case, QUICK_SECONDS if quick else seconds)
            # Its maps, and networks, which are rings of references, go before the next.
            del case
            gc.collect()
    return dict(found, seconds=round(time.monotonic() - started, 1))


def _timed(case: Case, seconds: float) -> Iterator[dict]:
    """What is noted of a case: a row for each contender but the built-in."""
    setting, times = case.setting, {}
    for how in case.arrangements:
        with arranged(how):
            # Of the second call or so: with it, all are warm.
            peaks = {n: peak_bytes(c, setting.device) for n, c in case.calls.items()}
            times[how] = time_in_turn(case.calls, seconds, setting.device)

    def figures(name: str, how: str) -> dict:
        ms, builtin = (times[how][each] for each in (name, BUILTIN))
        return dict(
            rounds=len(ms),
            ms=statistics.median(ms),
            p90_ms=float(np.percentile(ms, 90)),
            builtin_ms=statistics.median(builtin),
            builtin_p90_ms=float(np.percentile(builtin, 90)),
            times_as_fast=statistics.median(builtin) / statistics.median(ms),
        )

    for name in case.calls:
        if name != BUILTIN:
            yield dict(
                operation=case.operation,
                codec=setting.codec,
                contender=name,
                ours=name not in OTHERS,
                keypoints=setting.size.keypoints,
                heatmap_size=setting.size.heatmap_size,
                batch=setting.batch,
                maps=setting.kind,
                axis=setting.axis,
                times={how: figures(name, how) for how in times},
                peak_bytes=peaks[name],
                builtin_peak_bytes=peaks[BUILTIN],
                file_bytes=case.file_bytes.get(name),
            )


def _cases(
    device: str, quick: bool, folder: str, left_out: List[str]
) -> Iterator[Case]:
    """All cases, or the least of each kind."""
    in_graphs = device == 'cpu' and all(map(find_spec, ('onnx', 'onnxruntime')))
    if not in_graphs:
        left_out.append('decode in a graph: for the CPU, with onnx and onnxruntime')
    for size in [SIZES[0]._replace(batches=(1,))] if quick else SIZES:
        for batch in size.batches:
            for codec in CODECS:
                yield from operations(Setting(codec, size, batch, device), in_graphs)
    for size, batch in [(SIZES[0], 2)] if quick else PIPELINE:
        for codec in CODECS:
            yield from pipeline_cases(Setting(codec, size, batch, device), folder)
    for axis, settings in SCALING.items():
        for size, batch in settings[: 2 if quick else None]:
            for codec in CODECS:
                setting = Setting(codec, size, batch, device, axis=axis)
                yield cases.decode(setting)
                yield cases.encode(setting)


def operations(setting: Setting, in_graphs: bool = True) -> Iterator[Case]:
    """All operations on maps as a network gives them, and decoding where it is hard."""
    codec, size, batch = setting.codec, setting.size, setting.batch
    if batch == 1:
        yield cases.encode(Setting(codec, size, 1), in_a_worker=True)
    yield cases.decode(setting, (ONE, ALL, SHARED))
    if in_graphs and batch in size.batches[:2]:
        yield cases.decode_in_a_graph(setting)
    yield cases.encode(setting)
    if codec == 'offset':
        yield cases.loss(setting)
    yield cases.flip(setting)
    if batch == size.batches[len(size.batches) // 2]:
        for kind in NOISES:
            yield cases.decode(Setting(codec, size, batch, setting.device, kind))
