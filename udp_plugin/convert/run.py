"""The commands ``udp-plugin convert`` and ``udp-plugin list``."""

import ast
import os
import re
import shlex
from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, Tuple

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from . import ConvertError
from .swaps import Swap, kind_of, swap
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
        kind: ``'gaussian'`` or ``'offset'``, or ``''`` for the kind it has.
        folder: Where the result will be, since ``_base_`` is relative to it.

    Raises:
        ConvertError: It cannot be read, or not be converted.
    """
    base = read(path)
    kind = kind or kind_of(base)
    target, swaps = swap(base, kind)
    if not swaps:
        raise ConvertError(
            f'{path} is UDP of this package already, with nothing left to swap; it can '
            'be trained as it is, or converted to the other kind with --codec.'
        )
    name = zoo_name(path)
    if name:
        base_path = f'mmpose::{name}'
    else:
        base_path = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    text = write(base, target, base_path)
    _verify(text, path, folder, target)
    return text, swaps


def read(path: Path) -> dict:
    """A config as plain dicts and lists.

    Raises:
        ConvertError: It cannot be read.
    """
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        raise ConvertError(
            f'{path} cannot be read as a config: {type(error).__name__}: {error}'
        ) from error
    return cfg.to_dict()


def _load(text: str, folder: Path, modules: bool = True) -> Config:
    """The config of a text that is, or will be, a file in this folder."""
    base_path = ast.literal_eval(ast.parse(text).body[0].value)[0]
    if '::' not in base_path:
        _, _, rest = text.partition('\n\n')
        text = f'_base_ = [{str((folder / base_path).resolve())!r}]\n\n{rest}'
    with TemporaryDirectory() as temporary:
        written = Path(temporary) / 'config.py'
        written.write_text(text, encoding='utf-8')
        return Config.fromfile(written, import_custom_modules=modules)


def _verify(text: str, path: Path, folder: Path, target: dict) -> None:
    """Raise if the written config is not the swapped one: that would be a bug."""
    found = _load(text, folder, modules=False).to_dict()
    if without_scope(found) != without_scope(target):
        raise AssertionError(
            f'the config written for {path} differs from the swapped one; please '
            'report it with the config'
        )


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
        _convert(args, console)
    except ConvertError as error:
        errors = Console(highlight=False, stderr=True)
        errors.print(f'error: {error}', style='red', markup=False, soft_wrap=True)
        return 2
    return 0


def _convert(args: Namespace, console: Console) -> None:
    path = find_config(args.config)
    kind = args.codec or kind_of(read(path))
    if args.out == '-':
        folder, out = Path.cwd(), None
    else:
        out = Path(args.out or '.')
        if out.is_dir() or str(args.out).endswith('/'):
            out = out / default_name(path.stem, kind)
        if out.suffix != '.py':
            raise ConvertError(f'OUT must end in .py or be a folder, got {out}.')
        if out.exists():
            raise ConvertError(
                f'{out} exists; remove it, or name another file with -o.'
            )
        folder = out.parent
    text, swaps = converted(path, kind, folder)
    if out is None:
        print(text, end='')
        out = Path(default_name(path.stem, kind))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding='utf-8')
        console.print(f'{out} is written', markup=False, soft_wrap=True)
    console.print(swap_table(swaps))
    if args.check:
        _check(text, path, folder, console)
    command = shlex.join(['mim', 'train', 'mmpose', str(out)])
    console.print(f'next: {command}', markup=False, soft_wrap=True)


def _check(text: str, path: Path, folder: Path, console: Console) -> None:
    from .check import check

    with console.status('building the model, training a step and predicting'):
        try:
            checked = check(_load(text, folder))
        except Exception as error:
            raise ConvertError(
                f'The check failed: {type(error).__name__}: {error}'
            ) from error
    table = Table(title='a training step and a prediction on noise')
    table.add_column('what')
    table.add_column('shape or value', overflow='fold')

    def shapes(many) -> str:
        return ', '.join(' x '.join(map(str, shape)) for shape in many)

    table.add_row('input', shapes([checked.inputs]))
    table.add_row('targets', shapes(checked.targets))
    table.add_row('maps', shapes(checked.maps))
    for name, value in checked.losses.items():
        table.add_row(name, f'{value:.4g}')
    flip = 'with' if checked.flip_test else 'without'
    table.add_row(f'keypoints, {flip} flip test', shapes([checked.keypoints]))
    console.print(table)
    if checked.left_out:
        console.print(
            f'left out, since albumentations is not installed: '
            f'{", ".join(checked.left_out)}'
        )


def swap_table(swaps: List[Swap]) -> Table:
    table = Table()
    for column in ('place', 'stock', 'UDP', 'why'):
        table.add_column(column, overflow='fold')
    for row in swaps:
        table.add_row(*row)
    return table


def run_list(args: Namespace) -> int:
    """List the zoo's configs that can be converted; returns the exit status."""
    console = Console(highlight=False)
    groups = defaultdict(list)
    try:
        names = [n for n in convertible() if args.pattern.lower() in n.lower()]
    except ConvertError as error:
        console.print(f'error: {error}', style='red', markup=False, soft_wrap=True)
        return 2
    for name in names:
        folder, _, file = name.rpartition('/')
        groups[folder].append(file[:-3])
    for folder, files in groups.items():
        console.print(f'{folder}', style='bold', markup=False)
        for file in files:
            console.print(f'  {file}', markup=False, soft_wrap=True)
    print(shlex.join(['udp-plugin', 'convert']))
    return 0
