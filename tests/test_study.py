"""The study: its configs, its own components, its course and its report."""

import itertools
import json
import os
import pickle
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpose.codecs import MSRAHeatmap
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from rich.console import Console
from rich.progress import Progress

import udp_plugin
from benchmarks.study import components, networks, report, run
from udp_plugin import functional as F
from udp_plugin.cli import main
from udp_plugin.demo.configs import Data, stock_config, swap_names
from udp_plugin.demo.scripts import find_tools
from udp_plugin.functional.loss import OFFSET_WEIGHT, OFFSET_WINDOW
from udp_plugin.ui import UserError

SIZES = run.DEFAULT.sizes
NOWHERE = Data('', *[Path('nowhere')] * 4, 1, 1)


def stock(size=SIZES[0]):
    text = stock_config(NOWHERE, 10, 0, size.input_size, size.stride, size.sigma)
    return Config.fromstring(text, '.py')


# --- configs --------------------------------------------------------------------------


@pytest.mark.parametrize('size', [*SIZES, *run.FULL.sizes], ids=lambda size: size.name)
@pytest.mark.parametrize('name', networks.ALL_ARMS)
def test_each_network_makes_the_maps_of_its_targets(name, size):
    register_all_modules()
    arm = networks.ALL_ARMS[name]
    cfg = networks.configure(stock(size), arm)
    model = MODELS.build(cfg.model)
    width, height = size.input_size
    assert tuple(cfg.codec.heatmap_size) == (
        width // size.stride,
        height // size.stride,
    )
    with torch.no_grad():
        maps = model.head(model.extract_feat(torch.zeros(1, 3, height, width)))
    points = np.random.default_rng(0).uniform(0, 90, (1, 17, 2)).astype(np.float32)
    target = KEYPOINT_CODECS.build(cfg.codec).encode(points, np.ones((1, 17)))
    assert maps.shape[1:] == target['heatmaps'].shape


@pytest.mark.parametrize('codec', ['gaussian', 'offset'])
def test_our_networks_are_the_demo_s_swap_by_names(codec):
    """No argument is changed besides, but for sigma, which offsets derive."""
    text = swap_names(stock_config(NOWHERE, 10, 0, sigma=SIZES[0].sigma), codec)
    swapped = Config.fromstring(text, '.py')
    cfg = networks.configure(stock(), networks.GRID[f'udp_{codec}'])
    assert KEYPOINT_CODECS.build(cfg.codec).__dict__ == (
        KEYPOINT_CODECS.build(swapped.codec).__dict__
    )
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
    compared = ('codec', 'custom_imports', 'train_pipeline', 'val_pipeline')
    for name, arm in networks.ALL_ARMS.items():
        cfg, reference = (
            c.to_dict() for c in (networks.configure(stock(), arm), stock())
        )
        for one in (cfg, reference):
            for key in compared:
                one.pop(key, None)
            for key in ('head', 'test_cfg', 'train_cfg'):
                one['model'].pop(key, None)
            for loader in ('train_dataloader', 'test_dataloader'):
                steps = one[loader]['dataset'].pop('pipeline')
                one[loader]['steps'] = [
                    step
                    if 'ffine' not in step['type'] and 'Target' not in step['type']
                    # Of these two, the type and its settings are compared.
                    else step.get('input_size')
                    for step in steps
                ]
                for key in ('num_workers', 'persistent_workers'):
                    one[loader].pop(key, None)
        assert cfg == reference, name


def test_flip_tests_are_as_they_are_called():
    arm = networks.GRID['stock_dark']
    assert networks.own_flip('stock_dark') == 'shifted'
    assert networks.own_flip('stock_udp') == networks.own_flip('udp_offset') == 'plain'
    for flip, expected in (
        ('off', (False, False)),
        ('plain', (True, False)),
        ('shifted', (True, True)),
    ):
        test_cfg = networks.configure(stock(), arm, flip).model.test_cfg
        assert (test_cfg.flip_test, test_cfg.shift_heatmap) == expected
    combined = networks.configure(stock(), networks.GRID['stock_combined'])
    assert combined.model.test_cfg.flip_mode == 'udp_combined'


def test_maps_of_stock_combined_are_read_with_its_radius():
    for size in SIZES:
        trained = networks.configure(stock(size), networks.GRID['stock_combined'])
        reads = networks.ALL_ARMS[networks.READING_ARM]
        codec = KEYPOINT_CODECS.build(networks.configure(stock(size), reads).codec)
        factor = KEYPOINT_CODECS.build(trained.codec).radius_factor
        assert codec.radius == pytest.approx(factor * max(size.heatmap_size))
        # What the report says of it.
        assert factor == pytest.approx(networks.RADIUS_FACTOR)


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

    def degraded(img_id):
        return degrade(dict(img=image, img_id=img_id, transformed_keypoints=points))

    first = degraded(1)['img']
    np.testing.assert_array_equal(first, degraded(1)['img'])
    assert not np.array_equal(first, degraded(2)['img'])
    assert (image == 60).all()
    changed = (first != 60).any(-1).mean()
    assert changed > 0.9 if kind == 'noise' else 0.005 < changed < 0.2


def test_degrade_names_its_kinds():
    with pytest.raises(ValueError, match=r"one of .*'blur'.* got 'fog'"):
        components.Degrade('fog')


# --- the course -----------------------------------------------------------------------


def work_off(jobs):
    with Progress(console=Console(quiet=True)) as progress:
        run._work_off(jobs, progress)


def script(folder, code, after=None):
    folder.mkdir(exist_ok=True)
    return run.Job(folder.name, folder, ['-c', code], 1.0, after)


def test_what_is_done_is_not_done_again(tmp_path):
    trace = tmp_path / 'trace'
    note = f'open({str(trace)!r}, "a").write'
    first = script(tmp_path / 'first', f'{note}("first ")')
    second = script(tmp_path / 'second', f'{note}("second ")', first.folder)
    # Whatever the order they come in, and beside others.
    work_off([second, script(tmp_path / 'third', ''), first])
    assert trace.read_text() == 'first second '
    second.done.unlink()
    work_off([second, first])
    assert trace.read_text() == 'first second second '


def test_a_failed_script_ends_the_others_and_shows_its_log(tmp_path):
    mark = tmp_path / 'pid'
    slow = script(
        tmp_path / 'slow',
        f'import os, time; open({str(mark)!r}, "w").write(str(os.getpid()));'
        'time.sleep(60)',
    )
    fails = script(
        tmp_path / 'fails',
        f'import os\nwhile not os.path.exists({str(mark)!r}): pass\n'
        'print("what went wrong"); raise SystemExit(3)',
    )
    # Two at a time, whatever the machine.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, '_workers', lambda: 2)
        with pytest.raises(UserError, match='(?s)fails failed with status 3.*wrong'):
            work_off([slow, fails])
    assert not slow.done.exists()
    assert not fails.done.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_study_of_other_settings_is_not_gone_on_with(tmp_path):
    out = tmp_path / 'out'
    run._open_folder(out, run.DEFAULT)
    run._open_folder(out, run.DEFAULT)
    with pytest.raises(UserError, match=r'other settings \(iters\)'):
        run._open_folder(out, run.DEFAULT._replace(iters=7))
    with pytest.raises(UserError, match='no study made'):
        run._open_folder(tmp_path, run.DEFAULT)
    (out / 'settings.json').write_text('none')
    with pytest.raises(UserError, match='--out'):
        run._open_folder(out, run.DEFAULT)


def test_jobs_of_a_study_name_what_they_need(tmp_path):
    jobs = [
        job
        for seed in range(2)
        for size in SIZES
        for job in run._jobs(tmp_path, run.DEFAULT, size, seed, NOWHERE, find_tools())
    ]
    folders = [job.folder for job in jobs]
    assert len(set(folders)) == len(folders)
    assert all(job.after is None or job.after in folders for job in jobs)
    tried = [job for job in jobs if job.folder.name in networks.TRIED]
    assert len(tried) == len(networks.TRIED)
    assert {job.folder.parent for job in tried} == {
        run.folder_of(tmp_path, SIZES[0], run.CHOSEN_ON)
    }
    for job in jobs:
        if job.after is not None:
            config = Config.fromfile(job.folder / 'config.py')
            assert config.model.head.decoder == config.codec


@pytest.mark.skipif(os.name != 'posix', reason='signals are sent the POSIX way')
def test_one_network_through_the_toolbox_interrupted_and_gone_on(tmp_path):
    """Trained, tested and read with the real scripts."""
    budget = run.DEFAULT._replace(images=6, iters=2)
    with Progress(console=Console(quiet=True)) as progress:
        data = run._draw(tmp_path, budget, 0, progress)
    jobs = run._jobs(tmp_path, budget, SIZES[0], 0, data, find_tools())
    wanted = ('udp_offset', 'udp_offset_plain', 'readings')
    folder = run.folder_of(tmp_path, SIZES[0], 0) / 'udp_offset'
    jobs = [
        job
        for job in jobs
        if job.folder.name in wanted and folder in (job.folder, job.after)
    ]
    assert len(jobs) == 3

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            work_off(jobs)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert not (folder / 'done').exists()

    work_off(jobs)
    assert 'Iter(train) [2/2]' in (folder / 'log').read_text()
    figures = report._figures(folder / 'udp_offset_plain')
    readings = json.loads((folder / 'readings/readings.json').read_text())
    assert list(readings['clean']) == list(F.READINGS)
    # The test by tools/test.py, and the codec's reading in the same words.
    for key in ('median_px', 'p95_px', 'ap', 'score_rank'):
        assert readings['clean']['voting'][key] == pytest.approx(figures[key], rel=1e-4)
    assert readings['noise']['voting'] != readings['clean']['voting']


# --- the report -----------------------------------------------------------------------


def error_of(test):
    """An error in px for each test, different for each."""
    networks_of = list(networks.ALL_ARMS)
    error = {'stock_biased': 2.0, 'udp_gaussian': 0.8, 'udp_gaussian_narrow': 0.5}
    error = {**error, 'udp_offset': 0.4}.get(
        test.network, 1 + networks_of.index(test.network) / 100
    )
    error *= {'off': 1.25, 'plain': 1, 'shifted': 1.5}[test.flip]
    return error if test.network == test.arm else 3 * error


@pytest.fixture(scope='module')
def invented(tmp_path_factory):
    """A study's folder in which each error is known."""
    out = tmp_path_factory.mktemp('study')
    budget = run.DEFAULT._replace(seeds=2)
    rng = np.random.default_rng(0)
    for size in budget.sizes:
        for seed in range(budget.seeds):
            folder = run.folder_of(out, size, seed)
            for test in networks.tests(run.is_chosen_on(budget, size, seed)):
                where = folder / test.network / test.name
                where.mkdir(parents=True)
                error = error_of(test) * (1 + seed)
                keypoints = rng.uniform(20, 90, (1, 17, 2))
                box = np.float32(F.unit_length(size.input_size))
                sample = dict(
                    img_path='a.bmp',
                    input_size=size.input_size,
                    input_center=box / 2,
                    input_scale=box,
                    gt_instances=dict(
                        keypoints=keypoints, keypoints_visible=np.ones((1, 17))
                    ),
                    pred_instances=dict(
                        keypoints=keypoints + np.array([error, 0]),
                        keypoint_scores=rng.uniform(0, 1, (1, 17)),
                    ),
                )
                (where / 'predictions.pkl').write_bytes(pickle.dumps([sample]))
                (where / 'metrics.json').write_text('{"coco/AP": 0.5}')
            figures = report.measure(
                report.read_predictions(where / 'predictions.pkl'), 0.5
            )
            for network in networks.READ:
                path = folder / network / 'readings' / 'readings.json'
                path.parent.mkdir()
                each = {
                    reading: dict(figures, median_px=1.0 + i + seed)
                    for i, reading in enumerate(F.READINGS)
                }
                content = dict.fromkeys(report.CONDITIONS, each)
                path.write_text(json.dumps(content))
    return out, budget


def test_the_report_says_what_was_measured(invented, capsys):
    out, budget = invented
    args = SimpleNamespace(out=out, command='udp-plugin study')
    report.report(args, budget, 120.0, Console(width=200))
    printed = capsys.readouterr().out
    page = (out / 'study.md').read_text()
    # Mean and standard deviation of 0.4 and 0.8, and of 2 and 4.
    assert '0.60 ± 0.28' in printed
    assert '3.00 ± 1.41' in page
    # Seed by seed, the offset codec has half the Gaussian one's error.
    row = next(
        line for line in page.splitlines() if 'Offset' in line and '-50 %' in line
    )
    assert row.count('-50 %') == 4
    assert 'voting' in page
    for name in ('study_medians', 'study_errors', 'study_readings'):
        assert cv2.imread(str(out / 'images' / f'{name}.png')) is not None
        assert f'images/{name}.png' in page
    results = json.loads((out / 'results.json').read_text())
    found = results['tests']['96x128_stride4/seed1']['udp_offset/udp_offset_plain']
    assert found['median_px'] == pytest.approx(0.8, abs=1e-4)
    assert results['machine']['torch'] == torch.__version__


def test_page_tables_are_well_formed(invented):
    out, budget = invented
    args = SimpleNamespace(out=out, command='udp-plugin study')
    report.report(args, budget, 120.0, Console(quiet=True))
    lines = (out / 'study.md').read_text().splitlines()
    tables = itertools.groupby(lines, key=lambda line: line.startswith('|'))
    widths = [{line.count('|') for line in rows} for is_row, rows in tables if is_row]
    assert len(widths) >= 8
    assert all(len(width) == 1 for width in widths)


@pytest.mark.parametrize('arguments', [['--seeds', '0'], ['--iters', 'x']])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(['study', *arguments])
    assert caught.value.code == 2
    assert 'number' in capsys.readouterr().err


def test_a_folder_of_others_is_left_alone(tmp_path, capsys):
    (tmp_path / 'mine').touch()
    assert main(['study', '--out', str(tmp_path)]) == 1
    assert 'no study made' in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ['mine']
