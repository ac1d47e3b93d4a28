"""The study: its configs, its own components, its course and its report."""

import itertools
import json
import os
import pickle
import signal
import sys
import threading
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpose.codecs import MSRAHeatmap
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from rich.console import Console

import udp_plugin
from benchmarks.__main__ import main
from benchmarks.study import components, networks, report, run
from udp_plugin import functional as F
from udp_plugin.demo.configs import Data, stock_config, swap_names
from udp_plugin.demo.measures import measure_run
from udp_plugin.errors import UserError
from udp_plugin.functional.loss import OFFSET_WEIGHT, OFFSET_WINDOW
from udp_plugin.ui import progress

SIZES = networks.DEFAULT.sizes
NOWHERE = Data('', *[Path('nowhere')] * 4, 1, 1)


@lru_cache(maxsize=None)
def stock(size=SIZES[0]):
    sizes = size.input_size, size.stride, size.sigma
    return Config.fromstring(stock_config(NOWHERE, 10, 0, *sizes), '.py')


def own_config(arm, size=SIZES[0]):
    return networks.configure(stock(size), networks.own_test(arm))


def codec_of(arm, size=SIZES[0]):
    return KEYPOINT_CODECS.build(own_config(arm, size).codec)


# --- configs --------------------------------------------------------------------------


@pytest.mark.parametrize('size', [*SIZES, *networks.FULL.sizes], ids=str)
def test_each_network_makes_the_maps_of_its_targets(size):
    register_all_modules()
    width, height = size.input_size
    points = np.random.default_rng(0).uniform(0, 90, (1, 17, 2)).astype(np.float32)
    for arm in networks.ARMS:
        cfg = own_config(arm, size)
        model = MODELS.build(cfg.model)
        heatmap_size = width // size.stride, height // size.stride
        assert tuple(cfg.codec.heatmap_size) == heatmap_size
        with torch.no_grad():
            maps = model.head(model.extract_feat(torch.zeros(1, 3, height, width)))
        target = KEYPOINT_CODECS.build(cfg.codec).encode(points, np.ones((1, 17)))
        assert maps.shape[1:] == target['heatmaps'].shape
        steps = cfg.train_dataloader.dataset.pipeline
        assert [step.encoder for step in steps if 'encoder' in step] == [cfg.codec]
    # Stock combined maps are read with their radius, which is what the page says.
    factor = codec_of('stock_combined', size).radius_factor
    assert factor == pytest.approx(networks.RADIUS_FACTOR)
    radius = codec_of(networks.READING.arm, size).radius
    assert radius == pytest.approx(factor * max(size.heatmap_size))


@pytest.mark.parametrize('codec', ['gaussian', 'offset'])
def test_our_networks_are_the_demo_s_swap_by_names(codec):
    """No argument is changed besides, but for sigma, which offsets derive."""
    text = swap_names(stock_config(NOWHERE, 10, 0, sigma=SIZES[0].sigma), codec)
    swapped = Config.fromstring(text, '.py')
    cfg = own_config(f'udp_{codec}')
    codecs = (KEYPOINT_CODECS.build(c.codec).__dict__ for c in (cfg, swapped))
    assert next(codecs) == next(codecs)
    for loader in ('train_dataloader', 'test_dataloader'):
        steps, expected = (
            [dict(step, encoder=None) for step in c[loader].dataset.pipeline]
            for c in (cfg, swapped)
        )
        assert steps == expected
    heads = [dict(c.model.head, decoder=None) for c in (cfg, swapped)]
    assert heads[0] == heads[1]


def test_all_that_is_compared_is_trained_alike():
    """But for what is compared, each config is the stock one."""

    def rest(cfg):
        cfg = cfg.to_dict()
        for key in ('codec', 'custom_imports', 'train_pipeline', 'val_pipeline'):
            cfg.pop(key, None)
        for key in ('head', 'test_cfg', 'train_cfg'):
            cfg['model'].pop(key, None)
        for loader in (cfg['train_dataloader'], cfg['test_dataloader']):
            loader['steps'] = [
                # Of these two, the type and its settings are compared.
                step.get('input_size')
                if 'ffine' in step['type'] or 'Target' in step['type']
                else step
                for step in loader['dataset'].pop('pipeline')
            ]
            for key in ('num_workers', 'persistent_workers'):
                loader.pop(key, None)
        return cfg

    expected = rest(stock())
    for arm in networks.ARMS:
        assert rest(own_config(arm)) == expected, arm


def test_flip_tests_are_as_they_are_called():
    flips = dict(stock_dark='shifted', stock_udp='plain', udp_offset='plain')
    assert flips == {arm: networks.own_test(arm).flip for arm in flips}
    expected = dict(off=(False, False), plain=(True, False), shifted=(True, True))
    for flip, on_and_shifted in expected.items():
        test = networks.own_test('stock_dark', flip)
        test_cfg = networks.configure(stock(), test).model.test_cfg
        assert (test_cfg.flip_test, test_cfg.shift_heatmap) == on_and_shifted
    assert own_config('stock_combined').model.test_cfg.flip_mode == 'udp_combined'


# --- its components -------------------------------------------------------------------


def test_rounded_heatmap_is_msra_s_on_unit_lengths():
    ours = components.RoundedHeatmap((96, 128), (24, 32), sigma=1)
    theirs = MSRAHeatmap((96, 128), (24, 32), sigma=1)
    points = np.random.default_rng(0).uniform(2, 20, (1, 17, 2)).astype(np.float32)
    maps = ours.encode(F.heatmap_to_input(points, (96, 128), (24, 32)))['heatmaps']
    expected = theirs.encode(4 * points, np.ones((1, 17), np.float32))['heatmaps']
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    decoded = F.toolbox_to_input(ours.decode(maps)[0], (96, 128))
    decoded = F.input_to_heatmap(decoded, (96, 128), (24, 32))
    np.testing.assert_allclose(4 * decoded, theirs.decode(expected)[0], atol=1e-4)


def test_the_default_loss_is_one_of_those_tried():
    # Others may come to the same by chance.
    torch.manual_seed(0)
    target, _ = F.offset_target(
        torch.rand(2, 17, 2) * 20, torch.ones(2, 17), (24, 32), radius=1.75
    )
    maps, weights = torch.randn(2, 51, 32, 24), torch.ones(2, 17)
    default = udp_plugin.UDPOffsetLoss()(maps, target)
    for settings in itertools.product(
        ('absolute', 'squared'), (OFFSET_WEIGHT, 0.1), (OFFSET_WINDOW, None)
    ):
        loss = components.TriedOffsetLoss(*settings)(maps, target, weights)
        same = settings == ('absolute', OFFSET_WEIGHT, OFFSET_WINDOW)
        assert torch.isclose(loss, default).item() == same


@pytest.mark.parametrize('kind', ['blur', 'low resolution'])
def test_degraded_images_keep_their_keypoints(kind):
    """By the centroid of a disc drawn at sub-pixel places."""
    degrade = TRANSFORMS.build(dict(type='Degrade', kind=kind))
    y, x = np.mgrid[:128, :96]
    for center in np.random.default_rng(0).uniform(30, 60, (20, 2)):
        image = np.zeros((128, 96, 3), np.uint8)
        at = (256 * center).round().astype(int).tolist()
        cv2.circle(image, at, 256 * 8, (255,) * 3, -1, cv2.LINE_AA, shift=8)
        results = degrade(dict(img=image.copy(), img_id=1, transformed_keypoints=None))
        weights = results['img'][..., 0].astype(float)
        assert not np.array_equal(results['img'], image)
        found = [(weights * axis).sum() / weights.sum() for axis in (x, y)]
        np.testing.assert_allclose(found, center, atol=0.08)


@pytest.mark.parametrize('kind', ['noise', 'occlusion'])
def test_degrading_is_the_same_each_time_and_differs_by_image(kind):
    degrade = TRANSFORMS.build(dict(type='Degrade', kind=kind))
    points = np.random.default_rng(0).uniform(10, 80, (1, 17, 2))
    image = np.full((128, 96, 3), 60, np.uint8)
    first, again, other = (
        degrade(dict(img=image, img_id=img_id, transformed_keypoints=points))['img']
        for img_id in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (image == 60).all()
    changed = (first != 60).any(-1).mean()
    assert changed > 0.9 if kind == 'noise' else 0.005 < changed < 0.2
    with pytest.raises(ValueError, match=r"one of .*'blur'.* got 'fog'"):
        components.Degrade('fog')


# --- the course -----------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """A quiet display; two scripts at a time, whatever the machine."""
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    # Is set for the scripts.
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    with progress(Console(quiet=True)) as found:
        yield found


def script(path: Path, code: str) -> list:
    path.write_text(code)
    return [path]


def test_what_is_done_is_not_done_again(tmp_path, shown):
    trace = tmp_path / 'trace'

    def chain(*names):
        for name in names:
            code = f'open({str(trace)!r}, "a").write("{name} ")'
            command = script(tmp_path / f'{name}.py', code)
            run.run_once(shown, name, tmp_path / name, command)

    run.run_all(shown, [partial(chain, 'first', 'second')])
    assert trace.read_text() == 'first second '
    (tmp_path / 'second' / 'done').unlink()
    run.run_all(shown, [partial(chain, 'second'), partial(chain, 'first')])
    assert trace.read_text() == 'first second second '


def test_a_failed_script_ends_the_others_and_shows_its_log(tmp_path, shown):
    mark = tmp_path / 'pid'
    codes = dict(
        slow=f'import os, time; open({str(mark)!r}, "w").write(str(os.getpid()));'
        'time.sleep(60)',
        fails=f'import os\nwhile not os.path.exists({str(mark)!r}): pass\n'
        'print("what went wrong"); raise SystemExit(3)',
    )
    work = [
        partial(
            run.run_once,
            shown,
            name,
            tmp_path / name,
            script(tmp_path / f'{name}.py', code),
        )
        for name, code in codes.items()
    ]
    with pytest.raises(UserError, match='(?s)fails failed with status 3.*wrong'):
        run.run_all(shown, work)
    assert not any((tmp_path / name / 'done').exists() for name in codes)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_study_of_other_settings_is_not_gone_on_with(tmp_path):
    out, budget = tmp_path / 'out', networks.DEFAULT
    out.mkdir()
    run.open_folder(out, budget)
    run.open_folder(out, budget)
    with pytest.raises(UserError, match=r'other settings \(iters\)'):
        run.open_folder(out, budget._replace(iters=7))
    (out / 'settings.json').write_text('none')
    with pytest.raises(UserError, match='--out'):
        run.open_folder(out, budget)


def test_scripts_of_a_study_have_what_they_need(tmp_path, shown, monkeypatch):
    """Each has a folder of its own, its config, and the weights of its network."""
    run_folders, tried = [], networks.TRIED

    def record(shown, title, folder, command, config):
        assert folder not in run_folders
        run_folders.append(folder)
        assert config.model.head.decoder == config.codec
        assert folder / 'config.py' in command
        weights = [str(part) for part in command if str(part).endswith('.pth')]
        # What is not a network is a test of one, which comes first.
        assert [Path(path).parent in run_folders for path in weights] in ([], [True])
        assert bool(weights) == (folder.parent.name in networks.ARMS)

    monkeypatch.setattr(run, 'run_once', record)
    for seed, size in itertools.product(range(2), SIZES):
        args = tmp_path, networks.DEFAULT, size, seed, NOWHERE, shown
        for work in run.work_on(*args):
            work()
    folder = tmp_path / SIZES[0].name / f'seed{networks.CHOSEN_ON}'
    found = [at for at in run_folders if at.name in tried]
    assert sorted(found) == sorted(folder / arm for arm in tried)


@pytest.mark.skipif(os.name != 'posix', reason='signals are sent the POSIX way')
def test_one_network_through_the_toolbox_interrupted_and_gone_on(
    tmp_path, shown, monkeypatch
):
    """Trained, tested and read with the real scripts."""
    budget = networks.Budget(SIZES[:1], 1, images=6, iters=2)
    test = networks.own_test('udp_offset')
    monkeypatch.setattr(networks, 'tests_of', lambda *of: [test])
    data = run.draw(tmp_path / 'data', budget, 0, shown)
    work = list(run.work_on(tmp_path, budget, SIZES[0], 0, data, shown))
    folder = tmp_path / SIZES[0].name / 'seed0'

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run.run_all(shown, work)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert not (folder / 'udp_offset' / 'done').exists()

    run.run_all(shown, work)
    assert 'Iter(train) [2/2]' in (folder / 'udp_offset' / 'log').read_text()
    figures = measure_run(folder / test.name).metrics
    path = folder / 'udp_offset' / 'readings' / 'readings.json'
    readings = json.loads(path.read_text())
    assert [f'clean/{reading}' for reading in F.READINGS] == list(readings)[:3]
    # The test by tools/test.py, and the codec's reading in the same words.
    for key in ('median_px', 'p95_px', 'ap', 'score_rank'):
        assert readings['clean/voting'][key] == pytest.approx(figures[key], rel=1e-4)
    assert readings['noise/voting'] != readings['clean/voting']


# --- the report -----------------------------------------------------------------------


def error_of(test):
    """An error in px for each test, different for each."""
    errors = dict(stock_biased=2.0, udp_gaussian=0.8, udp_gaussian_narrow=0.5)
    other = 1 + list(networks.ARMS).index(test.network) / 100
    error = dict(errors, udp_offset=0.4).get(test.network, other)
    error *= dict(off=1.25, plain=1, shifted=1.5)[test.flip]
    return error if test.network == test.arm else 3 * error


@pytest.fixture(scope='module')
def invented(tmp_path_factory):
    """The folder of a study in which each error is known, with its report."""
    out, rng = tmp_path_factory.mktemp('study'), np.random.default_rng(0)
    budget = networks.DEFAULT._replace(seeds=2)
    for size, seed in itertools.product(budget.sizes, range(budget.seeds)):
        folder = out / size.name / f'seed{seed}'
        box = np.float32(F.unit_length(size.input_size))
        for test in networks.tests_of(budget, size, seed):
            keypoints = rng.uniform(20, 90, (1, 17, 2))
            off = np.array([error_of(test) * (1 + seed), 0])
            scores = rng.uniform(0, 1, (1, 17))
            sample = dict(img_path='a.bmp', input_size=size.input_size)
            sample.update(input_center=box / 2, input_scale=box)
            sample['gt_instances'] = dict(
                keypoints=keypoints, keypoints_visible=np.ones((1, 17))
            )
            sample['pred_instances'] = dict(
                keypoints=keypoints + off, keypoint_scores=scores
            )
            where = folder / test.name
            where.mkdir(parents=True)
            (where / 'predictions.pkl').write_bytes(pickle.dumps([sample]))
            (where / 'metrics.json').write_text('{"coco/AP": 0.5}')
        figures = measure_run(where).metrics
        readings = {
            f'{condition}/{reading}': dict(figures, median_px=1.0 + i + seed)
            for condition in report.CONDITIONS
            for i, reading in enumerate(F.READINGS)
        }
        for network in networks.READ:
            (folder / network / 'readings').mkdir()
            path = folder / network / 'readings' / 'readings.json'
            path.write_text(json.dumps(readings))
    report.report(out, budget, 'make study', 120.0)
    return out


def test_the_report_says_what_was_measured(invented):
    page = (invented / 'study.md').read_text()
    # Mean and standard deviation of 0.4 and 0.8, and of 3 and 6.
    assert '**0.60 ± 0.28**' in page
    assert '4.50 ± 2.12' in page
    # Seed by seed, the offset codec has half the Gaussian one's error.
    rows = [line for line in page.splitlines() if 'Offset' in line and '-50 %' in line]
    assert rows[0].count('-50 %') == 4
    for name in ('study_medians', 'study_errors', 'study_readings'):
        assert cv2.imread(str(invented / 'images' / f'{name}.png')) is not None
        assert f'images/{name}.png' in page
    results = json.loads((invented / 'results.json').read_text())
    found = results['figures']['96x128_stride4/seed1']['udp_offset/udp_offset_plain']
    assert found['median_px'] == pytest.approx(0.8, abs=1e-4)
    assert results['machine']['torch'] == version('torch')


def test_page_tables_are_well_formed(invented):
    lines = (invented / 'study.md').read_text().splitlines()
    groups = itertools.groupby(lines, key=lambda line: line.startswith('|'))
    tables = [list(rows) for is_row, rows in groups if is_row]
    # All networks, seed by seed, readings, ablation, mismatches, losses.
    assert [len(rows) - 2 for rows in tables] == [7, 7, 8, 10, 10, 4, 4, 4, 10]
    assert all(len({row.count('|') for row in rows}) == 1 for rows in tables)


@pytest.mark.parametrize(
    'option, value, said',
    [
        ('--seeds', '0', 'number'),
        ('--iters', 'x', 'number'),
        # A folder of others is left alone.
        ('--out', '.', 'no study made'),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, option, value, said):
    (tmp_path / 'mine').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['benchmarks', 'study', option, value])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['mine']
