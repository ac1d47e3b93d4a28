"""Exported models run without torch: crops, mapping back, errors, drawing, command.

The networks here are small ONNX graphs whose answer is known without any of this
package: a keypoint is the centroid of the light in one channel of the crop. Blobs of
light drawn at known places of a photograph have to come back as keypoints there.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import mmcv
import numpy as np
import onnx
import onnx.parser
import pytest
from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine

from udp_plugin import cli
from udp_plugin.datasets import TopDownAffineUDP
from udp_plugin.runtime import PoseModel, draw, run
from udp_plugin.runtime.session import METADATA

INPUT = (192, 256)
#: What a model says that keeps weights of the biased measure.
BIASED = dict(measure='pixels', warp='TopdownAffine')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def metadata(**changes):
    """What `udp-plugin export` writes of a model."""
    told = dict(
        made_by='udp_plugin',
        version='1.0',
        config='td-hm_centroid',
        input_size=INPUT,
        heatmap_size=(48, 64),
        codec=dict(type='UDPGaussianHeatmap', sigma=2),
        keypoint_names=['nose', 'left_eye', 'right_eye'],
        flip_pairs=[[1, 2]],
        skeleton=[[0, 1], [0, 2]],
        padding=1.25,
        color='BGR',
        normalized=False,
        mean=MEAN,
        std=STD,
        flip_test=False,
        measure='unit length',
        warp='TopDownAffineUDP',
    )
    return {**told, **changes}


def as_json(told):
    return {key: json.dumps(one) for key, one in told.items()}


def said(**changes):
    return as_json(metadata(**changes))


def save(file, text, entries):
    """A model in ONNX's own notation, as a file."""
    made = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]>' + text)
    onnx.helper.set_model_props(made, dict(entries))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, str(file))
    return file


def numbers(values):
    return '{' + ', '.join(map(str, values)) + '}'


CENTROIDS = """
    centroids ({kind}[{batch}, {c}, {h}, {w}] crops{inputs}) =>
        (float[{batch}, {c}, 2] keypoints, float[{batch}, {c}] scores{outputs})
    <float[{c}, 1, 1] std = {std}, float[{c}, 1, 1] mean = {mean},
    float[{w}] x = {x}, float[{h}] y = {y}, int64[2] sides = {{2, 3}},
    int64[1] two = {{2}}, {constants}> {{
        colors = Cast<to = 1>(crops)
        scaled = Mul(colors, std)
        light = Add(scaled, mean)
        total = ReduceSum<keepdims = 0>(light, sides)
        sum_x = Einsum<equation = "bkhw,w->bk">(light, x)
        sum_y = Einsum<equation = "bkhw,h->bk">(light, y)
        mean_x = Div(sum_x, total)
        mean_y = Div(sum_y, total)
        row_x = Unsqueeze(mean_x, two)
        row_y = Unsqueeze(mean_y, two)
        keypoints = Concat<axis = 2>(row_x, row_y)
        {rest}
    }}"""
BRIGHTEST = dict(
    inputs='',
    outputs='',
    constants='float[1] white = {255}',
    rest="""
        most = ReduceMax<axes = [2, 3], keepdims = 0>(light)
        scores = Div(most, white)""",
)
GIVEN_BOXES = dict(
    inputs=', float[B, 2] centers, float[B, 2] scales, float[B] rotations',
    outputs=', float[B, 3, 2] source_keypoints',
    constants='int64[1] zero = {0}, int64[1] one = {1}',
    rest="""
        x_of_center = Gather<axis = 1>(centers, zero)
        width = Gather<axis = 1>(scales, zero)
        degrees = Unsqueeze(rotations, one)
        scores = Concat<axis = 1>(x_of_center, width, degrees)
        source_keypoints = Identity(keypoints)""",
)


def centroid_model(file, batch='B', boxes=False, entries=(), **changes):
    """A model whose keypoints are the centroids of a crop's channels.

    With ``boxes``, its scores are the first coordinate of the centre, that of the
    scale, and the rotation, which shows what it was given. ``entries`` are metadata as
    they are, instead of its own with ``changes``.
    """
    told = metadata(**changes)
    w, h = told['input_size']
    c = len(told['keypoint_names'])
    values = dict(x=range(w), y=range(h), std=[1] * c, mean=[0] * c)
    if told['normalized']:
        values.update(std=told['std'], mean=told['mean'])
    text = CENTROIDS.format(
        kind='float' if told['normalized'] else 'uint8',
        **dict(batch=batch, c=c, w=w, h=h, **(GIVEN_BOXES if boxes else BRIGHTEST)),
        **{name: numbers(each) for name, each in values.items()},
    )
    return save(file, text, entries or as_json(told))


def photograph(places, size=(480, 360), sigma=7.0):
    """Black, with a blob of light in each channel, at places (3, 2) in source px."""
    y, x = np.mgrid[: size[1], : size[0]]
    away = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2
    blobs = 255 * np.exp(-away / (2 * sigma**2))
    return np.ascontiguousarray(blobs.round().astype(np.uint8).transpose(1, 2, 0))


def anywhere(rng, people=20):
    """Places of blobs, and boxes with all of them in, some of which reach out."""
    places = rng.uniform((190, 130), (290, 230), (3, 2))
    first = rng.uniform((-100, -100), (130, 70), (people, 2))
    last = rng.uniform((350, 290), (560, 460), (people, 2))
    return places, np.concatenate((first, last), axis=1)


@pytest.fixture
def model(tmp_path):
    return PoseModel(centroid_model(tmp_path / 'model.onnx'))


def farthest(found, places):
    return np.abs(found.keypoints - places).max()


@pytest.mark.parametrize('changes', [{}, BIASED], ids=['unbiased', 'biased'])
@pytest.mark.parametrize('seed', range(4))
def test_blobs_of_light_are_found_where_they_were_drawn(tmp_path, seed, changes):
    model = PoseModel(centroid_model(tmp_path / 'model.onnx', **changes))
    rng = np.random.default_rng(seed)
    places, boxes = anywhere(rng)
    image = photograph(places)
    found = model(image, boxes)
    assert found.keypoints.dtype == np.float64
    assert found.keypoints.shape == (20, 3, 2) and found.scores.shape == (20, 3)
    assert farthest(found, places) < 0.05
    assert ((found.scores > 0.9) & (found.scores <= 1)).all()
    turned = model(image, boxes, rotations=rng.uniform(-180, 180, 20))
    assert farthest(turned, places) < 0.05


def test_without_boxes_it_is_one_person_who_fills_the_photograph(model):
    places, _ = anywhere(np.random.default_rng(0))
    image = photograph(places)
    found = model(image)
    assert farthest(found, places) < 0.05
    whole = model(image, [[0, 0, 480, 360]])
    np.testing.assert_array_equal(found.keypoints, whole.keypoints)
    for boxes in ([], np.zeros((0, 4))):
        keypoints, scores = model(image, boxes)
        assert keypoints.shape == (0, 3, 2) and scores.shape == (0, 3)


@pytest.mark.parametrize('people', [1, 31, 32, 33, 70])
def test_one_crop_at_a_time_or_several(model, tmp_path, people):
    places, boxes = anywhere(np.random.default_rng(0), people)
    image = photograph(places)
    several = model(image, boxes)
    assert farthest(several, places) < 0.05
    one = PoseModel(centroid_model(tmp_path / 'one.onnx', batch=1))(image, boxes)
    np.testing.assert_allclose(one.keypoints, several.keypoints, atol=1e-3)
    np.testing.assert_allclose(one.scores, several.scores)


def test_every_person_has_its_own_answer(model):
    places, boxes = anywhere(np.random.default_rng(0), 40)
    # Every other box shows another blob.
    other = photograph(places)
    other[:90, :90] = 0
    cv2.circle(other, (40, 45), 10, (0, 255, 0), -1)
    boxes[::2] = (25, 30, 55, 60)
    keypoints, _ = model(other, boxes)
    np.testing.assert_allclose(keypoints[::2, 1], [[40.0, 45.0]] * 20, atol=0.1)


@pytest.mark.parametrize('batch', [1, '?'])
@pytest.mark.parametrize('changes', [dict(), dict(normalized=True)], ids=str)
@pytest.mark.parametrize('color', ['BGR', 'RGB'])
def test_colors_and_normalised_crops(tmp_path, batch, changes, color):
    places, boxes = anywhere(np.random.default_rng(0), 3)
    file = centroid_model(tmp_path / 'a.onnx', batch=batch, color=color, **changes)
    keypoints, scores = PoseModel(file)(photograph(places), boxes)
    # The channels of the photograph are BGR.
    if color == 'RGB':
        keypoints = keypoints[:, ::-1]
    np.testing.assert_allclose(keypoints, [places] * 3, atol=0.05)
    assert ((scores > 0.9) & (scores < 1.001)).all()


@pytest.mark.parametrize('normalized', [False, True])
def test_models_of_grey_photographs_take_one_channel(tmp_path, normalized):
    changes = dict(keypoint_names=['light'], flip_pairs=[], skeleton=[])
    grey = dict(color='GRAY', normalized=normalized, mean=[127.5], std=[60.0])
    model = PoseModel(centroid_model(tmp_path / 'a.onnx', **grey, **changes))
    place, boxes = np.array([[240.0, 180.0]]), np.array([[150.0, 90.0, 330.0, 260.0]])
    image = photograph(np.repeat(place, 3, axis=0))
    image[..., 1] //= 2
    keypoints, scores = model(image, boxes)
    np.testing.assert_allclose(keypoints, place[None], atol=0.05)
    # Of red, green and blue as everywhere: 0.299, 0.587 and 0.114.
    np.testing.assert_allclose(scores, 0.299 + 0.587 / 2 + 0.114, atol=0.02)
    crops = model.crop(image, model.regions(boxes))
    assert crops.shape == (1, 1, 256, 192)
    if not normalized:
        results = dict(img=mmcv.bgr2gray(image), bbox=boxes)
        results = GetBBoxCenterScale().transform(results)
        expected = TopDownAffineUDP(INPUT).transform(results)['img']
        np.testing.assert_array_equal(crops[0, 0], expected)
    # And are drawn in color.
    assert draw(image, keypoints, scores, model.skeleton).shape == image.shape


def test_models_that_take_boxes_are_given_them(tmp_path):
    model = PoseModel(centroid_model(tmp_path / 'boxes.onnx', boxes=True))
    places, boxes = anywhere(np.random.default_rng(0), 40)
    degrees = np.linspace(-30, 30, 40)
    found = model(photograph(places), boxes, degrees)
    assert farthest(found, places) < 0.05
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    width, height = 1.25 * (boxes[:, 2:] - boxes[:, :2]).T
    seen = np.maximum(width, height * 192 / 256)
    np.testing.assert_allclose(found.scores, np.stack((x, seen, degrees), 1), rtol=1e-6)


def test_the_answer_is_in_double_precision(model):
    """Far out in a photograph, single precision is a multiple of 0.002 px."""
    boxes = np.array([[60.0, 20, 80, 40], [29060, 20, 29080, 40]])
    found = np.random.default_rng(0).uniform(0, 60, (1, 3, 2)).repeat(2, axis=0)
    near, far = model.to_source(found.astype(np.float32), model.regions(boxes))
    np.testing.assert_allclose(far - near, np.tile([29000, 0], (3, 1)), atol=1e-9)

    keypoints = []
    for left in (0, 29000):
        image = np.zeros((60, 30000, 3), np.uint8)
        image[30, left + 70 : left + 73] = [[255, 1, 60], [100, 77, 30], [10, 90, 0]]
        keypoints.append(model(image, [[left + 60, 20, left + 80, 40]]).keypoints)
    near, far = keypoints
    # OpenCV 5 computes in single precision where to read the photograph, which moves a
    # pixel of the crop by up to 0.001 px; 4 reads at multiples of 1/32 px of it.
    exact = 1e-6 if cv2.__version__ < '5' else 1e-4
    np.testing.assert_allclose(far - near, np.tile([29000, 0], (1, 3, 1)), atol=exact)


def test_the_model_says_what_it_is(model):
    assert as_json({key: getattr(model, key) for key in METADATA}) == said()


def test_files_of_earlier_versions_do_not_say_what_crops(tmp_path):
    earlier = centroid_model(tmp_path / 'model.onnx', entries=without('warp'))
    assert PoseModel(earlier).warp == 'TopDownAffineUDP'


@pytest.mark.parametrize(
    ('warp', 'changes'),
    [
        (TopDownAffineUDP(INPUT), {}),
        (TopdownAffine(INPUT), BIASED),
        (TopdownAffine(INPUT, use_udp=True), dict(warp='TopdownAffine')),
    ],
    ids=['unbiased', 'biased', 'stock UDP'],
)
@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_crops_are_those_of_the_test_pipeline(
    tmp_path, coco_mini, dtype, warp, changes
):
    """Of boxes in double precision, to the last pixel.

    The data sets' boxes are in single precision, and so is what MMPose makes of them.
    That moves a crop by some 1e-5 px, and OpenCV reads at multiples of 1/32 px: few
    pixels fall on the other side of the border between two of these.
    """
    model = PoseModel(centroid_model(tmp_path / 'model.onnx', **changes))
    annotations = json.loads((coco_mini / 'test_coco.json').read_text())
    people = [one for one in annotations['annotations'] if one['bbox'][2] > 0]
    names = {one['id']: one['file_name'] for one in annotations['images']}
    differing = total = 0
    for person in people:
        image = cv2.imread(str(coco_mini / names[person['image_id']]))
        x, y, w, h = person['bbox']
        boxes = np.array([[x, y, x + w, y + h]], dtype=dtype)
        results = GetBBoxCenterScale().transform(dict(img=image, bbox=boxes))
        expected = warp.transform(results)['img']
        (crop,) = model.crop(image, model.regions(boxes))
        away = np.abs(crop.transpose(1, 2, 0).astype(int) - expected)
        differing, total = differing + (away > 0).sum(), total + away.size
        # A pixel's step of 1/32 px is at most 255 / 32 levels an axis.
        assert away.max() <= 2 * 255 / 32 + 1
    assert len(people) > 5
    assert differing == 0 if dtype == np.float64 else differing < 0.01 * total


# What is not as it should be.

GOOD = np.zeros((30, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (None, 'cannot read'),
        ('photograph.jpg', 'got str'),
        (GOOD[..., 0], r'shape \(30, 40\); a grey one .*COLOR_GRAY2BGR'),
        (GOOD[..., :1], r'shape \(30, 40, 1\); a grey one'),
        (np.zeros((30, 40, 4), np.uint8), 'COLOR_BGRA2BGR'),
        (GOOD / 255, r'shape \(30, 40, 3\), float64'),
        (GOOD.transpose(2, 0, 1), r'shape \(3, 30, 40\)'),
        (GOOD[None], r'shape \(1, 30, 40, 3\)'),
        (GOOD[:0], 'sides of 1 to 32766'),
        (np.zeros((2, 32767, 3), np.uint8), 'sides of 1 to 32766'),
    ],
)
def test_no_photograph(model, image, message):
    with pytest.raises(ValueError, match=f'^image must .*{message}'):
        model(image, [[0, 0, 10, 10]])
    with pytest.raises(ValueError, match=f'^image must .*{message}'):
        draw(image, np.zeros((1, 3, 2)), np.zeros((1, 3)), [])
    for size in ((2, 32766), (1, 1)):
        model(np.zeros((*size, 3), np.uint8))


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        ([[0, 0, 9, 9], [5, 5, 5, 9]], r'boxes\[1\] must .*\[5.0, 5.0, 5.0, 9.0\]'),
        ([[0, 0, 9, 9], [1, 5, 5, 2]], r'boxes\[1\] must .*not left, top, width'),
        ([[0, NAN, 9, 9]], r'boxes\[0\] must be finite'),
        ([[0, 0, INF, 9]], r'boxes\[0\] must be finite'),
        ([0, 0, 9, 9], r'shape \(N, 4\).*got shape \(4,\)'),
        ([[0, 0, 9, 9, 0.9]], r'got shape \(1, 5\)'),
        ([[[0, 0, 9, 9]]], r'got shape \(1, 1, 4\)'),
        (np.zeros((0, 5)), r'got shape \(0, 5\)'),
        ([[0, 0, 9], [1, 1, 3, 4]], 'must be an array of numbers'),
        ('0,0,9,9', 'must be an array of numbers'),
        ({}, 'must be an array of numbers'),
        ([[0, 0, 9, 9], [-1e300, 0, 1e300, 9]], r'boxes\[1\] must be in source px'),
    ],
)
def test_no_boxes_that_can_be_cropped(model, boxes, message):
    with pytest.raises(ValueError, match=f'^boxes.*{message}|^{message}'):
        model(GOOD, boxes)


@pytest.mark.parametrize('rotations', [[0, 0], [NAN], 30, [[0]], ['right']])
def test_no_rotations(model, rotations):
    with pytest.raises(ValueError, match='^rotations must be'):
        model(GOOD, [[0, 0, 9, 9]], rotations)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.onnx is no file'):
        PoseModel(tmp_path / 'nothing.onnx')
    with pytest.raises(FileNotFoundError, match='is no file'):
        PoseModel(tmp_path)
    for content in (b'', b'# not a model\n', bytes(range(256))):
        (tmp_path / 'model.onnx').write_bytes(content)
        with pytest.raises(ValueError, match='model must be an ONNX file'):
            PoseModel(tmp_path / 'model.onnx')


def without(key):
    return {name: one for name, one in said().items() if name != key}


OURS = r'must be a file that `udp-plugin export`'


@pytest.mark.parametrize(
    ('entries', 'made', 'message'),
    [
        # Somebody else's.
        ({'producer': 'somebody'}, {}, OURS),
        ({'made_by': '"somebody"'}, {}, OURS),
        ({'made_by': 'udp_plugin'}, {}, OURS),
        ({'made_by': '["udp_plugin"]'}, {}, OURS),
        # What lacks something.
        *[
            (without(key), {}, f'lacks the metadata {key}; export it again')
            for key in METADATA[1:]
            if key != 'warp'
        ],
        # What does not fit the model.
        (said(measure='cells'), {}, 'be "unit length" or "pixels", got "cells"'),
        (said(measure='pixels'), {}, 'be unit length, since .* TopDownAffineUDP'),
        (said(input_size=(96, 128)), {}, r'crops uint8 \(B, 3, 128, 96\).*, got'),
        (said(keypoint_names=['nose']), {}, r'keypoints float \(B, 1, 2\).*, got'),
        (said(normalized=True), {}, 'inputs crops float .*, got crops uint8'),
        (said(), dict(normalized=True), 'inputs crops uint8 .*, got crops float'),
        (said(), dict(batch=4), 'one crop at a time or any number, got 4'),
    ],
)
def test_metadata_that_are_not_the_model_s(tmp_path, entries, made, message):
    file = centroid_model(tmp_path / 'model.onnx', entries=entries, **made)
    with pytest.raises(ValueError, match=message):
        PoseModel(file)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('float[1, 3, 256, 192] input', r'inputs crops uint8 .*, got input float'),
        ('uint8[1, 3, 256, 192] crops', r'outputs keypoints float .*, got maps'),
    ],
)
def test_other_inputs_and_outputs(tmp_path, given, message):
    kind, name = given.rsplit(' ', 1)
    text = f'model ({given}) => ({kind} maps) {{ maps = Identity({name}) }}'
    with pytest.raises(ValueError, match=message):
        PoseModel(save(tmp_path / 'a.onnx', text, said()))


class Wrong(str):
    """A value of metadata that is no JSON."""


@pytest.mark.parametrize(
    ('key', 'values'),
    [
        ('version', [1, None, 'x' * 5000, '\x1b[2J']),
        ('config', [None, ['a'], '\x1b]0;title\x07', 'two\nlines', 'caf\ud800']),
        ('codec', [None, 'UDPGaussianHeatmap', {}, dict(type='\x1b[31m')]),
        ('input_size', [None, 192, [192], [192.0, 256], [192, 256, 3], [0, 256]]),
        ('input_size', [[True, 256], [-192, 256], ['192', 256], [10**6, 10**6]]),
        ('heatmap_size', [None, [48.5, 64], [48, 10**400]]),
        ('keypoint_names', [None, [], 'abc', [1, 2, 3], ['a', 'b', None], ['', 'b']]),
        ('keypoint_names', [['\x1b[2J', 'b', 'c'], ['a\nb', 'b', 'c'], {'a': 1}]),
        ('flip_pairs', [None, [[1]], [[1, 2, 0]], [[1, 3]], [[-1, 2]], [['1', 2]]]),
        ('skeleton', [None, 5, [[0, 3]], [[0, 1.0]], [[0, True]], [[0, -1]]]),
        ('padding', [None, '1.25', 1e300, 0, -1.25, True, Wrong('NaN'), [1.25]]),
        ('padding', [Wrong('1e999'), Wrong('1' * 400)]),
        ('color', ['GBR', 'bgr', None, 1, ['BGR']]),
        ('normalized', [None, 'yes', 0, 1.0]),
        ('flip_test', [None, 'no', 1]),
        ('mean', [None, 1.0, [1, 2], [1, 2, 3, 4], [1, 2, '3'], Wrong('[1, 2, NaN]')]),
        ('std', [[1, 2, 0], [1, 2, -3], [1, 2, 1e300], Wrong('[1, 2, Infinity]')]),
        ('measure', [None, 1, ['unit length'], 'pixels', 'unit', '\x1b[2J']),
        ('warp', [None, 1, ['TopdownAffine'], 'topdownaffine', {}]),
        ('mean', [Wrong('[' * 10**5)]),
    ],
)
def test_metadata_are_data_from_outside(tmp_path, capfd, key, values):
    cv2.imwrite(str(tmp_path / 'photo.png'), GOOD)
    for value in values:
        entry = value if isinstance(value, Wrong) else json.dumps(value)
        centroid_model(tmp_path / 'model.onnx', entries={**said(), key: entry})
        assert infer(tmp_path) == 2
        printed = capfd.readouterr()
        assert printed.out == '', (key, value)
        assert printed.err.startswith('error: ') and printed.err.count('\n') == 1
        assert key in printed.err and '\x1b' not in printed.err, (key, value)
        assert len(printed.err) < 500


def test_what_a_model_says_as_it_runs(tmp_path, capfd):
    """Errors of the session, memory too, and answers of another shape or not finite."""
    cv2.imwrite(str(tmp_path / 'photo.png'), GOOD)
    cases = [
        # More than any machine has.
        (
            'int64[4] vast = {1099511627776, 1024, 3, 1}, float[1] white = {255}',
            'all = Expand(total, vast)\n sum = ReduceSum<keepdims = 0>(all)\n'
            'scores = Mul(total, sum)',
            'model.onnx fails on 1 crop',
        ),
        # Fails on what it is given.
        (
            'int64[2] five = {5, 7}',
            'scores = Reshape(total, five)',
            'model.onnx fails on 1 crop',
        ),
        (
            'float[1] nothing = {0}, int64[2] axes = {2, 3}',
            'dark = Mul(total, nothing)\n scores = Div(dark, nothing)',
            '',
        ),
    ]
    for constants, rest, message in cases:
        given = dict(inputs='', outputs='', constants=constants, rest=rest)
        text = CENTROIDS.format(
            kind='uint8',
            **dict(batch='B', c=3, w=192, h=256, **given),
            **dict(x=numbers(range(192)), y=numbers(range(256))),
            **dict(std=numbers([1] * 3), mean=numbers([0] * 3)),
        )
        made = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]>' + text)
        onnx.helper.set_model_props(made, said())
        onnx.save(made, str(tmp_path / 'model.onnx'))
        status = infer(tmp_path, '--json', '-')
        printed = capfd.readouterr()
        if message:
            assert status == 2 and printed.out == ''
            assert message in printed.err and printed.err.count('\n') == 1
        else:
            # What is not finite is null: NaN is no JSON.
            assert status == 0
            (person,) = json.loads(printed.out, parse_constant=pytest.fail)['people']
            assert person['scores'] == [None] * 3
            assert np.shape(person['keypoints']) == (3, 2)


def test_answers_of_another_shape(tmp_path):
    """Axes whose lengths are not fixed can be anything as the model runs."""
    text = """
        model (uint8[B, 3, 256, 192] crops) => (float[B, K, L] keypoints,
        float[B, K] scores) <int64[3] pairs = {1, -1, 2}> {
            lit = NonZero(crops)
            rows = Transpose(lit)
            scores = Cast<to = 1>(rows)
            keypoints = Reshape(scores, pairs)
        }"""
    entries = said(keypoint_names=['nose', 'left_eye', 'right_eye', 'chin'])
    model = PoseModel(save(tmp_path / 'model.onnx', text, entries))
    with pytest.raises(ValueError, match=r'keypoints .*\(1, 4, 2\), got .*\(1, 0, 2\)'):
        model(GOOD)


# Weights in a file of their own.

BESIDE = 'model.onnx.data'


def with_weights(folder, location, how='initializer', name='model.onnx', told=None):
    """A model that adds a number from another file to its keypoints."""
    made = onnx.load(str(centroid_model(folder / name)))
    secret = onnx.TensorProto(name='secret', data_type=1, dims=[2], data_location=1)
    for key, value in dict(location=location, offset='0', length='8').items():
        secret.external_data.add(key=key, value=value)
    (last,) = [n for n in made.graph.node if n.output[0] == 'keypoints']
    last.output[0] = 'centroid'
    value = onnx.helper.make_node('Constant', [], ['secret'], value=secret)
    add = onnx.helper.make_node('Add', ['centroid', 'secret'], ['keypoints'])
    if how == 'initializer':
        made.graph.initializer.append(secret)
        made.graph.node.append(add)
    elif how == 'node':
        made.graph.node.extend([value, add])
    elif how == 'branch':
        shape = onnx.helper.make_tensor_value_info('moved', 1, None)
        move = onnx.helper.make_node('Add', ['centroid', 'secret'], ['moved'])
        weighted = onnx.helper.make_graph([move], 'yes', [], [shape], [secret])
        always = onnx.numpy_helper.from_array(np.array(True), 'always')
        made.graph.initializer.append(always)
        branches = dict(then_branch=weighted, else_branch=weighted)
        made.graph.node.append(
            onnx.helper.make_node('If', ['always'], ['keypoints'], **branches)
        )
    else:
        opsets = [onnx.helper.make_opsetid('', 13)]
        plus = onnx.helper.make_node('Add', ['a', 'secret'], ['b'])
        made.functions.append(
            onnx.helper.make_function(
                'own', 'Plus', ['a'], ['b'], [value, plus], opsets
            )
        )
        made.opset_import.append(onnx.helper.make_opsetid('own', 1))
        made.graph.node.append(
            onnx.helper.make_node('Plus', ['centroid'], ['keypoints'], domain='own')
        )
    onnx.helper.set_model_props(made, as_json(dict(metadata(), **(told or {}))))
    (folder / name).write_bytes(made.SerializeToString())
    return folder / name


IDENTITY = '0123456789abcdef' * 2
SECRET = np.array([1000, 2000], np.float32).tobytes()


@pytest.mark.parametrize('how', ['initializer', 'node', 'branch', 'function'])
def test_weights_are_only_read_beside_the_model(tmp_path, how):
    folder = tmp_path / 'models' / 'own'
    folder.mkdir(parents=True)
    for place in (tmp_path / 'secret.bin', folder / 'secret.bin', folder / BESIDE):
        place.write_bytes(SECRET + IDENTITY.encode())
    (folder / 'link').symlink_to(tmp_path / 'secret.bin')
    absolute = str(tmp_path / 'secret.bin')
    for location in (
        *('../../secret.bin', absolute, 'secret.bin', 'link', f'./{BESIDE}', ''),
        *(f'own/../{BESIDE}', '*/_ORT_MEM_ADDR_/*'),
    ):
        path = with_weights(folder, location, how, told=dict(weights=IDENTITY))
        with pytest.raises(
            ValueError, match=f'only {BESIDE} beside it is read'
        ) as said:
            PoseModel(path)
        assert '\n' not in str(said.value)
    path = with_weights(folder, BESIDE, how, told=dict(weights=IDENTITY))
    if how == 'initializer':
        assert (PoseModel(path)(GOOD + 255).keypoints > 100).all()
    # A link in its place.
    (folder / BESIDE).unlink()
    with pytest.raises(ValueError, match=f'{BESIDE}.* is missing'):
        PoseModel(path)
    (folder / BESIDE).symlink_to(tmp_path / 'secret.bin')
    with pytest.raises(ValueError, match=f'{BESIDE}.* is a link'):
        PoseModel(path)


def test_weights_of_another_export(tmp_path):
    """As an interrupted export leaves them, or a copy of one of two files."""
    path = with_weights(tmp_path, BESIDE, told=dict(weights=IDENTITY))
    for content in (SECRET, SECRET + b'f' * 32, SECRET + IDENTITY.encode() + b'0', b''):
        (tmp_path / BESIDE).write_bytes(content)
        with pytest.raises(ValueError, match=f'{BESIDE} .*of another export'):
            PoseModel(path)
    (tmp_path / BESIDE).write_bytes(SECRET + IDENTITY.encode())
    assert PoseModel(path)(GOOD).keypoints.shape == (1, 3, 2)
    # A link to the model finds what is beside the model.
    (tmp_path / 'elsewhere').mkdir()
    link = tmp_path / 'elsewhere' / 'latest.onnx'
    link.symlink_to(path)
    assert PoseModel(link)(GOOD).keypoints.shape == (1, 3, 2)
    # Written before weights had a name.
    path = with_weights(tmp_path, BESIDE)
    with pytest.raises(ValueError, match='of another export'):
        PoseModel(path)


@pytest.mark.parametrize(
    'content',
    [b'\x3a\x05\x00', b'\x3a\xff\xff\xff\xff\x0f', b'\x3b\x3c', b'\x08', b'\x80' * 9],
)
def test_files_that_break_off(tmp_path, content):
    whole = centroid_model(tmp_path / 'model.onnx').read_bytes()
    (tmp_path / 'model.onnx').write_bytes(whole + content)
    with pytest.raises(ValueError, match='model must be an ONNX file'):
        PoseModel(tmp_path / 'model.onnx')


# Drawing.

GREY = np.full((200, 300, 3), 128, np.uint8)
PERSON = np.array([[[60.25, 50.5], [150.75, 60.25], [240.5, 150.75]]])
SURE = np.ones((1, 3))


def test_keypoints_and_lines_are_drawn_and_nothing_else():
    image = GREY.copy()
    drawn = draw(image, PERSON, SURE, [(0, 1)])
    assert (image == GREY).all() and drawn is not image
    changed = (drawn != GREY).any(-1)
    for x, y in PERSON[0]:
        assert changed[round(y), round(x)]
    assert changed[55, 105] and not changed[105, 195]
    y, x = np.nonzero(changed)
    off = np.stack((x, y), 1)[:, None] - PERSON[0]
    to_point = np.linalg.norm(off, axis=-1).min(1)
    along = PERSON[0, 1] - PERSON[0, 0]
    to_line = np.abs(off[:, 0] @ (along[1], -along[0])) / np.linalg.norm(along)
    between = (x > PERSON[0, 0, 0]) & (x < PERSON[0, 1, 0])
    assert ((to_point < 13) | (between & (to_line < 5))).all()


def test_a_keypoint_is_drawn_to_a_fraction_of_a_pixel():
    for x, y in np.random.default_rng(0).uniform(80, 120, (20, 2)):
        # Another one, which gives the person a size.
        drawn = draw(GREY, [[[x, y], [x + 140, y]]], [[1.0, 1.0]], [])[:, :170]
        light = np.abs(drawn.astype(float) - 128).sum(-1)
        v, u = np.mgrid[:200, :170]
        centroid = [(light * u).sum() / light.sum(), (light * v).sum() / light.sum()]
        np.testing.assert_allclose(centroid, (x, y), atol=0.1)


def test_what_is_unsure_or_nowhere_is_left_out():
    lines = [(0, 1), (1, 2), (0, 2)]
    unsure = draw(GREY, PERSON, [[1.0, 0.29, 1.0]], lines)
    assert (unsure[60, 151] == 128).all() and (unsure[50, 60] != 128).any()
    assert (draw(GREY, PERSON, [[1.0, 0.3, 1.0]], lines)[60, 151] != 128).any()
    assert (draw(GREY, PERSON, 0 * SURE, lines) == GREY).all()
    assert (draw(GREY, PERSON, 0.1 * SURE, lines, threshold=0.1) != GREY).any()
    for nowhere in (NAN, INF, -INF, 1e30, -1e9):
        points = PERSON.copy()
        points[0, 1, 0] = nowhere
        assert (draw(GREY, points, SURE, lines) == unsure).all()
    assert (draw(GREY, PERSON, NAN * SURE, lines) == GREY).all()


def test_people_have_their_sizes_and_colors():
    def area(factor):
        return (draw(GREY, PERSON * factor, SURE, []) != GREY).any(-1).sum()

    assert 2.5 < area(1.0) / area(0.5) < 6
    # Those without an annotation, say, have no say in it.
    for unsure in (PERSON[0, 2] + 0.01, (0.0, 0.0), (1e5, 0.0)):
        points = np.append(PERSON[0], [unsure], axis=0)[None]
        drawn = draw(GREY, points, [[1.0, 1.0, 1.0, 0.0]], [])
        smaller = (drawn != GREY).any(-1).sum()
        assert 0.6 < smaller / area(1.0) < 0.9
    several = np.concatenate((PERSON, PERSON + np.array([0, 30])))
    drawn = draw(GREY, several, np.ones((2, 3)), [])
    (x, y), (u, v) = np.rint(several[:, 0]).astype(int)
    assert (drawn[y, x] == (0, 94, 213)).all() and (drawn[v, u] == (178, 114, 0)).all()
    draw(GREY, np.repeat(PERSON, 9, axis=0), np.ones((9, 3)), [])


def test_boxes_are_drawn():
    boxes = [[20.5, 30.5, 270.5, 180.5]]
    drawn = draw(GREY, PERSON, 0 * SURE, [], boxes)
    changed = (drawn != GREY).any(-1)
    assert changed[30:32, 100].any() and changed[100, 20:22].any()
    assert not changed[40:170, 40:260].any() and not changed[:25].any()
    draw(GREY, PERSON, SURE, [], [[-1e6, -5, 1e6, 400]])
    assert (draw(GREY, np.zeros((0, 3, 2)), np.zeros((0, 3)), [], []) == GREY).all()


@pytest.mark.parametrize(
    ('keypoints', 'scores', 'boxes'),
    [
        (PERSON[0], SURE, None),
        (PERSON, SURE[0], None),
        (PERSON, np.ones((1, 4)), None),
        (np.zeros((1, 3, 3)), SURE, None),
        (PERSON, SURE, np.tile([0, 0, 9, 9], (2, 1))),
        (PERSON, SURE, [[5, 5, 5, 9]]),
    ],
)
def test_shapes_that_cannot_be_drawn(keypoints, scores, boxes):
    with pytest.raises(ValueError, match='must have|must be'):
        draw(GREY, keypoints, scores, [], boxes)


# The command.


@pytest.fixture
def scene(tmp_path):
    """A model, a photograph, and where its blobs are."""
    places = np.array([[200.25, 150.5], [240.5, 180.75], [270.75, 160.25]])
    cv2.imwrite(str(tmp_path / 'photo.png'), photograph(places))
    centroid_model(tmp_path / 'model.onnx')
    return tmp_path, places


def infer(folder, *arguments, model='model.onnx', image='photo.png'):
    given = ['infer', str(folder / model), str(folder / image), *arguments]
    try:
        return cli.main(given)
    except SystemExit as ended:
        return ended.code


def test_the_command_needs_neither_torch_nor_mmpose(scene):
    folder, places = scene
    names = 'torch', 'mmengine', 'mmcv', 'mmpose', 'rich', 'matplotlib', 'scipy'
    code = (
        f'import sys; sys.modules.update(dict.fromkeys({names}))\n'
        'from udp_plugin.cli import main; sys.exit(main(sys.argv[1:]))'
    )
    given = ['model.onnx', 'photo.png', '--boxes', '-20.5,10,400,350', '9,8,420,300']
    command = [sys.executable, '-c', code, 'infer', *given, '-o', 'out.png']
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert lines[0] == 'person 1 of 2, box -20.5, 10, 400, 350'
    assert lines[1].split() == ['keypoint', 'x', 'y', 'score']
    assert lines[6] == 'person 2 of 2, box 9, 8, 420, 300'
    for rows in (lines[2:5], lines[8:11]):
        names, *numbers = zip(*(row.split() for row in rows))
        assert names == ('nose', 'left_eye', 'right_eye')
        found = np.array(numbers, dtype=float).T
        np.testing.assert_allclose(found[:, :2], places, atol=0.05)
        assert (found[:, 2] > 0.9).all()
    assert lines[-1] == 'written: out.png'
    drawn, image = (cv2.imread(str(folder / f'{n}.png')) for n in ('out', 'photo'))
    assert drawn.shape == (360, 480, 3) and (drawn != image).any()


def test_the_command_with_and_without_options(scene, capsys):
    folder, places = scene
    before = sorted(folder.iterdir())
    assert infer(folder) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('person 1 of 1, box 0, 0, 480, 360\n')
    assert 'written' not in printed.out and printed.err == ''
    assert sorted(folder.iterdir()) == before

    file = folder / 'keypoints.json'
    assert infer(folder, '--boxes', '9,8,420,300', '--json', str(file)) == 0
    assert f'written: {file}' in capsys.readouterr().out
    assert infer(folder, '--boxes', '9,8,420,300', '--json', '-') == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(file.read_text(encoding='utf-8'))
    (person,) = content['people']
    assert person['box'] == [9, 8, 420, 300] and len(person['scores']) == 3
    np.testing.assert_allclose(person['keypoints'], places, atol=0.05)
    assert content['keypoint_names'] == ['nose', 'left_eye', 'right_eye']
    # The same as a function.
    seen = run.infer(folder / 'model.onnx', folder / 'photo.png', [[9, 8, 420, 300]])
    np.testing.assert_array_equal(seen.found.keypoints[0], person['keypoints'])


@pytest.mark.parametrize(
    ('files', 'options', 'message'),
    [
        (dict(model='nothing.onnx'), '', 'nothing.onnx is no file'),
        (dict(model='photo.png'), '', 'model must be an ONNX file'),
        (dict(image='nothing.png'), '', 'IMAGE must .*nothing.png cannot be read: No'),
        (dict(image='model.onnx'), '', 'IMAGE must be .*is none that OpenCV can read'),
        (dict(image='empty.png'), '', 'IMAGE must be .*is none that OpenCV can read'),
        (dict(image='.'), '', 'IMAGE must be .* cannot be read'),
        ({}, '--boxes 9,9,99,99 50,50,10,90', r'boxes\[1\] must have its right'),
        ({}, '--boxes nan,9,99,99', r'boxes\[0\] must be finite'),
        ({}, '-o {}/none/out.png', '--out must be a file in a folder that exists'),
        ({}, '-o {}/out.doc', 'name it out.png, say'),
        ({}, '-o {}/out', 'name it out.png, say'),
        ({}, '-o {}', 'is a folder; name a file in it'),
        ({}, '-o .', r'--out \. is a folder'),
        ({}, '--json {}', 'is a folder; name a file in it'),
        ({}, '--json {}/none/out.json', '--json must be a file in a folder'),
    ],
)
def test_what_the_command_cannot_do(scene, capfd, files, options, message):
    folder, _ = scene
    (folder / 'empty.png').touch()
    assert infer(folder, *options.format(folder).split(), **files) == 2
    printed = capfd.readouterr()
    assert printed.out == ''
    # One line, and nothing of OpenCV's own or onnxruntime's.
    assert printed.err.startswith('error: ') and printed.err.count('\n') == 1
    assert re.search(message, printed.err)


@pytest.mark.parametrize('box', ['1,2,3', '1,2,3,4,5', '1,2,3,wide', '1 2 3 4', ''])
def test_boxes_that_are_no_numbers(scene, capsys, box):
    assert infer(scene[0], '--boxes', box) == 2
    assert 'is not the four numbers X1,Y1,X2,Y2' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('module', 'message'),
    [('onnxruntime', 'pip install onnxruntime'), ('cv2', 'pip install opencv-python')],
)
def test_the_command_without_what_it_needs(scene, monkeypatch, capsys, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    assert infer(scene[0]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error
    if module == 'onnxruntime':
        with pytest.raises(ImportError, match=message):
            PoseModel(scene[0] / 'model.onnx')


def test_providers_that_are_not_there(tmp_path):
    # With an entry of somebody else's, too.
    entries = dict(said(), more='by a {tool')
    file = centroid_model(tmp_path / 'model.onnx', entries=entries)
    for providers in ('CPUExecutionProvider', ['NoSuchProvider'], [('Foo', {})]):
        with pytest.raises(ValueError, match='providers must be a list of some of'):
            PoseModel(file, providers=providers)
    assert PoseModel(file, providers=['CPUExecutionProvider']).takes_any_number


def test_pictures_that_a_format_cannot_hold(scene, capsys):
    for name in ('out.pbm', 'out.pgm'):
        assert infer(scene[0], '-o', str(scene[0] / name)) == 2
        assert f'{name} cannot hold this picture' in capsys.readouterr().err


def png(width, height, depth=8):
    """A PNG of one black grey level, which is small however large it is."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', check)

    head = struct.pack('>IIBBBBB', width, height, depth, 0, 0, 0, 0)
    pack = zlib.compressobj(9)
    row, rows = bytes(1 + (width * depth + 7) // 8), b''
    for _ in range(height if width * height < 2**26 else 0):
        rows += pack.compress(row)
    rows += pack.flush()
    parts = chunk(b'IHDR', head), chunk(b'IDAT', rows), chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def tiff(width, height, order='<', big=False):
    """The beginning of a TIFF that says how large it is."""
    word = 'Q' if big else 'I'
    mark = b'II' if order == '<' else b'MM'
    start = (
        mark + struct.pack(f'{order}HHHQ', 43, 8, 0, 16)
        if big
        else mark + struct.pack(f'{order}HI', 42, 8)
    )
    entries = [(254, 4, 0), (256, 4, width), (257, 4, height)]
    count = struct.pack(order + ('Q' if big else 'H'), len(entries))
    packed = [struct.pack(f'{order}HH{word}{word}', t, k, 1, v) for t, k, v in entries]
    return start + count + b''.join(packed) + bytes(8)


JPEG_START = b'\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00'


def large(width, height):
    """Headers of pictures, which are all that may be read of them."""
    sof = b'\xff\xff\xc2\x00\x11\x08' + struct.pack('>HH', height, width)
    yield png(width, height)
    if max(width, height) < 2**16:
        yield JPEG_START + sof + b'\x03' + bytes(9)
        yield b'GIF89a' + struct.pack('<HH', width, height) + bytes(9)
    yield b'BM' + bytes(12) + struct.pack('<Iii', 40, width, -height) + bytes(28)
    yield tiff(width, height)
    yield tiff(width, height, '>')
    yield tiff(width, height, '<', big=True)
    start = b'\xff\x4f\xff\x51' + bytes(4) + struct.pack('>II', width, height)
    yield b'\0\0\0\x0cjP  \r\n\x87\n' + bytes(20) + start + bytes(20)
    yield start + bytes(20)
    box = [
        b'ispe' + bytes(4) + struct.pack('>II', *s) for s in ((9, 9), (width, height))
    ]
    yield b'\0\0\0\x1cftypavif' + bytes(20).join(box) + bytes(20)


@pytest.mark.parametrize('size', [(30000, 30000), (40000, 2), (2, 32767)])
def test_pictures_that_are_too_large_are_not_decoded(scene, capfd, size):
    folder, _ = scene
    for content in large(*size):
        (folder / 'photo.png').write_bytes(content)
        assert infer(folder) == 2
        printed = capfd.readouterr()
        assert printed.err.startswith('error: IMAGE must ') and printed.out == ''
        assert printed.err.count('\n') == 1
        for said in (f'{size[0]} x {size[1]} pixels', '32766', '2^28', 'smaller'):
            assert said in printed.err, content[:20]


def test_real_pictures_say_how_large_they_are(tmp_path):
    from udp_plugin.runtime.reading import stated_size

    # Also with an embedded thumbnail before the size.
    image = np.random.default_rng(0).integers(0, 255, (33, 47, 3), dtype=np.uint8)
    for suffix in ('.png', '.jpg', '.bmp', '.tif', '.jp2'):
        _, content = cv2.imencode(suffix, image)
        assert stated_size(content.tobytes()) == (47, 33), suffix
    for content in (
        b'',
        b'\xff\xd8',
        b'II*\0',
        b'P6 9 9 255 ',
        JPEG_START,
        png(9, 9)[:17],
    ):
        assert stated_size(content) is None


@pytest.mark.parametrize('kind', ['float32', 'float64', 'int32', 'uint16', 'uint8'])
@pytest.mark.parametrize('grey', [False, True], ids=['color', 'grey'])
def test_pictures_with_more_than_eight_bits(scene, capfd, kind, grey):
    folder, places = scene
    image = photograph(places)
    image = image.max(-1) if grey else image
    full = dict(uint16=257, uint8=1).get(kind, 1 / 255)
    _, content = cv2.imencode('.tif', (image * float(full)).astype(kind))
    (folder / 'photo.png').write_bytes(content.tobytes())
    status = infer(folder, '--json', '-')
    printed = capfd.readouterr()
    if kind.startswith('u'):
        assert (status, printed.err) == (0, '')
        (person,) = json.loads(printed.out)['people']
        # In grey, all blobs are in all channels.
        expected = np.tile(places.mean(0), (3, 1)) if grey else places
        np.testing.assert_allclose(
            person['keypoints'], expected, atol=3 if grey else 0.1
        )
    else:
        assert status == 2 and printed.err.count('\n') == 1
        assert 'IMAGE must' in printed.err and '8 or 16 bits' in printed.err


def test_names_that_are_no_text(scene):
    """Of bytes that are no UTF-8, with a sequence that moves the cursor, brackets."""
    folder, _ = scene
    for name in ('caf\udce9', 'up\x1b[2A', '[lr=1] [_] :smile:'):
        shutil.copy(folder / 'model.onnx', folder / f'{name}.onnx')
        shutil.copy(folder / 'photo.png', folder / f'{name}.png')
        command = [sys.executable, '-m', 'udp_plugin', 'infer', f'{name}.onnx']
        command += [f'{name}.png', '-o', f'{name}.out.png', '--json', f'{name}.json']
        env = dict(os.environ, PYTHONIOENCODING='utf-8')
        env['PYTHONPATH'] = str(Path(__file__).parents[1])
        done = subprocess.run(command, cwd=folder, capture_output=True, env=env)
        assert (done.returncode, done.stderr) == (0, b''), done.stderr
        assert b'written: ' in done.stdout and b'\x1b' not in done.stdout
        drawn = np.fromfile(folder / f'{name}.out.png', np.uint8)
        assert cv2.imdecode(drawn, cv2.IMREAD_COLOR).shape == (360, 480, 3)
        content = json.loads((folder / f'{name}.json').read_text())
        assert content['image'] == f'{name}.png'
        # And what is wrong with it.
        (folder / f'{name}.png').write_bytes(b'')
        done = subprocess.run(command, cwd=folder, capture_output=True, env=env)
        assert done.returncode == 2 and done.stderr.startswith(b'error: IMAGE must')
        assert b'\x1b' not in done.stderr and done.stderr.count(b'\n') == 1
    # A suffix that is no text.
    assert infer(folder, '-o', str(folder / 'a.p\udce9g')) == 2
