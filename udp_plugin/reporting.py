"""What reports share: tables for the terminal and for pages, and the machine's name."""

import platform
from typing import List, NamedTuple, Optional, Tuple

from rich.console import Console
from rich.table import Table as RichTable


class Table(NamedTuple):
    """A table, for the terminal and for the page."""

    title: str
    header: List[str]
    rows: List[List[str]]
    #: What it says, in a sentence or two.
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

    def print(self, console: Console) -> None:
        """The table in a terminal."""
        table = RichTable(title=self.title, title_justify='left')
        table.add_column(self.header[0], no_wrap=True)
        for name in self.header[1:]:
            table.add_column(name, justify='right')
        for row in self.rows:
            table.add_row(*(cell.replace('**', '') for cell in row))
        console.print(table)


def processor() -> Tuple[str, Optional[int]]:
    """The processor's name, and how many cores there are where the system says it."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            cpus = [line.split(':')[1] for line in lines if 'model name' in line]
        return cpus[0].strip(), len(cpus)
    except (OSError, IndexError):
        return platform.processor() or platform.machine(), None
