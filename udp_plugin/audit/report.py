"""What an audit shows: a table to read in ten seconds, findings, files and figures."""

import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .findings import ERROR
from .measures import NOISE, UNIT_LENGTH
from .run import Audit
from .theory import expected_coding, expected_flip

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
#: What a line says of a config: mean, 95th percentile, theory, equation.
Cells = Tuple[str, str, str, str]


def print_audits(audits: Sequence[Audit], console: Console) -> None:
    """Print what was measured, side by side, and what was found."""
    for index, found in enumerate(audits, 1):
        number = f'{index} ' if len(audits) > 1 else ''
        sizes = ''
        if found.parts is not None:
            width, height = found.parts.input_size
            sizes = f': {width}×{height} input, '
            width, height = found.parts.heatmap_size
            sizes += f'{width}×{height} maps, {found.parts.num_keypoints} keypoints'
        console.print(
            Text.assemble(number, (found.name, 'bold'), f'{sizes}, {found.data}')
        )
    console.print(_table(audits))
    for found in audits:
        _print_findings(found, console, name=len(audits) > 1)


def _table(audits: Sequence[Audit]) -> Table:
    one = len(audits) == 1
    title = 'A perfect network, input px: absolute errors on the worse axis'
    table = Table(title=title, title_justify='left')
    table.add_column('', no_wrap=True)
    for index in range(1, len(audits) + 1):
        table.add_column('mean' if one else f'mean {index}', justify='right')
        if one:
            table.add_column('95 %', justify='right')
        table.add_column('theory', justify='right')
    if one:
        table.add_column('equation', style='dim', no_wrap=True)
    columns = [_rows(found) for found in audits]
    group = ''
    for label in dict.fromkeys(label for rows in columns for label in rows):
        if group and label.split(':')[0] != group:
            table.add_section()
        group = label.split(':')[0]
        cells: List[str] = []
        for rows in columns:
            mean, p95, theory, equation = rows.get(label, ('–', '', '', ''))
            cells += [mean, p95, theory, equation] if one else [mean, theory]
        table.add_row(label, *cells)
    return table


def _rows(found: Audit) -> Dict[str, Cells]:
    """The lines' cells, by what the lines are called."""
    rows: Dict[str, Cells] = {}
    for one in found.transforms:
        equation = {'unit length': 'Eq. 41', 'pixels': 'Eq. 30'}.get(one.kind, '')
        rows[f'warp: {one.flow.name} measures'] = (one.kind, '', '', equation)
    for one in found.transforms:
        rows[f'warp: {one.flow.name}, image'] = _row(one.misfit, 0.0, '')
    if found.end_to_end is not None:
        rows['warp: there and back'] = _row(found.end_to_end.round_trip, 0.0, 'Eq. 47')
    if found.parts is None or found.coding is None:
        return rows
    expected = expected_coding(found.parts)
    coding = found.coding
    theory = None if expected.x is None else max(expected.x, expected.y or 0.0)
    rows['coding: measures'] = (coding.kind, '', '', '')
    rows['coding: encode, decode'] = _row(coding.errors, theory, expected.equation)
    border = np.concatenate(coding.border)[:, None]
    rows['coding: at the border'] = _row(border, None, '')
    rows[f'coding: with {NOISE:.0%} noise'] = _row(coding.noisy, None, '')
    if found.flip is not None:
        flips = expected_flip(found.parts, coding)
        for name, label in FLIPS.items():
            errors = getattr(found.flip, name)
            if errors is None:
                rows[label] = ('off', '', '', '')
                continue
            of = flips.get(name)
            rows[label] = _row(
                errors[:, :1], of.x if of else None, of.equation if of else ''
            )
    if found.end_to_end is not None:
        end = found.end_to_end
        unbiased = coding.kind == UNIT_LENGTH and theory == 0
        rows['end to end: as configured'] = _row(
            end.input_px, *((0.0, 'Eq. 41-47') if unbiased else (None, ''))
        )
        rows['end to end: source px'] = _row(end.source_px, None, '')
        rows['end to end: OKS'] = (f'{end.oks.mean():.4f}', '', '1', '')
    if found.ap is not None:
        rows['end to end: COCO AP'] = (f'{found.ap:.1f}', '', '100', '')
    return rows


def _row(errors: np.ndarray, theory: Optional[float], equation: str) -> Cells:
    """Of absolute errors (M, A), the axis where they are larger."""
    errors = np.abs(errors[np.isfinite(errors).all(-1)])
    if not len(errors):
        return ('not finite', '', '', equation)
    axis = errors.mean(0).argmax()
    mean, p95 = errors[:, axis].mean(), np.percentile(errors[:, axis], 95)
    shown = _px(mean)
    if theory is not None and abs(mean - theory) > RELATIVE * theory + ABSOLUTE:
        shown = f'[red]{shown}[/]'
    return (shown, _px(p95), '' if theory is None else f'{theory:.2f}', equation)


def _px(value: float) -> str:
    return f'{value:.2f}' if value >= 0.01 else f'{value:.4f}'


def _print_findings(found: Audit, console: Console, name: bool) -> None:
    title = f'{found.name}: ' if name else ''
    if not found.findings:
        console.print(f'{title}[green]no findings[/]: its parts go together.')
    for finding in found.findings:
        color = 'red' if finding.severity == ERROR else 'yellow'
        console.print()
        head = Text(f'{title}{finding.severity} ', style=color)
        console.print(Text.assemble(head, (finding.name, 'bold'), f': {finding.what}'))
        console.print(Text(f'  at   {finding.where}'))
        if finding.line:
            console.print(Text(f'       {finding.line}', style='dim'))
        console.print(Text(f'  fix  {finding.fix}'))


def write_audits(audits: Sequence[Audit], folder: Path) -> List[Path]:
    """Write ``audit.json`` and the figures.

    Args:
        audits: One, or two to compare.
        folder: Where they go; what is there of an earlier audit is replaced.

    Returns:
        What was written.
    """
    # Only here is matplotlib needed.
    from . import figures

    folder.mkdir(parents=True, exist_ok=True)
    content = [found.as_dict() for found in audits]
    file = folder / 'audit.json'
    text = json.dumps(content[0] if len(content) == 1 else content, indent=1)
    file.write_text(text + '\n', encoding='utf-8')
    written = [file]

    def path(name: str) -> Path:
        written.append(folder / f'{name}.png')
        return written[-1]

    names = _names(audits)
    coded = {n: a for n, a in names.items() if a.parts and a.coding}
    if coded:
        figures.draw_subpixel(
            path('subpixel'), {n: (a.parts, a.coding) for n, a in coded.items()}
        )
    flipped = {n: a for n, a in coded.items() if a.flip is not None}
    if flipped:
        figures.draw_flip_bars(
            path('flip'),
            {
                n: (
                    a.flip,
                    {k: e.x for k, e in expected_flip(a.parts, a.coding).items()},
                )
                for n, a in flipped.items()
            },
        )
    ended = {n: a for n, a in coded.items() if a.end_to_end is not None}
    if ended:
        figures.draw_histograms(
            path('errors'), {n: (a.coding, a.end_to_end) for n, a in ended.items()}
        )
    for index, found in enumerate(ended.values(), 1):
        number = f'_{index}' if len(ended) > 1 else ''
        person = max(found.end_to_end.persons, key=lambda person: person.area)
        figures.draw_flip(path(f'crop{number}'), found.parts, found.coding, person)
        figures.draw_targets(
            path(f'targets{number}'), found.parts, found.coding, person
        )
    return written


def _names(audits: Sequence[Audit]) -> Dict[str, Audit]:
    """Audits by name, made different if they are the same config's."""
    names: Dict[str, Audit] = {}
    for found in audits:
        names[found.name if found.name not in names else f'{found.name} (2)'] = found
    return names
