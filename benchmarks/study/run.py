"""The study's course: data, many runs of the toolbox's scripts, report.

What is done is marked by a file ``done`` and not done again, so that the same command
goes on where it was interrupted.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

import psutil
import torch
from mmengine.config import Config
from rich.progress import Progress

import udp_plugin
from udp_plugin.demo.configs import Data, stock_config
from udp_plugin.demo.figures import write_dataset
from udp_plugin.demo.scripts import find_tools, run_script
from udp_plugin.errors import UserError
from udp_plugin.files import alone_in, is_empty, write_text, written
from udp_plugin.ui import progress, say

from . import networks
from .networks import Budget, Size, Test
from .report import report


def run_study(
    out: Path,
    command: str,
    full: bool = False,
    seeds: Optional[int] = None,
    images: Optional[int] = None,
    iters: Optional[int] = None,
) -> None:
    """Train, test, and write the page, its figures and ``results.json``.

    Args:
        out: The folder for everything; one in which this study was begun goes on.
        command: As it was called, for ``results.json``.
        full: The budget for a GPU.
        seeds: How often everything is drawn and trained anew, if not as in the budget.
        images: Figures drawn for training, a third as many for testing.
        iters: Training iterations of each network.

    Raises:
        UserError: ``out`` has something else, a script failed, or there is no MMPose.
    """
    started = time.monotonic()
    given = dict(seeds=seeds, images=images, iters=iters)
    budget = networks.FULL if full else networks.DEFAULT
    budget = budget._replace(**{key: value for key, value in given.items() if value})
    find_tools()
    with alone_in(out):
        open_folder(out, budget)
        spent_file = out / 'seconds'
        spent = float(spent_file.read_text()) if spent_file.exists() else 0.0
        try:
            with progress() as shown:
                work = []
                for seed in range(budget.seeds):
                    data = draw(out / 'data' / f'seed{seed}', budget, seed, shown)
                    for size in budget.sizes:
                        work += work_on(out, budget, size, seed, data, shown)
                run_all(shown, work)
        except KeyboardInterrupt:
            say('the same command goes on from here')
            raise
        finally:
            spent += time.monotonic() - started
            write_text(spent_file, f'{spent:.0f}\n')
        report(out, budget, command, spent)


def open_folder(out: Path, budget: Budget) -> None:
    """Begin a study in this folder, or check that it is one of this budget.

    Raises:
        UserError: It holds something else.
    """
    marker, code = out / 'settings.json', hashlib.sha256()
    # Whatever changes in the package may change what is measured.
    for package in (Path(udp_plugin.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob('*.py')):
            code.update(path.read_bytes())
    sizes = [size.name for size in budget.sizes]
    settings = dict(budget._asdict(), sizes=sizes, code=code.hexdigest())
    if is_empty(out):
        write_text(marker, json.dumps(settings, indent=2) + '\n')
    try:
        found = dict(json.loads(marker.read_text())) if marker.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'--out {out}: {error}') from error
    different = [key for key in settings if found.get(key) != settings[key]]
    if different:
        raise UserError(
            f'--out {out} has files that no study made, or a study of other settings '
            f'({", ".join(different)}); give those again to go on with it, or choose '
            'a new folder, as also where the code of this package has changed since'
        )


def draw(folder: Path, budget: Budget, seed: int, shown: Progress) -> Data:
    """Draw a seed's figures, if they are not there."""
    counts = dict(train=budget.images, test=max(budget.images // 3, 1))
    if not (folder / 'done').exists():
        task = shown.add_task(f'draw figures, seed {seed}', total=None, note='')
        for done in write_dataset(folder, counts, seed):
            shown.update(task, completed=done, total=sum(counts.values()))
        (folder / 'done').touch()
    train, test = folder / 'train', folder / 'test'
    files = train.with_suffix('.json'), train, test.with_suffix('.json'), test
    return Data('drawn figures', *files, *counts.values())


def work_on(
    out: Path, budget: Budget, size: Size, seed: int, data: Data, shown: Progress
) -> Iterator[Callable[[], None]]:
    """What is to be done with each network of a size and seed: train it and test it."""
    sizes = size.input_size, size.stride, size.sigma
    stock = Config.fromstring(stock_config(data, budget.iters, seed, *sizes), '.py')
    folder, tools = out / size.name / f'seed{seed}', find_tools()

    def run(at: Path, test: Test, *command: object) -> None:
        title = f'{size}, seed {seed}: {at.relative_to(folder)}'
        run_once(shown, title, at, command, networks.configure(stock, test))

    def train_and_test(network: str, tests: Sequence[Test]) -> None:
        home = folder / network
        train = tools / 'train.py', home / 'config.py', f'--work-dir={home}'
        run(home, networks.own_test(network), *train)
        weights = home / f'iter_{budget.iters}.pth'
        for test in tests:
            at = folder / test.name
            files = f'--out={at / "metrics.json"}', f'--dump={at / "predictions.pkl"}'
            test_py = tools / 'test.py', at / 'config.py', weights, f'--work-dir={at}'
            run(at, test, *test_py, *files)
        if network in networks.READ:
            at = home / 'readings'
            files = at / 'config.py', weights, at / 'readings.json'
            run(at, networks.READING, '-m', 'benchmarks.study.readings', *files)

    tests = networks.tests_of(budget, size, seed)
    for network in dict.fromkeys(test.network for test in tests):
        own = [test for test in tests if test.network == network]
        yield partial(train_and_test, network, own)


def run_once(
    shown: Progress,
    title: str,
    folder: Path,
    command: Sequence[object],
    config: Optional[Config] = None,
) -> None:
    """Run a script, unless that was done; its config and its log are in the folder.

    Raises:
        UserError: It failed; with the end of its log.
    """
    if (folder / 'done').exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        with written(folder / 'config.py') as made:
            config.dump(made)
    run_script(shown, title, None, command, folder / 'log')
    (folder / 'done').touch()
    for task in shown.tasks:
        if task.description == title:
            shown.remove_task(task.id)


def run_all(shown: Progress, work: Sequence[Callable[[], None]]) -> None:
    """Do all of the work, several parts at a time.

    Raises:
        UserError: A script failed. The others are ended.
    """
    # Small networks gain more from running side by side than from threads.
    cores = os.cpu_count() or 1
    workers = 2 if torch.cuda.is_available() else min(cores, 8)
    os.environ.setdefault('OMP_NUM_THREADS', str(max(cores // workers, 1)))
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(part) for part in work]
        task = shown.add_task('networks', total=len(work), note='')
        try:
            for future in shown.track(as_completed(futures), task_id=task):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            # Also those scripts that other threads start just now.
            while any(future.running() for future in futures):
                for child in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.terminate()
                time.sleep(0.2)
            raise
