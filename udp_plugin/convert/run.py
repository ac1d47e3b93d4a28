"""The commands ``udp-plugin convert`` and ``udp-plugin list``."""

import os
import re
import shlex
import warnings
from argparse import Namespace
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from keyword import iskeyword
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config
from mmengine.logging import MMLogger
from rich import box
from rich.console import Console
from rich.table import Table

from udp_plugin.ui import UserError

from . import NothingToConvert
from .swaps import Swap, kind_of, swap, with_full_names
from .writer import without_scope, write
from .zoo import convertible, find_config, zoo_name

#: The part of a config's name from which on it tells of its training.
TRAINING = re.compile(r'[_-](?=\d+xb\d+)')
#: What a stock config's name says of UDP.
STOCK_TAG = re.compile(r'[_-]udp(-regress)?(?=[_-]\d+xb\d+|$)')


def converted(path: Path, kind: str, folder: Path) -> Tuple[str, List[Swap]]:
    """The text of the UDP config of a config, and what was swapped.

    Args:
        path: The config.
        kind: ``'gaussian'`` or ``'offset'``.
        folder: Where the result will be, since ``_base_`` is relative to it.

    Raises:
        UserError: It cannot be read, or not be converted.
        NothingToConvert: It has UDP throughout.
    """
    base = without_scope(read(path))
    target, swaps = swap(base, kind)
    pure_python = is_pure_python(path)
    if pure_python:
        swaps = [s for s in swaps if s.place != 'custom_imports']
    if not swaps:
        other = {'gaussian': 'offset', 'offset': 'gaussian'}[kind]
        raise NothingToConvert(
            f'{path} has UDP of this package throughout already; train it as it is, or '
            f'take the other codec with --codec {other}.'
        )
    if pure_python:
        # There, classes are imported by the config itself.
        target = with_full_names({**target, 'custom_imports': None})
        target.pop('custom_imports')
        if 'custom_imports' in base:
            target['custom_imports'] = base['custom_imports']
        base_path = _module(path, folder)
    else:
        name = zoo_name(path)
        relative = os.path.relpath(path.resolve(), folder.resolve())
        base_path = f'mmpose::{name}' if name else Path(relative).as_posix()
    text, extra = write(base, target, base_path, pure_python)
    with _written(text, path, folder, pure_python) as file:
        try:
            found = read(file)
        except UserError:
            found = {}
    if without_scope(found) != {**target, **extra}:
        raise UserError(
            f'The config to be written for {path} is not the swapped one, which is a '
            'mistake of udp-plugin; please report it with the config.'
        )
    return text, swaps


def read(path: Path) -> dict:
    """A config as plain dicts and lists.

    Raises:
        UserError: It cannot be read.
    """
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        raise UserError(
            f'{path} cannot be read as a config: {_in_words(error)}'
        ) from error
    return cfg.to_dict()


def _in_words(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error) or "it says no more"}'


def is_pure_python(path: Path) -> bool:
    """Whether a config that can be read is in the style of ``with read_base():``."""
    return Config._is_lazy_import(str(path))


def _module(path: Path, folder: Path) -> str:
    """The config as ``from`` names it in a config in this folder."""
    relative = Path(os.path.relpath(path.resolve().with_suffix(''), folder.resolve()))
    ups = relative.parts.count('..')
    parts = relative.parts[ups:]
    for part in parts:
        if not part.isidentifier() or iskeyword(part):
            raise UserError(
                f'{path} is in the pure Python style, where a config names its base in '
                f'an import, which {part!r} cannot be part of; give it a name of '
                'letters, digits and underscores.'
            )
    return '.' * (ups + 1) + '.'.join(parts)


@contextmanager
def _written(text: str, path: Path, folder: Path, pure_python: bool) -> Iterator[Path]:
    """A file for a while with the text of a config that will be in this folder."""
    with ExitStack() as stack:
        if pure_python:
            # Its base is relative to it, and no absolute one can be named.
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            _, _, rest = text.partition('\n\n')
            text = f'_base_ = [{str(path.resolve())!r}]\n\n{rest}'
        file = folder / f'converted_{os.getpid()}.py'
        stack.callback(file.unlink, missing_ok=True)
        with _writing(file):
            file.write_text(text, encoding='utf-8')
        yield file


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error}') from error


def default_name(stem: str, kind: str) -> str:
    """The file name of a UDP config, as those in ``configs/`` are called."""
    plain = STOCK_TAG.sub('', stem)
    if TRAINING.search(plain):
        return TRAINING.sub(f'_udp-{kind}_', plain, count=1) + '.py'
    return f'{plain}_udp-{kind}.py'


def run_convert(args: Namespace) -> int:
    """Convert a config; returns the command's exit status.

    Args:
        args: Of ``udp-plugin convert``: ``config``, ``out``, ``codec``, ``check``.
    """
    console = Console(highlight=False, stderr=args.out == '-')
    try:
        return _convert(args, console)
    except UserError as error:
        _say_error(error)
    except OSError as error:
        _say_error(error)
    return 2


def _say_error(error: Any) -> None:
    errors = Console(highlight=False, stderr=True)
    errors.print(f'error: {error}', style='red', markup=False, soft_wrap=True)


def _convert(args: Namespace, console: Console) -> int:
    path = find_config(args.config)
    kind = args.codec or kind_of(read(path))
    if args.out == '-':
        folder, out = Path.cwd(), None
    else:
        out = Path(args.out or '.')
        if out.is_dir() or str(args.out).endswith('/'):
            out = out / default_name(path.stem, kind)
        if out.suffix != '.py':
            raise UserError(f'OUT must end in .py or be a folder, got {out}.')
        if out.exists():
            raise UserError(f'{out} exists; remove it, or name another file with -o.')
        folder = out.parent
    try:
        text, swaps = converted(path, kind, folder)
    except NothingToConvert as error:
        if not args.check:
            raise
        console.print(f'nothing to convert: {error}', markup=False, soft_wrap=True)
        return 0 if _check(path, console) else 1
    if out is None:
        print(text, end='')
    else:
        with _writing(out):
            folder.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding='utf-8')
        console.print(f'{out} is written', markup=False, soft_wrap=True)
    console.print(swap_table(swaps))
    if args.check:
        with _written(text, path, folder, is_pure_python(path)) as file:
            passed = _check(out or file, console)
        if not passed:
            if out is not None:
                _say_error(f'{out} was kept, for you to look into it.')
            return 1
    if out is not None and read(path).get('train_dataloader'):
        script = shlex.join(['python', 'tools/train.py', str(out)])
        mim = shlex.join(['mim', 'train', 'mmpose', str(out)])
        console.print(
            f"next: {script}   (MMPose's script; or: {mim})",
            markup=False,
            soft_wrap=True,
        )
    return 0


def _check(file: Path, console: Console) -> bool:
    """Whether the written config trains and predicts; shows what it saw."""
    from .check import check

    # Without the optimizers' remarks on each of their parameters.
    MMLogger.get_current_instance().setLevel('WARNING')
    with console.status('building the model, training a step and predicting'):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                checked = check(Config.fromfile(file))
        except Exception as error:
            # Whatever a user's components raise.
            _say_error(f'the check failed: {_in_words(error)}')
            return False
    step = 'a training step and ' if checked.losses else ''
    table = Table(title=f'{step}a prediction on noise')
    table.add_column('what')
    table.add_column('shape or value', overflow='fold')

    def shapes(many) -> str:
        return ', '.join(' x '.join(map(str, shape)) for shape in many)

    table.add_row('input', shapes([checked.inputs]))
    if checked.losses:
        table.add_row('targets', shapes(checked.targets))
        table.add_row('maps', shapes(checked.maps))
    for name, value in checked.losses.items():
        table.add_row(name, f'{value:.4g}')
    flip = 'with' if checked.flip_test else 'without'
    table.add_row(f'keypoints, {flip} flip test', shapes([checked.keypoints]))
    console.print(table)
    if not checked.losses:
        console.print('without a training step: the config has no train_dataloader')
    if checked.left_out:
        console.print(
            f'left out, since albumentations is not installed: '
            f'{", ".join(checked.left_out)}'
        )
    return True


def swap_table(swaps: List[Swap]) -> Table:
    """The swaps in a table that breaks no name in two, but for long places."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption='Copies of a value that the config has elsewhere are swapped, too.',
    )
    table.add_column('place', overflow='fold')
    table.add_column('stock', no_wrap=True)
    table.add_column('UDP', no_wrap=True)
    table.add_column('why')
    for row in swaps:
        table.add_row(
            row.place,
            row.stock.replace(', ', ',\n'),
            row.udp.replace(', ', ',\n'),
            row.why,
        )
    return table


def run_list(args: Namespace) -> int:
    """List the zoo's configs that can be converted; returns the exit status."""
    console = Console(highlight=False)
    groups = defaultdict(list)
    try:
        names = [n for n in convertible() if args.pattern.lower() in n.lower()]
    except UserError as error:
        _say_error(error)
        return 2
    for name in names:
        folder, _, file = name.rpartition('/')
        groups[folder].append(file[:-3])
    for folder, files in groups.items():
        console.print(f'{folder}', style='bold', markup=False)
        for file in files:
            console.print(f'  {file}', markup=False, soft_wrap=True)
    if names:
        console.print(
            f'\n{len(names)} configs; convert one by its name: '
            f'udp-plugin convert {Path(names[0]).stem}',
            markup=False,
            soft_wrap=True,
        )
        return 0
    _say_error(
        f'no top-down heatmap config of the zoo has {args.pattern!r} in its folder or '
        'name.'
    )
    return 2
