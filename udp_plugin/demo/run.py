"""The demo's course: data, configs, MMPose's own train and test scripts, report."""

import shutil
import time
from argparse import Namespace
from pathlib import Path
from typing import Dict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from udp_plugin.ui import UserError, signals_interrupt

from .configs import CODECS, Data, write_configs
from .figures import write_dataset
from .own_data import read_own_data, write_own_data
from .scripts import find_tools, run_script

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
            seconds[f'train {name}'] = run_script(
                progress,
                f'train {name}',
                iters,
                [tools / 'train.py', config, '--work-dir', folder],
                folder / 'train.log',
            )
            checkpoint = folder / f'iter_{iters}.pth'
            written = [f'--out={folder / "metrics.json"}']
            written.append(f'--dump={folder / "predictions.pkl"}')
            seconds[f'test {name}'] = run_script(
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
    progress.update(task, note=f'{seconds["draw"]:.0f} s')
    return Data(
        title='drawn figures',
        train_ann=folder / 'train.json',
        train_img=folder / 'train',
        test_ann=folder / 'test.json',
        test_img=folder / 'test',
        train_count=counts['train'],
        test_count=counts['test'],
    )
