"""The bench's course: what is measured, in which order, and how far it is."""

import contextlib
import gc
import sys
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from udp_plugin.ui import signals_interrupt

from . import WrongAnswer, cases, graphs
from .cases import CODECS, Case, Facts, Setting
from .data import NOISES, SIZES, Size
from .measure import (
    as_a_worker,
    available_bytes,
    copy_bandwidth,
    median_ms,
    operators,
    peak_bytes,
    time_in_turn,
)

#: What an operation needs with any contender, in the memory of its maps.
OPERATIONS = {
    cases.decode: 4,
    graphs.decode_in_a_graph: 6,
    cases.encode_batch: 4,
    cases.loss: 8,
    cases.flip: 5,
}
#: Of which it is told where the time goes.
PROFILED = ('decode', 'loss')
#: Of the free memory, what it may need.
MEMORY_SHARE = 1 / 3
#: Maps whose answers are compared where one thing is varied.
SCALING_CHECKED = 50

#: Of the tables where nothing says how wide they may be.
PLAIN_WIDTH = 150

Scaling = Dict[str, List[Tuple[Size, int]]]


def _scaling(
    batches: Tuple[int, ...], keypoints: Tuple[int, ...], scales: Tuple[int, ...]
) -> Scaling:
    """Sizes and batches of which only one thing varies."""
    maps = (48, 64)
    return {
        'batch': [(Size(17, maps, 2), batch) for batch in batches],
        'keypoints': [(Size(count, maps, 2), 16) for count in keypoints],
        'pixels of a map': [(Size(17, (24 * s, 32 * s), s), 16) for s in scales],
    }


class Plan(NamedTuple):
    """How much is measured."""

    sizes: Tuple[Size, ...]
    #: Numbers of keypoints of the whole pipeline, and its batches.
    pipeline: Dict[int, int]
    scaling: Scaling
    #: For the rounds of a case: of an operation, of a part of the pipeline, and where
    #: one thing is varied.
    seconds: float
    pipeline_seconds: float
    scaling_seconds: float


FULL = Plan(
    sizes=SIZES,
    pipeline={17: 16, 133: 8},
    scaling=_scaling((1, 4, 16, 64, 256), (17, 34, 68, 136, 272), (1, 2, 4, 8)),
    seconds=2.0,
    pipeline_seconds=4.0,
    scaling_seconds=0.3,
)
#: A look in seconds: the least of everything.
QUICK = Plan(
    sizes=(SIZES[0]._replace(batches=(1,)),),
    pipeline={17: 2},
    scaling=_scaling((1, 2), (17, 34), (1, 2)),
    seconds=0.02,
    pipeline_seconds=0.02,
    scaling_seconds=0.02,
)


class Result(NamedTuple):
    """What was measured of a case."""

    facts: Facts
    #: What is varied, where only one thing is.
    axis: Optional[str]
    rounds: int
    #: Medians of a call, by contender.
    ms: Dict[str, float]
    #: Beyond the inputs; None where the system does not tell.
    peak_bytes: Dict[str, Optional[int]]
    #: Of ours, see :func:`~.measure.operators`.
    operators: Dict[str, List[Tuple[str, int, float]]]
    #: That contenders add to the file of a model.
    file_bytes: Dict[str, int]


class Measured(NamedTuple):
    """All that was measured."""

    results: List[Result]
    #: Bytes that a copy reads and writes a second: of the device, and in one thread.
    bandwidth: Dict[str, float]
    #: What was left out, and why.
    left_out: List[str]
    #: Maps whose answers were compared.
    compared: int
    seconds: float


class Job(NamedTuple):
    """Cases that share their data."""

    title: str
    make: Callable[[], Iterator[Case]]
    #: What it takes beside the others, about seconds on two cores.
    cost: float
    axis: Optional[str] = None


def run_bench(args: Namespace) -> int:
    """Run the bench; returns the command's exit status.

    Args:
        args: Of ``udp-plugin bench``: ``device``, ``json``, ``out``, ``quick``, and the
            ``command`` itself.
    """
    to_stdout = args.json == '-'
    console = Console(highlight=False, stderr=to_stdout)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH

    def complain(message: str) -> None:
        console.print(f'error: {message}', style='red', markup=False, soft_wrap=True)

    if args.device == 'cuda' and not torch.cuda.is_available():
        complain('--device cuda, but torch finds no CUDA device here')
        return 2
    # What it lacks is said before the work.
    from . import report

    # Only what was asked for may be there.
    quiet = contextlib.redirect_stdout(sys.stderr) if to_stdout else None
    try:
        (args.out / 'images').mkdir(parents=True, exist_ok=True)
        with quiet or contextlib.nullcontext(), signals_interrupt():
            measured = measure(args.device, QUICK if args.quick else FULL, console)
        report.report(args, measured, console)
    except WrongAnswer as error:
        complain(f'a wrong answer, so there are no figures: {error}')
        return 1
    except OSError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        console.print('stopped')
        return 130
    return 0


def measure(device: str, plan: Plan, console: Console) -> Measured:
    """Compare and measure everything.

    Raises:
        WrongAnswer: A contender does not compute what it should.
    """
    started = time.monotonic()
    left_out: List[str] = []
    results: List[Result] = []
    compared = 0
    columns = (TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, speed_estimate_period=600
    ) as progress, tempfile.TemporaryDirectory() as folder:
        jobs = list(_jobs(device, plan, left_out, Path(folder)))
        task = progress.add_task('', total=sum(job.cost for job in jobs))
        bandwidth = {'device': copy_bandwidth(device)}
        with as_a_worker():
            bandwidth['one thread'] = copy_bandwidth('cpu')
        for number, job in enumerate(jobs, 1):
            since = time.monotonic()
            for case in job.make():
                progress.update(task, description=case.facts.label)
                compared += _check(case)
                results.append(_time(case, device, job.axis))
                # Its maps go before the next ones come.
                del case
            # Networks are rings of references, which go only so.
            gc.collect()
            if device == 'cuda':
                torch.cuda.empty_cache()
            progress.advance(task, job.cost)
            if not console.is_terminal:
                console.print(
                    f'[{number}/{len(jobs)}] {job.title}: '
                    f'{time.monotonic() - since:.0f} s',
                    markup=False,
                    soft_wrap=True,
                )
    return Measured(results, bandwidth, left_out, compared, time.monotonic() - started)


def _threads(case: Case) -> contextlib.AbstractContextManager:
    return as_a_worker() if case.facts.worker else contextlib.nullcontext()


def _check(case: Case) -> int:
    try:
        with _threads(case):
            return case.check()
    except WrongAnswer as error:
        raise WrongAnswer(f'{case.facts.label}: {error}') from None


def _time(case: Case, device: str, axis: Optional[str]) -> Result:
    device = 'cpu' if case.facts.worker else device
    with _threads(case):
        # Of the second call or so: with it, all are warm.
        peaks = {name: peak_bytes(call, device) for name, call in case.calls.items()}
        times = time_in_turn(case.calls, case.seconds, device)
        profiled = axis is None and case.facts.operation in PROFILED
        ours = [name for name in case.calls if profiled and name not in cases.OTHERS]
        profile = {name: operators(case.calls[name], device) for name in ours}
    rounds = len(next(iter(times.values())))
    ms = {name: median_ms(each) for name, each in times.items()}
    return Result(case.facts, axis, rounds, ms, peaks, profile, case.file_bytes)


# --- the jobs -------------------------------------------------------------------------


def _jobs(device: str, plan: Plan, left_out: List[str], folder: Path) -> Iterator[Job]:
    missing = graphs.what_is_missing(device)
    if missing:
        left_out.append(f'{graphs.OPERATION}: {missing}')
    for size in plan.sizes:
        for batch in size.batches:
            for codec in CODECS:
                channels = 1 if codec == 'gaussian' else 3
                gigabytes = 4e-9 * batch * size.keypoints * channels * size.pixels
                setting = partial(Setting, codec, size, batch, device, plan.seconds)
                yield Job(
                    f'{codec} codec, {size.label}, batch {batch}',
                    partial(_operations, setting, left_out),
                    cost=5 * plan.seconds + 60 * gigabytes,
                )
    yield from _pipeline_jobs(device, plan, left_out, folder)
    for axis, settings in plan.scaling.items():
        for size, batch in settings:
            yield Job(
                f'{axis}: {size.label}, batch {batch}',
                partial(_scale, size, batch, device, plan.scaling_seconds),
                cost=6 * plan.scaling_seconds,
                axis=axis,
            )


def _operations(
    setting_of: Callable[..., Setting], left_out: List[str]
) -> Iterator[Case]:
    """All operations on maps as a network gives them, and decoding where it is hard."""
    setting = setting_of()
    batches = setting.size.batches
    if setting.batch == batches[0]:
        yield cases.encode(setting)
    operations = [
        (operation, setting)
        for operation in OPERATIONS
        if _is_measured(operation, setting)
    ]
    if setting.batch == batches[len(batches) // 2]:
        operations += [(cases.decode, setting_of(maps=maps)) for maps in NOISES]
    for operation, each in operations:
        needed = OPERATIONS[operation] * each.map_bytes
        available = MEMORY_SHARE * available_bytes(each.device)
        if needed > available:
            left_out.append(
                f'{operation.__name__}, {each.codec} codec, {each.size.label}, batch '
                f'{each.batch}: it needs about {needed / 1e9:.1f} GB, which is more '
                'than a third of the free memory'
            )
        else:
            yield operation(each)


def _is_measured(operation: Callable, setting: Setting) -> bool:
    if operation is cases.loss:
        return setting.codec == 'offset'
    if operation is graphs.decode_in_a_graph:
        few = setting.batch in setting.size.batches[:2]
        return few and not graphs.what_is_missing(setting.device)
    return True


def _pipeline_jobs(
    device: str, plan: Plan, left_out: List[str], folder: Path
) -> Iterator[Job]:
    try:
        from . import pipeline
    except ImportError as error:
        left_out.append(f"the whole pipeline: MMPose's models are not there ({error})")
        return
    for size in SIZES:
        batch = plan.pipeline.get(size.keypoints)
        for codec in CODECS if batch else ():
            setting = partial(
                Setting, codec, size, batch, device, plan.pipeline_seconds
            )
            yield Job(
                f'the whole pipeline, {codec} codec, {size.keypoints} keypoints',
                lambda setting=setting: pipeline.cases(setting(), folder),
                cost=4 * plan.pipeline_seconds + size.keypoints / 10,
            )


def _scale(size: Size, batch: int, device: str, seconds: float) -> Iterator[Case]:
    """Encoding and decoding with the defaults."""
    for codec in CODECS:
        setting = Setting(
            codec, size, batch, device, seconds, checked_maps=SCALING_CHECKED
        )
        yield cases.decode(setting, only_default=True)
        yield cases.encode_batch(setting)
