"""The toolbox's configs, and how a user's words name one of them."""

import difflib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import List, Optional

from udp_plugin.ui import UserError

#: Where the zoo keeps its top-down heatmap configs.
PATTERN = '*/topdown_heatmap/**/*.py'
#: How many candidates a message lists.
LISTED = 8


def _package() -> Path:
    spec = find_spec('mmpose')
    if spec is None or not spec.submodule_search_locations:
        raise UserError('MMPose is not installed: `udp-plugin doctor` says how.')
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def zoo_folder() -> Path:
    """The folder of MMPose's configs, installed or of its source.

    Raises:
        UserError: There is none.
    """
    package = _package()
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder.resolve()
    raise UserError(
        f'MMPose at {package} has no configs beside it; give CONFIG as a path.'
    )


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
    """What ``mmpose::`` calls the file, or None if it calls it nothing.

    The toolbox looks for such names in ``.mim``, which a bare clone has not.
    """
    try:
        if not (_package() / '.mim').is_dir():
            return None
        return path.resolve().relative_to(zoo_folder()).as_posix()
    except (UserError, ValueError):
        return None


def find_config(words: str) -> Path:
    """The file that a user means.

    Args:
        words: A path, ``mmpose::`` and a name, or a name of the zoo's with or without
            its folders and ``.py``, of which a unique prefix is enough.

    Raises:
        UserError: There is none, or more than one.
    """
    if not words:
        raise UserError(
            "CONFIG is empty; give a path, mmpose::NAME, or a name of MMPose's zoo."
        )
    # Unlike Path's, it takes names of any length.
    if os.path.isfile(words):
        return Path(words)
    package, mark, name = words.partition('::')
    if mark and package != 'mmpose':
        raise UserError(
            f'CONFIG names a config of {package}; give a path, mmpose::NAME, or a '
            "name of MMPose's zoo."
        )
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
        listed = ''.join(f'\n  {_last(stem)}' for stem in found[:LISTED])
        more = len(found) - LISTED
        raise UserError(
            f'CONFIG {words!r} could be {len(found)} configs; give more of the name: '
            + listed
            + (f'\n  and {more} more' if more > 0 else '')
        )
    short, last = sorted(set(map(_last, topdown))), _last(name)
    near = [stem for stem in short if last and last in stem][:3]
    near = near or difflib.get_close_matches(last, short, n=3)
    if not near:
        # It may be the beginning of a name that was mistyped.
        beginnings = {stem[: len(last)]: stem for stem in reversed(short)}
        close = difflib.get_close_matches(last, beginnings, n=3, cutoff=0.8)
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
