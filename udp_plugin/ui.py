"""What all commands share: console, tables, progress, plot style, errors, signals.

A command is a function that takes values and returns a result; what is printed, and
the exit status, are decided in :mod:`udp_plugin.cli` and here.
"""

import logging
import platform
import signal
import sys
import warnings
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from threading import current_thread, main_thread
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
from rich.console import Console
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
COLORS = dict(stock='#D55E00', gaussian='#0072B2', offset='#009E73')


class UserError(Exception):
    """What a command cannot do, in words for the user: what, where, and what to do."""


def console(stderr: bool = False) -> Console:
    """A terminal to print to, in which a text means nothing but itself.

    No number is coloured, and brackets and colons of a user's names are no markup.
    """
    return Console(highlight=False, markup=False, emoji=False, stderr=stderr)


def say(text: object, to: Optional[Console] = None) -> None:
    """Print a line as it is, not broken, so that it can be copied."""
    (to or console()).print(str(text), soft_wrap=True)


def say_error(text: object) -> None:
    """Print an error."""
    line = f'error: {text}'
    console(stderr=True).print(line, style='red', soft_wrap=True)


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


# --- signals, and what others say -----------------------------------------------------


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does."""
    names = ('SIGTERM', 'SIGHUP') if current_thread() is main_thread() else ()
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup has one of them ignored.
    signals = [s for s in signals if signal.getsignal(s) == signal.SIG_DFL]
    for number in signals:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def ends_in_words(interrupted: str = 'stopped') -> Iterator[None]:
    """End a command that the user has stopped, or asked in vain, with one line.

    Args:
        interrupted: What is said after Ctrl-C: what is left of the work.

    Raises:
        SystemExit: With status 2 after a :class:`UserError`, 130 after an interruption.
    """
    try:
        with signals_interrupt():
            yield
    except UserError as error:
        say_error(error)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        # Who was interrupted may know better.
        say(stop.args[0] if stop.args else interrupted)
        sys.exit(130)


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
