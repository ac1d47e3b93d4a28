"""Targets made by the head of keypoints: the same as those that workers make."""

import pickle

import mmpose
import numpy as np
import pytest
import torch
from helpers import (
    CODECS,
    RES50,
    SIZES,
    K,
    build_codec,
    build_head,
    each_head_and_levels,
    encoders_for,
    features_for,
    packed,
    random_person,
    swapped,
    target_of,
)
from mmengine.dataset import pseudo_collate
from mmpose.models.heads import HeatmapHead
from mmpose.registry import MODELS

import udp_plugin
from udp_plugin.convert.check import check
from udp_plugin.models.heads.base import batch_targets

OFFSET = dict(CODECS['voting'], **SIZES)
pytestmark = [
    pytest.mark.usefixtures('seeded'),
    # An infinite keypoint times a zero of the warp.
    pytest.mark.filterwarnings('ignore:invalid value encountered in multiply'),
    pytest.mark.filterwarnings('ignore:The metainfo config file'),
]
every_codec = pytest.mark.parametrize('codec', ['gaussian', 'voting'])


def awkward_person(visible_weights=False):
    """One with keypoints that are hidden, unknown, or outside the crop."""
    person = random_person()
    keypoints, visible = person['keypoints'][0], person['keypoints_visible'][0]
    visible[:4] = 0, 0.3, 0.5, 2
    keypoints[4], keypoints[5], keypoints[6] = np.nan, np.inf, -np.inf
    keypoints[7, 1] = np.nan
    # Far off, just off, and at the edge; the Gaussian of the first has no weight.
    x1, y1, x2, y2 = person['bbox'][0]
    keypoints[8:12] = (-4000, y1), (x1 - 40, y1), (x2 + 25, y2 + 25), (x1, y2)
    if visible_weights:
        person['keypoints_visible'] = np.stack((visible, visible * 0.7), -1)[None]
    return person


def received(packed_samples):
    """The samples as the head gets them, out of the data preprocessor."""
    preprocessor = MODELS.build(dict(type='PoseDataPreprocessor'))
    # A worker of the data loader sends them through a pipe.
    batch = pickle.loads(pickle.dumps(pseudo_collate(packed_samples)))
    return preprocessor(batch, training=True)['data_samples']


def both_ways(persons, encoder, **args):
    """The samples with the workers' maps, and those without maps.

    Each comes from a generator of its own, as those of several data sets do.
    """
    return [
        received([packed(p, target_of(encoder, on_device=on, **args)) for p in persons])
        for on in (False, True)
    ]


def assert_same_targets(worker, device):
    worker, device = batch_targets(worker), batch_targets(device)
    torch.testing.assert_close(device, worker, rtol=0, atol=0)
    assert all(maps.dtype == torch.float32 for maps, _ in device)


def step(head, features, samples):
    """The loss, the accuracy, and the gradients of the head's parameters."""
    head.zero_grad()
    losses = head.loss(features, samples)
    losses['loss_kpt'].backward()
    gradients = {name: p.grad.clone() for name, p in head.named_parameters()}
    for name, gradient in gradients.items():
        assert 0 < gradient.abs().max() < float('inf'), name
    return {**losses, **gradients}


@pytest.mark.parametrize('weighted', [False, True])
@every_codec
@each_head_and_levels
def test_heads_learn_the_same_of_keypoints_as_of_maps(
    name, multilevel, codec, weighted
):
    encoders, decoder = encoders_for(name, codec, multilevel)
    head = build_head(name, codec, decoder=decoder)
    persons = [random_person(), awkward_person(), awkward_person()]
    maps, keypoints = both_ways(
        persons, encoders, use_dataset_keypoint_weights=weighted
    )
    assert_same_targets(maps, keypoints)

    features = features_for(name, batch=3)
    learnt, other = (step(head, features, samples) for samples in (maps, keypoints))
    assert learnt.keys() == other.keys() > {'loss_kpt', 'acc_pose'}
    for key, value in learnt.items():
        assert other[key].equal(value), key


@pytest.mark.parametrize('visible_weights', [False, True])
@every_codec
@pytest.mark.parametrize(
    ('heatmap_size', 'sigma'), [((48, 64), 2), ((72, 96), 3), ((97, 43), 1.3)]
)
def test_maps_are_the_same_at_other_sizes(codec, heatmap_size, sigma, visible_weights):
    encoder = dict(
        CODECS[codec], input_size=(192, 256), heatmap_size=heatmap_size, sigma=sigma
    )
    persons = [awkward_person(visible_weights) for _ in range(5)]
    maps, keypoints = both_ways(persons, encoder, use_dataset_keypoint_weights=True)
    assert_same_targets(maps, keypoints)
    # Autocast rounds no target.
    with torch.autocast('cpu', torch.bfloat16):
        assert_same_targets(maps, keypoints)
    for one, other in zip(maps, keypoints):
        seen = one.gt_instances.keypoints_visible
        np.testing.assert_array_equal(other.gt_instances.keypoints_visible, seen)
        assert seen.shape == (1, K)


@every_codec
def test_maps_are_made_where_the_keypoints_are(codec):
    encoder = dict(CODECS[codec], **SIZES)
    _, samples = both_ways([random_person() for _ in range(2)], encoder)
    # A device without memory: to use anything of another one is an error.
    ((maps, weights),) = batch_targets([sample.to('meta') for sample in samples])
    assert maps.device.type == weights.device.type == 'meta'
    channels = build_codec(codec).channels_per_keypoint
    assert maps.shape == (2, channels * K, 64, 48)
    assert weights.shape == (2, K)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@every_codec
def test_maps_of_a_gpu_are_those_of_the_workers(codec):
    encoder = dict(CODECS[codec], **SIZES)
    maps, keypoints = both_ways([awkward_person() for _ in range(2)], encoder)
    ((maps, weights),) = batch_targets(maps)
    ((made, made_weights),) = batch_targets([s.to('cuda') for s in keypoints])
    torch.testing.assert_close(made.cpu(), maps, atol=1e-6, rtol=0)
    assert made_weights.cpu().equal(weights)


def size_of_targets(sample):
    sample = sample['data_samples']
    fields = sample.gt_fields if 'gt_fields' in sample else None
    return len(pickle.dumps((sample.gt_instance_labels, fields)))


def test_a_sample_takes_less_than_two_kilobytes():
    for encoder, maps in ((OFFSET, 1), ([OFFSET, dict(OFFSET, sigma=3)], 2)):
        worker = packed(random_person(), target_of(encoder))
        assert size_of_targets(worker) > maps * 3 * K * 48 * 64 * 4
        sample = packed(random_person(), target_of(encoder, on_device=True))
        assert size_of_targets(sample) < 2000
        assert 'gt_fields' not in sample['data_samples']
    for codec in CODECS:
        assert len(pickle.dumps(build_codec(codec))) < 300


def test_codecs_of_the_same_settings_are_equal():
    codec, same = build_codec('voting', sigma=2), build_codec('voting', radius=3.5)
    assert codec == same and hash(codec) == hash(same)
    assert codec != build_codec('voting', radius=3)
    assert codec != build_codec('voting', heatmap_size=(64, 48), radius=3.5)
    assert codec != build_codec('gaussian', sigma=2)
    assert 'UDPOffsetHeatmap(input_size=(192, 256), ' in repr(codec)
    assert 'radius=3.5' in repr(codec)


def test_the_encoder_makes_the_maps_and_not_the_decoder():
    head = build_head('HeatmapHead', 'voting')
    encoder = dict(OFFSET, radius=6)
    maps, keypoints = both_ways([random_person()], encoder)
    features = features_for('HeatmapHead', batch=1)
    loss, other = (head.loss(features, s)['loss_kpt'] for s in (maps, keypoints))
    assert other.equal(loss)
    _, narrow = both_ways([random_person()], OFFSET)
    assert head.loss(features, narrow)['loss_kpt'] != loss


@every_codec
def test_encode_batch_takes_all_for_visible_unless_told(codec):
    codec, keypoints = build_codec(codec), 190 * torch.rand(3, K, 2)
    maps, weights = codec.encode_batch(keypoints)
    expected, ones = codec.encode_batch(keypoints, torch.ones(3, K))
    assert maps.equal(expected) and maps.any()
    assert weights.equal(ones) and (weights == 1).all()
    with pytest.raises(ValueError, match=r'a batch .* \(B, K, 2\), got \(17, 2\)'):
        codec.encode_batch(keypoints[0])


def test_a_config_with_it_is_checked():
    """By ``udp-plugin convert --check``, which also takes converted configs."""
    cfg = swapped(RES50, 'UDPOffsetHeatmap')
    cfg.model.backbone.depth = 18
    cfg.model.head.in_channels = 512
    types = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    target = types.index('OffsetTargetGenerator')
    seen = []
    for on_device in (False, True):
        cfg.train_dataloader.dataset.pipeline[target].on_device = on_device
        seen.append(check(cfg))
    assert seen[0] == seen[1]
    assert seen[0].targets == seen[0].maps == [(2, 51, 64, 48)]


# --- What cannot be done --------------------------------------------------------


@pytest.mark.parametrize(
    ('encoder', 'multilevel', 'message'),
    [
        (
            dict(type='MSRAHeatmap', sigma=2, **SIZES),
            False,
            'UDPOffsetHeatmap with on_device=True, got MSRAHeatmap; swap the codec',
        ),
        (
            [OFFSET, dict(type='UDPHeatmap', sigma=2, **SIZES)],
            True,
            'with on_device=True, got UDPHeatmap; swap',
        ),
        (
            [OFFSET, OFFSET],
            False,
            'a list of 2 with on_device=True and multilevel=False; give one encoder',
        ),
    ],
)
def test_encoders_that_the_head_cannot_use(encoder, multilevel, message):
    with pytest.raises(ValueError, match=message):
        udp_plugin.OffsetTargetGenerator(encoder, multilevel=multilevel, on_device=True)
    udp_plugin.OffsetTargetGenerator(encoder, multilevel=multilevel)


def test_samples_of_different_codecs_are_no_batch():
    head = build_head('HeatmapHead', 'voting')
    one, other, with_maps = (
        packed(random_person(), target_of(dict(OFFSET, radius=radius), on_device=on))
        for radius, on in ((3.5, True), (3, True), (3.5, False))
    )
    codecs = r'radius=3\.0.* and .*radius=3\.5.*the same encoder'
    mixed = 'got samples with .*UDPOff.* and maps; .* and on_device'
    for first, second, message in (
        (one, other, codecs),
        (one, with_maps, mixed),
        (with_maps, one, mixed),
    ):
        with pytest.raises(ValueError, match=message):
            head.loss(features_for('HeatmapHead'), received([first, second]))


def test_keypoints_that_are_not_of_one_instance():
    target = target_of(OFFSET, on_device=True)
    visible = np.ones((1, K), np.float32)
    with pytest.raises(ValueError, match=r'one instance.* got \(2, 17, 2\)'):
        target(dict(keypoints=np.zeros((2, K, 2)), keypoints_visible=visible))
    with pytest.raises(
        ValueError, match=r'keypoints_visible must have shape \(1, 16\).*got \(1, 17\)'
    ):
        target(dict(keypoints=np.zeros((1, 16, 2)), keypoints_visible=visible))


def test_a_stock_head_ends_with_the_error_that_the_docstring_names():
    head = HeatmapHead(8, 3 * K, deconv_out_channels=None)
    _, samples = both_ways([random_person()] * 2, OFFSET)
    with pytest.raises(AttributeError, match="no attribute '_gt_fields'") as error:
        head.loss(features_for('HeatmapHead'), samples)
    assert str(error.value) in ' '.join(
        udp_plugin.OffsetTargetGenerator.__doc__.split()
    )


def test_an_mmpose_that_packs_no_keypoints_is_named(monkeypatch):
    monkeypatch.setattr(mmpose, '__version__', '1.1.0')
    with pytest.raises(ValueError, match='on_device=True needs MMPose 1.2.*got 1.1.0'):
        target_of(OFFSET, on_device=True)
