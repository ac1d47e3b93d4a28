"""The bench: its answers, its command and its page."""

import io
import itertools
import json
import math
import re
import sys
from contextlib import redirect_stderr, redirect_stdout

import cv2
import numpy as np
import pytest
import torch

import udp_plugin
from benchmarks.__main__ import main
from benchmarks.bench import answers, cases, measure, run
from benchmarks.bench.answers import WrongAnswer
from benchmarks.bench.data import NOISES, SIZES, Setting, Size
from udp_plugin import functional as F
from udp_plugin.names import CODECS

SMALL = Size(17, (48, 64), 2, (1,))


def bench(*args):
    """Run the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['benchmarks', 'bench', *map(str, args)])
        patch.setattr(measure, 'LEAST_ROUNDS', 3)
        patch.setattr(cases, 'CHECKED_MAPS', 100)
        settings = {axis: found[:1] for axis, found in run.SCALING.items()}
        patch.setattr(run, 'SCALING', settings)
        return main()


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    """A bench of the least of everything: its folder, standard output and errors."""
    out = tmp_path_factory.mktemp('bench')
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as told:
        assert bench('--quick', '--json', '-o', out) == 0
    return out, said.getvalue(), told.getvalue()


# --- the command ----------------------------------------------------------------------


def test_the_command_leaves_a_page_and_pictures(quick):
    page = (quick[0] / 'bench.md').read_text()
    (name,) = re.findall(r'\]\(images/(.*?)\)', page)
    assert cv2.imread(str(quick[0] / 'images' / name)) is not None
    for title in ('# Decode a batch', '# Loss', '# Flip test', '# The whole pipeline'):
        assert f'#{title}\n' in page
    # Where the data come from.
    assert 'no peak in another one of 20' in page
    assert torch.__version__ in page


def test_page_tables_are_well_formed(quick):
    lines = (quick[0] / 'bench.md').read_text().splitlines()
    tables = itertools.groupby(lines, key=lambda line: line.startswith('|'))
    tables = [list(rows) for is_row, rows in tables if is_row]
    assert len(tables) == 12
    for rows in tables:
        assert len({line.count('|') for line in rows}) == 1
        assert re.fullmatch(r'(\|-+:?)+\|', rows[1]) and len(rows) > 2


def test_json_has_the_keys_that_the_page_explains(quick):
    content = json.loads((quick[0] / 'bench.json').read_text())
    results = content['results']
    contenders = [c for result in results for c in result['contenders'].values()]
    times = [t for contender in contenders for t in contender['times'].values()]
    explained = (quick[0] / 'bench.md').read_text().split('## bench.json')[1]
    for found in (content, *results, *contenders, *times):
        assert all(f'`{key}`' in explained for key in found)
    for objects in (results, contenders, times):
        assert all(each.keys() == objects[0].keys() for each in objects)
    for result in results:
        for key in ('operation', 'codec', 'maps'):
            assert f'`{result[key]}`' in explained
        builtin = result['contenders']['built-in']
        assert not builtin['ours']
        assert any(contender['ours'] for contender in result['contenders'].values())
    assert {result['operation'] for result in results} == {
        *('decode', 'decode in a graph', 'encode', 'encode a batch', 'loss', 'flip'),
        *('load', 'train', 'validate'),
    }
    assert all(
        each['rounds'] >= 3 and each['p90_ms'] >= each['ms'] > 0 for each in times
    )
    arrangements = {
        r['operation']: [*r['contenders']['built-in']['times']] for r in results[::-1]
    }
    assert arrangements['decode'] == ['one thread', 'all threads', 'shared machine']
    assert arrangements['encode'] == arrangements['load'] == ['one thread']


def test_json_alone_prints_nothing_else(quick):
    out, said, told = quick
    assert said == (out / 'bench.json').read_text()
    assert 'decode, gaussian codec, 17 keypoints' in told


def test_a_device_that_is_not_there_is_an_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='2'):
        bench('--device', 'cuda', '-o', tmp_path)
    assert 'finds no CUDA device' in capsys.readouterr().err


# --- answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'codec'), [('decode_offset', 'offset'), ('decode_dark', 'gaussian')]
)
def test_a_wrong_answer_fails_the_bench(name, codec, monkeypatch, capsys, tmp_path):
    right = getattr(F, name)

    def wrong(*args, **kwargs):
        keypoints, scores = right(*args, **kwargs)
        return keypoints + 0.01, scores

    monkeypatch.setattr(F, name, wrong)
    monkeypatch.setattr(run, 'CODECS', [codec])
    with pytest.raises(SystemExit, match='2'):
        bench('--quick', '-o', tmp_path)
    said = ' '.join(capsys.readouterr().err.split())
    assert f'error: no figures, decode, {codec} codec' in said
    assert re.search(r'34 of 34 values are off by more than 0.0001, .* by 0.01$', said)
    assert not (tmp_path / 'bench.json').exists()


@pytest.mark.parametrize(
    ('operation', 'name', 'wrong'),
    [
        (cases.encode, 'offset_target', lambda maps, weights: (maps * 1.0001, weights)),
        (cases.encode_batch, 'offset_target', lambda maps, w: (maps.roll(1, -1), w)),
        (cases.decode_in_a_graph, 'decode_offset', lambda k, s: (k + 0.01, s)),
        (cases.decode, 'decode_offset', lambda k, s: (k, s + 0.01)),
        (cases.flip, 'flip_average', lambda maps: maps.flip(0, 1)),
        (cases.loss, 'offset_loss', lambda loss: loss * 1.001),
    ],
)
def test_other_wrong_answers_are_seen(operation, name, wrong, monkeypatch):
    operation(Setting('offset', SMALL, 1)).check()
    right = getattr(F, name)

    def call(*args, **kwargs):
        answer = right(*args, **kwargs)
        return wrong(*answer) if isinstance(answer, tuple) else wrong(answer)

    monkeypatch.setattr(F, name, call)
    # What holds the function itself is made anew.
    case = operation(Setting('offset', SMALL, 1))
    with pytest.raises(WrongAnswer):
        case.check()


@pytest.mark.parametrize('kind', ['network', *NOISES])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: str(size.keypoints))
@pytest.mark.parametrize('codec', CODECS)
def test_answers_are_right_at_each_size(codec, size, kind, monkeypatch):
    monkeypatch.setattr(cases, 'CHECKED_MAPS', 20)
    with measure.arranged(measure.ONE):
        cases.decode(Setting(codec, size, 1, 'cpu', kind)).check()


def test_plain_readings_find_perfect_keypoints():
    points = np.array([[[20.3, 31.6], [0.2, 62.8]]], np.float32)
    for codec, allowed in (('offset', 1e-5), ('gaussian', 1e-3)):
        setting = Setting(codec, SMALL, 1)
        for name in {*setting.ours} - {'authors'}:
            inputs = F.heatmap_to_input(points, *setting.sizes)
            maps = setting.ours[name].encode(inputs)['heatmaps']
            for each, point in zip(maps.reshape(2, -1, 64, 48), points[0]):
                found, _ = answers.plain_reading(each, setting.ours[name])
                np.testing.assert_allclose(found, point, atol=allowed)


@pytest.mark.parametrize('codec', CODECS)
def test_maps_without_a_peak_read_as_the_middle(codec):
    setting = Setting(codec, SMALL, 1)
    for value in (0, 0.3, -1):
        maps = np.full((setting.channels, 64, 48), value, np.float32)
        keypoint, score = answers.plain_reading(maps, setting.coder)
        assert (*keypoint, score) == (24, 32, 0)


def test_comparisons_say_what_is_off():
    answers.compare('x', [1.0, 2.0], [1.0, 2.00001], 1e-4)
    with pytest.raises(WrongAnswer, match='x: 1 of 2 values are off .* by 0.5'):
        answers.compare('x', [1.0, 2.5], [1.0, 2.0], 1e-4)
    with pytest.raises(WrongAnswer, match='by nan'):
        answers.compare('x', [math.nan], [1.0], 1e-4)
    with pytest.raises(WrongAnswer, match=r'\(1,\) instead of \(2,\)'):
        answers.compare('x', [1.0], [1.0, 2.0], 1e-4)
    # A share of the values may be.
    answers.compare('x', [1.0, 2.5], [1.0, 2.0], 1e-4, share=0.5)
    with pytest.raises(WrongAnswer):
        answers.compare('x', [0.0, 2.5], [0.0, 2.0], 1e-4, share=0.5)


@pytest.mark.parametrize('codec', CODECS)
def test_maps_are_as_the_page_says(codec):
    setting = Setting(codec, SMALL, 60)
    target, maps = setting.drawn
    highest = maps[:, :: setting.channels].flatten(2).max(-1)[0]
    assert (highest < 0.3).float().mean() == pytest.approx(0.05, abs=0.02)
    noise = maps - 0.8 * target
    assert noise.flatten(2).std(-1).median() == pytest.approx(0.03, abs=0.003)
    second = noise[:, :: setting.channels].flatten(2).max(-1)[0] > 0.3
    assert second.float().mean() == pytest.approx(0.05, abs=0.02)
    points = setting.points(1000)
    assert points.min() >= 0 and points[:, 0].max() <= 47


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


def test_arrangements_end(monkeypatch):
    threads = torch.get_num_threads(), cv2.getNumThreads()
    with measure.arranged(measure.ONE):
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads
    started, popen = [], measure.subprocess.Popen
    monkeypatch.setattr(
        measure.subprocess, 'Popen', lambda *a: started.append(popen(*a)) or started[-1]
    )
    with measure.arranged(measure.SHARED):
        assert [process.poll() for process in started] == [None]
        assert torch.get_num_threads() == threads[0]
    assert started[0].poll() is not None


def test_without_onnxruntime_graphs_are_left_out(monkeypatch):
    def operations():
        return [case.operation for case in run.operations(Setting('offset', SMALL, 1))]

    assert 'decode in a graph' in operations()
    monkeypatch.setattr(run, 'find_spec', lambda name: None)
    assert 'decode' in operations()
    assert 'decode in a graph' not in operations()
