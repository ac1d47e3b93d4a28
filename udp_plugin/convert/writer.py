"""Writes a config as a person would: ``_base_``, and what differs from it.

The difference becomes expressions in one line each, and these are broken into lines
as ``ruff format`` would do it.
"""

import ast
import keyword
import re
from itertools import groupby
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from mmengine.utils import is_list_of

WIDTH = 88
#: A list's element of up to so many settings is written out, a longer one by what
#: changes in the base's.
SHORT = 4
#: The full name of a class.
CLASS = re.compile(r'[a-z_]\w*(\.[a-z_]\w*)+\.[A-Z]\w*')
COMMENT = "# The base's pipelines with UDP's warp and target."
#: Names that ``_base_.name`` would find on a dict itself.
DICT_NAMES = frozenset(dir(dict)) | {'merge', 'to_dict', 'build_lazy'}


def without_scope(node: Any) -> Any:
    """A copy without the marks that mmengine leaves on what a zoo config has.

    They say that the types are the toolbox's, which the default scope says, too.
    """
    if isinstance(node, dict):
        kept = {k: v for k, v in node.items() if (k, v) != ('_scope_', 'mmpose')}
        return {k: without_scope(v) for k, v in kept.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(without_scope(value) for value in node)
    return node


def write(
    base: Dict[str, Any],
    target: Dict[str, Any],
    base_path: str,
    pure_python: bool = False,
) -> Tuple[str, Dict[str, Any]]:
    """The source text of a config that makes ``target`` of ``base``.

    Args:
        base: The config that ``_base_`` names, as plain dicts and lists.
        target: As it shall be.
        base_path: For ``_base_``, or the module for ``read_base``.
        pure_python: Write in the style of ``with read_base():``. Types with the full
            name of their class become this class.

    Returns:
        The text, and the variables it has that ``target`` has not: inline codecs
        and pipelines are given names, so that they are written once.
    """
    for refer in (True, False):
        writer = _Writer(base, target, pure_python, refer)
        text = writer.write(base_path)
        # Places of the base too deep to fit a line are written out.
        if all(len(line) <= WIDTH for line in text.splitlines()):
            break
    return text, writer.extra


# --- source text ----------------------------------------------------------------------


def _lines(before: str, code: str, after: str = '', indent: int = 0) -> List[str]:
    """The lines of ``before + code + after``, where ``code`` is one expression."""
    line = ' ' * indent + before + code + after
    if len(line) <= WIDTH:
        return [line]
    try:
        node = ast.parse(code, mode='eval').body
    except SyntaxError:
        # An object that has no source text; what is written is compared in the end.
        return [line]
    elements = getattr(node, 'args', None) or getattr(node, 'elts', [])
    parts = [('', value) for value in elements]
    parts += [(f'{word.arg}=', word.value) for word in getattr(node, 'keywords', [])]
    if isinstance(node, ast.Dict):
        keys = [f'{ast.literal_eval(key)!r}: ' if key else '**' for key in node.keys]
        parts = list(zip(keys, node.values))
    if not parts:
        return [line]
    start = code[: code.index('(') + 1] if isinstance(node, ast.Call) else code[0]
    lines = [' ' * indent + before + start]
    for label, value in parts:
        if isinstance(value, ast.Starred):
            label, value = '*', value.value
        part = ast.get_source_segment(code, value)
        lines += _lines(label, part, ',', indent + 4)
    return [*lines, ' ' * indent + code[-1] + after]


def _base_line(path: str) -> str:
    line = f'_base_ = [{path!r}]'
    if len(line) <= WIDTH:
        return line
    # Cut after slashes, unless a name fills a line.
    parts = re.findall('.{1,80}$|.{0,79}/|.{80}', path)
    parts = [path] if len(path) <= WIDTH - 6 else parts
    return '\n'.join(['_base_ = [', *(f'    {part!r}' for part in parts), ']'])


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _dict(items: Sequence[Tuple[Any, str]], base: Optional[str] = None) -> str:
    """``dict(base, key=value)``, or a display if a key is no name; the type first."""
    first = {'_delete_': 0, 'type': 1}
    items = sorted(items, key=lambda item: first.get(item[0], 2))
    if all(_is_name(key) for key, _ in items):
        parts = [f'{key}={value}' for key, value in items]
        return f'dict({", ".join([base, *parts] if base else parts)})'
    parts = [f'{key!r}: {value}' for key, value in items]
    return f'{{{", ".join([f"**{base}", *parts] if base else parts)}}}'


def _child(path: str, key: Any) -> str:
    if _is_name(key) and key not in DICT_NAMES:
        return f'{path}.{key}'
    return f'{path}[{key!r}]'


# --- differences ----------------------------------------------------------------------


def _changes(base: Any, target: Any, path: str) -> Iterator[Tuple[Any, Any, Any, str]]:
    """The changed keys within: each with its values before and after, and its place."""
    if isinstance(base, dict) and isinstance(target, dict):
        for key, value in target.items():
            if base.get(key) != value:
                place = _child(path, key)
                yield key, base.get(key), value, place
                yield from _changes(base.get(key), value, place)
    elif isinstance(base, list) and isinstance(target, list):
        for index, (old, new) in enumerate(zip(base, target)):
            if old != new:
                yield from _changes(old, new, f'{path}[{index}]')


def _loses_keys(base: Any, target: Any) -> bool:
    """Whether a dict within loses a key, which merging could not do."""
    if not isinstance(base, dict) or not isinstance(target, dict):
        return False
    return not base.keys() <= target.keys() or any(
        _loses_keys(value, target[key]) for key, value in base.items()
    )


def _holds(node: Any, value: Any) -> bool:
    if not isinstance(node, (dict, list, tuple)):
        return False
    inner = node.values() if isinstance(node, dict) else node
    return any(v == value or _holds(v, value) for v in inner)


class _Writer:
    def __init__(
        self, base: dict, target: dict, pure_python: bool, refer: bool
    ) -> None:
        self.pure_python = pure_python
        self.refer = refer
        self.base = base
        self.changed = {k: v for k, v in target.items() if base.get(k) != v}
        #: Where the value of a new variable comes from in the base.
        self.sources: Dict[str, Tuple[Any, str]] = {}
        #: The variables written so far that others may name, with their values.
        self.variables: List[Tuple[str, Any]] = []
        self.imports: Dict[str, Set[str]] = {}
        self.extra = self._name_inline_values(target)

    def _root(self, name: str) -> str:
        return name if self.pure_python else _child('_base_', name)

    def _name_inline_values(self, target: dict) -> Dict[str, Any]:
        """Names for changed codecs and pipelines that are no variables yet."""
        codecs: List[tuple] = []
        pipelines: List[tuple] = []
        for variable, value in self.changed.items():
            before = self.base.get(variable)
            for key, *change in _changes(before, value, self._root(variable)):
                if key in ('encoder', 'decoder'):
                    codecs.append(('codec', *change))
                elif str(key).endswith('pipeline'):
                    name = variable.replace('dataloader', 'pipeline')
                    pipelines.append((key if name == variable else name, *change))
        # A codec that only one place has reads well there. Of several levels the list
        # has the others as its elements.
        codecs.sort(key=lambda codec: not isinstance(codec[2], list))
        known = [value for value in self.changed.values() if value]
        known += [v for value in known if isinstance(value, list) for v in value]
        extra: Dict[str, Any] = {}
        found = [*codecs[:1], *pipelines] if len(codecs) > 1 else pipelines
        for name, base, value, path in found:
            is_new = name not in {**target, **extra} and value not in known
            is_whole = isinstance(value, (dict, list)) and not _loses_keys(base, value)
            if is_new and is_whole:
                extra[name] = value
                self.sources[name] = base, path
                known.append(value)
        self.changed.update(extra)
        return extra

    def write(self, base_path: str) -> str:
        text, last, comment = '', '', f'{COMMENT}\n'
        for name in self._order():
            code, merged = self._variable(name, self.changed[name])
            if merged and self.pure_python:
                lines = _lines('', f'{name}.merge({code})')
            else:
                lines = _lines(f'{name} = ', code)
            together = any(n in name and n in last for n in ('pipeline', 'loader'))
            text += '\n' if together else '\n\n'
            if name.endswith('pipeline') and '[*' in code:
                text, comment = text + comment, ''
            text, last = text + '\n'.join(lines), name
        head = self._imports if self.pure_python else _base_line
        return f'{head(base_path)}{text}\n'

    def _imports(self, module: str) -> str:
        self.imports.setdefault('mmengine.config', set()).add('read_base')
        lines = ['# ruff: noqa: F403, F405']
        for name in sorted(self.imports):
            before = f'from {name} import '
            names = ', '.join(sorted(self.imports[name]))
            fits = len(before + names) <= WIDTH
            lines += [before + names] if fits else _lines(before, f'({names},)')
        lines += ['', 'with read_base():', f'    from {module} import *']
        return '\n'.join(lines)

    def _order(self) -> List[str]:
        """The changed variables, in the base's order, but each after what it names."""
        waiting = [name for name in self.changed if name not in self.extra]
        for name in self.extra:
            ends = '_dataloader' if name != 'codec' else ''
            places = [i for i, n in enumerate(waiting) if n.endswith(ends)]
            waiting.insert(places[0] if places else len(waiting), name)
        waiting.sort(key=lambda name: name != 'custom_imports')
        self.named = {
            name
            for name, value in self.changed.items()
            if isinstance(value, (dict, list))
            and value
            and (self.pure_python or not _loses_keys(self.base.get(name), value))
            and any(_holds(v, value) for k, v in self.changed.items() if k != name)
        }
        done: List[str] = []
        while waiting:
            for name in waiting:
                others = self.named.intersection(waiting) - {name}
                # Values hold each other in one direction only.
                if not any(_holds(self.changed[name], self.changed[o]) for o in others):
                    break
            waiting.remove(name)
            done.append(name)
        return done

    def _variable(self, name: str, value: Any) -> Tuple[str, bool]:
        """The expression for a variable, and whether it is to be merged."""
        base, path = self.sources.get(name, (self.base.get(name), self._root(name)))
        merged = isinstance(value, dict) and bool(base) and name not in self.named
        if base:
            code = self._from(base, value, path, merged)
        elif isinstance(value, dict) and name in self.base and base is None:
            code = _dict([('_delete_', 'True'), *self._items(value)])
        else:
            code = self._written(None, value)
        if name in self.named or (isinstance(value, list) and value):
            self.variables.append((name, value))
        return code, merged

    def _known(self, value: Any) -> Optional[str]:
        """The variable that has this value, or the element of one."""
        if not isinstance(value, (dict, list)) or not value:
            return None
        names = [name for name, known in self.variables if known == value]
        names += [
            f'{name}[{-1 if value == known[-1] else known.index(value)}]'
            for name, known in self.variables
            if isinstance(known, list) and value in known and 'pipeline' not in name
        ]
        return names[0] if names else None

    def _items(self, target: dict) -> List[Tuple[Any, str]]:
        return [(key, self._written(key, value)) for key, value in target.items()]

    def _written(self, key: Any, value: Any) -> str:
        """A value in full, but for what a variable has."""
        known = self._known(value)
        if known:
            return known
        if key == 'input_size':
            for name, variable in self.variables:
                if isinstance(variable, list):
                    variable, name = variable[0], f'{name}[0]'
                if isinstance(variable, dict) and variable.get('input_size') == value:
                    return f"{name}['input_size']"
        if isinstance(value, dict):
            return _dict(self._items(value))
        if isinstance(value, list):
            return f'[{", ".join(self._written(None, v) for v in value)}]'
        if isinstance(value, tuple):
            parts = ', '.join(self._written(None, v) for v in value)
            return f'({parts},)' if len(value) == 1 else f'({parts})'
        if self.pure_python and isinstance(value, str) and CLASS.fullmatch(value):
            module, _, name = value.rpartition('.')
            self.imports.setdefault(module, set()).add(name)
            return name
        return repr(value)

    def _from(self, base: Any, target: Any, path: str, merge: bool = False) -> str:
        """An expression for the target, from the base's value where it pays.

        With ``merge``, it is what mmengine merges into the base's value.
        """
        known = self._known(target)
        if known and not (merge and _loses_keys(base, target)):
            return known
        both = {type(base), type(target)}
        if both == {dict} and (self.refer or merge):
            if base == target:
                return path
            if base.keys() <= target.keys():
                items = [
                    (key, self._from(base.get(key), value, _child(path, key), merge))
                    for key, value in target.items()
                    if key not in base or base[key] != value
                ]
                return _dict(items, base=None if merge else path)
            if merge:
                return _dict([('_delete_', 'True'), *self._items(target)])
        elif both == {list} and self.refer:
            if len(base) == len(target):
                each = self._each(base, target, path)
                return each or self._splice(base, target, path)
            if target[: len(base)] == base:
                rest = [self._written(None, value) for value in target[len(base) :]]
                return f'[{", ".join([f"*{path}", *rest])}]'
        return self._written(None, target)

    def _each(self, base: list, target: list, path: str) -> Optional[str]:
        """All elements changed alike: as codecs of several levels."""
        if len(base) < 2 or not is_list_of([*base, *target], dict):
            return None
        change = {k: v for k, v in target[0].items() if base[0].get(k) != v}
        if not change or any(isinstance(v, (dict, list)) for v in change.values()):
            return None
        for old, new in zip(base, target):
            if new != {**old, **change} or any(old.get(k) == change[k] for k in change):
                return None
        items = [(key, self._written(key, value)) for key, value in change.items()]
        return f'[{_dict(items, base="each")} for each in {path}]'

    def _splice(self, base: list, target: list, path: str) -> str:
        """The base's list where it stays, and the other elements."""
        n = len(base)
        parts: List[str] = []
        for same, run in groupby(range(n), lambda i: base[i] == target[i]):
            indices = list(run)
            first, last = indices[0], indices[-1]
            if not same:
                for i in indices:
                    place = f'{path}[{i - n if 0 < i == n - 1 else i}]'
                    parts.append(self._element(base[i], target[i], place))
            elif first == last > 0:
                short = self._written(None, target[first])
                parts.append(short if len(short) <= 60 else f'{path}[{first - n}]')
            else:
                start, end = first - n if first else '', last + 1 - n or ''
                parts.append(f'*{path}[{start}:{end}]')
        return f'[{", ".join(parts)}]'

    def _element(self, base: Any, target: Any, path: str) -> str:
        if isinstance(target, dict) and len(target) <= SHORT:
            written = self._written(None, target)
            if len(written) <= WIDTH - 5:
                return written
        return self._from(base, target, path)
