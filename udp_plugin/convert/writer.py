"""Writes a config as a person would: ``_base_``, and what differs from it.

The difference becomes expressions, trees of :class:`Code`, and these become lines
as ``ruff format`` would break them.
"""

import keyword
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

WIDTH = 88
#: A list's element of up to so many settings is written out, a longer one by what
#: changes in the base's.
SHORT = 4
#: The full name of a class.
CLASS = re.compile(r'[a-z_]\w*(\.[a-z_]\w*)+\.[A-Z]\w*')
COMMENT = "# The base's pipelines with UDP's warp and target."
#: Names that ``_base_.name`` would find on a dict itself.
DICT_NAMES = frozenset(dir(dict)) | {'merge', 'to_dict', 'build_lazy'}


class Code(NamedTuple):
    """Source text: brackets around parts, or with no parts a text as it is."""

    start: str
    parts: Tuple[Union['Code', 'Keyword'], ...] = ()
    end: str = ''

    def flat(self) -> str:
        return self.start + ', '.join(part.flat() for part in self.parts) + self.end

    def lines(self, indent: int, before: str, after: str) -> List[str]:
        """The lines of ``before + self + after`` in a block of this indent."""
        flat = ' ' * indent + before + self.flat() + after
        if len(flat) <= WIDTH or not self.parts:
            return [flat]
        lines = [' ' * indent + before + self.start]
        for part in self.parts:
            lines += part.lines(indent + 4, '', ',')
        # Here, the comma of a tuple of one stands behind its element.
        return [*lines, ' ' * indent + self.end.lstrip(',') + after]


class Keyword(NamedTuple):
    """``key=value``, or in a dict's display ``'key': value``."""

    key: str
    value: Code

    def flat(self) -> str:
        return self.key + self.value.flat()

    def lines(self, indent: int, before: str, after: str) -> List[str]:
        return self.value.lines(indent, before + self.key, after)


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


def _literal(value: Any) -> Code:
    if isinstance(value, dict):
        return _dict([(key, _literal(v)) for key, v in value.items()])
    if isinstance(value, list):
        return Code('[', tuple(map(_literal, value)), ']')
    if isinstance(value, tuple):
        parts = tuple(map(_literal, value))
        return Code('(', parts, ',)' if len(parts) == 1 else ')')
    return Code(repr(value))


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _dict(items: Sequence[tuple], base: Optional[str] = None) -> Code:
    """``dict(base, key=value)``, or a display if a key is no name; the type first."""
    first = {'_delete_': 0, 'type': 1}
    items = sorted(items, key=lambda item: first.get(item[0], 2))
    if all(_is_name(key) for key, _ in items):
        parts = [Keyword(f'{key}=', value) for key, value in items]
        return Code('dict(', tuple([Code(base), *parts] if base else parts), ')')
    parts = [Keyword(f'{key!r}: ', value) for key, value in items]
    return Code('{', tuple([Code(f'**{base}'), *parts] if base else parts), '}')


def _child(path: str, key: Any) -> str:
    if _is_name(key) and key not in DICT_NAMES:
        return f'{path}.{key}'
    return f'{path}[{key!r}]'


def _loses_keys(base: Any, target: Any) -> bool:
    """Whether a dict within loses a key, which merging could not do."""
    if not isinstance(base, dict) or not isinstance(target, dict):
        return False
    return not base.keys() <= target.keys() or any(
        _loses_keys(value, target[key]) for key, value in base.items()
    )


def _holds(node: Any, value: Any) -> bool:
    if isinstance(node, dict):
        return any(v == value or _holds(v, value) for v in node.values())
    if isinstance(node, (list, tuple)):
        return any(v == value or _holds(v, value) for v in node)
    return False


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

        def find(base: Any, value: Any, path: str, variable: str) -> None:
            if isinstance(value, dict) and isinstance(base, dict):
                for key, inner in value.items():
                    if base.get(key) == inner:
                        continue
                    place = _child(path, key)
                    if key in ('encoder', 'decoder'):
                        codecs.append(('codec', base.get(key), inner, place))
                    elif str(key).endswith('pipeline'):
                        name = variable.replace('dataloader', 'pipeline')
                        name = key if name == variable else name
                        pipelines.append((name, base.get(key), inner, place))
                    find(base.get(key), inner, place, variable)
            elif isinstance(value, list) and isinstance(base, list):
                for i, (old, new) in enumerate(zip(base, value)):
                    if old != new:
                        find(old, new, f'{path}[{i}]', variable)

        for name, value in self.changed.items():
            find(self.base.get(name), value, self._root(name), name)
        # A codec that only one place has reads well there. Of several levels the list
        # has the others as its elements.
        codecs.sort(key=lambda codec: not isinstance(codec[2], list))
        found = [*codecs[:1], *pipelines] if len(codecs) > 1 else pipelines
        known = [value for value in self.changed.values() if value]
        known += [v for value in known if isinstance(value, list) for v in value]
        extra: Dict[str, Any] = {}
        for name, base, value, path in found:
            if name in target or name in extra or value in known:
                continue
            if isinstance(value, (dict, list)) and not _loses_keys(base, value):
                extra[name] = value
                self.sources[name] = base, path
                known.append(value)
        self.changed.update(extra)
        return extra

    def write(self, base_path: str) -> str:
        blocks: List[str] = []
        last = ''
        commented = False
        for name in self._order():
            code, merged = self._variable(name, self.changed[name])
            if merged and self.pure_python:
                lines = Code(f'{name}.merge(', (code,), ')').lines(0, '', '')
            else:
                lines = code.lines(0, f'{name} = ', '')
            if not commented and name.endswith('pipeline') and '[*' in code.flat():
                lines.insert(0, COMMENT)
                commented = True
            block = '\n'.join(lines)
            if any(word in name and word in last for word in ('pipeline', 'loader')):
                blocks[-1] += '\n' + block
            else:
                blocks.append(block)
            last = name
        if self.pure_python:
            head = self._imports(base_path)
        else:
            head = self._base_line(base_path)
        return '\n\n'.join([head, *blocks]) + '\n'

    def _imports(self, module: str) -> str:
        self.imports.setdefault('mmengine.config', set()).add('read_base')
        lines = ['# ruff: noqa: F403, F405']
        for name in sorted(self.imports):
            parts = tuple(map(Code, sorted(self.imports[name])))
            flat = f'from {name} import {", ".join(part.flat() for part in parts)}'
            if len(flat) <= WIDTH:
                lines.append(flat)
            else:
                lines += Code('(', parts, ')').lines(0, f'from {name} import ', '')
        return '\n'.join(
            [*lines, '', 'with read_base():', f'    from {module} import *']
        )

    @staticmethod
    def _base_line(path: str) -> str:
        flat = f'_base_ = [{path!r}]'
        if len(flat) <= WIDTH:
            return flat
        if len(path) <= WIDTH - 6:
            return f'_base_ = [\n    {path!r}\n]'
        parts, rest = [], path
        while len(rest) > WIDTH - 8:
            cut = rest.rfind('/', 0, WIDTH - 8) + 1 or WIDTH - 8
            parts.append(rest[:cut])
            rest = rest[cut:]
        if not parts:
            cut = path.rfind('/') + 1
            parts, rest = [path[:cut]], path[cut:]
        lines = [f'    {part!r}' for part in [*parts, rest]]
        return '\n'.join(['_base_ = [', *lines, ']'])

    def _order(self) -> List[str]:
        """The changed variables, in the base's order, but each after what it names."""
        waiting = [name for name in self.changed if name not in self.extra]
        for name in self.extra:
            ends = '_dataloader' if name != 'codec' else ''
            places = [i for i, n in enumerate(waiting) if n.endswith(ends)]
            waiting.insert(places[0] if places else len(waiting), name)
        if 'custom_imports' in waiting:
            waiting.remove('custom_imports')
            waiting.insert(0, 'custom_imports')
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
            # Values hold each other in one direction only.
            name = next(
                name
                for name in waiting
                if not any(
                    other in self.named
                    and _holds(self.changed[name], self.changed[other])
                    for other in waiting
                    if other != name
                )
            )
            waiting.remove(name)
            done.append(name)
        return done

    def _variable(self, name: str, value: Any) -> Tuple[Code, bool]:
        """The expression for a variable, and whether it is to be merged."""
        base, path = self.sources.get(name, (self.base.get(name), self._root(name)))
        merged = isinstance(value, dict) and bool(base) and name not in self.named
        if not base:
            code = self._written(None, value)
            if isinstance(value, dict) and name in self.base and base is None:
                code = _dict([('_delete_', Code('True')), *self._items(value)])
        elif merged:
            code = self._merged(base, value, path)
        else:
            code = self._known(value) if isinstance(value, list) else None
            code = code or self._whole(base, value, path)
        if name in self.named or (isinstance(value, list) and value):
            self.variables.append((name, value))
        return code, merged

    def _known(self, value: Any) -> Optional[Code]:
        """The variable that has this value, or the element of one."""
        if not isinstance(value, (dict, list)) or not value:
            return None
        for name, known in self.variables:
            if known == value:
                return Code(name)
        for name, known in self.variables:
            if isinstance(known, list) and value in known and 'pipeline' not in name:
                index = known.index(value)
                return Code(f'{name}[{-1 if index == len(known) - 1 else index}]')
        return None

    def _merged(self, base: Any, target: Any, path: str) -> Code:
        """What mmengine merges into the base's value to make the target of it."""
        if not isinstance(base, dict) or not isinstance(target, dict):
            return self._whole(base, target, path)
        if not base.keys() <= target.keys():
            return _dict([('_delete_', Code('True')), *self._items(target)])
        known = self._known(target)
        if known and not _loses_keys(base, target):
            return known
        return _dict(
            [
                (key, self._merged(base.get(key), value, _child(path, key)))
                for key, value in target.items()
                if key not in base or base[key] != value
            ]
        )

    def _items(self, target: dict) -> List[tuple]:
        return [(key, self._written(key, value)) for key, value in target.items()]

    def _written(self, key: Any, value: Any) -> Code:
        """A value in full, but for what a variable has."""
        known = self._known(value)
        if known:
            return known
        if key == 'input_size':
            for name, variable in self.variables:
                if isinstance(variable, dict):
                    place = name
                elif variable and isinstance(variable[0], dict):
                    variable, place = variable[0], f'{name}[0]'
                else:
                    continue
                if variable.get('input_size') == value:
                    return Code(f"{place}['input_size']")
        if isinstance(value, dict):
            return _dict(self._items(value))
        if isinstance(value, list):
            return Code('[', tuple(self._written(None, v) for v in value), ']')
        if self.pure_python and isinstance(value, str) and CLASS.fullmatch(value):
            module, _, name = value.rpartition('.')
            self.imports.setdefault(module, set()).add(name)
            return Code(name)
        return _literal(value)

    def _whole(self, base: Any, target: Any, path: str) -> Code:
        """An expression whose value is the target, from the base's where it pays."""
        known = self._known(target)
        if known:
            return known
        if not self.refer:
            return self._written(None, target)
        if isinstance(base, dict) and isinstance(target, dict):
            if base == target:
                return Code(path)
            if base.keys() <= target.keys():
                items = [
                    (key, self._whole(base.get(key), value, _child(path, key)))
                    for key, value in target.items()
                    if key not in base or base[key] != value
                ]
                return _dict(items, base=path)
            return self._written(None, target)
        if isinstance(base, list) and isinstance(target, list):
            if len(base) == len(target):
                return self._each(base, target, path) or self._splice(
                    base, target, path
                )
            if target[: len(base)] == base:
                rest = [self._written(None, value) for value in target[len(base) :]]
                return Code('[', (Code(f'*{path}'), *rest), ']')
        return self._written(None, target)

    def _each(self, base: list, target: list, path: str) -> Optional[Code]:
        """All elements changed alike: as codecs of several levels."""
        if len(base) < 2 or not all(isinstance(v, dict) for v in [*base, *target]):
            return None
        changes = []
        for old, new in zip(base, target):
            if not old.keys() <= new.keys():
                return None
            changes.append({k: v for k, v in new.items() if old.get(k) != v})
        change = changes[0]
        if not change or any(c != change for c in changes):
            return None
        if any(isinstance(value, (dict, list)) for value in change.values()):
            return None
        each = _dict([(k, self._written(k, v)) for k, v in change.items()], base='each')
        return Code(f'[{each.flat()} for each in {path}]')

    def _splice(self, base: list, target: list, path: str) -> Code:
        """The base's list where it stays, and the other elements."""
        n = len(base)
        parts: List[Code] = []
        i = 0
        while i < n:
            if base[i] != target[i]:
                index = i - n if 0 < i == n - 1 else i
                parts.append(self._element(base[i], target[i], f'{path}[{index}]'))
                i += 1
                continue
            j = i
            while j < n and base[j] == target[j]:
                j += 1
            if j - i == 1 and i > 0:
                short = self._written(None, target[i])
                fits = len(short.flat()) <= 60
                parts.append(short if fits else Code(f'{path}[{i - n}]'))
            else:
                start = str(i - n) if i else ''
                end = str(j - n) if j < n else ''
                parts.append(Code(f'*{path}[{start}:{end}]'))
            i = j
        return Code('[', tuple(parts), ']')

    def _element(self, base: Any, target: Any, path: str) -> Code:
        if isinstance(target, dict):
            written = self._known(target) or _dict(self._items(target))
            short = len(target) <= SHORT and len(written.flat()) <= WIDTH - 5
            if short or not isinstance(base, dict):
                return written
        return self._whole(base, target, path)
