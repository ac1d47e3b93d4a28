"""Running the toolbox's own train and test scripts."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Dict, Optional, Sequence

from rich.progress import Progress

import udp_plugin
from udp_plugin.convert.zoo import toolbox_folder
from udp_plugin.errors import UserError
from udp_plugin.files import naming

#: What runs a script, and ends it if this process is killed.
SCRIPT = Path(__file__).with_name('script.py')
#: mmengine's log line, in as far as it is shown.
LOG_LINE = re.compile(r'Iter\(\w+\) \[ *(\d+)/(\d+)\].*?(?:eta: (.*?)  |$)')
LOSS = re.compile(r'\bloss: (\S+)')
#: How many lines of the log are shown when a script fails.
LOG_LINES = 30


def find_tools() -> Path:
    """The folder of the toolbox's ``train.py`` and ``test.py``."""
    return toolbox_folder('tools')


def environment() -> Dict[str, str]:
    """For the toolbox's scripts, which have to find this package and share cores."""
    package = str(Path(udp_plugin.__file__).resolve().parents[1])
    paths = [package, os.environ.get('PYTHONPATH', '')]
    return {
        # torch's threads wait for each other without spinning, or they take the
        # data loader's cores; where something else runs, too, it is 10 times slower.
        'OMP_WAIT_POLICY': 'PASSIVE',
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    }


def end(process: subprocess.Popen) -> None:
    """End a script with its data loader's workers, which would outlive it."""
    kill = getattr(signal, 'SIGKILL', signal.SIGTERM)
    for number, seconds in ((signal.SIGTERM, 10), (kill, None)):
        if hasattr(os, 'killpg'):
            # It leads a process group of its own, unless that has just ended.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def run_script(
    progress: Progress,
    title: str,
    total: Optional[int],
    command: Sequence[object],
    log_path: Path,
) -> float:
    """Run a script of the toolbox, and show how far it is by its log.

    Args:
        progress: Of :func:`udp_plugin.ui.progress`; gets a task.
        title: Of the task.
        total: Its iterations, if they are known.
        command: The script, or ``-m`` and a module, and its arguments.
        log_path: Where the script's output goes.

    Returns:
        The seconds that it took.

    Raises:
        UserError: It failed; with the end of its log.
    """
    started = time.monotonic()
    task = progress.add_task(title, total=total, note='starting')
    if not progress.console.is_terminal:
        # Where nothing moves, a word at the beginning.
        progress.console.print(f'{title}; the log is {log_path}', soft_wrap=True)
    with naming(log_path):
        log_path.parent.mkdir(exist_ok=True)
        log = log_path.open('w', encoding='utf-8')
    last = deque(maxlen=LOG_LINES)
    loss = ''
    starter = sys.executable, str(SCRIPT), str(os.getpid())
    with log, subprocess.Popen(
        [*starter, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        encoding='utf-8',
        errors='replace',
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout:
                with naming(log_path):
                    log.write(line)
                    log.flush()
                last.append(line.rstrip())
                match = LOG_LINE.search(line)
                if match:
                    done, of, left = match.groups()
                    found = LOSS.search(line)
                    loss = f'loss {found[1]}  ' if found else ''
                    note = f'{loss}{left} left' if left else loss
                    progress.update(task, completed=int(done), total=int(of), note=note)
        except BaseException:
            end(process)
            raise
    seconds = time.monotonic() - started
    progress.update(task, note=f'{loss}{seconds:.0f} s')
    if process.returncode:
        raise UserError(
            f'{title} failed with status {process.returncode}. The end of '
            f'{log_path}:\n' + '\n'.join(last)
        )
    return seconds
