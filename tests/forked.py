"""Scripts of the toolbox in processes that need not import it again.

They are forked from a process that has imported the toolbox and nothing of this
package, which a config imports by its ``custom_imports`` as ever.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing import forkserver
from typing import List
from unittest import mock

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLBOX = ('apis', 'codecs', 'datasets', 'engine', 'evaluation', 'models')


def processes():
    """The ``multiprocessing`` of such processes."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([f'mmpose.{name}' for name in TOOLBOX])
    # Where other work shares the cores, threads that spin while they wait take several
    # times as long.
    settings = dict(CUDA_VISIBLE_DEVICES='', OMP_WAIT_POLICY='PASSIVE')
    with mock.patch.dict(os.environ, settings):
        forkserver.ensure_running()
    return context


def run_script(command: List[str], log: str) -> None:
    """Run a script as Python does, with what it prints in the file ``log``."""
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    sys.argv = command
    sys.path[:0] = [os.path.dirname(command[0]), PROJECT]
    printed = os.open(log, os.O_WRONLY)
    os.dup2(printed, sys.stdout.fileno())
    os.dup2(printed, sys.stderr.fileno())
    runpy.run_path(command[0], run_name='__main__')
