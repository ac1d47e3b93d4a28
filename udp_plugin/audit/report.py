"""What an audit prints: a table to read in ten seconds, and findings."""

from typing import Iterator, List, Sequence, Tuple, Union

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from udp_plugin.ui import print_table

from .measures import NOISE
from .result import Audit
from .theory import Expected, expected_coding, expected_flip
from .warps import PIXELS, UNIT_LENGTH

#: A figure farther from theory than this part of it, or input px, is marked.
RELATIVE, ABSOLUTE = 0.01, 0.01
#: What the lines of the flip test are called.
FLIPS = {
    'alone': 'flip: mirrored alone',
    'shifted': 'flip: shifted',
    'averaged': 'flip: averaged',
    'averaged_shifted': 'flip: averaged, shifted',
    'configured': 'flip: as configured',
}
#: Of what the paper does not say.
UNKNOWN = Expected()
#: What a line says of a config: mean, 95th percentile, theory, equation.
Cells = Tuple[Union[str, Text], str, str, str]


def print_audits(audits: Sequence[Audit], console: Console) -> None:
    """Print what was measured, side by side, and what was found."""
    several = len(audits) > 1
    for index, found in enumerate(audits, 1):
        sizes, parts = '', found.parts
        if parts is not None:
            numbers = *parts.input_size, *parts.heatmap_size, parts.num_keypoints
            sizes = ': {}×{} input, {}×{} maps, {} keypoints'.format(*numbers)
        number, name = f'{index} ' if several else '', (found.name, 'bold')
        console.print(Text.assemble(number, name, f'{sizes}, {found.data}'))
    print_table(_table(audits), console)
    for trained in (found.trained for found in audits if found.trained is not None):
        if trained.configured is not None:
            trained.table().print(console)
        console.print(trained.text())
    for found in audits:
        title = f'{found.name}: ' if several else ''
        if not found.findings:
            nothing = 'no findings', 'green'
            console.print(Text.assemble(title, nothing, ': its parts go together.'))
        for severity, name, where, line, what, fix in found.findings:
            head = f'{title}{severity} ', 'red' if severity == 'error' else 'yellow'
            console.print()
            console.print(Text.assemble(head, (name, 'bold'), f': {what}'))
            console.print(Text(f'  at   {where}'))
            if line:
                console.print(Text(f'       {line}', style='dim'))
            console.print(Text(f'  fix  {fix}'))


def _table(audits: Sequence[Audit]) -> Table:
    one = len(audits) == 1
    title = 'A perfect network, input px: absolute errors on the worse axis'
    table = Table(title=title, title_justify='left')
    table.add_column('', no_wrap=True)
    for index in range(1, len(audits) + 1):
        for name in ['mean', '95 %', 'theory'] if one else [f'mean {index}', 'theory']:
            table.add_column(name, justify='right')
    if one:
        table.add_column('equation', style='dim', no_wrap=True)
    columns = [dict(_rows(found)) for found in audits]
    group = ''
    for label in dict.fromkeys(label for rows in columns for label in rows):
        if group not in ('', label.split(':')[0]):
            table.add_section()
        group = label.split(':')[0]
        cells: List[Union[str, Text]] = []
        for rows in columns:
            # Two configs leave no room for all.
            found = rows.get(label, ('–', '', '', ''))
            cells += found if one else found[::2]
        table.add_row(label, *cells)
    return table


def _rows(found: Audit) -> Iterator[Tuple[str, Cells]]:
    """What the lines are called, and their cells."""
    coding, end, zero = found.coding, found.end_to_end, Expected(0.0, 0.0)
    for one in found.transforms:
        equation = {UNIT_LENGTH: 'Eq. 41', PIXELS: 'Eq. 30'}.get(one.kind, '')
        yield f'warp: {one.flow.name} measures', (one.kind, '', '', equation)
    for one in found.transforms:
        yield f'warp: {one.flow.name}, image', _cells(one.misfit, zero)
    if end is not None:
        expected = zero._replace(equation='Eq. 47')
        yield 'warp: there and back', _cells(end.round_trip, expected)
    if coding is None:
        return
    expected = expected_coding(found.parts)
    yield 'coding: measures', (coding.kind, '', '', '')
    yield 'coding: encode, decode', _cells(coding.errors, expected)
    yield 'coding: at the border', _cells(np.concatenate(coding.border)[:, None])
    yield f'coding: with {NOISE:.0%} noise', _cells(coding.noisy)
    if found.flip is not None:
        flips = expected_flip(found.parts, coding)
        for name, errors in found.flip._asdict().items():
            cells = ('off', '', '', '')
            if errors is not None:
                cells = _cells(errors[:, :1], flips.get(name, UNKNOWN))
            yield FLIPS[name], cells
    if end is not None:
        unbiased = found.unbiased and expected.x == expected.y == 0
        expected = zero._replace(equation='Eq. 41-47') if unbiased else UNKNOWN
        yield 'end to end: as configured', _cells(end.input_px, expected)
        yield 'end to end: source px', _cells(end.source_px)
        yield 'end to end: OKS', (f'{end.oks.mean():.4f}', '', '1', '')
    if found.ap is not None:
        yield 'end to end: COCO AP', (f'{found.ap:.1f}', '', '100', '')


def _cells(errors: np.ndarray, expected: Expected = UNKNOWN) -> Cells:
    """Of absolute errors (M, A), the axis where they are larger."""
    errors = np.abs(errors[np.isfinite(errors).all(-1)])
    if not len(errors):
        return ('not finite', '', '', expected.equation)
    axis = errors.mean(0).argmax()
    mean, p95 = errors[:, axis].mean(), np.percentile(errors[:, axis], 95)
    shown, theory = _px(mean), ''
    if expected.x is not None:
        value = max(expected.x, expected.y or 0.0)
        theory = f'{value:.2f}'
        if abs(mean - value) > RELATIVE * value + ABSOLUTE:
            shown = Text(shown, 'red')
    return (shown, _px(p95), theory, expected.equation)


def _px(value: float) -> str:
    return f'{value:.2f}' if value >= 0.01 else f'{value:.4f}'
