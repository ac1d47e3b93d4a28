"""Maps, keypoints and arguments that are not as they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import udp_plugin
from udp_plugin import functional as F

INPUT, HEATMAP = (96, 128), (24, 32)
CODECS = {
    'gaussian': udp_plugin.UDPGaussianHeatmap(INPUT, HEATMAP, sigma=1.5),
    'authors': udp_plugin.UDPOffsetHeatmap(INPUT, HEATMAP, reading='authors'),
    'toolbox': udp_plugin.UDPOffsetHeatmap(INPUT, HEATMAP, reading='toolbox'),
    'voting': udp_plugin.UDPOffsetHeatmap(INPUT, HEATMAP),
}
every_codec = pytest.mark.parametrize('codec', CODECS.values(), ids=CODECS)


def check_within(codec, keypoints, scores):
    assert np.isfinite(keypoints).all()
    assert np.isfinite(scores).all()
    assert (keypoints >= 0).all()
    # Toolbox coordinates: the last pixel centre is at the input's pixel count.
    assert (keypoints <= np.array(codec.input_size) + 1e-4).all()
    assert (scores >= 0).all()


def good_maps(codec, count=3):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(20, 70, (1, count, 2)).astype(np.float32)
    return codec.encode(keypoints)['heatmaps']


@every_codec
@pytest.mark.parametrize('value', [0.0, 0.3, 1e30, -1.0, np.nan, np.inf, -np.inf])
def test_maps_without_a_peak_score_zero(codec, value):
    maps = np.full((2 * codec.channels_per_keypoint, 32, 24), value, np.float32)
    keypoints, scores = codec.decode(maps)
    check_within(codec, keypoints, scores)
    assert (scores == 0).all()


@every_codec
@pytest.mark.parametrize('value', [0.0, np.nan, np.inf, -np.inf, 1e38, -1e38])
def test_a_bad_keypoint_leaves_its_neighbours_alone(codec, value):
    maps = good_maps(codec)
    expected, expected_scores = codec.decode(maps)
    c = codec.channels_per_keypoint
    maps[c : 2 * c] = value
    keypoints, scores = codec.decode(maps)
    check_within(codec, keypoints, scores)
    assert scores[0, 1] == 0
    np.testing.assert_allclose(keypoints[0, [0, 2]], expected[0, [0, 2]], atol=1e-4)
    np.testing.assert_allclose(scores[0, [0, 2]], expected_scores[0, [0, 2]], atol=1e-6)


@every_codec
def test_a_few_bad_pixels_are_ignored(codec):
    maps = good_maps(codec)
    expected, _ = codec.decode(maps)
    maps[:, 0, 0], maps[:, 31, 0], maps[:, 0, 23] = np.nan, np.inf, -np.inf
    keypoints, _ = codec.decode(maps)
    np.testing.assert_allclose(keypoints, expected, atol=1e-3)


@pytest.mark.parametrize('wild', [3e38, -3e38, np.nan, np.inf])
@pytest.mark.parametrize('codec', ['authors', 'toolbox', 'voting'])
def test_wild_offsets_stay_on_the_map(codec, wild):
    codec = CODECS[codec]
    maps = good_maps(codec)
    maps[1], maps[2, ::2], maps[5] = wild, -wild, wild
    keypoints, scores = codec.decode(maps)
    check_within(codec, keypoints, scores)
    assert (scores > 0).all()


@every_codec
def test_an_empty_batch_and_no_keypoints(codec):
    c = codec.channels_per_keypoint
    assert codec.batch_decode(torch.zeros(0, 3 * c, 32, 24)) == ([], [])
    keypoints, scores = codec.batch_decode(torch.zeros(2, 0, 32, 24))
    assert keypoints[0].shape == (1, 0, 2)
    assert scores[1].shape == (1, 0)


@every_codec
@pytest.mark.parametrize('x', [0, 1, 22, 23])
@pytest.mark.parametrize('y', [0, 1, 30, 31])
def test_single_pixels_in_corners_and_on_borders(codec, x, y):
    c = codec.channels_per_keypoint
    maps = np.zeros((c, 32, 24), np.float32)
    maps[0, y, x] = 1.0
    keypoints, scores = codec.decode(maps)
    check_within(codec, keypoints, scores)
    assert scores[0, 0] > 0
    keypoints = F.toolbox_to_input(keypoints[0, 0], INPUT)
    on_map = F.input_to_heatmap(keypoints, INPUT, HEATMAP)
    assert np.abs(on_map - [x, y]).max() <= 1.0 + 1e-4


values = st.one_of(
    st.floats(-1, 2, width=32),
    st.sampled_from(
        [float(np.float32(v)) for v in (0, 1e-38, 1, 3e38, -3e38)]
        + [float('nan'), float('inf'), -float('inf')]
    ),
)


@every_codec
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_maps_the_result_is_on_the_map(codec, data):
    shape = (2 * codec.channels_per_keypoint, 32, 24)
    maps = data.draw(hnp.arrays(np.float32, shape, elements=values, fill=values))
    before = maps.copy()
    keypoints, scores = codec.decode(maps)
    check_within(codec, keypoints, scores)
    np.testing.assert_array_equal(maps, before)
    flat = maps[:: codec.channels_per_keypoint].reshape(2, -1)
    empty = ~(np.where(np.isfinite(flat), flat, 0) > 0).any(-1)
    assert (scores[0, empty] == 0).all()


@every_codec
@settings(max_examples=60, deadline=None)
@given(
    keypoints=hnp.arrays(
        np.float32,
        (1, 5, 2),
        elements=st.one_of(
            st.floats(-200, 300, width=32),
            st.sampled_from([float('nan'), float('inf'), -float('inf'), 2.0**127]),
        ),
    ),
    visible=hnp.arrays(
        np.float32, (1, 5), elements=st.sampled_from([0.0, 1.0, 2.0, float('nan')])
    ),
)
def test_whatever_the_keypoints_the_target_is_finite(codec, keypoints, visible):
    encoded = codec.encode(keypoints, visible)
    maps, weights = encoded['heatmaps'], encoded['keypoint_weights']
    assert np.isfinite(maps).all()
    assert np.isfinite(weights).all()
    maps = maps.reshape(5, -1)
    known = np.isfinite(keypoints[0]).all(-1) & (visible[0] > 0)
    assert not maps[~known].any()
    assert not weights[0, ~known].any()
    inside = ((keypoints[0] >= 0) & (keypoints[0] <= np.array(INPUT) - 1)).all(-1)
    assert maps[known & inside].any(-1).all()


@every_codec
@pytest.mark.parametrize('shape', [(3, 24, 32), (3, 31, 24), (32, 24), (1, 3, 32, 24)])
def test_maps_of_the_wrong_size_are_named(codec, shape):
    with pytest.raises(ValueError, match=r'heatmap_size is \(24, 32\), got'):
        codec.decode(np.zeros(shape, np.float32))


def test_the_core_names_its_arguments():
    maps, points = torch.zeros(3, 32, 24), torch.zeros(1, 5, 2)
    visible = torch.ones(1, 5)
    with pytest.raises(TypeError, match='maps must be a torch.Tensor, got ndarray'):
        F.decode_dark(maps.numpy(), 11)
    for radius in (0, -2, float('nan')):
        with pytest.raises(ValueError, match='radius must be a positive number'):
            F.decode_offset(maps, radius, 'voting')
        with pytest.raises(ValueError, match='radius must be a positive number'):
            F.offset_target(points, visible, (24, 32), radius)
        with pytest.raises(ValueError, match='sigma must be a positive number'):
            F.gaussian_target(points, visible, (24, 32), radius)
    assert F.check_kernel_size(np.int64(11)) == 11


def test_offset_maps_come_in_threes():
    with pytest.raises(
        ValueError, match=r'\(B, 3 \* K, 32, 24\).*got \(1, 4, 32, 24\)'
    ):
        CODECS['authors'].decode(np.zeros((4, 32, 24), np.float32))
    with pytest.raises(ValueError, match='4 channels are no multiple of 3'):
        F.decode_offset(torch.zeros(4, 32, 24), 3.5)


@every_codec
@pytest.mark.parametrize('shape', [(2, 5, 2), (5, 2), (1, 5, 1)])
def test_keypoints_of_the_wrong_shape_are_named(codec, shape):
    with pytest.raises(ValueError, match=r'shape \(1, K, 2\), got'):
        codec.encode(np.zeros(shape, np.float32))


@every_codec
def test_visibility_of_the_wrong_shape_is_named(codec):
    with pytest.raises(ValueError, match=r'visible must have shape \(1, 5\)'):
        codec.encode(np.zeros((1, 5, 2), np.float32), np.zeros((1, 4), np.float32))


BOTH = ('UDPGaussianHeatmap', 'UDPOffsetHeatmap')


@pytest.mark.parametrize(
    ('codecs', 'args', 'message'),
    [
        (BOTH, dict(input_size=192), r'input_size must be two integers'),
        (BOTH, dict(input_size=(192, 256, 3)), r'input_size must be two integers'),
        (BOTH, dict(input_size=(192.5, 256)), r'input_size must .* got \(192.5, 256\)'),
        (BOTH, dict(heatmap_size=(48, 2)), r'heatmap_size must be .* at least 3'),
        (BOTH, dict(heatmap_size='48'), r"heatmap_size must be .* got '48'"),
        (BOTH, dict(sigma=0), 'sigma must be a positive number, got 0'),
        (BOTH, dict(sigma='2'), "sigma must be a positive number, got '2'"),
        (BOTH, dict(sigma=float('nan')), 'sigma must be a positive number, got nan'),
        (BOTH, dict(sigma=2, kernel_size=11), 'sigma=2 and kernel_size=11 both'),
        (BOTH, dict(kernel_size=10), 'kernel_size must be a positive odd .* got 10'),
        (BOTH, dict(blur_kernel_size=10), 'blur_kernel_size must be a positive odd'),
        (BOTH, dict(blur_kernel_size=11.0), 'blur_kernel_size must be a positive odd'),
        (BOTH, dict(unbiased=False), 'unbiased=False asks for the biased coding'),
        (BOTH[:1], dict(heatmap_type='combined'), 'use UDPOffsetHeatmap'),
        (BOTH[1:], dict(heatmap_type='gaussian'), 'use UDPGaussianHeatmap'),
        (
            BOTH[1:],
            dict(reading='vote'),
            r"reading must be one of .*'voting'.* 'vote'",
        ),
        (
            BOTH[1:],
            dict(radius=4, radius_factor=0.1),
            r'radius=4 and radius_factor=0.1 both',
        ),
        (
            BOTH[1:],
            dict(input_size=(36, 48), heatmap_size=(9, 12)),
            'disc of a keypoint between pixels is empty',
        ),
    ],
)
def test_codec_arguments_are_named(codecs, args, message):
    args = {**dict(input_size=(192, 256), heatmap_size=(48, 64)), **args}
    for codec in codecs:
        with pytest.raises(ValueError, match=message):
            getattr(udp_plugin, codec)(**args)
