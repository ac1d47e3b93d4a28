"""What all commands share: console, tables, progress, plot style.

A command is a function that takes values and returns a result; what is printed is
decided in :mod:`udp_plugin.cli` and here, how a command ends in
:mod:`udp_plugin.errors`, and how files are written in :mod:`udp_plugin.files`.
"""

import logging
import platform
import warnings
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable
from rich.text import Text

#: Of plots, for Matplotlib's ``rc_context``.
STYLE = {
    'font.size': 9,
    'axes.titlesize': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'savefig.dpi': 150,
}
#: Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = dict(stock='#D55E00', kept='#CC79A7', gaussian='#0072B2', offset='#009E73')


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end with status 1, which says that something was found.
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A terminal to print to, in which a text means nothing but itself.

    No number is coloured, and brackets and colons of a user's names are no markup.
    """
    return _Console(highlight=False, markup=False, emoji=False, stderr=stderr)


def say(text: object, to: Optional[Console] = None) -> None:
    """Print a line as it is, not broken, so that it can be copied."""
    (to or console()).print(str(text), soft_wrap=True)


def progress(to: Optional[Console] = None, **options) -> Progress:
    """Bars whose tasks have a ``note``, such as what is left of a training."""
    name = TextColumn('{task.description}', markup=False)
    note = TextColumn('{task.fields[note]}', markup=False)
    columns = name, BarColumn(), MofNCompleteColumn(), note
    return Progress(*columns, console=to or console(), **options)


class Table(NamedTuple):
    """A table, for the terminal and for pages.

    Attributes:
        title: What is in it.
        header: Of its columns.
        rows: Of cells; ``**`` around what stands out.
        text: What it says, in a sentence or two.
    """

    title: str
    header: List[str]
    rows: List[List[str]]
    text: str = ''

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [
            f'### {self.title}',
            '',
            *([self.text, ''] if self.text else []),
            '| ' + ' | '.join(self.header) + ' |',
            '|---' + '|--:' * (len(self.header) - 1) + '|',
            *('| ' + ' | '.join(row) + ' |' for row in self.rows),
            '',
        ]
        return '\n'.join(lines)

    def print(self, to: Console) -> None:
        """The table in a terminal."""
        table = RichTable(title=self.title, title_justify='left')
        table.add_column(self.header[0], no_wrap=True)
        for name in self.header[1:]:
            table.add_column(name, justify='right')
        for row in self.rows:
            styles = ('bold green' if '**' in cell else '' for cell in row)
            texts = (cell.replace('**', '') for cell in row)
            table.add_row(*map(Text, texts, styles))
        print_table(table, to)


#: What a column of words needs at least, in characters.
WORDS = 10


def print_table(table: RichTable, to: Console) -> None:
    """Print a table so that a narrow terminal cuts no figure.

    Words are folded: those of the first column, and of columns that may be wrapped.
    Where that is not enough, rows become lists.
    """
    wide = to.options.update(width=10_000)
    excess = Measurement.get(to, wide, table).maximum - to.width
    if excess > 0:
        widths, least = [], []
        for index, column in enumerate(table.columns):
            cells = [
                Measurement.get(to, wide, c) for c in (column.header, *column.cells)
            ]
            word, line = (max(each) for each in zip(*cells))
            # Of columns to the right, words are figures.
            whole = line if column.no_wrap else word if column.justify == 'right' else 0
            widths.append(line)
            least.append(min(line, WORDS) if index == 0 or not whole else whole)
        excess = min(excess, sum(widths))
        while excess and widths != least:
            fit = [w if w > m else 0 for w, m in zip(widths, least)]
            widths[fit.index(max(fit))] -= 1
            excess -= 1
        for column, width in zip(table.columns, widths):
            column.width, column.no_wrap, column.overflow = width, False, 'fold'
    if excess <= 0:
        to.print(table)
        return
    if table.title:
        to.print(table.title, style='table.title')
    headers = [str(column.header).replace('\n', ' ') for column in table.columns[1:]]
    for row, (name, *cells) in zip(table.rows, zip(*(c.cells for c in table.columns))):
        pairs = RichTable.grid(padding=(0, 2, 0, 0))
        for _ in range(2):
            pairs.add_column(overflow='fold')
        for header, cell in zip(headers, cells):
            if cell:
                pairs.add_row(header, cell)
        to.print(name, Padding(pairs, (0, 0, 0, 2)), sep='\n')
        if row.end_section:
            to.print()
    if table.caption:
        to.print(table.caption, style='table.caption')


# --- the machine ----------------------------------------------------------------------


def processor() -> Tuple[str, Optional[int]]:
    """The processor's name, and how many cores there are where the system says it."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            cpus = [line.split(':')[1] for line in lines if 'model name' in line]
        return cpus[0].strip(), len(cpus)
    except (OSError, IndexError):
        return platform.processor() or platform.machine(), None


def versions() -> Dict[str, Optional[str]]:
    """The versions of Python and of the packages that results depend on."""
    found: Dict[str, Optional[str]] = dict(python=platform.python_version())
    names = 'torch', 'numpy', 'opencv-python', 'mmengine', 'mmcv', 'mmdet', 'mmpose'
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # A fork under another name provides it.
            found[name] = None
    return found


# --- what others say ---------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the toolbox says while it builds, and the caller's random state."""
    level, state = logging.root.manager.disable, np.random.get_state()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
        np.random.set_state(state)
