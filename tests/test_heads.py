"""The heads: what they derive from their codec, their loss, and the flip test."""

import numpy as np
import pytest
import torch
from helpers import (
    CODECS,
    FLIP_INDICES,
    HEADS,
    LEVELS,
    SIZES,
    K,
    build_head,
    encoders_for,
    features_for,
    random_person,
)
from mmengine.structures import InstanceData, PixelData
from mmpose.datasets.transforms import GetBBoxCenterScale, PackPoseInputs
from mmpose.models.heads import HeatmapHead
from mmpose.models.losses import KeypointMSELoss
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
from mmpose.structures import PoseDataSample

import udp_plugin
from udp_plugin import functional as F


@pytest.fixture(autouse=True)
def seeded():
    np.random.seed(0)
    torch.manual_seed(0)


class PerfectHead(udp_plugin.UDPHeatmapHead):
    """A head whose network is perfect: its features are its maps."""

    def forward(self, feats):
        return feats[-1]


def head_config(codec, **args):
    return dict(
        in_channels=8,
        out_channels=K,
        deconv_out_channels=None,
        decoder=dict(codec, input_size=(192, 256), heatmap_size=(48, 64)),
        **args,
    )


def perfect_features(codec, keypoints):
    """What a perfect network gives for an input and for its mirror image."""
    mirrored = F.mirror(keypoints, 192)[:, FLIP_INDICES]
    return [
        (torch.as_tensor(codec.encode(points)['heatmaps'])[None],)
        for points in (keypoints, mirrored)
    ]


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('shift_heatmap', [False, True])
def test_flip_test_changes_nothing_for_a_perfect_network(codec, shift_heatmap):
    head = PerfectHead(**head_config(CODECS[codec]))
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, (191, 255), (1, K, 2)).astype(np.float32)
    features = perfect_features(head.decoder, keypoints)
    sample = PoseDataSample(metainfo=dict(flip_indices=FLIP_INDICES))
    plain = head.predict(features[0], [sample], dict(flip_test=False))
    test_cfg = dict(flip_test=True, flip_mode='heatmap', shift_heatmap=shift_heatmap)
    flipped = head.predict(features, [sample], test_cfg)
    np.testing.assert_allclose(flipped[0].keypoints, plain[0].keypoints, atol=1e-3)
    np.testing.assert_allclose(
        flipped[0].keypoint_scores, plain[0].keypoint_scores, atol=1e-5
    )


def training_samples(codec, batch=3):
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(batch):
        keypoints = rng.uniform(10, 180, (1, K, 2)).astype(np.float32)
        encoded = codec.encode(keypoints)
        sample = PoseDataSample()
        sample.gt_fields = PixelData(heatmaps=torch.as_tensor(encoded['heatmaps']))
        sample.gt_instance_labels = InstanceData(
            keypoint_weights=torch.as_tensor(encoded['keypoint_weights'])
        )
        samples.append(sample)
    return samples


@pytest.mark.parametrize('codec', CODECS)
def test_training_accuracy_is_of_keypoints(codec):
    head = PerfectHead(**head_config(CODECS[codec]))
    samples = training_samples(head.decoder)
    maps = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    losses = head.loss((maps,), samples)
    assert losses['loss_kpt'] == 0
    assert losses['acc_pose'] == 1
    # One keypoint in 17 out of place costs a 17th, whichever the codec.
    channels = head.decoder.channels_per_keypoint
    maps[:, :channels] = maps[:, :channels].roll((20, 20), (-2, -1))
    losses = head.loss((maps,), samples)
    assert losses['acc_pose'] == pytest.approx(16 / 17, abs=1e-6)
    for sample in samples:
        sample.gt_instance_labels.keypoint_weights[:, 0] = 0
    assert head.loss((maps,), samples)['acc_pose'] == 1
    assert 'acc_pose' not in head.loss((maps,), samples, dict(compute_acc=False))


@pytest.mark.parametrize(('axis', 'pixels'), [(0, 192), (1, 256)])
@pytest.mark.parametrize(('share', 'found'), [(0.045, True), (0.055, False)])
def test_training_accuracy_allows_5_percent_of_the_input(axis, pixels, share, found):
    codec = KEYPOINT_CODECS.build(head_config(CODECS['gaussian'])['decoder'])
    head = PerfectHead(**head_config(CODECS['gaussian']))
    keypoints = np.full((1, K, 2), 90, dtype=np.float32)
    sample = PoseDataSample()
    sample.gt_fields = PixelData(
        heatmaps=torch.as_tensor(codec.encode(keypoints)['heatmaps'])
    )
    sample.gt_instance_labels = InstanceData(keypoint_weights=torch.ones(1, K))
    keypoints[..., axis] += share * pixels
    maps = torch.as_tensor(codec.encode(keypoints)['heatmaps'])[None]
    assert head.loss((maps,), [sample])['acc_pose'] == float(found)


@pytest.mark.parametrize('codec', CODECS)
def test_keypoints_outside_the_crop_do_not_count_as_missed(codec):
    head = PerfectHead(**head_config(CODECS[codec]))
    keypoints = np.random.default_rng(0).uniform(40, 150, (1, K, 2))
    keypoints[0, 0] = 500
    encoded = head.decoder.encode(keypoints.astype(np.float32))
    sample = PoseDataSample()
    sample.gt_fields = PixelData(heatmaps=torch.as_tensor(encoded['heatmaps']))
    sample.gt_instance_labels = InstanceData(
        keypoint_weights=torch.as_tensor(encoded['keypoint_weights'])
    )
    noise = torch.rand(encoded['heatmaps'].shape) * 1e-3
    maps = sample.gt_fields.heatmaps + noise
    assert head.loss((maps[None],), [sample])['acc_pose'] == 1


def test_shift_heatmap_is_said_to_be_ignored_once(monkeypatch):
    said = []
    monkeypatch.setattr(
        'udp_plugin.models.heads.base.print_log',
        lambda message, **kwargs: said.append(message),
    )
    head = PerfectHead(**head_config(CODECS['voting']))
    features = perfect_features(head.decoder, np.full((1, K, 2), 100, np.float32))
    sample = PoseDataSample(metainfo=dict(flip_indices=FLIP_INDICES))
    head.predict(features, [sample], dict(flip_test=True))
    assert not said
    for _ in range(2):
        head.predict(features, [sample], dict(flip_test=True, shift_heatmap=True))
    assert len(said) == 1 and 'ignores shift_heatmap=True' in said[0]


def test_flip_indices_that_are_no_pairs_are_used_with_a_warning(monkeypatch):
    """As those of the toolbox's DeepFashion2, one of whose 294 names a wrong one."""
    said = []
    monkeypatch.setattr(
        'udp_plugin.models.heads.base.print_log',
        lambda message, **kwargs: said.append(message),
    )
    head = PerfectHead(**head_config(CODECS['gaussian']))
    keypoints = np.full((1, K, 2), 100, np.float32)
    features = perfect_features(head.decoder, keypoints)
    wrong = [0, 2, 2, *FLIP_INDICES[3:]]
    sample = PoseDataSample(metainfo=dict(flip_indices=wrong))
    for _ in range(2):
        head.predict(features, [sample], dict(flip_test=True))
    assert len(said) == 1 and 'mixes keypoints [1] with others' in said[0]


@pytest.mark.parametrize('codec', CODECS)
def test_autocast_does_not_round_coordinates(codec):
    head = PerfectHead(**head_config(CODECS[codec]))
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(20, 170, (1, K, 2)).astype(np.float32)
    maps = torch.as_tensor(head.decoder.encode(keypoints)['heatmaps'])[None]
    # No two pixels are equally high, between which rounding would decide.
    maps = (maps + 0.02 * torch.rand(maps.shape)).bfloat16()
    plain = head.predict((maps,), [PoseDataSample()])
    with torch.autocast('cpu', torch.bfloat16):
        under = head.predict((maps,), [PoseDataSample()])
    np.testing.assert_allclose(under[0].keypoints, plain[0].keypoints, atol=1e-4)
    np.testing.assert_allclose(
        under[0].keypoint_scores, plain[0].keypoint_scores, atol=1e-5
    )


def test_heatmaps_shown_are_one_a_keypoint():
    head = PerfectHead(**head_config(CODECS['voting']))
    maps = perfect_features(head.decoder, np.full((1, K, 2), 100, np.float32))[0]
    sample = PoseDataSample(metainfo=dict(flip_indices=FLIP_INDICES))
    _, fields = head.predict(maps, [sample], dict(output_heatmaps=True))
    assert fields[0].heatmaps.shape == (K, 64, 48)
    assert fields[0].heatmaps.min() == 0


def test_head_derives_channels_and_loss_from_its_codec():
    gaussian = udp_plugin.UDPHeatmapHead(**head_config(CODECS['gaussian']))
    assert gaussian.final_layer.out_channels == K
    assert type(gaussian.loss_module).__name__ == 'KeypointMSELoss'
    loss = dict(type='KeypointMSELoss', use_target_weight=True, loss_weight=3.0)
    offset = udp_plugin.UDPHeatmapHead(**head_config(CODECS['voting'], loss=loss))
    assert offset.final_layer.out_channels == 3 * K
    assert isinstance(offset.loss_module, udp_plugin.UDPOffsetLoss)
    assert offset.loss_module.use_target_weight
    assert offset.loss_module.loss_weight == 3.0
    assert not offset.loss_module.published
    stock = HeatmapHead(8, 3 * K, deconv_out_channels=None)
    assert offset.state_dict().keys() == stock.state_dict().keys()


@pytest.mark.parametrize(
    'foreign',
    [
        dict(type='mylib.KeypointMSELoss'),
        dict(type='KeypointMSELoss', _scope_='mylib'),
        dict(type=type('KeypointMSELoss', (), {'__module__': 'mylib.losses'})),
    ],
)
def test_a_loss_of_another_package_is_not_replaced(foreign):
    """It only happens to have the name of one whose counterpart is known."""
    with pytest.raises(ValueError, match=r'loss mylib\..*KeypointMSELoss of UDPHeat'):
        udp_plugin.UDPHeatmapHead(**head_config(CODECS['authors'], loss=foreign))


@pytest.mark.parametrize(
    'loss', [KeypointMSELoss, 'mmpose.models.losses.KeypointMSELoss']
)
def test_a_loss_given_as_a_class_is_replaced(loss):
    head = udp_plugin.UDPHeatmapHead(
        **head_config(CODECS['authors'], loss=dict(type=loss))
    )
    assert isinstance(head.loss_module, udp_plugin.UDPOffsetLoss)


def test_a_stock_config_of_combined_targets_keeps_its_channel_count():
    config = head_config(
        dict(CODECS['voting'], heatmap_type='combined'),
        loss=dict(type='CombinedTargetMSELoss', use_target_weight=True),
    )
    config['out_channels'] = 3 * 21
    head = udp_plugin.UDPHeatmapHead(**config)
    assert head.final_layer.out_channels == 3 * 21
    # The stock loss has a meaning on offset maps, and keeps it.
    assert head.loss_module.published


@pytest.mark.parametrize(
    ('codec', 'args', 'message'),
    [
        (dict(type='MSRAHeatmap', sigma=2), {}, 'got MSRAHeatmap; swap the codec'),
        ('gaussian', dict(out_channels=0), 'out_channels .* number of keypoints'),
        ('gaussian', dict(out_channels='17'), "out_channels .* got '17'"),
        (
            'gaussian',
            dict(loss=dict(type='CombinedTargetMSELoss')),
            'for offset maps.*use KeypointMSELoss',
        ),
        ('voting', dict(loss='KeypointMSELoss'), r"a dict with the key 'type', got"),
        (
            'voting',
            dict(loss=dict(type='KeypointMSELoss', skip_empty_channel=True)),
            'mean nothing on offset maps: skip_empty_channel',
        ),
        (
            dict(type='UDPOffsetHeatmap', heatmap_type='combined'),
            dict(loss=dict(type='CombinedTargetMSELoss')),
            'counts three channels a keypoint.*got 17',
        ),
        (
            'voting',
            dict(loss=dict(type='AdaptiveWingLoss')),
            'AdaptiveWingLoss .* is not defined on offset maps; use UDPOffsetLoss',
        ),
    ],
)
def test_head_arguments_are_named(codec, args, message):
    codec = CODECS[codec] if isinstance(codec, str) else codec
    with pytest.raises(ValueError, match=message):
        udp_plugin.UDPHeatmapHead(**{**head_config(codec), **args})


def test_head_needs_a_codec_and_two_sets_of_features():
    with pytest.raises(
        ValueError, match=r'decoder of UDPHeatmapHead must be .* NoneType'
    ):
        udp_plugin.UDPHeatmapHead(8, K)
    head = PerfectHead(**head_config(CODECS['voting']))
    with pytest.raises(ValueError, match='a list of two sets of features'):
        head.predict((torch.zeros(1, 51, 64, 48),), [], dict(flip_test=True))


# --- All heads ------------------------------------------------------------------


@pytest.mark.parametrize('codec', ['gaussian', 'authors'])
@pytest.mark.parametrize('name', HEADS)
def test_each_head_has_the_layers_of_its_stock_counterpart(name, codec):
    channels = 1 if codec == 'gaussian' else 3
    torch.manual_seed(0)
    ours = build_head(name, codec)
    stock = MODELS.build(dict(HEADS[name], type=name, out_channels=K * channels))
    ours.load_state_dict(stock.state_dict())
    features = features_for(name)
    wanted, got = stock.eval()(features), ours.eval()(features)
    wanted, got = ([m] if torch.is_tensor(m) else m for m in (wanted, got))
    assert len(got) == len(wanted) > 0
    for one, other in zip(got, wanted):
        assert one.shape == (2, K * channels, 64, 48)
        assert one.equal(other)


def crop(person, encoders):
    """The packed sample of a person, with the target(s) of the encoder(s)."""
    generator = dict(type='OffsetTargetGenerator', encoder=encoders)
    if isinstance(encoders, list):
        generator['multilevel'] = True
    results = dict(
        person,
        img=np.zeros((480, 640, 3), np.uint8),
        bbox_score=np.ones(1, np.float32),
        flip_indices=FLIP_INDICES,
    )
    for transform in (
        GetBBoxCenterScale(),
        TRANSFORMS.build(dict(type='TopDownAffineUDP', input_size=(192, 256))),
        TRANSFORMS.build(generator),
        PackPoseInputs(),
    ):
        results = transform(results)
    return results['data_samples']


def in_a_mirror(person):
    """The same person in the mirrored photograph."""
    x1, y1, x2, y2 = person['bbox'][0]
    keypoints = person['keypoints'][:, FLIP_INDICES].copy()
    keypoints[..., 0] = 639 - keypoints[..., 0]
    bbox = np.array([[639 - x2, y1, 639 - x1, y2]], np.float32)
    return dict(person, bbox=bbox, keypoints=keypoints)


def perfect_outputs(name, samples):
    """What a perfect network with this head gives for the samples."""
    fields = [sample.gt_fields for sample in samples]
    if not isinstance(fields[0], PixelData):
        return [
            torch.stack([field[level].heatmaps for field in fields])
            for level in LEVELS[name]
        ]
    maps = torch.stack([field.heatmaps for field in fields])
    return [maps] * len(LEVELS[name]) if name in LEVELS else maps


@pytest.mark.parametrize('codec', ['gaussian', 'unblurred', 'voting'])
@pytest.mark.parametrize(
    ('name', 'multilevel'),
    [*((name, False) for name in HEADS), *((name, True) for name in LEVELS)],
)
def test_perfect_network_end_to_end(name, multilevel, codec, monkeypatch):
    """Source to source through a stock estimator with the head's flip test."""
    encoders, decoder = encoders_for(name, codec, multilevel)
    estimator = TopdownPoseEstimator(
        backbone=dict(type='ResNet', depth=18),
        head=dict(HEADS[name], type=f'UDP{name}', out_channels=K, decoder=decoder),
        test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True),
    )
    head = estimator.head
    monkeypatch.setattr(head, 'forward', lambda outputs: outputs)

    persons = [random_person() for _ in range(8)]
    samples = [crop(person, encoders) for person in persons]
    mirrored = [crop(in_a_mirror(person), encoders) for person in persons]
    seen = iter([perfect_outputs(name, samples), perfect_outputs(name, mirrored)])
    monkeypatch.setattr(estimator, 'extract_feat', lambda inputs: next(seen))

    found = estimator.predict(torch.zeros(8, 3, 256, 192), samples)
    for sample, person in zip(found, persons):
        error = np.abs(sample.pred_instances.keypoints - person['keypoints'])
        assert error.max() < 1e-3
        assert sample.pred_instances.keypoint_scores.min() > 0

    outputs = perfect_outputs(name, samples)
    losses = head.loss(outputs, samples)
    assert losses['loss_kpt'] == 0
    assert losses['acc_pose'] == 1
    if name in LEVELS:
        # The last output is that which predicts.
        outputs[0] = torch.zeros_like(outputs[0])
        losses = head.loss(outputs, samples)
        assert losses['loss_kpt'] > 0
        assert losses['acc_pose'] == 1


@pytest.mark.parametrize('codec', ['gaussian', 'authors'])
@pytest.mark.parametrize('name', LEVELS)
def test_each_output_has_the_loss_of_its_level(name, codec, monkeypatch):
    """An error in one output costs as much as its own stock loss says."""
    encoders, decoder = encoders_for(name, codec, multilevel=True)
    weights = [0.5, 1.0, 2.0, 4.0][: len(LEVELS[name])]
    loss = 'KeypointMSELoss' if codec == 'gaussian' else 'CombinedTargetMSELoss'
    losses = [
        dict(type=loss, use_target_weight=True, loss_weight=weight)
        for weight in weights
    ]
    head = MODELS.build(
        dict(
            HEADS[name],
            type=f'UDP{name}',
            out_channels=K,
            decoder=decoder,
            loss=losses,
        )
    )
    monkeypatch.setattr(head, 'forward', lambda outputs: outputs)
    persons = [random_person() for _ in range(2)]
    persons[0]['keypoints_visible'][0, :5] = 0
    samples = [crop(person, encoders) for person in persons]
    outputs = perfect_outputs(name, samples)
    stock = MODELS.build(dict(type=loss, use_target_weight=True))
    seen = torch.tensor(np.concatenate([p['keypoints_visible'] for p in persons]))
    for index, weight in enumerate(weights):
        wrong = [maps.clone() for maps in outputs]
        wrong[index] += 0.1 * torch.randn_like(wrong[index])
        got = head.loss(wrong, samples)['loss_kpt']
        wanted = weight * stock(wrong[index], outputs[index], seen)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize('codec', ['gaussian', 'authors'])
@pytest.mark.parametrize('name', HEADS)
def test_each_head_learns(name, codec):
    """Gradients of its loss reach each of its parameters."""
    encoders, decoder = encoders_for(name, codec, name in LEVELS)
    head = MODELS.build(
        dict(HEADS[name], type=f'UDP{name}', out_channels=K, decoder=decoder)
    )
    samples = [crop(random_person(), encoders) for _ in range(2)]
    head.loss(features_for(name), samples)['loss_kpt'].backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize('name', LEVELS)
def test_hard_keypoints_are_mined_on_offset_maps_too(name, monkeypatch):
    outputs = len(LEVELS[name])
    losses = [dict(type='KeypointMSELoss')] * (outputs - 1)
    losses.append(dict(type='KeypointOHKMMSELoss', topk=3, loss_weight=2.0))
    head = build_head(name, 'authors', loss=losses)
    monkeypatch.setattr(head, 'forward', lambda maps: maps)
    encoders, _ = encoders_for(name, 'authors', multilevel=True)
    samples = [crop(random_person(), encoders) for _ in range(2)]
    maps = perfect_outputs(name, samples)
    target = maps[-1].clone()
    maps[-1] += (
        torch.randn(2, K, 1, 1, 1).mul(0.1).expand(2, K, 3, 64, 48).flatten(1, 2)
    )
    # The loss of each keypoint by itself, of which the three largest count.
    alone = udp_plugin.UDPOffsetLoss()
    each = torch.tensor(
        [
            [
                alone(
                    maps[-1][b : b + 1, 3 * k : 3 * k + 3],
                    target[b : b + 1, 3 * k : 3 * k + 3],
                )
                for k in range(K)
            ]
            for b in range(2)
        ]
    )
    wanted = 2 * np.sort(each.numpy(), axis=1)[:, -3:].mean()
    got = head.loss(maps, samples)['loss_kpt']
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_hard_keypoints_are_eight_unless_the_config_says_else():
    head = build_head('HeatmapHead', 'authors', loss=dict(type='KeypointOHKMMSELoss'))
    assert head.loss_module.topk == MODELS.build(dict(type='KeypointOHKMMSELoss')).topk
    with pytest.raises(ValueError, match='topk must be at most 2, .* got 8'):
        head.loss_module(*torch.zeros(2, 1, 6, 4, 4))
    with pytest.raises(ValueError, match='topk must be a positive integer, got 0'):
        udp_plugin.UDPOffsetLoss(topk=0)


@pytest.mark.parametrize('name', LEVELS)
def test_one_target_serves_all_outputs_of_a_head_with_levels(name):
    head, features = build_head(name, 'authors'), features_for(name)
    encoder = dict(CODECS['authors'], **SIZES)
    person = random_person()
    losses = [
        head.loss(features, [crop(person, encoders)] * 2)['loss_kpt']
        for encoders in (encoder, [encoder])
    ]
    assert losses[0].isfinite()
    assert losses[0] == losses[1]


def test_heads_say_which_levels_do_not_go_together():
    encoders = [dict(CODECS['authors'], **SIZES)] * 2
    samples = [crop(random_person(), encoders)] * 2
    for name, message in (
        ('HeatmapHead', r'target has 2 levels, but UDPHeatmapHead has 1 output'),
        ('CPMHead', r'target has 2 levels, but UDPCPMHead has 3 output'),
    ):
        with pytest.raises(ValueError, match=message):
            build_head(name, 'authors').loss(features_for(name), samples)
    head = build_head('MSPNHead', 'authors', level_indices=[0, 1, 0, 2])
    with pytest.raises(ValueError, match=r'level_indices .* below 2.*\[0, 1, 0, 2\]'):
        head.loss(features_for('MSPNHead'), samples)


def test_the_refine_machine_of_mspn_cannot_make_offsets():
    with pytest.raises(ValueError, match='use_prm=True .* ReLU.*could not be negative'):
        build_head('MSPNHead', 'authors', use_prm=True)
    build_head('MSPNHead', 'gaussian', use_prm=True)


@pytest.mark.parametrize('name', ['HeatmapHead', 'ViPNASHead', 'CPMHead'])
def test_heads_without_a_final_layer_are_given_their_maps(name):
    """As in the stock configs of CPM, whose backbone makes the maps."""
    args = dict(final_layer=None, deconv_out_channels=None, deconv_kernel_sizes=None)
    build_head(name, 'gaussian', in_channels=K, **args)
    build_head(name, 'authors', in_channels=3 * K, **args)
    with pytest.raises(ValueError, match='final_layer=None.* must be 51, got 17; let'):
        build_head(name, 'authors', in_channels=K, **args)
    args.update(deconv_out_channels=(34, 51), deconv_kernel_sizes=(4, 4))
    if name == 'ViPNASHead':
        args['deconv_num_groups'] = (17, 17)
    build_head(name, 'authors', in_channels=34, **args)


@pytest.mark.parametrize('name', HEADS)
def test_each_head_names_what_does_not_fit(name):
    with pytest.raises(ValueError, match=f'out_channels of UDP{name} must be'):
        build_head(name, 'gaussian', out_channels=0)
    with pytest.raises(ValueError, match=f'AdaptiveWingLoss of UDP{name} is not'):
        build_head(name, 'authors', loss=dict(type='AdaptiveWingLoss'))
    with pytest.raises(ValueError, match=f'decoder of UDP{name} must be'):
        build_head(name, 'authors', decoder=dict(type='MSRAHeatmap', sigma=2, **SIZES))
    with pytest.raises(TypeError, match='channels_in'):
        build_head(name, 'authors', channels_in=4)
