"""Time, memory and bandwidth."""

import contextlib
import ctypes
import gc
import os
import statistics
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import cv2
import torch

Calls = Dict[str, Callable[[], Any]]

#: Rounds, each of which runs every contender once.
LEAST_ROUNDS, MOST_ROUNDS = 5, 400
#: Size of the tensor whose copying says what the memory can do.
COPIED_BYTES = 256 * 2**20


def synchronize(device: str) -> None:
    """Wait for what the device still has to do."""
    if device == 'cuda':
        torch.cuda.synchronize()


@contextlib.contextmanager
def as_a_worker() -> Iterator[None]:
    """One thread, as in a data loader's worker."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def time_in_turn(calls: Calls, seconds: float, device: str) -> Dict[str, List[float]]:
    """Time contenders in turn, so that what else the machine does hits all alike.

    Args:
        calls: The contenders, each of which has been called before.
        seconds: To spend on rounds, if the least number of them does not take longer.
        device: That on which they work.

    Returns:
        Seconds of each contender's calls, a value for each round.
    """
    times: Dict[str, List[float]] = {name: [] for name in calls}
    order = list(calls)
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and time.perf_counter() > end:
                break
            for name in order:
                synchronize(device)
                start = time.perf_counter()
                answer = calls[name]()
                synchronize(device)
                times[name].append(time.perf_counter() - start)
                # Not within the time: a user keeps it.
                del answer
            # Nobody has always the same one before it.
            order.reverse()
    finally:
        gc.enable()
    return times


def median_ms(times: List[float]) -> float:
    """The median of seconds, in milliseconds."""
    return 1e3 * statistics.median(times)


def copy_bandwidth(device: str) -> float:
    """Bytes a second that the memory reads and writes in a plain copy."""
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    times = time_in_turn({'copy': lambda: target.copy_(source)}, 0.5, device)['copy']
    return 2 * COPIED_BYTES / statistics.median(times)


def operators(call: Callable[[], Any], device: str) -> List[Tuple[str, int, float]]:
    """Where a call spends its time.

    Returns:
        Of each torch operator: its name, how often it is called, and its share of the
        time of all, the longest first.
    """
    # Or it writes its stages to the terminal.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    with torch.profiler.profile() as profile:
        call()
        synchronize(device)
    found = []
    for event in profile.key_averages():
        ms = event.self_cpu_time_total
        if device == 'cuda':
            # Which newer versions of torch call otherwise.
            ms = getattr(event, 'self_device_time_total', None)
            ms = event.self_cuda_time_total if ms is None else ms
        if event.key.startswith('aten::'):
            found.append((event.key[len('aten::') :], event.count, ms))
    total = sum(ms for _, _, ms in found) or 1
    found.sort(key=lambda each: -each[2])
    return [(name, count, ms / total) for name, count, ms in found]


# --- memory ---------------------------------------------------------------------------


def available_bytes(device: str) -> float:
    """Memory that is free for use; without end where nothing says so."""
    if device == 'cuda':
        return torch.cuda.mem_get_info()[0]
    with contextlib.suppress(OSError), open('/proc/meminfo', encoding='ascii') as lines:
        for line in lines:
            if line.startswith('MemAvailable'):
                return 1024 * int(line.split()[1])
    return float('inf')


def peak_bytes(call: Callable[[], Any], device: str) -> Optional[int]:
    """What a call needs beyond what is there before it, its answer included.

    Returns:
        Bytes on the device; None where the CPU's system does not tell them.
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
    except OSError:
        return None


def _resident(key: str) -> int:
    with open('/proc/self/status', encoding='ascii') as lines:
        for line in lines:
            if line.startswith(f'{key}:'):
                return 1024 * int(line.split()[1])
    raise OSError(f'no {key}')
