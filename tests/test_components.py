"""The registered components: built by name, and taken through a whole crop."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers import (
    CODECS,
    FLIP_INDICES,
    SETUPS,
    SIZES,
    K,
    build_head,
    packed,
    random_person,
    target_of,
)
from mmcv.transforms import Compose
from mmengine.structures import InstanceData
from mmpose.datasets.transforms import (
    GenerateTarget,
    GetBBoxCenterScale,
    PackPoseInputs,
    RandomBBoxTransform,
    RandomFlip,
    TopdownAffine,
)
from mmpose.registry import KEYPOINT_CODECS, MODELS

import udp_plugin
from udp_plugin import functional as F

OFFSET = dict(CODECS['voting'], **SIZES)
pytestmark = pytest.mark.usefixtures('seeded')


def coco_persons(folder):
    """The persons with keypoints of the four photographs."""
    annotations = json.loads((folder / 'test_coco.json').read_text())['annotations']
    for annotation in annotations:
        keypoints = np.array(annotation['keypoints'], dtype=np.float32).reshape(-1, 3)
        if not keypoints[:, 2].any():
            continue
        x, y, w, h = annotation['bbox']
        yield dict(
            bbox=np.array([[x, y, x + w, y + h]], dtype=np.float32),
            keypoints=keypoints[None, :, :2],
            keypoints_visible=np.minimum(1, keypoints[None, :, 2]),
        )


def through_the_pipeline(person, codec, rotate=False):
    # Enlarged, or else the rotation moves keypoints out of the crop.
    turn = [RandomBBoxTransform(scale_factor=(1.5, 1.6), rotate_prob=1)]
    target = target_of(codec)
    sample = packed(person, target, codec['input_size'], turn if rotate else ())
    return sample['data_samples']


def back_to_the_source(sample, codec, estimator_type):
    """The keypoints that an estimator makes of the sample's own target."""
    keypoints, scores = KEYPOINT_CODECS.build(codec).decode(sample.gt_fields.heatmaps)
    # Only the way back is of interest here, so no network is built.
    estimator = MODELS.get(estimator_type).__new__(MODELS.get(estimator_type))
    torch.nn.Module.__init__(estimator)
    estimator.test_cfg = {}
    prediction = InstanceData(keypoints=keypoints, keypoint_scores=scores)
    (sample,) = estimator.add_pred_to_datasample([prediction], None, [sample])
    return sample.pred_instances.keypoints[0]


def round_trip_errors(persons, codec, rotate, estimator):
    errors = []
    for one in persons:
        sample = through_the_pipeline(one, codec, rotate)
        found = back_to_the_source(sample, codec, estimator)
        box = sample.metainfo['input_center'], sample.metainfo['input_scale']
        rotation = sample.gt_instances.bbox_rotations[0]
        points, size = one['keypoints'][0], codec['input_size']
        on_map = F.source_to_input(points, *box, rotation, size)
        on_map = ((on_map >= 0) & (on_map <= F.unit_length(size))).all(-1)
        error = np.abs(found - points)[on_map & (one['keypoints_visible'][0] > 0)]
        if codec.get('reading') == 'authors':
            # In heatmap px, since it is the map's own.
            error = error / box[1] * F.unit_length(codec['heatmap_size'])
        errors.append(error)
    return np.concatenate(errors)


@pytest.mark.parametrize('rotate', [False, True])
@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize(('input_size', 'heatmap_size', 'sigma'), SETUPS)
def test_source_to_target_to_source(
    coco_mini, codec, input_size, heatmap_size, sigma, rotate
):
    sizes = dict(input_size=input_size, heatmap_size=heatmap_size)
    codec = dict(CODECS[codec], **sizes, sigma=sigma)
    persons = list(coco_persons(coco_mini))
    persons += [random_person() for _ in range(4 if sigma == 6 else 20)]
    estimator = 'UDPTopdownPoseEstimator' if rotate else 'TopdownPoseEstimator'
    errors = round_trip_errors(persons, codec, rotate, estimator)
    assert len(errors) > 100
    if codec.get('reading') == 'authors':
        assert errors.mean() < 0.05
    else:
        assert errors.max() < 1e-3


def test_only_our_estimator_undoes_rotation():
    persons = [random_person() for _ in range(5)]
    errors = round_trip_errors(persons, OFFSET, True, 'TopdownPoseEstimator')
    assert errors.max() > 10
    errors = round_trip_errors(persons, OFFSET, False, 'UDPTopdownPoseEstimator')
    assert errors.max() < 1e-3
    sample = through_the_pipeline(persons[0], OFFSET)
    unnamed = sample.clone()
    del unnamed.input_center
    with pytest.raises(ValueError, match=r"'input_center'.* meta_keys of PackPose"):
        back_to_the_source(unnamed, OFFSET, 'UDPTopdownPoseEstimator')
    # Without it, a box is upright, and is so for the stock estimator.
    del sample.gt_instances.bbox_rotations
    ours, stock = (
        back_to_the_source(sample.clone(), OFFSET, f'{own}TopdownPoseEstimator')
        for own in ('UDP', '')
    )
    np.testing.assert_array_equal(ours, stock)


# --- TopDownAffineUDP -----------------------------------------------------------


def affine_results(keypoints=True, rotation=None):
    rng = np.random.default_rng(0)
    results = dict(
        img=rng.integers(0, 255, (480, 640, 3), dtype=np.uint8),
        bbox_center=np.array([[300.0, 200.0]], dtype=np.float32),
        bbox_scale=np.array([[150.0, 260.0]], dtype=np.float32),
    )
    if keypoints:
        results['keypoints'] = rng.uniform(150, 350, (1, K, 2)).astype(np.float32)
    if rotation is not None:
        results['bbox_rotation'] = np.array([rotation], dtype=np.float32)
    return results


@pytest.mark.parametrize('keypoints', [True, False])
@pytest.mark.parametrize('rotation', [None, 33.0])
@pytest.mark.parametrize('images', [None, 3])
def test_affine_leaves_what_the_stock_one_leaves(keypoints, rotation, images):
    given, stock = (affine_results(keypoints, rotation) for _ in range(2))
    if images:
        given['img'], stock['img'] = ([r['img']] * images for r in (given, stock))
    ours = udp_plugin.TopDownAffineUDP((192, 256))(dict(given))
    # Its input arrays are left alone.
    np.testing.assert_equal(given, stock)
    stock = TopdownAffine((192, 256), use_udp=True)(stock)
    for key, expected in stock.items():
        if key == 'img':
            difference = np.abs(np.float32(ours['img']) - np.float32(expected))
            assert difference.mean() < 0.1
            assert isinstance(ours['img'], list) == bool(images)
        else:
            np.testing.assert_allclose(ours[key], expected, atol=2e-3, err_msg=key)
            assert np.asarray(ours[key]).dtype == np.asarray(expected).dtype, key
    assert ours['warp_mat'].shape == (2, 3)
    if keypoints:
        inverse = cv2.invertAffineTransform(ours['warp_mat'])
        back = cv2.transform(np.float64(ours['transformed_keypoints']), inverse)
        np.testing.assert_allclose(back, given['keypoints'], atol=1e-4)
    added = {'warp_mat', 'instance_mapping_table'}
    assert set(ours) - set(stock) - {'bbox_rotation'} == added
    assert ours['bbox_rotation'] == (rotation or 0)


def test_mirrored_source_gives_the_mirrored_target():
    """RandomFlip before the warp does what mirroring the maps does."""
    plain, flipped = affine_results(rotation=20.0), affine_results(rotation=-20.0)
    flipped.update(
        flip_indices=FLIP_INDICES,
        img_shape=(480, 640),
        keypoints_visible=np.ones((1, K), dtype=np.float32),
    )
    flipped = RandomFlip(prob=1.0)(flipped)
    affine = udp_plugin.TopDownAffineUDP((192, 256))
    plain, flipped = affine(plain), affine(flipped)
    expected = F.mirror(plain['transformed_keypoints'], 192)[:, FLIP_INDICES]
    np.testing.assert_allclose(flipped['transformed_keypoints'], expected, atol=1e-4)
    difference = flipped['img'][:, ::-1].astype(float) - plain['img']
    assert np.abs(difference).mean() < 1.5


def test_integer_keypoints_are_not_truncated():
    results = affine_results()
    results['keypoints'] = results['keypoints'].astype(np.int64)
    expected = F.source_to_input(
        results['keypoints'], [300, 200], [195, 260], 0, (192, 256)
    )
    results = udp_plugin.TopDownAffineUDP((192, 256))(results)
    np.testing.assert_allclose(results['transformed_keypoints'], expected, atol=1e-3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(bbox_rotation=np.full(1, np.nan)), 'needs a finite .* rotation nan'),
        (dict(bbox_center=np.zeros((2, 2))), r'shape \(1, 2\), got \(2, 2\)'),
        (dict(bbox_rotation=30.0), r'bbox_rotation must have shape \(1,\), got \(\)'),
        (dict(bbox_center=None), "needs 'bbox_center' .* GetBBoxCenterScale"),
        (dict(img=None), "needs 'img' in the results"),
    ],
)
def test_affine_names_boxes_it_cannot_warp(change, message):
    with pytest.raises(ValueError, match=message):
        udp_plugin.TopDownAffineUDP((192, 256))(dict(affine_results(), **change))


def test_affine_names_photographs_beyond_opencvs_limits():
    """From version 5 on OpenCV itself has no such limit."""
    affine, results = udp_plugin.TopDownAffineUDP((192, 256)), affine_results()
    results['bbox_center'] = np.zeros((1, 2))
    stripe = np.full((1, 32767, 3), 200, np.uint8)
    for img in (stripe, np.full((40000, 1, 3), 200, np.uint8), [stripe, stripe]):
        given = dict(results, img=img, img_path='long.png')
        try:
            warped = np.stack(affine(given)['img'])
        except ValueError as error:
            width, height = ((img[0] if isinstance(img, list) else img).shape)[1::-1]
            said = str(error)
            assert f'{width}x{height}' in said and 'long.png' in said
            assert '32766' in said and 'resize or crop' in said
        else:
            assert int(cv2.__version__.split('.')[0]) >= 5 and warped.any()


#: Boxes that detectors have given, left, top, right and bottom in source px.
NO_BOXES = [
    [300, 200, 300, 200],
    [300, 200, 290, 180],
    [np.nan] * 4,
    [300, 200, np.nan, 260],
    [300, 200, np.inf, np.inf],
    [-np.inf, 200, np.inf, 260],
]


@pytest.mark.parametrize('box', NO_BOXES, ids=str)
def test_affine_goes_on_with_boxes_of_nothing(box, monkeypatch):
    said = []
    monkeypatch.setattr(
        'udp_plugin.datasets.transforms.topdown_affine_udp.print_log',
        lambda message, **kwargs: said.append(message),
    )
    affine, target = udp_plugin.TopDownAffineUDP((192, 256)), target_of(OFFSET)
    steps = Compose([GetBBoxCenterScale(), affine, target, PackPoseInputs()])
    for name in ('a.png', 'a.png', 'b.png'):
        person = dict(random_person(), bbox=np.float32([box]), bbox_score=np.ones(1))
        image = np.full((480, 640, 3), 100, np.uint8)
        results = dict(person, img=image, img_path=name, flip_indices=FLIP_INDICES)
        warped = affine(GetBBoxCenterScale()(dict(results)))
        assert np.isfinite(warped['warp_mat']).all()
        packed = steps(results)
        sample = packed['data_samples']
        values = [*sample.gt_instances.all_items(), *sample.metainfo.items()]
        numbers = [np.asarray(v, float) for k, v in values if k != 'img_path']
        maps = sample.gt_fields.heatmaps, sample.gt_instance_labels.keypoint_weights
        assert all(np.isfinite(v).all() for v in (*numbers, *map(np.asarray, maps)))
        assert sample.gt_instances.bbox_scores == 0
        head = build_head('HeatmapHead', 'voting')
        (found,) = head.predict((torch.rand(1, 8, 64, 48),), [sample])
        assert not found.keypoint_scores.any()
    assert [name in text for name, text in zip(('a.png', 'b.png'), said)] == [True] * 2
    assert len(said) == 2


def test_affine_arguments_are_named():
    with pytest.raises(ValueError, match='input_size must be two integers'):
        udp_plugin.TopDownAffineUDP(192)
    with pytest.raises(ValueError, match='use_udp=False asks for the biased warp'):
        udp_plugin.TopDownAffineUDP((192, 256), use_udp=False)


# --- OffsetTargetGenerator ------------------------------------------------------


def target_results(visible_weights=False):
    rng = np.random.default_rng(0)
    visible = rng.choice([0.0, 1.0], (1, K)).astype(np.float32)
    if visible_weights:
        visible = np.stack((visible, rng.random((1, K), dtype=np.float32)), -1)
    return dict(
        keypoints=rng.uniform(0, 190, (1, K, 2)).astype(np.float32),
        keypoints_visible=visible,
        dataset_keypoint_weights=rng.uniform(1, 2, (1, K)).astype(np.float32),
    )


@pytest.mark.parametrize('weighted', [True, False])
@pytest.mark.parametrize('visible_weights', [True, False])
def test_generator_does_what_the_stock_one_does(weighted, visible_weights):
    args = dict(use_dataset_keypoint_weights=weighted)
    ours = target_of(OFFSET, **args)(target_results(visible_weights))
    stock = GenerateTarget(OFFSET, **args)(target_results(visible_weights))
    assert ours.keys() == stock.keys()
    for key in ('heatmaps', 'keypoint_weights', 'keypoints_visible'):
        np.testing.assert_array_equal(ours[key], stock[key])
    if visible_weights:
        assert ours['keypoints_visible_weights'].shape == (1, K)
    if weighted:
        assert (ours['keypoint_weights'] > 1).any()


def test_generator_weights_lists_of_encoders():
    encoders = [dict(OFFSET, sigma=sigma) for sigma in (1.5, 2)]
    plain, results = (
        target_of(encoders, use_dataset_keypoint_weights=weighted)(target_results())
        for weighted in (False, True)
    )
    assert len(results['heatmaps']) == 2
    assert results['heatmaps'][0].sum() != results['heatmaps'][1].sum()
    weights = target_results()['dataset_keypoint_weights']
    for level in range(2):
        np.testing.assert_allclose(
            results['keypoint_weights'][level],
            plain['keypoint_weights'][level] * weights,
        )


@pytest.mark.parametrize('on_device', [False, True])
def test_generator_left_in_a_test_pipeline_is_named(on_device):
    """Nobody has annotated the person there."""
    person = dict(bbox=random_person()['bbox'])
    with pytest.raises(ValueError, match='OffsetTargetGenerator .*test pipeline'):
        packed(person, target_of(OFFSET, on_device=on_device))


@pytest.mark.parametrize('on_device', [False, True])
@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('keypoints_visible', "needs 'keypoints_visible' in the results"),
        ('dataset_keypoint_weights', "needs 'dataset_keypoint_weights' in the results"),
        ('keypoints', 'keypoints'),
    ],
)
def test_generator_names_what_is_missing(key, message, on_device):
    args = dict(use_dataset_keypoint_weights=True, on_device=on_device)
    results = target_results()
    del results[key]
    with pytest.raises(ValueError, match=message):
        target_of(OFFSET, **args)(results)
    with pytest.raises(ValueError, match='needs a list of encoders'):
        udp_plugin.OffsetTargetGenerator(OFFSET, multilevel=True)
