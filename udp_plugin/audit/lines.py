"""Where a setting stands in the files of a config."""

import ast
from pathlib import Path
from typing import Any, Iterator, List, Sequence, Tuple

from mmengine.config import Config

#: Any value.
ANY = object()
#: Of a key of a dict in a config's file: the top-level variable that it belongs to,
#: the key, its value, and its place, ``file:line: text``.
Setting = Tuple[str, str, Any, str]


class Lines:
    """The files of a config: its own, and those that ``_base_`` names.

    Args:
        cfg: As it was read from a file; one made in other ways has no lines.
    """

    def __init__(self, cfg: Config) -> None:
        #: Of the nearest file first.
        self.settings = [s for path, text in _files(cfg) for s in _settings(path, text)]

    def find(self, key: str, value: Any = ANY, inside: Sequence[str] = ()) -> str:
        """The place of a setting, ``file:line: text``: the first in the nearest file.

        Args:
            key: Of a dict.
            value: What it is set to.
            inside: Parts of the names of variables in which it may be; any if empty.

        Returns:
            The place, or an empty string.
        """
        for variable, name, set_to, place in self.settings:
            wanted = name == key and (value is ANY or set_to == value)
            if wanted and any(part in variable for part in inside or ['']):
                return place
        return ''


def _files(cfg: Config) -> Iterator[Tuple[Path, str]]:
    """Path and text of each file, the config's own first."""
    found: List[Tuple[Path, List[str]]] = []
    # The toolbox joins the files' texts, each after a line with its path.
    for line in (cfg.text or '').splitlines():
        if line.endswith('.py') and line[:1] != '#' and Path(line).is_file():
            found.append((Path(line), []))
        elif found:
            found[-1][1].append(line)
    if not found and cfg.filename and Path(cfg.filename).is_file():
        # Of a config in Python's own style the toolbox keeps the name alone.
        path = Path(cfg.filename)
        found = [(path, path.read_text(encoding='utf-8').splitlines())]
    for path, lines in reversed(found):
        yield path, '\n'.join(lines)


def _settings(path: Path, text: str) -> Iterator[Setting]:
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        # Of a base that is no Python.
        return
    place, here, lines = path.resolve(), Path.cwd(), text.splitlines()
    shown = place.relative_to(here) if here in place.parents else path.name
    for statement in statements:
        if not isinstance(statement, ast.Assign):
            continue
        names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
        for node in ast.walk(statement.value):
            items: List[Tuple[Any, ast.expr]] = []
            if isinstance(node, ast.Call):
                items = [(keyword.arg, keyword.value) for keyword in node.keywords]
            elif isinstance(node, ast.Dict):
                keys = (getattr(key, 'value', None) for key in node.keys)
                items = list(zip(keys, node.values))
            for key, value in items:
                place = f'{shown}:{value.lineno}: {lines[value.lineno - 1].strip()}'
                yield next(iter(names), ''), key, _literal(value), place


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        # A name: of a variable, or in configs of Python's own style of a class.
        return getattr(node, 'id', None)
