"""SimCC's vectors: targets, flips and readings, with a perfect network.

Its vectors are Gaussians by an equation in float64, at parts of a bin, so that no tie
of two bins hides a bias.
"""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample

from udp_plugin import UDPRTMCCHead, UDPRTMWHead, UDPSimCCHead, UDPSimCCLabel
from udp_plugin import functional as F

K = 4
#: Two pairs of keypoints that mirror each other.
FLIP = [1, 0, 3, 2]
SIZES = (192, 256), (288, 384), (256, 256)
RATIOS = 1, 2, 3, 2.5
SIGMA = 6.0


def codec_of(name, size=(192, 256), ratio=2.0, **settings):
    given = dict(input_size=size, simcc_split_ratio=ratio, sigma=SIGMA)
    return dict(type=name, **{**given, **settings})


def head_of(head, codec, size=(192, 256), ratio=2.0, **settings):
    maps = size[0] // 32, size[1] // 32
    return MODELS.build(
        dict(
            type=head,
            in_channels=8,
            out_channels=K,
            input_size=size,
            in_featuremap_size=maps,
            simcc_split_ratio=ratio,
            decoder=codec_of(codec, size, ratio, **settings),
        )
    ).eval()


def samples_of(count):
    samples = [PoseDataSample() for _ in range(count)]
    for sample in samples:
        sample.set_metainfo(dict(flip_indices=FLIP))
    return samples


def learnt(points, size, ratio, unit, form='gaussian'):
    """Vectors (B, K, W) and (B, K, H) of keypoints (B, K, 2) in input px."""
    vectors = []
    for axis, pixels in enumerate(size):
        length = int(np.around(pixels * ratio))
        scale = (length - 1) / (pixels - 1) if unit else ratio
        away = np.arange(length) - points[..., axis, None] * scale
        # As KLDiscretLoss teaches it: a Gaussian, or its logarithm and a constant.
        vector = -(away**2) / (2 * SIGMA**2)
        vector = np.exp(vector) if form == 'gaussian' else vector + 7
        vectors.append(torch.tensor(vector))
    return tuple(vectors)


def errors_of(head, size, ratio, unit, flip_test=True, form='gaussian'):
    """Errors (32, K, 2) of what the estimator is given, input px."""
    points = np.random.default_rng(0).uniform(0.25, 0.75, (32, K, 2)) * size
    mirrored = (points * [-1, 1] + [size[0] - 1, 0])[:, FLIP]
    head.forward = lambda points: learnt(points, size, ratio, unit, form)
    feats = [points, mirrored] if flip_test else points
    preds = head.predict(feats, samples_of(32), dict(flip_test=flip_test))
    # What the estimator maps to the source: biased as it is, or stretched (Eq. 47).
    stretch = np.array(size) / (np.array(size) - 1) if unit else 1
    return np.concatenate([pred.keypoints for pred in preds]) - points * stretch


@pytest.mark.parametrize('form', ['gaussian', 'logarithm'])
@pytest.mark.parametrize('ratio', RATIOS)
@pytest.mark.parametrize('size', SIZES)
def test_flip_tested_vectors_come_back_exactly(size, ratio, form):
    for codec, unit in {'SimCCLabel': False, 'UDPSimCCLabel': True}.items():
        head = head_of(UDPSimCCHead, codec, size, ratio)
        for flip_test in (True, False):
            errors = errors_of(head, size, ratio, unit, flip_test, form)
            assert np.abs(errors).max() < 1e-3


@pytest.mark.parametrize('ratio', RATIOS)
def test_the_stock_head_is_off_to_one_side(ratio):
    """By (r - 1) / 2r input px: a quarter at the ratio of the zoo."""
    head = head_of('SimCCHead', 'SimCCLabel', ratio=ratio)
    x, y = errors_of(head, (192, 256), ratio, unit=False).mean((0, 1))
    assert abs(x - (ratio - 1) / (2 * ratio)) < 0.06 and abs(y) < 0.06


@pytest.mark.parametrize(
    ('stock', 'ours'),
    {
        'SimCCHead': UDPSimCCHead,
        'RTMCCHead': UDPRTMCCHead,
        'RTMWHead': UDPRTMWHead,
    }.items(),
)
def test_names_alone_are_enough(stock, ours):
    """The layers are the stock ones, weights load, and the loss is theirs."""
    theirs = head_of(stock, 'SimCCLabel')
    feats = (torch.rand(2, 8, 8, 6),)
    if stock == 'RTMWHead':
        feats = (torch.rand(2, 4, 16, 12), *feats)
    points = np.random.default_rng(0).uniform(20, 180, (2, K, 2)).astype(np.float32)
    for codec in ('SimCCLabel', 'UDPSimCCLabel'):
        head = head_of(ours, codec)
        head.load_state_dict(theirs.state_dict(), strict=True)
        encoder, samples = KEYPOINT_CODECS.build(codec_of(codec)), samples_of(2)
        for sample, one in zip(samples, points):
            encoded = encoder.encode(one[None], np.ones((1, K), np.float32))
            labels = {k: torch.tensor(v).float() for k, v in encoded.items()}
            sample.gt_instance_labels = InstanceData(**labels)
        losses, expected = (each.loss(feats, samples) for each in (head, theirs))
        assert losses['loss_kpt'] == expected['loss_kpt'] > 0
        preds, fields = head.predict(
            [feats, feats], samples, dict(flip_test=True, output_heatmaps=True)
        )
        assert preds[0].keypoints.shape == (1, K, 2)
        assert fields[0].heatmaps.shape == (K, 512, 384)


@pytest.mark.parametrize('smoothing', ['gaussian', 'standard'])
def test_targets_are_at_their_exact_place(smoothing):
    """Their means are, by bins of unit length; reversing them mirrors the input."""
    settings = dict(smoothing_type=smoothing)
    codec = KEYPOINT_CODECS.build(codec_of('UDPSimCCLabel', **settings))
    points = np.random.default_rng(0).uniform(40, 150, (3, K, 2))
    points[0, 0] = np.nan
    points[0, 1] = [-300, 50]
    visible = np.ones((3, K))
    visible[0, 2] = 0
    encoded = codec.encode(points, visible)
    mirrored = codec.encode(points * [-1, 1] + [191, 0], visible)
    assert (encoded['keypoint_weights'] == visible * [[0, 0, 1, 1]] * 1)[0].all()
    assert (encoded['keypoint_weights'][1:] == 1).all()
    for axis, (name, length) in enumerate(dict(x=384, y=512).items()):
        labels = encoded[f'keypoint_{name}_labels']
        assert labels.dtype == np.float32 and labels.shape == (3, K, length)
        assert not labels[0, :3].any()
        place = (labels[1:] * np.arange(length)).sum(-1) / labels[1:].sum(-1)
        pixels = (192, 256)[axis]
        expected = points[1:, :, axis] * (length - 1) / (pixels - 1)
        np.testing.assert_allclose(place, expected, atol=1e-3)
    there = encoded['keypoint_x_labels'][..., ::-1]
    np.testing.assert_allclose(mirrored['keypoint_x_labels'], there, atol=1e-6)
    # On tensors the same.
    tensors = codec.encode(torch.tensor(points), torch.tensor(visible))
    for name, values in encoded.items():
        np.testing.assert_allclose(tensors[name].numpy(), values, atol=1e-6)


def test_rounded_targets_are_the_stock_ones():
    """Where a keypoint is on a bin of both measures, there is no difference."""
    settings = dict(normalize=True), dict(smoothing_type='standard')
    for setting in (
        *settings,
        dict(smoothing_type='standard', label_smooth_weight=0.1),
    ):
        stock = KEYPOINT_CODECS.build(codec_of('SimCCLabel', ratio=1.0, **setting))
        ours = KEYPOINT_CODECS.build(codec_of('UDPSimCCLabel', ratio=1.0, **setting))
        points = (
            np.random.default_rng(0).integers(30, 150, (1, K, 2)).astype(np.float32)
        )
        visible = np.array([[1, 1, 0, 1]], np.float32)
        theirs, found = (each.encode(points, visible) for each in (stock, ours))
        for name, values in theirs.items():
            np.testing.assert_allclose(found[name], values, atol=1e-6)


@pytest.mark.parametrize('codec', ['SimCCLabel', 'UDPSimCCLabel'])
def test_hostile_vectors_give_something_finite(codec):
    head = head_of(UDPRTMCCHead, codec, decode_visibility=True)
    x, y = torch.rand(6, K, 384), torch.rand(6, K, 512)
    x[0], x[1], x[2], y[3], y[4] = 0, np.nan, np.inf, -np.inf, 5
    x[5, :, 7] = np.nan
    keypoints, (scores, visible) = head.reading.batch_decode(x, y)
    keypoints, scores = np.concatenate(keypoints), np.concatenate(scores)
    assert np.isfinite(keypoints).all() and np.isfinite(scores).all()
    assert (keypoints >= 0).all() and (keypoints <= [192, 256]).all()
    assert np.isfinite(np.concatenate(visible)).all()
    assert not scores[:3].any()
    assert head.reading.batch_decode(x[:0], y[:0]) == ([], ([], []))


def test_visibilities_are_the_stock_ones():
    stock = head_of('RTMCCHead', 'SimCCLabel', decode_visibility=True)
    ours = head_of(UDPRTMCCHead, 'SimCCLabel', decode_visibility=True)
    vectors = torch.rand(3, K, 384) / 100, torch.rand(3, K, 512) / 100
    for theirs, found in zip(stock.decode(vectors), ours.decode(vectors)):
        np.testing.assert_allclose(
            found.keypoints_visible, theirs.keypoints_visible, rtol=1e-4
        )
        np.testing.assert_allclose(found.keypoint_scores, theirs.keypoint_scores)


def test_noise_is_read_better_than_by_the_highest_bin():
    places = torch.linspace(60, 320, 1000, dtype=torch.float64)
    clean = torch.exp(-((torch.arange(384) - places[:, None]) ** 2) / (2 * SIGMA**2))
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.manual_seed(0))
    read, _ = F.decode_vectors(noisy, SIGMA)
    ours, argmax = ((each - places).abs().mean() for each in (read, noisy.argmax(-1)))
    assert ours < 0.2 * argmax


def test_the_kernel_reads_as_the_definition(monkeypatch):
    random = torch.manual_seed(0)
    vectors = torch.rand((40, 200), generator=random)
    places = torch.linspace(-3, 203, 30)[:, None]
    bumps = torch.exp(-((torch.arange(200) - places) ** 2) / 40)
    vectors[:30] = bumps + 0.1 * vectors[:30] - 0.5
    vectors[30, 50], vectors[31, 60:] = np.nan, np.inf
    vectors[32], vectors[33], vectors[34] = 0, np.nan, -3
    for sigma in (1.0, 4.9, 60.0):
        fused = F.decode_vectors(vectors, sigma)
        with monkeypatch.context() as patch:
            patch.setattr(F.kernels, 'fit', lambda maps: False)
            defined = F.decode_vectors(vectors, sigma)
        for one, other in zip(fused, defined):
            np.testing.assert_allclose(one, other, atol=2e-3)


def test_what_does_not_go_together_is_named():
    with pytest.raises(ValueError, match='decoder of UDPSimCCHead must be.*UDPSimCC'):
        MODELS.build(
            dict(
                type=UDPSimCCHead,
                in_channels=8,
                out_channels=K,
                input_size=(192, 256),
                in_featuremap_size=(6, 8),
                decoder=dict(type='RegressionLabel', input_size=(192, 256)),
            )
        )
    head = head_of(UDPSimCCHead, 'UDPSimCCLabel')
    with pytest.raises(ValueError, match=r'shapes \(B, K, 384\) and \(B, K, 512\)'):
        head.decode((torch.rand(2, K, 512), torch.rand(2, K, 384)))
    with pytest.raises(ValueError, match='two sets of features'):
        head.predict((torch.rand(1, 8, 8, 6),), samples_of(1), dict(flip_test=True))
    with pytest.raises(ValueError, match='sigma'):
        KEYPOINT_CODECS.build(dict(codec_of('UDPSimCCLabel'), sigma=0.0))
    assert isinstance(head.decoder, UDPSimCCLabel)
