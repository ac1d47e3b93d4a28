"""Where a setting stands in the files of a config."""

import ast
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config

#: Any value.
ANY = object()


class Setting(NamedTuple):
    """A key of a dict in a config's file, and the top-level variable it belongs to."""

    variable: str
    key: str
    value: Any
    line: int


class Lines:
    """The files of a config: its own, and those that ``_base_`` names.

    Args:
        cfg: As it was read from a file; one made in other ways has no lines.
    """

    def __init__(self, cfg: Config) -> None:
        self.files: List[Tuple[Path, List[str], List[Setting]]] = []
        for path, text in _files(cfg):
            try:
                settings = list(_settings(ast.parse(text)))
            except SyntaxError:
                continue
            self.files.append((path, text.splitlines(), settings))

    def find(self, key: str, value: Any = ANY, inside: Sequence[str] = ()) -> str:
        """The place of a setting, ``file:line: text``: the first in the nearest file.

        Args:
            key: Of a dict.
            value: What it is set to.
            inside: Parts of the names of variables in which it may be; any if empty.

        Returns:
            The place, or an empty string.
        """
        for path, text, settings in self.files:
            for setting in settings:
                if setting.key != key:
                    continue
                if value is not ANY and setting.value != value:
                    continue
                if inside and not any(part in setting.variable for part in inside):
                    continue
                line = text[setting.line - 1].strip()
                return f'{_shown(path)}:{setting.line}: {line}'
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


def _settings(tree: ast.Module) -> Iterator[Setting]:
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
        variable = names[0] if names else ''
        for node in ast.walk(statement.value):
            for key, value in _items(node):
                yield Setting(variable, key, _literal(value), value.lineno)


def _items(node: ast.AST) -> Iterator[Tuple[str, ast.expr]]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is not None:
                yield keyword.arg, keyword.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value


def _literal(node: ast.expr) -> Optional[Any]:
    try:
        return ast.literal_eval(node)
    except ValueError:
        # A name: of a variable, or in configs of Python's own style of a class.
        return getattr(node, 'id', None)


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return path.name
