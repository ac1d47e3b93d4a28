"""Converting a config: read, swapped, written, and compared with what was meant."""

import os
import re
from contextlib import contextmanager
from keyword import iskeyword
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator, List, NamedTuple, Optional

from mmengine.config import Config

from udp_plugin.errors import UserError
from udp_plugin.files import write_text
from udp_plugin.models.heads.base import type_name
from udp_plugin.names import PACKAGES

from .swaps import Swap, keep, kind_of, nodes, swap
from .writer import without_scope, write
from .zoo import find_config, zoo_name

#: The part of a config's name from which on it tells of its training.
TRAINING = re.compile(r'[_-](?=\d+xb\d+)')
#: What a stock config's name says of UDP.
STOCK_TAG = re.compile(r'[_-]udp(-regress)?(?=[_-]\d+xb\d+|$)')


class Converted(NamedTuple):
    """The UDP config of a stock one."""

    #: The stock config.
    source: Path
    #: ``'gaussian'``, ``'offset'``, or ``'kept'`` with the weights kept.
    kind: str
    #: Where the result shall be, since ``_base_`` is relative to it.
    folder: Path
    #: What was swapped. Nothing, and no text, if it has UDP throughout already.
    swaps: List[Swap]
    text: str = ''

    @property
    def name(self) -> str:
        """The file name of the result, as those in ``configs/`` are called."""
        plain = self.source.stem
        if self.kind != 'kept':
            plain = STOCK_TAG.sub('', plain)
        if TRAINING.search(plain):
            return TRAINING.sub(f'_udp-{self.kind}_', plain, count=1) + '.py'
        return f'{plain}_udp-{self.kind}.py'

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A file for a while, which loads as the result will in its folder."""
        with TemporaryDirectory() as folder:
            folder, text = Path(folder), self.text
            if is_pure_python(self.source):
                # Its base is relative to it, and no absolute one can be named.
                folder = self.folder
            else:
                base = str(self.source.resolve())
                text = f'_base_ = [{base!r}]\n\n{text.partition(chr(10) * 2)[2]}'
            file = folder / f'converted_{os.getpid()}.py'
            try:
                write_text(file, text)
                yield file
            finally:
                file.unlink(missing_ok=True)


def convert(
    config: str,
    codec: Optional[str] = None,
    folder: Path = Path(),
    keep_weights: bool = False,
) -> Converted:
    """Swap in a config what UDP swaps.

    Args:
        config: A path, ``mmpose::NAME``, or a name in MMPose's zoo, of which a unique
            prefix is enough.
        codec: ``'gaussian'`` or ``'offset'``; by default what the config's targets are.
        folder: Where the result shall be, since ``_base_`` is relative to it.
        keep_weights: Swap only what leaves the weights of the stock config as they are.

    Raises:
        UserError: The config cannot be read, or not be converted.
    """
    path = find_config(config)
    stock = read(path)
    kind = 'kept' if keep_weights else codec or kind_of(stock)
    base = without_scope(stock)
    target, swaps = keep(base) if keep_weights else swap(base, kind)
    pure_python = is_pure_python(path)
    if pure_python:
        # There, the config itself imports the classes.
        swaps = [s for s in swaps if s.place != 'custom_imports']
        target.pop('custom_imports', None)
        if 'custom_imports' in base:
            target['custom_imports'] = base['custom_imports']
        for _, node in nodes(target):
            name = type_name(node)
            if name in PACKAGES:
                node['type'] = f'{PACKAGES[name]}.{name}'
    found = Converted(path, kind, folder, swaps)
    if not swaps:
        return found
    if pure_python:
        base_path = _module(path, folder)
    else:
        name = zoo_name(path)
        relative = os.path.relpath(path.resolve(), folder.resolve())
        base_path = f'mmpose::{name}' if name else Path(relative).as_posix()
    text, extra = write(base, target, base_path, pure_python)
    found = found._replace(text=text)
    with found.file() as file:
        try:
            reread = read(file)
        except UserError:
            reread = {}
    if without_scope(reread) != {**target, **extra}:
        raise UserError(
            f'The config to be written for {path} is not the swapped one, which is a '
            'mistake of udp-plugin; please report it with the config.'
        )
    return found


def read(path: Path) -> dict:
    """A config as plain dicts and lists.

    Raises:
        UserError: It cannot be read.
    """
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        raise UserError(
            f'{path} cannot be read as a config: {in_words(error)}'
        ) from error
    return cfg.to_dict()


def in_words(error: Exception) -> str:
    """What an error of another package says."""
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
