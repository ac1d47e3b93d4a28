"""The benchmark of kept weights: its configs, its figures, its course."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from benchmarks.keep import networks, run
from benchmarks.keep.networks import network_config, shifted_labels
from benchmarks.keep.report import signed_errors
from udp_plugin.demo.configs import Data, stock_config
from udp_plugin.demo.figures import write_dataset
from udp_plugin.demo.measures import Prediction

NOWHERE = Data('', *[Path('nowhere')] * 4, 1, 1)


def test_the_same_weights_under_several_configs():
    stock = Config.fromstring(stock_config(NOWHERE, 10, 0), '.py')
    heads, estimators, flips = {}, {}, {}
    for test in networks.TESTS:
        cfg = network_config('stock_dark', stock, test)
        heads[test], estimators[test] = cfg.model.head.type, cfg.model.type
        flips[test] = cfg.model.test_cfg.flip_test
        assert cfg.model.head.decoder.type == 'MSRAHeatmap'
        assert cfg.model.head.decoder.unbiased
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            assert 'TopdownAffine' in [s['type'] for s in loader.dataset.pipeline]
    kept = 'UDPHeatmapHead'
    stock_ones = dict(stock='HeatmapHead', stock_off='HeatmapHead')
    assert heads == dict(stock_ones, kept_off=kept, heads=kept, kept=kept)
    assert {name for name, each in estimators.items() if 'UDP' in each} == {
        'kept',
        'kept_off',
    }
    assert {name for name, each in flips.items() if not each} == {
        'stock_off',
        'kept_off',
    }


def test_labels_from_1(tmp_path):
    keypoints = [3.5, 4, 2, 0, 0, 0]
    before = tmp_path / 'before.json'
    before.write_text(json.dumps(dict(annotations=[dict(keypoints=keypoints)])))
    after = json.loads(shifted_labels(before, tmp_path / 'after.json').read_text())
    assert after['annotations'][0]['keypoints'] == [4.5, 5, 2, 0, 0, 0]


def test_signed_errors_are_in_input_px_and_without_failures():
    annotated = np.zeros((40, 2))
    predicted = np.tile([1.0, -2.0], (40, 1))
    predicted[0], predicted[1] = 1000, np.nan
    # Two source px are an input px here; the last keypoint is not labelled.
    one = Prediction(
        *('', (96, 128), np.zeros(2), 2 * np.array([95.0, 127.0])),
        *(annotated, predicted, np.ones(40), np.arange(40) != 1),
    )
    np.testing.assert_allclose(signed_errors([one]), [0.5, -1.0])


@pytest.mark.slow
def test_the_course(tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'IMAGES', 36)
    for name in ('DRAWN', 'PHOTOGRAPHS'):
        kind = getattr(run, name)._replace(networks=('stock_biased',), iters=10)
        monkeypatch.setattr(run, name, kind)
    own, out = tmp_path / 'own', tmp_path / 'out'
    for _ in write_dataset(own, dict(people=36), 1):
        pass
    files = own / 'people.json', own / 'people.json', own / 'people'
    run.run_keep(out, 'command', *files, seeds=1)
    page = (out / 'keep.md').read_text()
    assert '## Drawn figures' in page and '## Photographs' in page
    assert page.count('| as the toolbox tests it |') == 2
    found = json.loads((out / 'results.json').read_text())
    assert found['figures']['drawn/stock_biased/kept/0']['median_px'] > 0
    assert (out / 'images' / 'keep_medians.png').stat().st_size > 10_000
    # What is done is not done again.
    weights = out / 'drawn' / 'seed0' / 'stock_biased' / 'iter_10.pth'
    before = weights.stat().st_mtime_ns
    run.run_keep(out, 'command', *files, seeds=1)
    assert weights.stat().st_mtime_ns == before
