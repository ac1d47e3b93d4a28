"""The demo's course: data, configs, MMPose's own train and test scripts, report."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import deque
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import current_thread, main_thread
from typing import Dict, List

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import udp_plugin

from . import DemoError
from .configs import CODECS, Data, write_configs
from .figures import write_dataset
from .own_data import read_own_data, write_own_data

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
#: mmengine's log line, in as far as it is shown.
LOG_LINE = re.compile(r'Iter\(\w+\) \[ *(\d+)/(\d+)\].*?(?:eta: (.*?)  |$)')
LOSS = re.compile(r'\bloss: (\S+)')


def run_demo(args: Namespace) -> int:
    """Run the demo; returns the command's exit status.

    Args:
        args: Of ``udp-plugin demo``: ``out``, ``codec``, ``iters``, ``seed``,
            ``images``, ``ann``, ``img``, and the ``command`` itself.
    """
    console = Console(highlight=False)
    try:
        with _signals_interrupt():
            _run(args, console)
    except DemoError as error:
        console.print(f'error: {error}', style='red', markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f'stopped; what was made so far is in {args.out}')
        return 130
    return 0


@contextmanager
def _signals_interrupt():
    """Have the signals that end a program end the scripts it started as well."""
    names = ('SIGTERM', 'SIGHUP') if current_thread() is main_thread() else ()
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup has one of them ignored.
    signals = [s for s in signals if signal.getsignal(s) == signal.SIG_DFL]
    for number in signals:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _end(process: subprocess.Popen) -> None:
    """End a script with its data loader's workers, which would outlive it."""
    if hasattr(os, 'killpg'):
        # It leads a process group of its own, unless that has just ended.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    process.wait()


def _run(args: Namespace, console: Console) -> None:
    started = time.monotonic()
    tools = find_tools()
    own = None
    if args.ann:
        own = read_own_data(args.ann, args.img, args.seed)
        for path in (args.ann, args.img):
            if args.out.resolve() in path.resolve().parents:
                raise DemoError(f'{path} lies in {args.out}, which the demo replaces')
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

        results = report.measure(args.out, list(configs))
        pictures = []
        for draw in (report.draw_predictions, report.draw_targets, report.draw_errors):
            pictures.append(draw(args.out, results))
            progress.advance(task)
    seconds['all'] = time.monotonic() - started
    report.write_json(args, data, iters, results, seconds)
    report.show(console, data, iters, results, pictures, seconds['all'])


def find_tools() -> Path:
    """The folder of the installed toolbox's ``train.py`` and ``test.py``."""
    spec = find_spec('mmpose')
    if spec is None:
        raise DemoError(
            'the demo needs MMPose, which this Python does not have; '
            "'make demo' in the project's folder sets up one that has"
        )
    package = Path(spec.origin).parent
    # In the wheel, and in a clone of the toolbox.
    for folder in (package / '.mim' / 'tools', package.parent / 'tools'):
        if (folder / 'train.py').is_file() and (folder / 'test.py').is_file():
            return folder
    raise DemoError(f'no tools/train.py and tools/test.py with the MMPose in {package}')


def prepare_folder(out: Path) -> None:
    """Make the output folder, without what an earlier demo left there.

    Raises:
        DemoError: It cannot be made, or holds what no demo made.
    """
    marker = out / MARKER
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not marker.exists():
            raise DemoError(
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
        raise DemoError(f'--out {out}: {error.strerror}') from error


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


def _environment() -> Dict[str, str]:
    """For the toolbox's scripts, which have to find this package and share cores."""
    package = str(Path(udp_plugin.__file__).resolve().parents[1])
    paths = [package, os.environ.get('PYTHONPATH', '')]
    return {
        # torch's threads wait for each other without spinning, or they take the
        # data loader's cores; where something else runs, too, it is 10 times slower.
        'OMP_WAIT_POLICY': 'PASSIVE',
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    }


def _call(
    progress: Progress, title: str, total, command: List, log_path: Path
) -> float:
    """Run a script of the toolbox, showing what its log says of its progress.

    Returns:
        The seconds it took.

    Raises:
        DemoError: It failed; with the end of its log.
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
        env=_environment(),
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
            _end(process)
            raise
    seconds = time.monotonic() - started
    progress.update(task, note=f'{loss}{_took(seconds)}')
    if process.returncode:
        raise DemoError(
            f'{title} failed with status {process.returncode}. The end of '
            f'{log_path}:\n' + '\n'.join(last)
        )
    return seconds
