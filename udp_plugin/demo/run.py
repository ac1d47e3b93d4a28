"""The demo's course: data, configs, MMPose's own train and test scripts, report."""

import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections import deque
from pathlib import Path
from typing import Dict, List

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from udp_plugin.ui import UserError, signals_interrupt

from .configs import CODECS, Data, write_configs
from .figures import write_dataset
from .own_data import read_own_data, write_own_data
from .scripts import LOG_LINE, LOSS, end, environment, find_tools

#: The default budget: UDP's gain shows, and the whole takes a few minutes.
ITERS = 600
IMAGES = 600

#: Marks a folder as the demo's, with what it may delete there.
MARKER = '.udp_plugin_demo'
RUNS = ['stock', *(f'udp_{codec}' for codec in CODECS)]
MADE = [
    'data',
    *RUNS,
    *(f'{run}.py' for run in RUNS),
    'predictions.png',
    'targets.png',
    'errors.png',
    'results.json',
]

#: How many lines of the toolbox's log are shown when it fails.
LOG_LINES = 30


def run_demo(args: Namespace) -> int:
    """Run the demo; returns the command's exit status.

    Args:
        args: Of ``udp-plugin demo``: ``out``, ``codec``, ``iters``, ``seed``,
            ``images``, ``ann``, ``img``, and the ``command`` itself.
    """
    console = Console(highlight=False)
    try:
        with signals_interrupt():
            _run(args, console)
    except UserError as error:
        console.print(f'error: {error}', style='red', markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f'stopped; what was made so far is in {args.out}')
        return 130
    return 0


def _run(args: Namespace, console: Console) -> None:
    started = time.monotonic()
    tools = find_tools()
    own = None
    if args.ann:
        own = read_own_data(args.ann, args.img, args.seed)
        for path in (args.ann, args.img):
            if args.out.resolve() in path.resolve().parents:
                raise UserError(f'{path} lies in {args.out}, which the demo replaces')
    prepare_folder(args.out)

    codecs = list(CODECS) if args.codec == 'both' else [args.codec]
    iters = args.iters or ITERS
    names = ['stock', *(f'udp_{codec}' for codec in codecs)]
    console.print(
        f'{len(names)} configs, {iters} iterations each; everything goes to {args.out}'
    )
    seconds = {}
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[note]}'),
        console=console,
    ) as progress:
        if own:
            data = write_own_data(own, args.out / 'data')
        else:
            data = _draw(args, progress, seconds)
        for note in data.notes:
            console.print(f'note: {note}', soft_wrap=True)
        configs = write_configs(args.out, data, codecs, iters, args.seed)
        for name, config in configs.items():
            folder = args.out / name
            seconds[f'train {name}'] = _call(
                progress,
                f'train {name}',
                iters,
                [tools / 'train.py', config, '--work-dir', folder],
                folder / 'train.log',
            )
            checkpoint = folder / f'iter_{iters}.pth'
            written = [f'--out={folder / "metrics.json"}']
            written.append(f'--dump={folder / "predictions.pkl"}')
            seconds[f'test {name}'] = _call(
                progress,
                f'test {name}',
                None,
                [tools / 'test.py', config, checkpoint, '--work-dir', folder, *written],
                folder / 'test.log',
            )
        # It imports the toolbox, which takes a while; arguments are checked by now.
        task = progress.add_task('pictures', total=3, note='')
        from . import report

        results = report.measure_runs(args.out, list(configs))
        pictures = []
        for draw in (report.draw_predictions, report.draw_targets, report.draw_errors):
            pictures.append(draw(args.out, results))
            progress.advance(task)
    seconds['all'] = time.monotonic() - started
    report.write_json(args, data, iters, results, seconds)
    report.show(console, data, iters, results, pictures, seconds['all'])


def prepare_folder(out: Path) -> None:
    """Make the output folder, without what an earlier demo left there.

    Raises:
        UserError: It cannot be made, or holds what no demo made.
    """
    marker = out / MARKER
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not marker.exists():
            raise UserError(
                f'--out {out} is a folder with files that no demo made; '
                'choose one that is new or empty'
            )
        for name in MADE:
            path = out / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.exists() or path.is_symlink():
                path.unlink()
        marker.write_text(
            'The next udp-plugin demo to this folder deletes: '
            + ', '.join(MADE)
            + '\n',
            encoding='utf-8',
        )
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}') from error


def _draw(args: Namespace, progress: Progress, seconds: Dict[str, float]) -> Data:
    started = time.monotonic()
    train = args.images or IMAGES
    counts = dict(train=train, test=max(train // 3, 1))
    folder = args.out / 'data'
    task = progress.add_task('draw figures', total=sum(counts.values()), note='')
    for done in write_dataset(folder, counts, args.seed):
        progress.update(task, completed=done)
    seconds['draw'] = time.monotonic() - started
    progress.update(task, note=_took(seconds['draw']))
    return Data(
        title='drawn figures',
        train_ann=folder / 'train.json',
        train_img=folder / 'train',
        test_ann=folder / 'test.json',
        test_img=folder / 'test',
        train_count=counts['train'],
        test_count=counts['test'],
    )


def _took(seconds: float) -> str:
    return f'{seconds:.0f} s'


def _call(
    progress: Progress, title: str, total, command: List, log_path: Path
) -> float:
    """Run a script of the toolbox, showing what its log says of its progress.

    Returns:
        The seconds it took.

    Raises:
        UserError: It failed; with the end of its log.
    """
    started = time.monotonic()
    task = progress.add_task(title, total=total, note='starting')
    if not progress.console.is_terminal:
        # Where nothing moves, a word at the beginning.
        progress.console.print(f'{title}; the log is {log_path}', soft_wrap=True)
    log_path.parent.mkdir(exist_ok=True)
    last = deque(maxlen=LOG_LINES)
    loss = ''
    with log_path.open('w', encoding='utf-8') as log, subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        encoding='utf-8',
        errors='replace',
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                last.append(line.rstrip())
                match = LOG_LINE.search(line)
                if match:
                    done, of, left = match.groups()
                    found = LOSS.search(line)
                    loss = f'loss {found[1]}  ' if found else ''
                    note = f'{loss}{left} left' if left else loss
                    progress.update(task, completed=int(done), total=int(of), note=note)
        except BaseException:
            end(process)
            raise
    seconds = time.monotonic() - started
    progress.update(task, note=f'{loss}{_took(seconds)}')
    if process.returncode:
        raise UserError(
            f'{title} failed with status {process.returncode}. The end of '
            f'{log_path}:\n' + '\n'.join(last)
        )
    return seconds
