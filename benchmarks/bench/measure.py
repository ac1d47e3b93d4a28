"""Time and memory of calls."""

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import cv2
import torch

Calls = Dict[str, Callable[[], Any]]

#: Rounds, each of which runs every contender once.
LEAST_ROUNDS, MOST_ROUNDS = 10, 400
#: How contenders are run: in one thread as in a data loader's worker, in all threads,
#: or in these while another process keeps a core busy.
ONE, ALL, SHARED = 'one thread', 'all threads', 'shared machine'


@contextlib.contextmanager
def arranged(how: str) -> Iterator[None]:
    """Have what is called run in one of these ways."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    busy = None
    if how == ONE:
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
    elif how == SHARED:
        # Until it is ended, or orphaned.
        spin = f'import os\nwhile os.getppid() == {os.getpid()}: pass'
        busy = subprocess.Popen([sys.executable, '-c', spin])
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
        if busy is not None:
            busy.kill()
            busy.wait()


def time_in_turn(calls: Calls, seconds: float, device: str) -> Dict[str, List[float]]:
    """Time warm contenders in turn, so that what the machine does hits all alike.

    Args:
        calls: The contenders.
        seconds: To spend on rounds, if the least number of them does not take longer.
        device: That on which they work.

    Returns:
        Milliseconds of each contender's calls, a value for each round.
    """
    times: Dict[str, List[float]] = {name: [] for name in calls}
    order = list(calls)
    synchronize = torch.cuda.synchronize if device == 'cuda' else (lambda: None)
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and time.perf_counter() > end:
                break
            for name in order:
                synchronize()
                start = time.perf_counter()
                answer = calls[name]()
                synchronize()
                times[name].append(1e3 * (time.perf_counter() - start))
                # Not within the time: a user keeps it.
                del answer
            # Nobody has always the same one before it.
            order.reverse()
    finally:
        gc.enable()
    return times


def peak_bytes(call: Callable[[], Any], device: str) -> Optional[int]:
    """Bytes that a call needs beyond what is there before it, its answer included.

    None where the CPU's system does not tell them.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        with contextlib.suppress(AttributeError):
            # Freed memory leaves the process, or the call would use it unseen. Only the
            # GNU C library has this.
            ctypes.CDLL(None).malloc_trim(0)
        with open('/proc/self/clear_refs', 'w', encoding='ascii') as reset:
            reset.write('5')
        before = _resident('VmRSS')
        call()
        return max(_resident('VmHWM') - before, 0)
    except (OSError, StopIteration):
        return None


def _resident(key: str) -> int:
    """Bytes of this process, now or at most."""
    with open('/proc/self/status', encoding='ascii') as lines:
        return next(1024 * int(x.split()[1]) for x in lines if x.startswith(key))
