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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable

#: Of plots, for Matplotlib's ``rc_context``.
STYLE = {
    'font.size': 9,
    'axes.titlesize': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'savefig.dpi': 150,
}
#: Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = dict(stock='#D55E00', gaussian='#0072B2', offset='#009E73')


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end with status 1, which says that something was found.
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A terminal to print to, in which no number of a text is coloured."""
    return _Console(highlight=False, stderr=stderr)


def say(text: object, to: Optional[Console] = None) -> None:
    """Print a line as it is: no markup, not broken, so that it can be copied."""
    (to or console()).print(str(text), markup=False, soft_wrap=True)


def progress(to: Optional[Console] = None, **options) -> Progress:
    """Bars whose tasks have a ``note``, such as what is left of a training."""
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    note = TextColumn('{task.fields[note]}')
    return Progress(*columns, note, console=to or console(), **options)


class Table(NamedTuple):
    """A table, for the terminal and for pages.

    Attributes:
        title: What is in it.
        header: Of its columns.
        rows: Of cells; ``**`` around what stands out on a page.
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
            table.add_row(*(cell.replace('**', '') for cell in row))
        to.print(table)


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
