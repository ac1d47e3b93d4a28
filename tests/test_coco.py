"""COCO files and photographs that are not as they should be, in demo and audit."""

import json
import re
import time

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpose.evaluation.metrics import CocoMetric
from PIL import Image

from udp_plugin.audit.figures import draw
from udp_plugin.audit.parts import Parts
from udp_plugin.audit.people import annotated_people
from udp_plugin.audit.run import audit
from udp_plugin.convert.check import check
from udp_plugin.convert.zoo import find_config
from udp_plugin.demo.figures import KEYPOINTS
from udp_plugin.demo.own_data import read_own_data
from udp_plugin.errors import UserError

UDP = 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192'
pytestmark = pytest.mark.filterwarnings('ignore')


def read():
    return Config.fromfile(find_config(UDP))


@pytest.fixture(scope='module')
def parts():
    return Parts(read())


def content(count=3):
    """Three people in three photographs, as they should be."""
    points = np.c_[np.random.default_rng(0).uniform(5, 25, (17, 2)), [2] * 17]
    person = dict(category_id=1, bbox=[2, 3, 20, 30], keypoints=points.ravel().tolist())
    ids = range(1, count + 1)
    size = dict(width=30, height=40)
    skeleton = [[16, 14], [14, 12]]
    category = dict(id=1, name='person', keypoints=KEYPOINTS, skeleton=skeleton)
    made = dict(
        images=[dict(id=i, file_name=f'{i}.png', **size) for i in ids],
        annotations=[dict(id=10 + i, image_id=i, **person) for i in ids],
        categories=[category],
    )
    # Nothing of it shared.
    return json.loads(json.dumps(made))


def write(folder, made):
    for image in made.get('images', []):
        name = image.get('file_name')
        if isinstance(name, str) and not (folder / name).exists():
            cv2.imwrite(str(folder / name), np.zeros((40, 30, 3), np.uint8))
    path = folder / 'ann.json'
    path.write_text(json.dumps(made))
    return path


def both(parts, path, folder):
    """What the demo and the audit say of a file, or nothing."""
    said = []
    for use in (
        lambda: read_own_data(path, folder, folder / 'data'),
        lambda: annotated_people(parts, path, folder),
    ):
        try:
            use()
            said.append('')
        except UserError as error:
            said.append(str(error))
    return said


def of(kind, index=1, **values):
    """A change of one entry; None is no such key."""

    def change(made):
        for key, value in values.items():
            if value is ...:
                made[kind][index].pop(key)
            else:
                made[kind][index][key] = value

    return change


def with_coordinate(value):
    def change(made):
        made['annotations'][1]['keypoints'][4] = value

    return change


FAULTS = {
    'no id': (of('annotations', id=...), r'annotations\[1\]: it has no id'),
    'null id': (of('annotations', id=None), r'annotations\[1\]: id .* got null'),
    'text id': (of('annotations', id='12'), r'annotations\[1\]: id .* got "12"'),
    'same id': (
        of('annotations', id=11),
        r'annotation 11: annotations\[0\] and annotations\[1\]',
    ),
    'image without id': (of('images', id=...), r'images\[1\]: it has no id'),
    'text id of image': (of('images', id='2'), r'images\[1\]: id .* got "2"'),
    'same image': (of('images', id=1), r'image 1: images\[0\] and images\[1\]'),
    'no size': (of('images', width=...), 'image 2: it has no width'),
    'text size': (of('images', height='40'), 'image 2: height .* got "40"'),
    'no height at all': (of('images', height=0), 'image 2: height .* got 0'),
    'no file': (of('images', file_name=...), 'image 2: it has no file_name'),
    'file of null': (of('images', file_name=None), 'image 2: file_name .* got null'),
    'NaN': (with_coordinate(float('nan')), 'annotation 12: keypoints .* got NaN'),
    'null': (with_coordinate(None), 'annotation 12: keypoints .* got null'),
    'text': (with_coordinate('7'), 'annotation 12: keypoints .* got "7"'),
    'infinite': (with_coordinate(10**400), 'annotation 12: keypoints .* got 1000'),
    'nested': (with_coordinate([1, 2]), r'annotation 12: keypoints .* got \[1, 2\]'),
    'keypoints of null': (of('annotations', keypoints=None), '12: keypoints .* null'),
    'no keypoint': (of('annotations', keypoints=[]), '12: .* 0 numbers .* 17'),
    'a number less': (
        lambda made: made['annotations'][1]['keypoints'].pop(),
        'annotation 12: .* 50 numbers for the 17 keypoints',
    ),
    'a keypoint less': (
        lambda made: made['annotations'][1].update(keypoints=[5, 5, 2] * 16),
        'annotation 12: .* 48 numbers for the 17 keypoints',
    ),
    'box of two': (of('annotations', bbox=[3, 4]), r'12: bbox .* got \[3, 4\]'),
    'box of null': (of('annotations', bbox=None), '12: bbox .* got null'),
    'box of NaN': (
        of('annotations', bbox=[0, 0, float('nan'), 9]),
        'annotation 12: bbox .* NaN',
    ),
    'area of null': (of('annotations', area=None), '12: area .* got null'),
    'no image_id': (of('annotations', image_id=...), '12: it has no image_id'),
    'no such image': (of('annotations', image_id=9), '12: image_id 9 .* no image'),
    'text image_id': (of('annotations', image_id='2'), '12: image_id "2" .* no image'),
    'no category': (of('annotations', category_id=...), '12: it has no category_id'),
    'no such category': (
        of('annotations', category_id=7),
        'annotation 12: category_id 7 .* no category',
    ),
    'unnamed': (of('categories', 0, name=...), 'category 1: it has no name'),
    'twice': (
        of('categories', 0, keypoints=[*KEYPOINTS[:-1], 'nose']),
        "category 1: keypoints .* are both called 'nose'",
    ),
    'names of null': (
        of('categories', 0, keypoints=[*KEYPOINTS[:-1], None]),
        'category 1: keypoints .* got null',
    ),
    'one name': (of('categories', 0, keypoints='nose'), '1: keypoints .* got "nose"'),
    'from 0': (
        of('categories', 0, skeleton=[[1, 2], [0, 1]]),
        r'category 1: skeleton .* from 1 .* 17, got \[0, 1\].*counted from 0',
    ),
    'beyond': (
        of('categories', 0, skeleton=[[16, 18]]),
        r'category 1: skeleton .* 17, got \[16, 18\]$',
    ),
    'of names': (of('categories', 0, skeleton=[['nose', 'left_eye']]), '1: skeleton'),
    'sigmas': (of('categories', 0, sigmas=[0.05] * 16), '1: sigmas .* 17'),
    'zero sigmas': (of('categories', 0, sigmas=[0] * 17), '1: sigmas .* 17'),
    'a dict': (
        lambda made: made.update(annotations={'11': made['annotations'][0]}),
        'not in COCO format: .* annotations',
    ),
    'no object': (
        lambda made: made['annotations'].append(None),
        'not in COCO format: .* annotations',
    ),
    'no images': (lambda made: made.pop('images'), 'not in COCO format: .* images'),
}


@pytest.mark.parametrize(('change', 'message'), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_said_in_a_line(change, message, parts, tmp_path):
    made = content()
    change(made)
    path = write(tmp_path, made)
    for said in both(parts, path, tmp_path):
        assert re.search(message, said), said
        assert f'--ann {path}' in said
        assert len(said.splitlines()) == 1


def test_what_is_as_it_should_be_or_is_left_out_is_taken(parts, tmp_path):
    made = content(count=12)
    people = made['annotations']
    people[1]['iscrowd'] = 1
    del people[2]['bbox'], people[3]['keypoints']
    people[4].update(bbox=[5, 5, 0, 3], area=3.5)
    people[5].update(keypoints=[0] * 51, num_keypoints=0)
    people[6]['id'] = 17.0
    made['categories'][0]['skeleton'] = None
    made['categories'].append(dict(id=2, name='ball'))
    people.append(dict(id=99, image_id=1, category_id=2, bbox=[1, 1, 2, 2]))
    assert both(parts, write(tmp_path, made), tmp_path) == ['', '']


def test_names_may_be_the_config_s_alone(parts, tmp_path):
    """As in MMPose's own file of WFLW."""
    made = content()
    made['categories'][0].update(keypoints=[], skeleton=[])
    demo, audited = both(parts, write(tmp_path, made), tmp_path)
    assert 'has no keypoints' in demo
    assert not audited


def test_several_faults_are_listed_together(parts, tmp_path):
    made = content(count=14)
    for person in made['annotations']:
        person['bbox'] = None
    path = write(tmp_path, made)
    for said in both(parts, path, tmp_path):
        first, *lines, last = said.splitlines()
        assert f'--ann {path}' in first and '14' in first
        assert [line.split(':')[0].strip() for line in lines] == [
            f'annotation {i}' for i in range(11, 21)
        ]
        assert last.strip() == 'and 4 more'


def test_nested_too_deep_is_no_traceback(parts, tmp_path):
    path = tmp_path / 'deep.json'
    path.write_text('[' * 100_000 + ']' * 100_000)
    for said in both(parts, path, tmp_path):
        assert 'not a JSON file' in said and str(path) in said


def test_sigmas_of_a_category_are_the_demo_s(tmp_path):
    made = content()
    names = [f'k{i}' for i in range(17)]
    made['categories'][0].update(
        keypoints=names, sigmas=[0.01 * (i + 1) for i in range(17)]
    )
    data, files = read_own_data(write(tmp_path, made), tmp_path, tmp_path / 'data')
    assert '0.17' in files[data.metainfo]
    assert not data.notes or '0.05' not in data.notes[0]


# --- photographs ----------------------------------------------------------------------


def photograph(path, size, orientation=None):
    """Noise of a width and height, with an EXIF orientation."""
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(noise).save(path, exif=exif)


def loading(cfg, color_type):
    """The config with another way of loading photographs."""
    for name in ('train', 'val', 'test'):
        step = cfg[f'{name}_dataloader'].dataset.pipeline[0]
        assert step.type == 'LoadImage'
        step.color_type = color_type
    return cfg


@pytest.mark.parametrize('orientation', [None, 1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'bmp'])
@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
def test_sizes_are_those_that_the_toolbox_loads(
    suffix, orientation, color_type, parts, tmp_path
):
    """The independent statement is what OpenCV itself decodes, as MMPose has it do."""
    flag = dict(color=cv2.IMREAD_COLOR, unchanged=cv2.IMREAD_UNCHANGED)[color_type]
    if color_type == 'unchanged':
        parts = Parts(loading(read(), color_type))
    made = content(count=1)
    name = made['images'][0]['file_name'] = f'1.{suffix}'
    photograph(tmp_path / name, (30, 40), orientation)
    encoded = np.fromfile(tmp_path / name, np.uint8)
    height, width = cv2.imdecode(encoded, flag).shape[:2]
    made['images'][0].update(width=width, height=height)
    path = write(tmp_path, made)
    demo, audited = both(parts, path, tmp_path)
    assert not audited
    assert color_type != 'color' or not demo

    made['images'][0].update(width=height, height=width)
    demo, audited = both(parts, write(tmp_path, made), tmp_path)
    assert name in audited and f'{width}×{height}' in audited
    turned = orientation in (5, 6, 7, 8) and suffix in ('jpg', 'png', 'webp')
    assert (f'EXIF orientation {orientation}' in audited) == turned
    assert color_type != 'color' or demo == audited


def test_the_first_of_those_that_differ_is_named(parts, tmp_path):
    made = content(count=5)
    for i, size in ((3, (60, 80)), (4, (15, 20))):
        photograph(tmp_path / f'{i}.png', size)
    for said in both(parts, write(tmp_path, made), tmp_path):
        assert '2 of 5' in said and '3.png' in said and '4.png' not in said
        assert '60×80' in said and '30×40' in said and 'resized' in said
        assert str(tmp_path / 'ann.json') in said


def test_what_is_no_picture_is_named(parts, tmp_path):
    made = content()
    (tmp_path / '2.png').write_bytes(b'no picture')
    for said in both(parts, write(tmp_path, made), tmp_path):
        assert '2.png' in said and 'cannot be read' in said


def test_headers_are_enough(parts, tmp_path):
    """To decode this picture takes some 0.1 s."""
    photograph(tmp_path / 'large.jpg', (5000, 3000), 6)
    made = content(count=1000)
    for image in made['images']:
        image.update(file_name='large.jpg', width=3000, height=5000)
    path = write(tmp_path, made)
    started = time.perf_counter()
    read_own_data(path, tmp_path, tmp_path / 'data')
    assert time.perf_counter() - started < 5


# --- grey photographs -----------------------------------------------------------------


def grey():
    """The config with grey photographs, and one channel all the way."""
    cfg = loading(read(), 'grayscale')
    cfg.model.backbone.in_channels = 1
    cfg.model.data_preprocessor = dict(
        type='PoseDataPreprocessor', mean=[127.5], std=[60.0]
    )
    return cfg


def test_grey_photographs_are_checked():
    seen = check(grey())
    assert seen.inputs == (2, 1, 256, 192)
    assert seen.keypoints == (1, 17, 2)


def test_grey_photographs_are_audited(coco_mini, tmp_path):
    """Colours make no difference to where anything is."""
    ann = coco_mini / 'test_coco.json'
    found, colored = (audit(cfg, ann, coco_mini) for cfg in (grey(), read()))
    assert not found.findings
    assert found.ap == pytest.approx(colored.ap)
    np.testing.assert_allclose(found.end_to_end.input_px, colored.end_to_end.input_px)
    written = draw([found], tmp_path)
    assert written
    assert all(cv2.imread(str(path)) is not None for path in written)


# --- sigmas ---------------------------------------------------------------------------


def with_sigmas(sigmas):
    cfg = read()
    info = Config.fromfile(find_config(UDP).parents[3] / '_base_/datasets/coco.py')
    info = info.dataset_info.to_dict()
    info.pop('sigmas')
    if sigmas is not None:
        info['sigmas'] = sigmas
    for name in ('val', 'test'):
        cfg[f'{name}_dataloader'].dataset.metainfo = info
    return cfg


def coco_ap(sigmas, off=0.0):
    """What COCO's evaluation makes of a prediction that is so many px off."""
    points = np.random.default_rng(0).uniform(5, 25, (17, 2))
    ann = dict(
        id=1, image_id=1, category_id=1, iscrowd=0, area=600.0, bbox=[2, 3, 20, 30]
    )
    ann['keypoints'] = np.c_[points, [2] * 17].ravel().tolist()
    instances = dict(keypoints=points[None] + off, keypoint_scores=np.ones((1, 17)))
    result = dict(id=1, img_id=1, category_id=1, ori_shape=(40, 30), raw_ann_info=ann)
    result['pred_instances'] = dict(instances, bbox_scores=np.ones(1))
    result['gt_instances'] = dict(
        bboxes=np.array([[2, 3, 22, 33]]), bbox_scores=np.ones(1)
    )
    metric = CocoMetric()
    metric.dataset_meta = dict(
        dataset_name='one',
        num_keypoints=17,
        sigmas=np.asarray(sigmas, np.float32),
        CLASSES=[dict(id=1, name='person')],
    )
    metric.process({}, [result])
    return metric.evaluate(1)['coco/AP']


@pytest.mark.parametrize(
    ('sigmas', 'words'),
    [
        ([0.05] * 16, '16 .* 17 keypoints'),
        ([], '0 .* 17 keypoints'),
        ([0.05] * 16 + [0.0], r'sigmas\[16\] .* 0'),
        ([0.05, -0.05] + [0.05] * 15, r'sigmas\[1\] .* -0.05'),
        ([float('nan')] + [0.05] * 16, r'sigmas\[0\] .* nan'),
    ],
)
def test_sigmas_on_which_evaluation_fails_are_found(sigmas, words):
    found = audit(with_sigmas(sigmas))
    (finding,) = [one for one in found.findings if one.name == 'sigmas']
    assert finding.severity == 'error'
    assert re.search(words, finding.what), finding.what
    assert found.end_to_end is not None and np.isfinite(found.end_to_end.oks).all()


def test_what_evaluation_makes_of_sigmas():
    """The finding is right about what it says."""
    right = [0.05] * 17
    assert coco_ap(right, 1e-3) == pytest.approx(1)
    assert coco_ap(right, 100) == pytest.approx(0)
    for number in (0, 16, 18):
        with pytest.raises(ValueError):
            coco_ap([0.05] * number)
    assert coco_ap([0.0, *right[1:]], 1e-3) < 0.95
    assert coco_ap([float('nan'), *right[1:]], 100) == pytest.approx(1)


def test_sigmas_that_are_right_or_unused_are_no_finding():
    assert not audit(with_sigmas([0.05] * 17)).findings
    cfg = with_sigmas([0.0] * 17)
    for name in ('val', 'test'):
        cfg[f'{name}_evaluator'] = dict(type='PCKAccuracy')
    assert 'sigmas' not in [one.name for one in audit(cfg).findings]


def test_missing_sigmas_are_named():
    (finding,) = audit(with_sigmas(None)).findings
    assert 'sigmas' in finding.what and 'metainfo' in finding.what
