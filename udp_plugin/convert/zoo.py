"""The toolbox's configs, and how a user's words name one of them."""

import difflib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import List, Optional

from udp_plugin.errors import UserError

#: Where the zoo keeps its top-down heatmap configs.
PATTERN = '*/topdown_heatmap/**/*.py'
#: How many candidates a message lists.
LISTED = 8


def toolbox_folder(name: str) -> Path:
    """The folder ``configs`` or ``tools`` of MMPose, installed or of its source.

    Raises:
        UserError: There is none.
    """
    spec = find_spec('mmpose')
    if spec is None or not spec.submodule_search_locations:
        raise UserError('MMPose is not installed: `udp-plugin doctor` says how.')
    package = Path(next(iter(spec.submodule_search_locations))).resolve()
    for folder in (package / '.mim' / name, package.parent / name):
        if (folder / '_base_').is_dir() or (folder / 'train.py').is_file():
            return folder.resolve()
    raise UserError(f'MMPose at {package} has no {name} beside it.')


def zoo_folder() -> Path:
    """The folder of MMPose's configs; raises UserError if there is none."""
    return toolbox_folder('configs')


def convertible(pattern: str = '') -> List[str]:
    """The names of the zoo's top-down heatmap configs that have a pattern in them.

    Raises:
        UserError: There are none.
    """
    folder = zoo_folder()
    names = sorted(p.relative_to(folder).as_posix() for p in folder.glob(PATTERN))
    names = [name for name in names if pattern.lower() in name.lower()]
    if not names:
        raise UserError(
            f'no top-down heatmap config of the zoo has {pattern!r} in its folder or '
            'name.'
        )
    return names


def zoo_name(path: Path) -> Optional[str]:
    """What ``mmpose::`` calls the file, or None if it calls it nothing."""
    folder = zoo_folder()
    # The toolbox looks for such names there, which a bare clone has not.
    if folder.parent.name == '.mim' and folder in path.resolve().parents:
        return path.resolve().relative_to(folder).as_posix()
    return None


def find_config(words: str) -> Path:
    """The file that a user means.

    Args:
        words: A path, ``mmpose::`` and a name, or a name of the zoo's with or without
            its folders and ``.py``, of which a unique prefix is enough.

    Raises:
        UserError: There is none, or more than one.
    """
    instead = "give a path, mmpose::NAME, or a name of MMPose's zoo."
    if not words:
        raise UserError(f'CONFIG is empty; {instead}')
    # Unlike Path's, it takes names of any length.
    if os.path.isfile(words):
        return Path(words)
    package, mark, name = words.partition('::')
    if mark and package != 'mmpose':
        raise UserError(f'CONFIG names a config of {package}; {instead}')
    name = name if mark else words
    name = name[:-3] if name.endswith('.py') else name
    folder = zoo_folder()
    files = [p.relative_to(folder).as_posix() for p in folder.glob('*/**/*.py')]
    stems = sorted(file[:-3] for file in files if not file.startswith('_base_/'))
    found = [stem for stem in stems if name in (stem, _last(stem))]
    if not found and os.path.isdir(words):
        raise UserError(f'CONFIG {words!r} is a folder; name a file in it.')
    topdown = [file[:-3] for file in convertible()]
    if not found:
        begun = [
            stem
            for stem in stems
            if stem.startswith(name)
            or _last(stem).startswith(name)
            or (f'/{name}' in stem and '/' in name)
        ]
        found = [stem for stem in begun if stem in topdown]
        if begun and not found:
            raise UserError(
                f'CONFIG {words!r} begins only names of configs that are no top-down '
                'heatmap configs; `udp-plugin list` shows those that can be converted.'
            )
    if len(found) == 1:
        return folder / f'{found[0]}.py'
    if found:
        listed = [_last(stem) for stem in found[:LISTED]]
        more = [f'and {len(found) - LISTED} more'] if len(found) > LISTED else []
        raise UserError(
            f'CONFIG {words!r} could be {len(found)} configs; give more of the name:'
            + ''.join(f'\n  {line}' for line in listed + more)
        )
    short, last = sorted(set(map(_last, topdown))), _last(name)
    near = [stem for stem in short if last and last in stem][:3]
    if not near:
        # It may be the beginning of a name that was mistyped.
        beginnings = {stem[: len(last)]: stem for stem in reversed(short)}
        close = difflib.get_close_matches(last, beginnings, n=3)
        near = [beginnings[beginning] for beginning in close]
    if near:
        raise UserError(
            f'There is no config {words!r}. Did you mean {" or ".join(near)}?'
        )
    raise UserError(
        f'There is no config {words!r}, neither a file nor in the zoo; '
        '`udp-plugin list` shows the names.'
    )


def _last(name: str) -> str:
    return name.rpartition('/')[-1]
