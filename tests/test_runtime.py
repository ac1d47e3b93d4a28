"""Exported models run without torch: crops, mapping back, errors, drawing, command.

The networks here are small ONNX graphs whose answer is known without any of this
package: a keypoint is the centroid of the light in one channel of the crop. Blobs of
light drawn at known places of a photograph have to come back as keypoints there.
"""

import json
import re
import subprocess
import sys

import cv2
import mmcv
import numpy as np
import onnx
import onnx.parser
import pytest
from mmpose.datasets.transforms import GetBBoxCenterScale

from udp_plugin import cli
from udp_plugin.datasets import TopDownAffineUDP
from udp_plugin.runtime import PoseModel, draw, run
from udp_plugin.runtime.session import METADATA

INPUT = (192, 256)
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


@pytest.mark.parametrize('seed', range(4))
def test_blobs_of_light_are_found_where_they_were_drawn(model, seed):
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


@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_crops_are_those_of_the_test_pipeline(model, coco_mini, dtype):
    """Of boxes in double precision, to the last pixel.

    The data sets' boxes are in single precision, and so is what MMPose makes of them.
    That moves a crop by some 1e-5 px, and OpenCV reads at multiples of 1/32 px: few
    pixels fall on the other side of the border between two of these.
    """
    annotations = json.loads((coco_mini / 'test_coco.json').read_text())
    people = [one for one in annotations['annotations'] if one['bbox'][2] > 0]
    names = {one['id']: one['file_name'] for one in annotations['images']}
    differing = total = 0
    for person in people:
        image = cv2.imread(str(coco_mini / names[person['image_id']]))
        x, y, w, h = person['bbox']
        boxes = np.array([[x, y, x + w, y + h]], dtype=dtype)
        results = GetBBoxCenterScale().transform(dict(img=image, bbox=boxes))
        expected = TopDownAffineUDP(INPUT).transform(results)['img']
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
        ],
        # What does not fit the model.
        (said(measure='pixels'), {}, "'unit length', got 'pixels'"),
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
