"""Running the toolbox's own train and test scripts."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Dict

import udp_plugin
from udp_plugin.ui import UserError

#: mmengine's log line, in as far as it is shown.
LOG_LINE = re.compile(r'Iter\(\w+\) \[ *(\d+)/(\d+)\].*?(?:eta: (.*?)  |$)')
LOSS = re.compile(r'\bloss: (\S+)')


def find_tools() -> Path:
    """The folder of the installed toolbox's ``train.py`` and ``test.py``."""
    spec = find_spec('mmpose')
    if spec is None:
        raise UserError(
            'this needs MMPose, which this Python does not have; '
            "'make demo' in the project's folder sets up one that has"
        )
    package = Path(spec.origin).parent
    # In the wheel, and in a clone of the toolbox.
    for folder in (package / '.mim' / 'tools', package.parent / 'tools'):
        if (folder / 'train.py').is_file() and (folder / 'test.py').is_file():
            return folder
    raise UserError(f'no tools/train.py and tools/test.py with the MMPose in {package}')


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

    def send(number: int) -> None:
        if hasattr(os, 'killpg'):
            # It leads a process group of its own, unless that has just ended.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            process.terminate()

    send(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        send(getattr(signal, 'SIGKILL', signal.SIGTERM))
        process.wait()
