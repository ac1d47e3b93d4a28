"""The bench: its answers, its command and its page."""

import io
import itertools
import json
import math
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import cv2
import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.bench import answers, cases, measure, run
from benchmarks.bench.answers import WrongAnswer
from benchmarks.bench.data import NOISES, SIZES, Setting
from udp_plugin import functional as F
from udp_plugin.names import CODECS

SMALL = SIZES[0]._replace(batches=(1,))


def bench(*args):
    """Run the command, with as little as can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['benchmarks', 'bench', *map(str, args)])
        patch.setattr(measure, 'LEAST_ROUNDS', 2)
        patch.setattr(run, 'SCALING', {a: each[:1] for a, each in run.SCALING.items()})
        return main()


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    """A bench of the least of everything: its folder, standard output and errors."""
    out = tmp_path_factory.mktemp('bench')
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as told:
        assert bench('--quick', '--json', '-o', out) == 0
    return out, said.getvalue(), told.getvalue()


def test_the_command_leaves_a_page_with_tables_and_a_picture(quick):
    page = (quick[0] / 'bench.md').read_text()
    (picture,) = re.findall(r'\]\((images/.*?)\)', page)
    assert cv2.imread(str(quick[0] / picture)) is not None and torch.__version__ in page
    tables = itertools.groupby(page.splitlines(), key=lambda line: line.startswith('|'))
    tables = [list(rows) for is_row, rows in tables if is_row]
    assert len(tables) == 12
    for rows in tables:
        assert len({line.count('|') for line in rows}) == 1
        assert re.fullmatch(r'(\|-+:?)+\|', rows[1]) and len(rows) > 2


def test_json_alone_has_the_keys_that_the_page_explains(quick):
    out, said, told = quick
    assert said == (out / 'bench.json').read_text()
    assert 'decode, gaussian codec, 17 keypoints' in told
    content, results = json.loads(said), json.loads(said)['results']
    contenders = [each for r in results for each in r['contenders'].values()]
    times = [each for c in contenders for each in c['times'].values()]
    explained = (out / 'bench.md').read_text().split('## bench.json')[1]
    for objects in ([content], results, contenders, times):
        assert all(each.keys() == objects[0].keys() for each in objects)
        assert all(f'`{key}`' in explained for key in objects[0])
    for r in results:
        assert all(f'`{r[key]}`' in explained for key in ('operation', 'codec', 'maps'))
        assert not r['contenders']['built-in']['ours']
    found = {r['operation']: [*r['contenders']['built-in']['times']] for r in results}
    assert {key for key in found if found[key] == ['one thread']} == {'encode', 'load'}
    others = 'decode in a graph', 'encode a batch', 'loss', 'flip', 'train', 'validate'
    assert found.keys() == {'decode', 'encode', 'load', *others}
    assert len(results[0]['contenders']['DARK']['times']) == 3
    assert all(t['rounds'] >= 2 and t['p90_ms'] >= t['ms'] > 0 for t in times)


def test_a_device_that_is_not_there_is_an_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='2'):
        bench('--device', 'cuda', '-o', tmp_path)
    assert 'finds no CUDA device' in capsys.readouterr().err


def spoil(monkeypatch, name, wrong):
    """Have a function of ``F`` return something else."""
    right = getattr(F, name)

    def call(*args, **kwargs):
        answer = right(*args, **kwargs)
        return wrong(*answer) if isinstance(answer, tuple) else wrong(answer)

    monkeypatch.setattr(F, name, call)


@pytest.mark.parametrize('codec', CODECS)
def test_a_wrong_answer_fails_the_bench(codec, monkeypatch, capsys, tmp_path):
    name = dict(gaussian='decode_dark', offset='decode_offset')[codec]
    spoil(monkeypatch, name, lambda points, scores: (points + 0.01, scores))
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
    setting = Setting('offset', SMALL, 1)
    operation(setting).check()
    spoil(monkeypatch, name, wrong)
    with pytest.raises(WrongAnswer):
        operation(setting).check()


@pytest.mark.parametrize('kind', ['network', *NOISES])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: str(size.heatmap_size))
@pytest.mark.parametrize('codec', CODECS)
def test_answers_are_right_at_each_size(codec, size, kind):
    with measure.arranged(measure.ONE):
        cases.decode(Setting(codec, size._replace(keypoints=20), 1, kind=kind)).check()


@pytest.mark.parametrize(('codec', 'allowed'), [('offset', 1e-5), ('gaussian', 1e-3)])
def test_plain_readings_find_perfect_keypoints(codec, allowed):
    setting = Setting(codec, SMALL, 1)
    points = np.array([[[20.3, 31.6], [0.2, 62.8]]], np.float32)
    maps = setting.coder.encode(F.heatmap_to_input(points, *setting.sizes))['heatmaps']
    for name in {*setting.ours} - {'authors'}:
        for each, point in zip(maps.reshape(2, -1, 64, 48), points[0]):
            found, _ = answers.plain_reading(each, setting.ours[name])
            assert found == pytest.approx(point, abs=allowed)
    for value in (0, 0.3, -1):
        # Maps without a peak read as the middle.
        keypoint, score = answers.plain_reading(0 * each + value, setting.coder)
        assert (*keypoint, score) == (24, 32, 0)


def test_comparisons_say_what_is_off():
    answers.compare('x', [1.0, 2.0], [1.0, 2.00001], 1e-4)
    answers.compare('x', [1.0, 2.5], [1.0, 2.0], 1e-4, share=0.5)
    for came, expected, message in (
        ([1.0, 2.5], [1.0, 2.0], 'x: 1 of 2 values are off .* by 0.5'),
        ([0.0, 2.5], [0.0, 2.0], 'x: 1 of 2 values are off .* by 0.5'),
        ([math.nan, 1.0], [1.0, 1.0], 'x: 1 of 2 .* by nan'),
        ([1.0], [1.0, 2.0], r'\(1,\) instead of \(2,\)'),
    ):
        with pytest.raises(WrongAnswer, match=message):
            answers.compare('x', came, expected, 1e-4, share=0.5 * (0 in came))


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
    assert (setting.points(1000) <= (47, 63)).all() and setting.points(1000).min() >= 0


def test_contenders_run_in_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    times = measure.time_in_turn(calls, 0.0, 'cpu')
    assert {len(each) for each in times.values()} == {measure.LEAST_ROUNDS} == {10}
    assert ''.join(order) == 5 * 'abba'


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
    busy, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, 'Popen', lambda x: busy.append(popen(x)) or busy[0])
    with measure.arranged(measure.SHARED):
        assert [process.poll() for process in busy] == [None]
    assert busy[0].poll() is not None


def test_without_onnxruntime_graphs_are_left_out(monkeypatch):
    monkeypatch.setattr(run, 'find_spec', lambda name: None)
    found = {case.operation for case in run.operations(Setting('offset', SMALL, 1))}
    assert found == {'decode', 'encode', 'encode a batch', 'loss', 'flip'}
