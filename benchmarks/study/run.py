"""The study's course: data, configs, many runs of the toolbox's scripts, report.

What is done is marked by a file ``done`` and not done again, so that the same command
goes on where it was interrupted.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

import udp_plugin
from udp_plugin.demo.configs import Data, stock_config
from udp_plugin.demo.figures import write_dataset
from udp_plugin.demo.scripts import (
    LOG_LINE,
    end,
    environment,
    find_tools,
)
from udp_plugin.ui import UserError, signals_interrupt

from .networks import (
    ALL_ARMS,
    READ,
    READING_ARM,
    Size,
    configure,
    own_flip,
    tests,
    trained,
)

LOG_LINES = 30
#: The settings of the loss and of the reading were chosen on this seed alone.
CHOSEN_ON = 0


class Budget(NamedTuple):
    """How much is drawn and trained."""

    sizes: Tuple[Size, ...]
    seeds: int
    #: Drawn for training, and a third as many for testing.
    images: int
    iters: int


#: Under an hour on two cores.
DEFAULT = Budget(
    sizes=(Size((96, 128), 4), Size((128, 160), 8)), seeds=3, images=600, iters=300
)
#: For a GPU.
FULL = Budget(
    sizes=(Size((192, 256), 4), Size((192, 256), 8)), seeds=5, images=6000, iters=6000
)


class Job(NamedTuple):
    """A script to run."""

    title: str
    #: Its log and its mark are here.
    folder: Path
    command: List[str]
    #: What it takes beside the others, about seconds on a core.
    cost: float
    #: The folder of the job that has to be done before.
    after: Optional[Path] = None

    @property
    def done(self) -> Path:
        """The mark that it is done."""
        return self.folder / 'done'

    @property
    def log(self) -> Path:
        """What the script prints."""
        return self.folder / 'log'


def run_study(args: Namespace) -> int:
    """Run the study; returns the command's exit status.

    Args:
        args: Of ``udp-plugin study``: ``out``, ``full``, ``iters``, ``images``,
            ``seeds``, and the ``command`` itself.
    """
    console = Console(highlight=False)
    try:
        with signals_interrupt():
            _run(args, console)
    except UserError as error:
        console.print(f'error: {error}', style='red', markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print('stopped; the same command goes on from here')
        return 130
    return 0


def _run(args: Namespace, console: Console) -> None:
    started = time.monotonic()
    tools = find_tools()
    # What it lacks is said before the work.
    from . import report

    budget = FULL if args.full else DEFAULT
    given = {key: getattr(args, key) for key in ('seeds', 'images', 'iters')}
    budget = budget._replace(**{key: value for key, value in given.items() if value})
    spent = _open_folder(args.out, budget)
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[note]}'),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    ) as progress:
        data = {
            seed: _draw(args.out, budget, seed, progress)
            for seed in range(budget.seeds)
        }
        jobs = [
            job
            for seed in range(budget.seeds)
            for size in budget.sizes
            for job in _jobs(args.out, budget, size, seed, data[seed], tools)
        ]
        try:
            _work_off(jobs, progress)
        finally:
            spent += time.monotonic() - started
            _write_spent(args.out, spent)
    report.report(args, budget, spent, console)


# --- the folder -----------------------------------------------------------------------


def _settings(budget: Budget) -> dict:
    sizes = [size.name for size in budget.sizes]
    # Whatever changes in the package may change what is measured.
    code = hashlib.sha256()
    for path in sorted(Path(udp_plugin.__file__).parent.rglob('*.py')):
        code.update(path.read_bytes())
    return dict(budget._asdict(), sizes=sizes, code=code.hexdigest())


def _open_folder(out: Path, budget: Budget) -> float:
    """Make the study's folder, or check that it is one of this budget.

    Returns:
        The seconds spent on it so far.

    Raises:
        UserError: It holds something else.
    """
    marker = out / 'settings.json'
    settings = _settings(budget)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            if any(out.iterdir()):
                raise UserError(
                    f'--out {out} is a folder with files that no study made; choose '
                    'one that is new or empty'
                )
            marker.write_text(json.dumps(settings, indent=2) + '\n')
        found = json.loads(marker.read_text())
        if found != settings:
            different = [key for key in settings if found.get(key) != settings[key]]
            raise UserError(
                f'--out {out} has a study of other settings ({", ".join(different)}); '
                'give those again to go on with it, or choose a new folder, as also '
                'where the code of this package has changed since'
            )
        with suppress(FileNotFoundError):
            return float((out / 'seconds').read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'--out {out}: {error}') from error
    return 0.0


def _write_spent(out: Path, seconds: float) -> None:
    (out / 'seconds').write_text(f'{seconds:.0f}\n')


def _draw(out: Path, budget: Budget, seed: int, progress: Progress) -> Data:
    folder = out / 'data' / f'seed{seed}'
    counts = dict(train=budget.images, test=max(budget.images // 3, 1))
    if not (folder / 'done').exists():
        total = sum(counts.values())
        task = progress.add_task(f'draw figures, seed {seed}', total=total, note='')
        for written in write_dataset(folder, counts, seed):
            progress.update(task, completed=written)
        progress.remove_task(task)
        (folder / 'done').touch()
    return Data(
        title='drawn figures',
        train_ann=folder / 'train.json',
        train_img=folder / 'train',
        test_ann=folder / 'test.json',
        test_img=folder / 'test',
        train_count=counts['train'],
        test_count=counts['test'],
    )


# --- the jobs -------------------------------------------------------------------------


def is_chosen_on(budget: Budget, size: Size, seed: int) -> bool:
    """Whether losses and radii are tried there: at the first size, on one seed."""
    return seed == CHOSEN_ON and size == budget.sizes[0]


def folder_of(out: Path, size: Size, seed: int) -> Path:
    """Where the networks of a size and seed are."""
    return out / size.name / f'seed{seed}'


def _jobs(
    out: Path, budget: Budget, size: Size, seed: int, data: Data, tools: Path
) -> List[Job]:
    folder = folder_of(out, size, seed)
    text = stock_config(
        data, budget.iters, seed, size.input_size, size.stride, size.sigma
    )
    stock = Config.fromstring(text, '.py')
    where = f'{size.label}, seed {seed}'
    width, height = size.input_size
    checkpoint = f'iter_{budget.iters}.pth'
    jobs = []

    def config(name: str, arm: str, flip: str) -> Path:
        path = folder / name / 'config.py'
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            configure(stock, ALL_ARMS[arm], flip).dump(path)
        return path

    choosing = is_chosen_on(budget, size, seed)
    for arm in trained(choosing):
        path = config(arm, arm, own_flip(arm))
        jobs.append(
            Job(
                title=f'{where}: train {arm}',
                folder=folder / arm,
                command=[
                    str(tools / 'train.py'),
                    str(path),
                    '--work-dir',
                    str(folder / arm),
                ],
                cost=8 + budget.iters * width * height / 80000,
            )
        )
    for test in tests(choosing):
        network = folder / test.network
        name = f'{test.network}/{test.name}'
        path = config(name, test.arm, test.flip)
        jobs.append(
            Job(
                title=f'{where}: test {test.network} as {test.name}',
                folder=folder / name,
                command=[
                    str(tools / 'test.py'),
                    str(path),
                    str(network / checkpoint),
                    f'--work-dir={folder / name}',
                    f'--out={folder / name / "metrics.json"}',
                    f'--dump={folder / name / "predictions.pkl"}',
                ],
                cost=10 + budget.images / 100,
                after=network,
            )
        )
    for read in READ:
        network = folder / read
        name = f'{read}/readings'
        path = config(name, READING_ARM, 'plain')
        jobs.append(
            Job(
                title=f'{where}: read {read}',
                folder=folder / name,
                command=[
                    *('-m', 'benchmarks.study.readings'),
                    str(path),
                    str(network / checkpoint),
                    str(folder / name / 'readings.json'),
                ],
                cost=10 + budget.images / 12,
                after=network,
            )
        )
    return jobs


def _workers() -> int:
    """Scripts at a time: small networks gain more from this than from threads."""
    return 2 if torch.cuda.is_available() else min(os.cpu_count() or 1, 8)


def _work_off(jobs: List[Job], progress: Progress) -> None:
    """Run the jobs that are not done yet, several at a time.

    Raises:
        UserError: A script failed; with the end of its log.
    """
    total = progress.add_task(
        'all', total=round(sum(job.cost for job in jobs)), note=''
    )
    waiting = [job for job in jobs if not job.done.exists()]
    count = len(jobs) - len(waiting)
    finished = sum(job.cost for job in jobs) - sum(job.cost for job in waiting)
    progress.update(total, completed=round(finished))
    workers = _workers()
    threads = max((os.cpu_count() or 1) // workers, 1)
    environ = {**environment(), 'OMP_NUM_THREADS': str(threads)}
    running: Dict[TaskID, Tuple[Job, subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            ready = [
                job
                for job in waiting
                if job.after is None or (job.after / 'done').exists()
            ]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                task = progress.add_task(job.title, total=None, note='')
                running[task] = (job, _start(job, environ), time.monotonic())
            time.sleep(0.2)
            share = 0.0
            for task, (job, process, since) in list(running.items()):
                done = _show(progress, task, job)
                if process.poll() is None:
                    share += min(done, 0.95) * job.cost
                    continue
                _finish(job, process)
                del running[task]
                progress.remove_task(task)
                finished += job.cost
                count += 1
                if not progress.console.is_terminal:
                    seconds = time.monotonic() - since
                    progress.console.print(
                        f'[{count}/{len(jobs)}] {job.title}: {seconds:.0f} s',
                        markup=False,
                        soft_wrap=True,
                    )
            progress.update(
                total,
                completed=round(finished + share),
                note=f'{count} of {len(jobs)} scripts',
            )
    finally:
        for _, process, _ in running.values():
            end(process)


def _start(job: Job, environ: Dict[str, str]) -> subprocess.Popen:
    # What an interrupted run left may not be mixed with the new.
    for path in job.folder.glob('20*'):
        shutil.rmtree(path, ignore_errors=True)
    with job.log.open('w', encoding='utf-8') as log:
        return subprocess.Popen(
            [sys.executable, *job.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )


def _tail(path: Path, lines: int) -> List[str]:
    if not path.exists():
        return []
    with path.open('rb') as log:
        log.seek(max(0, path.stat().st_size - 200 * lines))
        return log.read().decode(errors='replace').splitlines()[-lines:]


def _show(progress: Progress, task: TaskID, job: Job) -> float:
    """Show how far a script is by its log; returns the share that is done."""
    for line in reversed(_tail(job.log, 5)):
        match = LOG_LINE.search(line)
        if match:
            done, of = int(match[1]), int(match[2])
            progress.update(task, completed=done, total=of)
            return done / of
    return 0.0


def _finish(job: Job, process: subprocess.Popen) -> None:
    if process.returncode:
        raise UserError(
            f'{job.title} failed with status {process.returncode}. The end of '
            f'{job.log}:\n' + '\n'.join(_tail(job.log, LOG_LINES))
        )
    job.done.touch()
