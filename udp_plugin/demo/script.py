"""A script of the toolbox, which ends when the command that started it ends.

Called as ``python script.py PID SCRIPT ARGUMENTS`` or, for a module, ``PID -m MODULE
ARGUMENTS``, where PID is the command's process: one that is killed cannot end others.
"""

import os
import runpy
import signal
import sys
import threading
import time


def end_with(parent: int) -> None:
    """End this process and its data loader's workers as soon as the parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run the script as Python does."""
    parent, *command = sys.argv[1:]
    # It leads a group of its own.
    if hasattr(os, 'killpg'):
        threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    # Instead of the folder of this file.
    if command[0] == '-m':
        sys.path[0] = os.getcwd()
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name='__main__', alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
        sys.argv = command
        runpy.run_path(command[0], run_name='__main__')


if __name__ == '__main__':
    main()
