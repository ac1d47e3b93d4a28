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
    build_codec,
    build_head,
    each_codec,
    each_head_and_levels,
    encoders_for,
    features_for,
    packed,
    random_person,
    target_of,
)
from mmengine.structures import InstanceData, PixelData
from mmpose.models.heads import HeatmapHead
from mmpose.models.losses import KeypointMSELoss
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS
from mmpose.structures import PoseDataSample

import udp_plugin
from udp_plugin import functional as F
from udp_plugin.models.heads.base import batch_targets

pytestmark = pytest.mark.usefixtures('seeded')
SAMPLE = PoseDataSample(metainfo=dict(flip_indices=FLIP_INDICES))
each_head = pytest.mark.parametrize('name', HEADS)
each_head_with_levels = pytest.mark.parametrize('name', LEVELS)
each_kind = pytest.mark.parametrize('codec', ['gaussian', 'authors'])


def perfect_head(codec, name='HeatmapHead', **args):
    """A head whose network is perfect: its features are its maps."""
    head = build_head(name, codec, **args)
    head.forward = lambda outputs: outputs
    return head


def random_keypoints(low=0.0, high=(191.0, 255.0)):
    return np.random.uniform(low, high, (1, K, 2)).astype(np.float32)


def maps_of(head, keypoints):
    return torch.as_tensor(head.decoder.encode(keypoints)['heatmaps'])[None]


def training_sample(head, keypoints):
    encoded = head.decoder.encode(keypoints)
    sample = PoseDataSample()
    sample.gt_fields = PixelData(heatmaps=torch.as_tensor(encoded['heatmaps']))
    sample.gt_instance_labels = InstanceData(
        keypoint_weights=torch.as_tensor(encoded['keypoint_weights'])
    )
    return sample


# --- The flip test and what is predicted ------------------------------------------


@each_head
@each_codec
def test_mirrored_maps_are_joined_by_flip_average(codec, name):
    """Whatever the layout of the maps, and without a change to them."""
    head = perfect_head(codec, name)
    channels = head.decoder.channels_per_keypoint
    maps = torch.rand(2, 2, K * channels, 64, 48)
    wanted = F.flip_average(maps[0], maps[1], FLIP_INDICES, channels)
    keypoints, scores = head.decoder.batch_decode(wanted)
    for layout in (torch.contiguous_format, torch.channels_last):
        shifted = layout == torch.channels_last
        test_cfg = dict(flip_test=True, shift_heatmap=shifted, output_heatmaps=True)
        seen = [m.contiguous(memory_format=layout) for m in maps]
        feats = [[seen[0]], [seen[1]]] if name in LEVELS else seen
        found, fields = head.predict(feats, [SAMPLE, SAMPLE], test_cfg)
        for b in range(2):
            # Of offset maps, those of the disc are shown: one a keypoint.
            assert fields[b].heatmaps.equal(wanted[b, ::channels])
            np.testing.assert_array_equal(found[b].keypoints, keypoints[b])
            np.testing.assert_array_equal(found[b].keypoint_scores, scores[b])
        _, fields = head.predict(feats[0], [SAMPLE] * 2, dict(output_heatmaps=True))
        assert fields[0].heatmaps.equal(maps[0, 0, ::channels])
        assert torch.stack(seen).equal(maps)


def test_what_the_flip_test_ignores_or_mixes_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(
        'udp_plugin.models.heads.base.print_log',
        lambda message, **kwargs: said.append(message),
    )
    head = perfect_head('voting')
    features = [torch.zeros(1, 51, 64, 48)] * 2
    head.predict(features, [SAMPLE], dict(flip_test=True))
    assert not said
    for _ in range(2):
        head.predict(features, [SAMPLE], dict(flip_test=True, shift_heatmap=True))
    assert len(said) == 1 and 'ignores shift_heatmap=True' in said[0]
    # As in the toolbox's DeepFashion2, one of whose 294 names a wrong one.
    wrong = dict(flip_indices=[0, 2, 2, *FLIP_INDICES[3:]])
    for _ in range(2):
        head.predict(features, [PoseDataSample(metainfo=wrong)], dict(flip_test=True))
    assert len(said) == 2 and 'mixes keypoints [1] with others' in said[1]


@each_codec
def test_autocast_does_not_round_coordinates(codec):
    head = perfect_head(codec)
    maps = maps_of(head, random_keypoints(20, 170))
    # No two pixels are equally high, between which rounding would decide.
    maps = (maps + 0.02 * torch.rand(maps.shape)).bfloat16()
    plain = head.predict(maps, [SAMPLE])
    with torch.autocast('cpu', torch.bfloat16):
        under = head.predict(maps, [SAMPLE])
    np.testing.assert_allclose(under[0].keypoints, plain[0].keypoints, atol=1e-4)
    np.testing.assert_allclose(
        under[0].keypoint_scores, plain[0].keypoint_scores, atol=1e-5
    )


def test_a_flip_test_without_the_mirror_image_is_named():
    with pytest.raises(ValueError, match='a list of two sets of features'):
        features = [torch.zeros(1, 51, 64, 48)]
        perfect_head('voting').predict(features, [SAMPLE], dict(flip_test=True))


# --- The training accuracy --------------------------------------------------------


@each_codec
def test_training_accuracy_is_of_keypoints_on_the_map(codec):
    head = perfect_head(codec)
    keypoints = [random_keypoints(40, 150) for _ in range(3)]
    for outside in keypoints:
        outside[0, 1] = 500
    samples = [training_sample(head, each) for each in keypoints]
    maps = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    assert head.loss(maps, samples)['loss_kpt'] == 0
    # What is predicted of a keypoint outside the crop does not count.
    maps += torch.rand(maps.shape) * 1e-3
    assert head.loss(maps, samples)['acc_pose'] == 1
    # One of the 16 others out of place costs a 16th, whichever the codec.
    channels = head.decoder.channels_per_keypoint
    maps[:, :channels] = maps[:, :channels].roll((20, 20), (-2, -1))
    losses = head.loss(maps, samples)
    assert losses['acc_pose'] == pytest.approx(15 / 16, abs=1e-6)
    for sample in samples:
        sample.gt_instance_labels.keypoint_weights[:, 0] = 0
    assert head.loss(maps, samples)['acc_pose'] == 1
    assert 'acc_pose' not in head.loss(maps, samples, dict(compute_acc=False))


@pytest.mark.parametrize(('axis', 'pixels'), [(0, 192), (1, 256)])
@pytest.mark.parametrize(('share', 'found'), [(0.045, True), (0.055, False)])
def test_training_accuracy_allows_5_percent_of_the_input(axis, pixels, share, found):
    head = perfect_head('gaussian')
    keypoints = np.full((1, K, 2), 90, dtype=np.float32)
    sample = training_sample(head, keypoints)
    keypoints[..., axis] += share * pixels
    maps = maps_of(head, keypoints)
    assert head.loss(maps, [sample])['acc_pose'] == float(found)


# --- What is derived of the arguments -----------------------------------------------


def test_head_derives_channels_and_loss_from_its_codec():
    gaussian = build_head('HeatmapHead', 'gaussian')
    assert gaussian.final_layer.out_channels == K
    assert type(gaussian.loss_module).__name__ == 'KeypointMSELoss'
    loss = dict(use_target_weight=True, loss_weight=3.0)
    by_path = 'mmpose.models.losses.KeypointMSELoss'
    for kind in ('KeypointMSELoss', KeypointMSELoss, by_path):
        offset = build_head('HeatmapHead', 'voting', loss=dict(loss, type=kind))
        assert offset.final_layer.out_channels == 3 * K
        assert isinstance(offset.loss_module, udp_plugin.UDPOffsetLoss)
        assert offset.loss_module.use_target_weight
        assert offset.loss_module.loss_weight == 3.0
        assert not offset.loss_module.published
    stock = HeatmapHead(8, 3 * K, deconv_out_channels=None)
    assert offset.state_dict().keys() == stock.state_dict().keys()


FOREIGN = [
    dict(type='mylib.KeypointMSELoss'),
    dict(type='KeypointMSELoss', _scope_='mylib'),
    dict(type=type('KeypointMSELoss', (), {'__module__': 'mylib.losses'})),
]
COMBINED = dict(
    decoder=dict(type='UDPOffsetHeatmap', heatmap_type='combined', **SIZES),
    loss=dict(type='CombinedTargetMSELoss', use_target_weight=True),
)


def test_a_stock_config_of_combined_targets_keeps_its_channel_count():
    head = build_head('HeatmapHead', 'voting', **{**COMBINED, 'out_channels': 3 * 21})
    assert head.final_layer.out_channels == 3 * 21
    # The stock loss has a meaning on offset maps, and keeps it.
    assert head.loss_module.published


OTHER_CODEC = dict(type='SimCCLabel', input_size=(192, 256))
UNUSED = dict(type='KeypointMSELoss', skip_empty_channel=True)


@each_head
@pytest.mark.parametrize(
    ('codec', 'wrong', 'message'),
    [
        ('gaussian', dict(decoder=None), 'decoder of {} must .* NoneType'),
        (
            'gaussian',
            dict(decoder=OTHER_CODEC),
            'decoder of {} must be .* stock MSRAHeatmap, .* got SimCCLabel',
        ),
        ('gaussian', dict(out_channels=0), 'out_channels of {} .* number of keypoints'),
        ('gaussian', dict(out_channels='17'), "out_channels of {} .* got '17'"),
        ('gaussian', COMBINED['loss'], 'of {} is for offset maps.*use KeypointMSELoss'),
        ('voting', dict(loss='KeypointMSELoss'), "a dict with the key 'type', got"),
        ('voting', COMBINED, 'of {} counts three channels a keypoint.*got 17'),
        (
            'voting',
            UNUSED,
            'of {} has .* mean nothing on offset maps: skip_empty_channel',
        ),
        (
            'voting',
            dict(type='AdaptiveWingLoss'),
            'AdaptiveWingLoss of {} is not defined on offset maps; use UDPOffsetLoss',
        ),
        # These only happen to have the name of one whose counterpart is known.
        *(('voting', loss, r'loss mylib\..*KeypointMSELoss of {}') for loss in FOREIGN),
    ],
)
def test_head_arguments_are_named(codec, wrong, message, name):
    """A dict with ``type`` is a loss."""
    args = dict(loss=wrong) if 'type' in wrong else wrong
    with pytest.raises(ValueError, match=message.format(f'UDP{name}')):
        build_head(name, codec, **args)


@each_head
def test_unknown_arguments_are_refused(name):
    with pytest.raises(TypeError, match='channels_in'):
        build_head(name, 'gaussian', channels_in=4)


# --- All heads ------------------------------------------------------------------


@each_kind
@each_head
def test_each_head_has_the_layers_of_its_stock_counterpart(name, codec):
    channels = 1 if codec == 'gaussian' else 3
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


def crop(person, encoders, **args):
    """The packed sample of a person, with the target(s) of the encoder(s)."""
    return packed(person, target_of(encoders, **args))['data_samples']


def in_a_mirror(person):
    """The same person in the mirrored photograph."""
    x1, y1, x2, y2 = person['bbox'][0]
    keypoints = person['keypoints'][:, FLIP_INDICES].copy()
    keypoints[..., 0] = 639 - keypoints[..., 0]
    bbox = np.array([[639 - x2, y1, 639 - x1, y2]], np.float32)
    return dict(person, bbox=bbox, keypoints=keypoints)


def perfect_outputs(name, samples):
    """What a perfect network with this head gives for the samples."""
    levels = [maps for maps, _ in batch_targets(samples)]
    if name not in LEVELS:
        return levels[0]
    return [levels[level if len(levels) > 1 else 0] for level in LEVELS[name]]


@pytest.mark.parametrize('codec', ['gaussian', 'unblurred', 'voting'])
@each_head_and_levels
def test_perfect_network_end_to_end(name, multilevel, codec):
    """Source to source through a stock estimator with the head's flip test."""
    encoders, decoder = encoders_for(name, codec, multilevel)
    estimator = TopdownPoseEstimator(
        backbone=dict(type='ResNet', depth=18),
        head=dict(HEADS[name], type=f'UDP{name}', out_channels=K, decoder=decoder),
        test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True),
    )
    head = estimator.head
    head.forward = lambda outputs: outputs

    persons = [random_person() for _ in range(8)]
    samples = [crop(person, encoders) for person in persons]
    mirrored = [crop(in_a_mirror(person), encoders) for person in persons]
    seen = iter([perfect_outputs(name, samples), perfect_outputs(name, mirrored)])
    estimator.extract_feat = lambda inputs: next(seen)

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


@each_kind
@each_head_with_levels
def test_each_output_has_the_loss_of_its_level(name, codec):
    """An error in one output costs as much as its own stock loss says."""
    encoders, decoder = encoders_for(name, codec, multilevel=True)
    weights = [0.5, 1.0, 2.0, 4.0][: len(LEVELS[name])]
    loss = 'KeypointMSELoss' if codec == 'gaussian' else 'CombinedTargetMSELoss'
    loss = dict(type=loss, use_target_weight=True)
    losses = [dict(loss, loss_weight=weight) for weight in weights]
    head = perfect_head(codec, name, decoder=decoder, loss=losses)
    persons = [random_person() for _ in range(2)]
    persons[0]['keypoints_visible'][0, :5] = 0
    samples = [crop(person, encoders) for person in persons]
    outputs = perfect_outputs(name, samples)
    stock = MODELS.build(loss)
    seen = torch.tensor(np.concatenate([p['keypoints_visible'] for p in persons]))
    for index, weight in enumerate(weights):
        wrong = [maps.clone() for maps in outputs]
        wrong[index] += 0.1 * torch.randn_like(wrong[index])
        got = head.loss(wrong, samples)['loss_kpt']
        wanted = weight * stock(wrong[index], outputs[index], seen)
        torch.testing.assert_close(got, wanted)


@each_head_with_levels
def test_hard_keypoints_are_mined_on_offset_maps_too(name):
    losses = [dict(type='KeypointMSELoss')] * (len(LEVELS[name]) - 1)
    losses.append(dict(type='KeypointOHKMMSELoss', topk=3, loss_weight=2.0))
    head = perfect_head('authors', name, loss=losses)
    encoders, _ = encoders_for(name, 'authors', multilevel=True)
    samples = [crop(random_person(), encoders) for _ in range(2)]
    maps = perfect_outputs(name, samples)
    target = maps[-1]
    error = torch.randn(2, K, 1, 1, 1).mul(0.1).expand(2, K, 3, 64, 48)
    maps[-1] = target + error.flatten(1, 2)
    # The loss of each keypoint by itself, of which the three largest count.
    alone = udp_plugin.UDPOffsetLoss()
    pairs = [
        zip(output.split(3), right.split(3)) for output, right in zip(maps[-1], target)
    ]
    each = [[alone(a[None], b[None]) for a, b in pair] for pair in pairs]
    wanted = 2 * torch.tensor(each).topk(3, 1)[0].mean()
    torch.testing.assert_close(head.loss(maps, samples)['loss_kpt'], wanted)


def test_hard_keypoints_are_eight_unless_the_config_says_else():
    head = build_head('HeatmapHead', 'authors', loss=dict(type='KeypointOHKMMSELoss'))
    assert head.loss_module.topk == MODELS.build(dict(type='KeypointOHKMMSELoss')).topk
    with pytest.raises(ValueError, match='topk must be at most 2, .* got 8'):
        head.loss_module(*torch.zeros(2, 1, 6, 4, 4))
    with pytest.raises(ValueError, match='topk must be a positive integer, got 0'):
        udp_plugin.UDPOffsetLoss(topk=0)


@each_head_with_levels
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


@pytest.mark.parametrize(
    ('name', 'args', 'message'),
    [
        ('HeatmapHead', {}, r'target has 2 levels, but UDPHeatmapHead has 1 output'),
        ('CPMHead', {}, r'target has 2 levels, but UDPCPMHead has 3 output'),
        (
            'MSPNHead',
            dict(level_indices=[0, 1, 0, 2]),
            r'level_indices .* below 2.*\[0, 1, 0, 2\]',
        ),
    ],
)
def test_heads_say_which_levels_do_not_go_together(name, args, message):
    head = build_head(name, 'authors', **args)
    encoders = [dict(CODECS['authors'], **SIZES)] * 2
    for on_device in (False, True):
        samples = [crop(random_person(), encoders, on_device=on_device).to_tensor()] * 2
        with pytest.raises(ValueError, match=message):
            head.loss(features_for(name), samples)


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


# --- Data, codec and network that do not go together ----------------------------------


def labelled(decoder, count):
    """Two training samples of so many keypoints, made by a codec."""
    owner = type('Owner', (), dict(decoder=decoder))
    return [training_sample(owner, random_keypoints()[:, :count]) for _ in range(2)]


@pytest.mark.parametrize('count', [5, 1])
@each_kind
@each_head
def test_data_of_other_keypoints_than_the_head_are_named(name, codec, count):
    """A single one is not broadcast to all, either."""
    head = build_head(name, codec)
    with pytest.raises(
        ValueError,
        match=f'UDP{name} has out_channels=17.* {count} keypoint.*out_channels={count}',
    ):
        head.loss(features_for(name), labelled(head.decoder, count))


def test_the_stock_way_to_count_channels_is_that_of_the_cure():
    head = build_head('HeatmapHead', 'authors', **{**COMBINED, 'out_channels': 51})
    with pytest.raises(ValueError, match='out_channels=51.* set out_channels=15$'):
        head.loss(features_for('HeatmapHead'), labelled(head.decoder, 5))


def test_targets_of_another_codec_than_the_heads_are_named():
    head, other = build_head('HeatmapHead', 'authors'), build_codec('gaussian')
    with pytest.raises(ValueError, match=r'1 map\(s\) a .* UDPOffsetHeatmap has 3'):
        head.loss(features_for('HeatmapHead'), labelled(other, K))
    smaller = build_codec('authors', heatmap_size=(24, 32))
    with pytest.raises(
        ValueError, match=r'24x32.* network .*48x64.*heatmap_size=\(48, 64\) .* encoder'
    ):
        head.loss(features_for('HeatmapHead'), labelled(smaller, K))


@pytest.mark.parametrize(
    ('size', 'swapped'), [((64, 48), True), ((24, 32), False), ((48, 60), False)]
)
@each_kind
@each_head
def test_maps_that_are_not_of_heatmap_size_are_named(name, codec, size, swapped):
    decoder = dict(CODECS[codec], **dict(SIZES, heatmap_size=size))
    head, features = build_head(name, codec, decoder=decoder), features_for(name)
    said = rf'heatmap_size is \({size[0]}, {size[1]}\), got .*64, 48\)'
    said += '.*width and height are swapped' if swapped else ''
    said += r'.*set heatmap_size=\(48, 64\)'
    for ends in (
        lambda: head.loss(features, labelled(head.decoder, K)),
        lambda: head.predict(features, [SAMPLE] * 2),
        lambda: head.predict([features] * 2, [SAMPLE] * 2, dict(flip_test=True)),
    ):
        with pytest.raises(ValueError, match=said):
            ends()


@pytest.mark.parametrize('metainfo', [{}, dict(flip_indices=[0, 2, 1])])
def test_a_flip_test_without_its_indices_is_named(metainfo):
    head, samples = perfect_head('voting'), [PoseDataSample(metainfo=metainfo)]
    with pytest.raises(ValueError) as error:
        head.predict([torch.zeros(1, 51, 64, 48)] * 2, samples, dict(flip_test=True))
    said = str(error.value)
    if metainfo:
        assert 'names 3 keypoints' in said and 'out_channels' in said
    else:
        assert "'flip_indices'" in said and 'meta_keys of PackPoseInputs' in said
