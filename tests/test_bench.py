"""The bench: its answers, its command and its report."""

import itertools
import json
import math
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import udp_plugin
from benchmarks.bench import WrongAnswer, answers, cases, graphs, measure, report, run
from benchmarks.bench.data import NOISES, SIZES, Size, network_maps
from udp_plugin import functional as F
from udp_plugin.cli import main

SMALL = Size(17, (48, 64), 2, (1,))


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    """The folder of a bench of the least of everything."""
    out = tmp_path_factory.mktemp('bench')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'PLAIN_WIDTH', 200)
        assert main(['bench', '--quick', '-o', str(out)]) == 0
    return out


# --- the command ----------------------------------------------------------------------


def test_the_command_leaves_a_page_and_pictures(quick):
    page = (quick / 'bench.md').read_text()
    for name in re.findall(r'\(images/(.*?)\)', page):
        assert cv2.imread(str(quick / 'images' / name)) is not None
    assert page.count('](images/') == 2
    for title in ('Decode a batch', 'Loss', 'Flip test', 'A training iteration'):
        assert f'### {title}\n' in page
    # Where the data come from.
    assert 'no peak in another one of 20' in page
    assert torch.__version__ in page


def test_page_tables_are_well_formed(quick):
    lines = (quick / 'bench.md').read_text().splitlines()
    tables = itertools.groupby(lines, key=lambda line: line.startswith('|'))
    widths = [{line.count('|') for line in rows} for is_row, rows in tables if is_row]
    assert len(widths) == 12
    assert all(len(width) == 1 for width in widths)


def test_json_has_the_keys_that_the_page_explains(quick):
    content = json.loads((quick / 'bench.json').read_text())
    results = content['results']
    contenders = [c for result in results for c in result['contenders'].values()]
    found = {*content, *results[0], *contenders[0]}
    assert found == set(report.KEYS)
    assert all(set(result) == set(results[0]) for result in results)
    assert all(set(contender) == set(contenders[0]) for contender in contenders)
    operations = {result['operation'] for result in results}
    assert operations == set(report.OPERATIONS)
    assert content['maps_compared'] > 1000
    for result in results:
        for name, contender in result['contenders'].items():
            in_a_file = result['operation'] == 'decode in a graph'
            in_a_file = in_a_file and name != 'built-in'
            if in_a_file:
                assert contender['file_bytes'] > 10_000
            else:
                assert contender['file_bytes'] is None
        builtin = result['contenders']['built-in']
        assert not builtin['ours'] and builtin['times_as_fast'] == 1
        assert result['rounds'] >= measure.LEAST_ROUNDS


def test_json_alone_prints_nothing_else(tmp_path, monkeypatch, capsys):
    scaling = dict(batch=[(SMALL, 1)])
    monkeypatch.setattr(run, 'QUICK', run.QUICK._replace(scaling=scaling))
    assert main(['bench', '--quick', '--json', '-o', str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / 'bench.json').read_text())
    assert 'gaussian codec, 17 keypoints' in said.err


def test_a_device_that_is_not_there_is_an_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert main(['bench', '--device', 'cuda', '-o', str(tmp_path)]) == 2
    assert 'finds no CUDA device' in capsys.readouterr().out


# --- answers --------------------------------------------------------------------------


def shifted(function, by):
    """The same with keypoints that are ``by`` px off."""

    def wrong(*args, **kwargs):
        keypoints, scores = function(*args, **kwargs)
        return keypoints + by, scores

    return wrong


@pytest.mark.parametrize(
    ('name', 'codec'), [('decode_offset', 'offset'), ('decode_dark', 'gaussian')]
)
def test_a_wrong_answer_fails_the_bench(name, codec, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(F, name, shifted(getattr(F, name), 0.01))
    assert main(['bench', '--quick', '-o', str(tmp_path)]) == 1
    said = ' '.join(capsys.readouterr().out.split())
    assert f'a wrong answer, so there are no figures: decode, {codec} codec' in said
    assert re.search(r'expected [\d.]+ at .*, came [\d.]+, off by 0.01 where', said)
    assert not (tmp_path / 'bench.json').exists()


@pytest.mark.parametrize(
    ('operation', 'name', 'wrong'),
    [
        (cases.encode, 'offset_target', lambda maps, weights: (maps * 1.0001, weights)),
        (cases.encode_batch, 'offset_target', lambda maps, w: (maps.roll(1, -1), w)),
        (graphs.decode_in_a_graph, 'decode_offset', lambda k, s: (k + 0.01, s)),
        (cases.flip, 'flip_average', lambda maps: maps.flip(0, 1)),
        (cases.loss, 'offset_loss', lambda loss: loss * 1.001),
    ],
)
def test_other_wrong_answers_are_seen(operation, name, wrong, monkeypatch):
    case = operation(cases.Setting('offset', SMALL, 1, 'cpu', 0.0))
    assert case.check() >= 17
    right = getattr(F, name)

    def call(*args, **kwargs):
        answer = right(*args, **kwargs)
        return wrong(*answer) if isinstance(answer, tuple) else wrong(answer)

    monkeypatch.setattr(F, name, call)
    # What holds the function itself is made anew.
    case = operation(cases.Setting('offset', SMALL, 1, 'cpu', 0.0))
    with pytest.raises(WrongAnswer):
        case.check()


@pytest.mark.parametrize('maps', ['network', *NOISES])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: size.label)
@pytest.mark.parametrize('codec', cases.CODECS)
def test_answers_are_right_at_each_size(codec, size, maps):
    setting = cases.Setting(codec, size, 1, 'cpu', 0.0, maps, checked_maps=60)
    assert cases.decode(setting).check() == min(60, size.keypoints)


@pytest.mark.parametrize(('codec', 'reading'), [('gaussian', 'DARK'), ('offset', '')])
def test_most_answers_are_compared(codec, reading):
    """Few peaks are undecided, and few readings the built-in's own."""
    setting = cases.Setting(codec, SMALL, 20, 'cpu', 0.0)
    maps = setting.maps.unflatten(1, (17, setting.channels)).flatten(0, 1).numpy()
    for name, ours in setting.ours.items():
        plain = cases._plain(name, ours, maps)
        assert plain.clear.mean() > 0.98
        assert plain.as_others.mean() > 0.6
        assert np.isfinite(plain.score).all()


def test_plain_readings_find_perfect_keypoints():
    points = np.array([[[20.3, 31.6], [0.2, 62.8]]], np.float32)
    inputs = F.heatmap_to_input(points, (192, 256), (48, 64))
    maps = udp_plugin.UDPOffsetHeatmap((192, 256), (48, 64)).encode(inputs)['heatmaps']
    for k, point in enumerate(points[0]):
        for reading, kernel_size in (('voting', 15), ('toolbox', 23)):
            plain = answers.plain_offset(
                maps[3 * k : 3 * k + 3], 3.5, reading, kernel_size
            )
            np.testing.assert_allclose(plain.keypoint, point, atol=1e-5)
    maps = udp_plugin.UDPGaussianHeatmap((192, 256), (48, 64)).encode(inputs)
    for h, point in zip(maps['heatmaps'], points[0]):
        np.testing.assert_allclose(answers.plain_dark(h, 11).keypoint, point, atol=1e-3)


@pytest.mark.parametrize('channels', [1, 3])
def test_maps_without_a_peak_read_as_the_middle(channels):
    for h in (np.zeros((64, 48)), np.full((64, 48), 0.3), -np.ones((64, 48))):
        if channels == 1:
            plain = answers.plain_dark(h, 11)
        else:
            maps = np.stack((h, h, h))
            plain = answers.plain_offset(maps, 3.5, 'voting', 15)
        assert (plain.keypoint, plain.score) == ((24, 32), 0)


def test_comparisons_say_what_came_and_what_was_expected():
    answers.compare('x', [1.0, 2.0], [1.0, 2.00001], 1e-4)
    with pytest.raises(WrongAnswer, match='x: expected 2 at 1, came 2.5, off by 0.5'):
        answers.compare('x', [1.0, 2.5], [1.0, 2.0], 1e-4)
    with pytest.raises(WrongAnswer, match='came nan'):
        answers.compare('x', [math.nan], [1.0], 1e-4)
    with pytest.raises(WrongAnswer, match=r'shape \(2,\), came \(1,\)'):
        answers.compare('x', [1.0], [1.0, 2.0], 1e-4)
    # Values may be allowed different differences.
    answers.compare('x', [1.0, 2.5], [1.0, 2.0], np.array([1e-4, 0.6]))


# --- data -----------------------------------------------------------------------------


@pytest.mark.parametrize('codec', cases.CODECS)
def test_maps_are_as_the_report_says(codec):
    coder = cases.Setting(codec, SMALL, 1, 'cpu', 0.0).coder
    points, target, maps = network_maps(coder, SMALL, 60, np.random.default_rng(0))
    channels = coder.channels_per_keypoint
    highest = maps[:, ::channels].flatten(2).max(-1)[0]
    assert (highest < 0.3).float().mean() == pytest.approx(0.05, abs=0.02)
    noise = maps - 0.8 * target
    assert noise.flatten(2).std(-1).median() == pytest.approx(0.03, abs=0.003)
    second = noise[:, ::channels].flatten(2).max(-1)[0] > 0.3
    assert second.float().mean() == pytest.approx(0.05, abs=0.02)
    assert points.min() >= 0 and points[..., 0].max() <= 47


# --- measuring ------------------------------------------------------------------------


def test_contenders_run_in_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    times = measure.time_in_turn(calls, 0.0, 'cpu')
    assert [len(each) for each in times.values()] == [measure.LEAST_ROUNDS] * 2
    assert len(order) == 2 * measure.LEAST_ROUNDS
    assert all({*pair} == {'a', 'b'} for pair in zip(order[::2], order[1::2]))


def test_peak_memory_is_that_of_the_call():
    peak = measure.peak_bytes(lambda: torch.zeros(2**24).add_(1), 'cpu')
    if peak is None:
        pytest.skip('this system does not tell')
    assert peak == pytest.approx(2**26, rel=0.1)
    # What there is already does not count.
    assert measure.peak_bytes(lambda: None, 'cpu') < 2**22


def test_a_worker_has_one_thread():
    threads = torch.get_num_threads(), cv2.getNumThreads()
    with measure.as_a_worker():
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads


def test_without_onnxruntime_graphs_are_left_out(monkeypatch):
    monkeypatch.setattr(graphs, 'find_spec', lambda name: None)
    left_out = []
    jobs = list(run._jobs('cpu', run.QUICK, left_out, None))
    assert left_out == ['decode in a graph: onnx and onnxruntime not installed']
    operations = [case.facts.operation for case in jobs[0].make()]
    assert 'decode' in operations
    assert 'decode in a graph' not in operations


def test_what_needs_too_much_memory_is_left_out(monkeypatch):
    monkeypatch.setattr(run, 'available_bytes', lambda device: 1e6)
    left_out = []

    def setting(**kwargs):
        return cases.Setting('offset', SMALL, 1, 'cpu', 0.0, **kwargs)

    found = [case.facts.operation for case in run._operations(setting, left_out)]
    assert found == ['encode']
    assert len(left_out) == 7
    assert 'more than a third of the free memory' in left_out[0]


def test_without_mmpose_models_the_kernels_remain():
    """As on a machine with nothing but MMPose's own wheel."""
    blocked = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split('.')[0] in ('mmdet', 'xtcocotools') or name == 'mmcv.ops':
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.modules['udp_plugin'] = type(sys)('udp_plugin')
sys.modules['udp_plugin'].__path__ = [sys.argv[1]]
from benchmarks.bench import cases, graphs, report, run
from benchmarks.bench.data import SIZES
left_out = []
setting = cases.Setting('offset', SIZES[0], 1, 'cpu', 0.0)
for operation in run.OPERATIONS:
    assert operation(setting).check()
jobs = list(run._jobs('cpu', run.QUICK, left_out, None))
print(len(jobs), left_out)
"""
    folder = udp_plugin.__path__[0]
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', blocked, folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '8 ["the whole pipeline: MMPose\'s models are not there' in done.stdout
