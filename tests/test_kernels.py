"""The fused kernels against the plain definition, and where they run."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from udp_plugin import functional as F
from udp_plugin.functional import decoding, kernels

#: Maps, of noise and of the squared distance from a point of the map.
KINDS = {
    'noise': lambda noise, square: noise,
    'plateau': lambda noise, square: 0.5 + 0.03 * noise,
    'peak': lambda noise, square: np.exp(-square / 8) + 0.01 * noise,
    'disc': lambda noise, square: (square < 6) + 0.03 * noise,
    'two': lambda noise, square: (np.minimum(square, square[::-1]) < 6) + 0.01 * noise,
    'sparse': lambda noise, square: noise * (np.abs(noise) > 2),
}


def definition(maps, *args):
    """The plain reading of maps (N, H, W), or of (N, 3, H, W)."""
    read = decoding._dark if maps.ndim == 3 else decoding._offset
    return read(maps, *args)


def fused(maps, *args):
    assert kernels.fit(maps)
    read = kernels.decode_dark if maps.ndim == 3 else kernels.decode_offset
    return read(maps, *args)


def compare(maps, *args):
    """Compare with the definition in float64; returns the share of maps compared."""
    before = maps.clone()
    keypoints, scores = fused(maps, *args)
    torch.testing.assert_close(maps, before, equal_nan=True, rtol=0, atol=0)
    assert keypoints.dtype == scores.dtype == maps.dtype
    last = torch.tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
    assert ((keypoints >= 0) & (keypoints <= last)).all() and scores.isfinite().all()
    expected, expected_scores = definition(maps.double(), *args)
    h = torch.nan_to_num(maps.double(), 0, 0, 0).view(len(maps), -1, *maps.shape[-2:])
    h, heights = h[:, 0], h.abs().flatten(1).amax(1)
    clear = heights >= 0
    if maps.ndim == 4:
        # Rounding decides between pixels that are as high once they are blurred.
        first, second = (F.blur(h, args[-1]) * (h > 0)).flatten(1).topk(2)[0].T
        clear = (first <= 0) | (first - second > 2e-6 * heights)
    assert ((keypoints - expected).abs().amax(-1) < 1e-4)[clear].all()
    # What a blur leaves of pixels may be far smaller than they are.
    allowed = 1e-5 * expected_scores + 1e-6 * heights
    assert ((scores - expected_scores).abs() <= allowed)[clear].all()
    return clear.double().mean()


def drawn_maps(kind, count, height, width, seed=0):
    """Shape (count, height, width), float32."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, height, width))
    x, y = rng.uniform(0, (width - 1, height - 1), (count, 2)).T[..., None, None]
    square = (np.arange(width) - x) ** 2 + (np.arange(height)[:, None] - y) ** 2
    return torch.from_numpy(KINDS[kind](noise, square).astype(np.float32))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    seed=st.integers(0, 2**20),
    scale=st.sampled_from([1, 1, 1, 1e-30, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    spoilt=st.booleans(),
    reading=st.sampled_from([None, *F.READINGS]),
    radius=st.sampled_from([0.2, 0.8, 2, 3.5]),
    reach=st.integers(0, 15),
)
def test_any_maps(kind, size, seed, scale, dtype, spoilt, reading, radius, reach):
    maps = drawn_maps(kind, 21, *size, seed) * scale
    if spoilt:
        where = torch.from_numpy(
            np.random.default_rng(seed).integers(0, 60, maps.shape)
        )
        for i, value in enumerate([np.inf, -np.inf, np.nan]):
            maps[where == i] = value
        maps[-3:] = np.nan
    # Not contiguous.
    maps = maps.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    args = (2 * reach + 1,)
    if reading:
        maps, args = maps.unflatten(0, (7, 3)), (radius, reading, *args)
    compare(maps, *args)


@pytest.mark.parametrize(('size', 'spread'), [(1, 2), (7, 9), (15, 2e4), (31, 9)])
def test_peaks_at_every_pixel(size, spread):
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(9)))
    away = grid.reshape(2, -1).T[:, :, None, None] + 0.1 - grid
    h = torch.from_numpy(np.exp(-(away**2).sum(1) / spread))
    assert compare(h, size) == 1
    offsets = torch.from_numpy(away) / 2 * (h[:, None] > 0.3)
    maps = torch.cat((h[:, None], offsets), 1).float()
    for reading in F.READINGS:
        assert compare(maps, 2.0, reading, size) > 0.5


def test_maps_without_a_peak_and_ties():
    """The middle and score 0; of equal pixels, the first in reading order."""
    maps = torch.zeros(7, 10, 9)
    maps[:5] = torch.tensor([0, 0.25, -1, np.nan, np.inf])[:, None, None]
    maps[5, 2:7, 3:8] = 0.5
    maps[6, [2, 2, 6], [7, 4, 1]] = 3.0
    keypoints, scores = fused(maps, 5)
    assert keypoints[:5].tolist() == [[4, 5]] * 5
    assert scores.tolist() == [0, 0, 0, 0, 0, 0.5, 3]
    torch.testing.assert_close((keypoints, scores), definition(maps, 5))
    offsets = torch.stack((maps, 0 * maps, 0 * maps), 1)
    keypoints, scores = fused(offsets, 2.0, 'toolbox', 3)
    assert keypoints.tolist() == [*[[4, 5]] * 5, [4, 3], [4, 2]]
    assert scores[:6].tolist() == [0, 0, 0, 0, 0, 0.5]


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'bool', 'uint8', 'int64'])
def test_other_dtypes(dtype):
    maps = (9 * drawn_maps('disc', 6, 12, 9)).clamp(0).to(getattr(torch, dtype))
    # Where a map hardly curves, rounding in float32 shows in the definition's step.
    expected = tuple(each.float() for each in definition(maps.double(), 7))
    torch.testing.assert_close(fused(maps, 7), expected)
    assert [each.shape for each in fused(maps[:0], 7)] == [(0, 2), (0,)]


def test_which_maps_fit():
    maps = torch.rand(1, 2, 8, 8)
    unfit = [maps.clone().requires_grad_(), torch.nn.Parameter(maps), maps.to('meta')]
    unfit += [maps.to_sparse(), torch.complex(maps, maps).conj().imag]
    with FakeTensorMode() as mode:
        unfit.append(mode.from_tensor(maps))
        assert not kernels.fit(maps)
    with torch.autograd.forward_ad.dual_level():
        assert not kernels.fit(torch.autograd.forward_ad.make_dual(maps, maps))
    assert not any(kernels.fit(each) for each in unfit)
    with torch.inference_mode():
        torch.testing.assert_close(fused(unfit[0][0], 3), fused(maps[0], 3))

    def told(maps):
        return maps * 0 + int(kernels.fit(maps))

    assert told(maps).all()
    assert not torch.func.vmap(told)(maps).any()
    assert not torch.jit.trace(told, maps, check_trace=False)(maps).any()
    assert not torch.compile(told, backend='eager')(maps).any()


def answers(_=None):
    maps = drawn_maps('disc', 300, 24, 16).unflatten(0, (100, 3))
    return [each.tolist() for each in fused(maps, 2.0, 'voting', 7)]


def test_threads_and_forks(monkeypatch):
    """Several may call at once, and forked processes after that."""
    with monkeypatch.context() as patch:
        # A small batch needs no threads.
        patch.setattr(kernels, '_pool', None)
        expected = answers()
    monkeypatch.setattr(kernels, 'THREAD_PIXELS', 2**10)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    assert answers() == expected
    assert any(each.name.startswith('udp_plugin') for each in threading.enumerate())
    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(answers, range(40))) == [expected] * 40
    with get_context('fork').Pool(2) as workers:
        assert workers.map_async(answers, range(4)).get(timeout=60) == [expected] * 4


DECODE = """
import sys, torch
from udp_plugin.functional import decoding, kernels
assert 'numba' not in sys.modules
maps = torch.rand(2, 8, 8)
assert kernels.fit(maps)
kernels.decode_dark(maps, 3)
print(sum(kernels._dark.stats.cache_hits.values()))
"""


def test_compiled_once_a_machine_in_silence(tmp_path):
    """Nothing before the first call, and no file but in numba's cache."""
    added = dict(PYTHONPATH=os.pathsep.join(sys.path), NUMBA_CACHE_DIR=str(tmp_path))
    command, environment = [sys.executable, '-c', DECODE], {**os.environ, **added}
    for hits in (b'0\n', b'1\n'):
        options = dict(env=environment, stderr=subprocess.STDOUT)
        assert subprocess.check_output(command, **options) == hits
    assert {path.suffix for path in tmp_path.rglob('*.*')} == {'.nbi', '.nbc'}


#: Likewise, as another version of numba, and with the first bytes of files alone.
LIMITED = """
import resource, sys, numba
numba.__version__ += sys.argv[1]
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
import torch
from udp_plugin.functional import decoding, kernels
maps = torch.rand(2, 8, 8)
assert kernels.fit(maps)
torch.testing.assert_close(kernels.decode_dark(maps, 3), decoding._dark(maps, 3))
print(sum(kernels._dark.stats.cache_hits.values()))
"""


def test_a_cache_that_cannot_be_written_or_read_costs_time_alone(tmp_path):
    """A full disk, files cut short, and what an older version has left there."""
    added = dict(PYTHONPATH=os.pathsep.join(sys.path), NUMBA_CACHE_DIR=str(tmp_path))

    def hits(version, limit):
        done = subprocess.run(
            [sys.executable, '-c', LIMITED, version, str(limit)],
            env={**os.environ, **added},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not done.returncode, done.stdout
        return int(done.stdout)

    everything = 2**30
    assert hits('', 0) == 0
    assert hits('', everything) == 0
    assert hits('', everything) == 1
    # There is room for the index alone, which then names the older version's code.
    assert hits('+', 4096) == 0
    assert hits('+', everything) == 0
    assert hits('+', everything) == 1
    for pattern in ('*.nbi', '*.nbc'):
        for path in tmp_path.rglob(pattern):
            path.write_bytes(path.read_bytes()[:40])
        assert hits('+', everything) == 0
    assert {path.suffix for path in tmp_path.rglob('*.*')} == {'.nbi', '.nbc'}


def test_without_a_cache_or_without_numba(monkeypatch):
    maps, compiled = torch.rand(2, 8, 8), dict(vars(kernels))
    monkeypatch.setattr(kernels, '_available', kernels._available.__wrapped__)
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, 'DISABLE_JIT', True)
        assert not kernels.fit(maps)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'numba', None)
        assert not kernels.fit(maps)
    # As where numba finds no folder that it could write to.
    monkeypatch.setattr(numba.core.caching.CacheImpl, '_locator_classes', [])
    try:
        torch.testing.assert_close(fused(maps, 3), definition(maps, 3))
        assert not kernels._dark.stats.cache_path
    finally:
        vars(kernels).update(compiled)
