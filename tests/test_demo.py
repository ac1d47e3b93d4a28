"""The demo: exact drawing, the user's data, and the whole through the command."""

import json
import os
import pickle
import signal
import threading

import cv2
import numpy as np
import pytest
from helpers import FLIP_INDICES, swap_names
from mmengine.config import Config
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from rich.console import Console
from xtcocotools.coco import COCO

from udp_plugin import functional as F
from udp_plugin import names, ui
from udp_plugin.cli import main
from udp_plugin.demo import configs, figures, own_data, run, scripts
from udp_plugin.demo.measures import Demo, Run, measure_run
from udp_plugin.errors import UserError
from udp_plugin.keypoint_names import mirror_images

SIZE = (200, 240)


def drawn(seed):
    """A background and a figure to draw over it."""
    rng = np.random.default_rng(seed)
    figure = figures.random_figure(rng, SIZE)
    return figures.random_background(rng, SIZE), figure


# --- drawing --------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(20))
def test_discs_lie_where_the_annotation_says(seed):
    """By what each disc covers of the drawing that lacks it."""
    background, figure = drawn(seed)
    with_all = figures.draw_figure(background, figure).astype(float)
    ys, xs = np.mgrid[: SIZE[1], : SIZE[0]]
    for k, point in enumerate(figure.keypoints):
        face = k in figures.FACE
        radius = figure.dot_radius if face else figure.joint_radius
        others = np.delete(figure.keypoints, k, 0)
        if np.linalg.norm(others - point, axis=-1).min() < 2 * figure.joint_radius + 3:
            continue
        rest = [i for i in range(17) if i != k]
        without = figures.draw_figure(background, figure, rest).astype(float)
        color = np.array(figure.joint_color)
        near = np.hypot(xs - point[0], ys - point[1]) < radius + 2
        contrast = (color - without)[near]
        covered = ((with_all - without)[near] * contrast).sum(-1)
        covered /= (contrast**2).sum(-1)
        center = (covered @ np.stack((xs[near], ys[near]), -1)) / covered.sum()
        np.testing.assert_allclose(center, point, atol=0.05)
        assert covered.sum() == pytest.approx(np.pi * (radius + 0.25) ** 2, rel=0.1)


@pytest.mark.parametrize('seed', range(10))
def test_the_mirrored_pose_draws_the_mirror_image_and_the_box_encloses_it(seed):
    background, figure = drawn(seed)
    image = figures.draw_figure(background, figure)
    keypoints = F.mirror(figure.keypoints, SIZE[0])[FLIP_INDICES]
    mirrored_figure = figure._replace(keypoints=keypoints)
    mirrored = figures.draw_figure(background[:, ::-1], mirrored_figure)
    difference = np.abs(mirrored[:, ::-1].astype(int) - image)
    assert difference.mean() < 0.3
    # Edges are anti-aliased with a few levels, so some pixels differ by a level.
    assert np.percentile(difference, 99.5) < 30

    drawn_on = (image != background).any(-1)
    rows, columns = (np.flatnonzero(drawn_on.any(axis)) for axis in (1, 0))
    x, y, w, h = figures.bounding_box(figure, SIZE)
    spare = [columns[0] - x, rows[0] - y, x + w - columns[-1], y + h - rows[-1]]
    # A pixel of anti-aliasing at the least; the crown is estimated, so some more.
    assert min(spare) >= -1
    assert max(spare) <= 2 * figure.joint_radius


def test_figures_face_the_viewer_and_vary():
    poses = np.stack([figures.random_pose(np.random.default_rng(i)) for i in range(50)])
    assert (poses[:, 3, 0] > poses[:, 4, 0]).all()
    assert (poses[:, 5, 0] > poses[:, 6, 0]).mean() > 0.9
    assert (poses[:, [*range(7, 11), *range(13, 17)]].std(0) > 0.1).all()
    distance = np.linalg.norm(poses[:, :, None] - poses[:, None], axis=-1)
    assert distance[:, ~np.eye(17, dtype=bool)].min() > 0.12


def test_swapped_names():
    assert mirror_images(figures.KEYPOINTS) == FLIP_INDICES
    names = ['left_eye', 'right_eye', 'R_LEFT_FOOT', 'R_RIGHT_FOOT', 'tail']
    assert mirror_images(names) == [1, 0, 3, 2, 4]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')
    steps = list(figures.write_dataset(folder, dict(train=7, test=3), seed=1))
    assert steps == list(range(1, 11))
    return folder


def test_drawn_data_are_coco_s(dataset, capsys):
    coco = COCO(str(dataset / 'train.json'))
    assert len(coco.imgs) == len(coco.anns) == 7
    assert coco.cats[1]['keypoints'] == figures.KEYPOINTS
    for ann in coco.anns.values():
        info = coco.loadImgs(ann['image_id'])[0]
        image = cv2.imread(str(dataset / 'train' / info['file_name']))
        assert image.shape == (info['height'], info['width'], 3)
        points = np.reshape(ann['keypoints'], (17, 3))
        assert (points[:, 2] == 2).all()
        assert ann['num_keypoints'] == 17
        x, y, w, h = ann['bbox']
        assert (points[:, :2] > [x, y]).all()
        assert (points[:, :2] < [x + w, y + h]).all()
        assert min(x, y) >= 0
        assert x + w <= info['width']
        assert y + h <= info['height']
        assert 0.1 * w * h < ann['area'] < w * h


def test_a_seed_draws_the_same_images_whatever_their_number(dataset, tmp_path):
    list(figures.write_dataset(tmp_path, dict(train=2, test=1), seed=1))
    for name in ('train/000002.bmp', 'test/000001.bmp'):
        assert (tmp_path / name).read_bytes() == (dataset / name).read_bytes()
    list(figures.write_dataset(tmp_path / 'other', dict(train=2), seed=2))
    name = 'train/000002.bmp'
    assert (tmp_path / 'other' / name).read_bytes() != (dataset / name).read_bytes()


# --- configs --------------------------------------------------------------------------


@pytest.mark.parametrize('codec', names.CODECS)
def test_names_are_all_that_is_swapped(codec, dataset, tmp_path):
    data = configs.Data('', *[dataset] * 4, 1, 1)
    paths = configs.write_configs(tmp_path, data, [codec], iters=20, seed=0)
    assert list(paths) == ['stock', 'kept', f'udp_{codec}']
    stock, kept, swapped = (
        Config.fromfile(p)._cfg_dict.to_dict() for p in paths.values()
    )
    assert swapped.pop('custom_imports')['imports'] == ['udp_plugin']
    assert swapped == swap_names(stock, names.CODECS[codec])
    # With weights kept, names of what does not make them.
    model = {**stock['model'], 'type': 'UDPTopdownPoseEstimator'}
    model['head'] = {**model['head'], 'type': 'UDPHeatmapHead'}
    assert kept.pop('custom_imports')['imports'] == ['udp_plugin']
    assert kept == {**stock, 'model': model}
    for name in ('MSRAHeatmap', 'HeatmapHead', 'TopdownAffine', 'GenerateTarget'):
        assert f"'{name}'" in str(stock) and f"'{name}'" not in str(swapped)


# --- the user's data ------------------------------------------------------------------


PERSON = dict(category_id=1, bbox=[2, 3, 20, 30])


def coco_file(folder, count=10, names=figures.KEYPOINTS, **changes):
    """Write images and a minimal annotation file; returns the file."""
    for i in range(count):
        cv2.imwrite(str(folder / f'{i}.png'), np.zeros((40, 30, 3), np.uint8))
    ids, size = range(count), dict(width=30, height=40)
    person = dict(PERSON, keypoints=[9, 9, 2] * len(names))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', **size) for i in ids],
        annotations=[dict(id=i, image_id=i, **person) for i in ids],
        categories=[dict(id=1, name='thing', keypoints=names)],
    )
    content.update(changes)
    path = folder / 'ann.json'
    path.write_text(json.dumps(content))
    return path


def own(ann, folder):
    """The data set, its training and test annotations, and the one in memory."""
    data, files = own_data.read_own_data(ann, ann.parent, folder)
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return data, COCO(str(data.train_ann)), COCO(str(data.test_ann))


def test_own_data_are_split_by_image_unless_few_and_completed(tmp_path):
    data, train, test = own(coco_file(tmp_path), tmp_path / 'data')
    assert (data.train_count, data.test_count) == (8, 2)
    assert data.metainfo is None
    assert not data.notes
    assert set(train.imgs) | set(test.imgs) == set(range(10))
    assert not set(train.imgs) & set(test.imgs)
    ann = test.loadAnns(test.getAnnIds())[0]
    assert (ann['iscrowd'], ann['num_keypoints']) == (0, 17)
    assert ann['area'] == pytest.approx(0.53 * 600)

    data, _, _ = own(coco_file(tmp_path, count=4), tmp_path / 'few')
    assert (data.train_count, data.test_count) == (4, 4)
    assert 'too few' in data.notes[0]


def test_other_keypoints_get_a_metainfo(tmp_path):
    keypoints = ['beak', 'left_wing', 'right_wing']
    category = dict(id=1, name='bird', keypoints=keypoints, skeleton=[[1, 2], [1, 3]])
    ann = coco_file(tmp_path, names=keypoints, categories=[category])
    data, _, _ = own(ann, tmp_path / 'data')
    assert data.num_keypoints == 3
    info = parse_pose_metainfo(dict(from_file=str(data.metainfo)))
    assert info['flip_indices'] == [0, 2, 1]
    assert info['skeleton_links'] == [(0, 1), (0, 2)]
    assert len(info['sigmas']) == 3


def test_unusable_annotations_are_left_out(tmp_path):
    anns = json.loads(coco_file(tmp_path).read_text())['annotations']
    anns[0]['iscrowd'] = 1
    anns[1]['keypoints'] = [0] * 51
    anns[2]['bbox'] = [5, 5, 0, 3]
    del anns[3]['bbox'], anns[4]['keypoints']
    ann = coco_file(tmp_path, annotations=anns)
    _, *splits = own(ann, tmp_path / 'data')
    assert {a for split in splits for a in split.anns} == {5, 6, 7, 8, 9}
    assert {i for split in splits for i in split.imgs} == {5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(categories=[dict(id=1, name='person')]), 'has no keypoints'),
        (dict(categories=[]), 'has no keypoints'),
        (dict(annotations=[]), 'no annotation with a bbox'),
        (dict(images=[dict(id=1)]), 'not in COCO format'),
        (dict(images=None), 'not in COCO format'),
        (
            dict(
                images=[dict(id=1, file_name='no.png', width=1, height=1)],
                annotations=[dict(PERSON, id=1, image_id=1, keypoints=[9, 9, 2] * 17)],
            ),
            r'1 of 1 images .* no\.png',
        ),
        (
            dict(categories=[dict(id=1, name='bird', keypoints=['beak'])]),
            '51 numbers for the 1 keypoints',
        ),
        ('no json', 'not a JSON file'),
        ('[]', 'not in COCO format'),
    ],
)
def test_unfit_data_are_refused(changes, message, tmp_path):
    is_text = isinstance(changes, str)
    path = coco_file(tmp_path, **({} if is_text else changes))
    if is_text:
        path.write_text(changes)
    for ann, img, said in (
        (path, tmp_path, message),
        (path, tmp_path / 'images', 'no such folder'),
        (tmp_path / 'no.json', tmp_path, 'No such file'),
    ):
        with pytest.raises(UserError, match=said):
            own_data.read_own_data(ann, img, tmp_path / 'data')


# --- the course -----------------------------------------------------------------------


def test_only_what_a_demo_made_is_replaced(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    run.prepare_folder(out)
    (out / 'data').mkdir()
    (out / 'data' / 'train.json').write_text('old')
    (out / 'results.json').write_text('old')
    (out / 'notes.txt').write_text('mine')
    run.prepare_folder(out)
    assert {p.name for p in out.iterdir()} == {run.MARKER, 'notes.txt'}
    with pytest.raises(UserError, match='no demo made'):
        run.prepare_folder(tmp_path)


def call(code, tmp_path):
    """Run code as a script of the toolbox."""
    log, script = tmp_path / 'log', tmp_path / 'script.py'
    script.write_text(code)
    with ui.progress(Console(quiet=True)) as progress:
        seconds = scripts.run_script(progress, 'train', None, [script], log)
        return progress.tasks[0], seconds


def test_progress_is_read_from_the_toolbox_s_log(tmp_path):
    line = (
        '11/23 23:13:46 - mmengine - INFO - Iter(train) [ 10/40]  lr: 2.0e-04  '
        'eta: 0:01:52  time: 3.7  data_time: 0.09  loss: 0.0154  loss_kpt: 0.0154'
    )
    task, seconds = call(f'print({line!r})', tmp_path)
    assert (task.completed, task.total) == (10, 40)
    assert task.fields['note'].startswith('loss 0.0154')
    assert seconds > 0
    assert (tmp_path / 'log').read_text().strip() == line


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    code = 'print(*range(100), sep="\\n"); raise SystemExit(3)'
    with pytest.raises(UserError, match='status 3') as caught:
        call(code, tmp_path)
    first, *lines = str(caught.value).splitlines()
    assert str(tmp_path / 'log') in first
    assert lines == [str(i) for i in range(70, 100)]


@pytest.mark.skipif(os.name != 'posix', reason='signals are sent the POSIX way')
def test_an_interrupt_ends_the_script(tmp_path):
    code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'

    def interrupt():
        while not (tmp_path / 'log').is_file() or not (tmp_path / 'log').read_text():
            pass
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # What a shell starts in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            call(code, tmp_path)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    pid = int((tmp_path / 'log').read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--iters', '0'], '0 is not a positive number'),
        (['--iters', 'many'], 'invalid number value'),
        (['--images', '-3'], 'not a positive number'),
        (['--seed', '-1'], 'not between'),
        (['--codec', 'both!'], 'invalid choice'),
        (['--ann', 'a.json'], '--ann and --img go together'),
        (['--img', '.'], '--ann and --img go together'),
        (['--ann', 'a.json', '--img', '.', '--images', '9'], 'drawn figures'),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(['demo', *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_run_leaves_everything_as_it_was(tmp_path, capsys):
    out, inside = tmp_path / 'out', tmp_path / 'out' / 'mine'

    def refused(img, ann, message):
        arguments = ['--out', str(out), '--img', str(img), '--ann', str(ann)]
        with pytest.raises(SystemExit) as caught:
            main(['demo', *arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err

    refused(tmp_path, tmp_path / 'no.json', 'No such file')
    assert not out.exists()
    inside.mkdir(parents=True)
    refused(inside, coco_file(inside), 'lies in')
    assert (inside / 'ann.json').exists()


# --- the report -----------------------------------------------------------------------


def test_errors_are_measured_in_input_px(tmp_path):
    keypoints = np.arange(34, dtype=np.float32).reshape(1, 17, 2)
    visible = np.ones((1, 17), np.float32)
    visible[0, 0] = 0
    predicted = keypoints + np.float32([3, 4])
    sample = dict(
        img_path='a.bmp',
        input_size=(96, 128),
        input_center=np.array([50, 60], np.float32),
        # Two source px an input px: 95 intervals between 96 pixels.
        input_scale=np.array([190, 254], np.float32),
        gt_instances=dict(keypoints=keypoints, keypoints_visible=visible),
        pred_instances=dict(keypoints=predicted, keypoint_scores=visible),
    )
    (tmp_path / 'metrics.json').write_text('{"coco/AP": 0.5}')
    (tmp_path / 'predictions.pkl').write_bytes(pickle.dumps([sample]))
    result = measure_run(tmp_path)
    np.testing.assert_allclose(result.errors, [2.5] * 16, rtol=1e-6)
    assert result.metrics['ap'] == 50
    assert result.metrics['within_1_px'] == 0


@pytest.mark.parametrize(
    ('medians', 'says'),
    [
        ((1.6, 0.8, 1.0), '2.0 times as accurate with UDP'),
        ((1.0, 1.0, 1.2), 'no gain'),
        ((90, 70, 60), 'no gain'),
    ],
)
def test_the_conclusion_follows_the_figures(medians, says):
    runs = {
        name: Run([], np.array([]), dict(median_px=median))
        for name, median in zip(('stock', 'udp_offset', 'udp_gaussian'), medians)
    }
    # It is better than what is retrained only in the test.
    runs['kept'] = Run([], np.array([]), dict(median_px=0.62))
    assert says in Demo(None, None, 5, 0, runs, [], {}).conclusion


@pytest.mark.parametrize(
    ('data', 'codec'),
    [('drawn', 'gaussian'), pytest.param('coco', 'offset', marks=pytest.mark.slow)],
)
def test_the_whole(data, codec, request, tmp_path, capsys):
    out = tmp_path / 'out'
    options = ['--codec', codec, '--iters', '2']
    if data == 'drawn':
        options += ['--images', '6']
    else:
        folder = request.getfixturevalue('coco_mini')
        options += ['--ann', str(folder / 'test_coco.json'), '--img', str(folder)]
    status = main(['demo', '--out', str(out), *options])
    printed = capsys.readouterr().out
    assert status == 0, printed
    results = json.loads((out / 'results.json').read_text())
    assert list(results['runs']) == ['stock', 'kept', f'udp_{codec}']
    for name, metrics in results['runs'].items():
        assert (name if name != 'kept' else 'stock weights,') in printed
        assert np.isfinite([v for k, v in metrics.items() if k != 'codec']).all()
        if name == 'kept':
            # Tested with the stock weights, and not trained.
            assert not (out / name / 'train.log').exists()
            log = (out / name / 'test.log').read_text()
            assert 'keeps weights of MSRAHeatmap' in log
            assert str(out / 'stock' / 'iter_2.pth') in log
            continue
        assert 'Iter(train) [2/2]' in (out / name / 'train.log').read_text()
    for name in ('predictions.png', 'targets.png', 'errors.png'):
        assert cv2.imread(str(out / name)) is not None
        assert name in printed.replace('\n', '')
    assert results['conclusion'] in printed
    assert results['training']['iterations'] == 2
    assert results['command'].endswith(' '.join(options))
    assert results['versions']['mmpose']
    if data == 'drawn':
        assert results['data']['test_persons'] == 2
        assert results['data']['keypoints_measured'] == 34
    else:
        assert 'too few to split' in printed
        assert results['data']['test_persons'] == 12
