"""Maps, keypoints and arguments that are not as they should be."""

import numpy as np
import pytest
import torch
from helpers import CODECS, build_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from udp_plugin import functional as F

INPUT, HEATMAP = (96, 128), (24, 32)
SMALL = {name: build_codec(name, INPUT, HEATMAP) for name in CODECS}
SMALL['gaussian'] = build_codec('gaussian', INPUT, HEATMAP, sigma=1.5)
small_codecs = pytest.mark.parametrize('codec', SMALL.values(), ids=SMALL)


def check_within(codec, keypoints, scores):
    assert np.isfinite(keypoints).all()
    assert np.isfinite(scores).all()
    assert (keypoints >= 0).all()
    # Toolbox coordinates: the last pixel centre is at the input's pixel count.
    assert (keypoints <= np.array(codec.input_size) + 1e-4).all()
    assert (scores >= 0).all()


@small_codecs
def test_an_empty_batch_and_no_keypoints(codec):
    c = codec.channels_per_keypoint
    assert codec.batch_decode(torch.zeros(0, 3 * c, 32, 24)) == ([], [])
    keypoints, scores = codec.batch_decode(torch.zeros(2, 0, 32, 24))
    assert keypoints[0].shape == (1, 0, 2)
    assert scores[1].shape == (1, 0)


@small_codecs
def test_single_pixels_in_corners_and_on_borders(codec):
    pixels = np.array([(x, y) for x in (0, 1, 22, 23) for y in (0, 1, 30, 31)])
    maps = np.zeros((16, codec.channels_per_keypoint, 32, 24), np.float32)
    maps[range(16), 0, pixels[:, 1], pixels[:, 0]] = 1.0
    keypoints, scores = codec.decode(maps.reshape(-1, 32, 24))
    check_within(codec, keypoints, scores)
    assert (scores > 0).all()
    keypoints = F.toolbox_to_input(keypoints[0], INPUT)
    on_map = F.input_to_heatmap(keypoints, INPUT, HEATMAP)
    assert np.abs(on_map - pixels).max() <= 1.0 + 1e-4


NOT_FINITE = [float('nan'), float('inf'), -float('inf')]
values = st.one_of(
    st.floats(-1, 2, width=32),
    st.sampled_from([*np.float32([0, 1e-38, 1, 3e38, -3e38]).tolist(), *NOT_FINITE]),
)


@small_codecs
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


@small_codecs
@settings(max_examples=60, deadline=None)
@given(
    keypoints=hnp.arrays(
        np.float32,
        (1, 5, 2),
        elements=st.one_of(
            st.floats(-200, 300, width=32),
            st.sampled_from([2.0**127, *NOT_FINITE]),
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


MAPS = r'heatmap_size is \(24, 32\), got'


@pytest.mark.parametrize(
    ('method', 'shapes', 'message'),
    [
        *(
            ('decode', [shape], MAPS)
            for shape in [(3, 24, 32), (3, 31, 24), (32, 24), (1, 3, 32, 24)]
        ),
        *(
            ('encode', [shape], r'shape \(1, K, 2\), got')
            for shape in [(2, 5, 2), (5, 2), (1, 5, 1)]
        ),
        ('encode', [(1, 5, 2), (1, 4)], r'visible must have shape \(1, 5\)'),
    ],
)
@small_codecs
def test_wrong_shapes_are_named(codec, method, shapes, message):
    with pytest.raises(ValueError, match=message):
        getattr(codec, method)(*(np.zeros(shape, np.float32) for shape in shapes))


def test_offset_maps_come_in_threes():
    with pytest.raises(
        ValueError, match=r'\(B, 3 \* K, 32, 24\).*got \(1, 4, 32, 24\)'
    ):
        SMALL['authors'].decode(np.zeros((4, 32, 24), np.float32))
    with pytest.raises(ValueError, match='4 channels are no multiple of 3'):
        F.decode_offset(torch.zeros(4, 32, 24), 3.5)


BOTH = ('gaussian', 'voting')


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
        (BOTH[1:], dict(reading='vote'), "reading must be one of .*'voting'.* 'vote'"),
        (
            BOTH[1:],
            dict(radius=4, radius_factor=0.1),
            'radius=4 and radius_factor=0.1 both',
        ),
        (
            BOTH[1:],
            dict(input_size=(36, 48), heatmap_size=(9, 12)),
            'disc of a keypoint between pixels is empty',
        ),
    ],
)
def test_codec_arguments_are_named(codecs, args, message):
    for codec in codecs:
        with pytest.raises(ValueError, match=message):
            build_codec(codec, **args)
