"""Decoding against the built-ins, OpenCV, and what the maps were made from."""

import cv2
import numpy as np
import pytest
import torch
from helpers import SETUPS, SIZES, build_codec, each_codec
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from mmpose.registry import KEYPOINT_CODECS

from benchmarks.bench.answers import authors_decoding
from udp_plugin import functional as F
from udp_plugin.codecs.kept import reading_of

#: What weights were trained with that are kept.
STOCK_CODECS = [
    dict(type='MSRAHeatmap', sigma=2),
    dict(type='MSRAHeatmap', sigma=2, unbiased=True),
    dict(type='MegviiHeatmap', kernel_size=11),
    dict(type='UDPHeatmap', sigma=2),
    dict(type='UDPHeatmap', heatmap_type='combined'),
]
each_setup = pytest.mark.parametrize(
    ('input_size', 'heatmap_size', 'sigma'), SETUPS[:4]
)


@pytest.fixture(autouse=True, params=['kernels', 'definition'])
def read_by(request, monkeypatch):
    """Each test is about the fused kernels, and about what they are to compute."""
    if request.param == 'definition':
        monkeypatch.setattr(F.decoding.kernels, 'fit', lambda maps: False)


def random_points(heatmap_size, count, margin=0.0, seed=0):
    """Heatmap px, float32 (1, count, 2), ``margin`` px inside the map."""
    rng = np.random.default_rng(seed)
    high = np.array(heatmap_size) - 1 - margin
    return rng.uniform(margin, high, (1, count, 2)).astype(np.float32)


def noisy(maps, seed=0, noise=0.05):
    """Maps as a network might give them: dimmed, uneven, with smooth noise."""
    rng = np.random.default_rng(seed)
    grain = rng.standard_normal(maps.shape).astype(np.float32)
    grain = np.stack([cv2.GaussianBlur(g, (5, 5), 0) for g in grain])
    return (0.8 * maps + noise * grain / grain.std()).astype(np.float32)


def encode(codec, points):
    """Maps (C, H, W) of points in heatmap px."""
    keypoints = F.heatmap_to_input(points, codec.input_size, codec.heatmap_size)
    return codec.encode(keypoints)['heatmaps']


@pytest.mark.parametrize('noise', [0.0, 0.05])
@each_setup
def test_gaussian_decoding_is_the_builtin_s(input_size, heatmap_size, sigma, noise):
    ours = build_codec('gaussian', input_size, heatmap_size, sigma=sigma)
    blur = ours.blur_kernel_size
    stock = UDPHeatmap(input_size, heatmap_size, sigma=sigma, blur_kernel_size=blur)
    # The toolbox's blur darkens the border, which spoils its step there.
    points = random_points(heatmap_size, 100, margin=3 * sigma + 2)
    maps = noisy(encode(ours, points), noise=noise)
    keypoints, scores = ours.decode(maps)
    expected, expected_scores = stock.decode(maps)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    np.testing.assert_allclose(keypoints, expected, atol=1e-3)
    assert keypoints.shape == (1, 100, 2)
    assert scores.shape == (1, 100)


@pytest.mark.parametrize('noise', [0.0, 0.05])
@each_setup
def test_unblurred_offset_decoding_is_the_builtin_s(
    input_size, heatmap_size, sigma, noise
):
    factor = 1.75 * sigma / max(heatmap_size)
    args = dict(radius_factor=factor)
    ours = build_codec('unblurred', input_size, heatmap_size, **args)
    stock = UDPHeatmap(input_size, heatmap_size, heatmap_type='combined', **args)
    # Nearer to a corner, the built-in finds the blurred map highest outside the disc.
    points = random_points(heatmap_size, 100, margin=4 * sigma)
    maps = encode(ours, points)
    if noise:
        maps = noisy(maps, noise=noise)
    keypoints, scores = ours.decode(maps)
    expected, expected_scores = stock.decode(maps)
    np.testing.assert_allclose(keypoints, expected, atol=1e-4)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_near_corners_the_builtin_reads_outside_the_disc():
    """Reflected borders raise its blurred map there, on perfect maps, too."""
    ours = build_codec('unblurred')
    stock = UDPHeatmap((192, 256), (48, 64), heatmap_type='combined')
    points = np.array([[[3.2, 3.3]]], dtype=np.float32)
    truth = F.heatmap_to_input(points, (192, 256), (48, 64))
    maps = encode(ours, points)
    for codec, error in ((ours, 0.0), (stock, 13.0)):
        decoded = F.toolbox_to_input(codec.decode(maps)[0], (192, 256))
        assert np.abs(decoded - truth).max() == pytest.approx(error, abs=0.5)


@each_setup
def test_authors_reading_is_an_opencv_rendition_of_it(input_size, heatmap_size, sigma):
    codec = build_codec('authors', input_size, heatmap_size, sigma=sigma)
    # The blur reaches over the border, where reflection counts.
    points = random_points(heatmap_size, 100, margin=3 * sigma)
    maps = noisy(encode(codec, points))
    expected, expected_scores = authors_decoding(maps, codec.radius)
    maps = torch.from_numpy(maps)
    keypoints, scores = F.decode_offset(maps, codec.radius, 'authors')
    np.testing.assert_allclose(keypoints, expected, atol=1e-4)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


@pytest.mark.parametrize('size', [1, 3, 5, 7, 9, 11, 15, 23])
def test_blur_is_opencv_s(size):
    maps = np.random.default_rng(0).random((5, 20, 16)).astype(np.float32)
    expected = np.stack([cv2.GaussianBlur(m, (size, size), 0) for m in maps])
    blurred = F.blur(torch.from_numpy(maps), size)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize('quarter', [True, False])
def test_biased_decoding_is_the_builtin_msra_s(quarter):
    stock = MSRAHeatmap((192, 256), (48, 64), sigma=2)
    rng = np.random.default_rng(0)
    maps = rng.random((200, 64, 48)).astype(np.float32)
    expected, expected_scores = stock.decode(maps)
    keypoints, scores = F.decode_argmax(torch.from_numpy(maps), quarter)
    keypoints = F.heatmap_to_input(keypoints, (192, 256), (48, 64), unbiased=False)
    distance = np.abs(keypoints.numpy() - expected[0])
    assert distance.max() == (0.0 if quarter else 1.0)
    np.testing.assert_allclose(scores, expected_scores[0])


def test_biased_coding_costs_a_quarter_of_a_heatmap_pixel():
    """What the quarter shift leaves on perfect maps, 1 input px at stride 4."""
    points = torch.from_numpy(random_points((48, 64), 2000, margin=8))
    maps, _ = F.gaussian_target(
        points, torch.ones(1, 2000), (48, 64), sigma=2, unbiased=False
    )
    keypoints, _ = F.decode_argmax(maps)
    assert (keypoints - points).abs().mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(('input_size', 'heatmap_size', 'sigma'), SETUPS)
@each_codec
def test_perfect_maps_give_their_keypoints_back(codec, input_size, heatmap_size, sigma):
    """Anywhere on the map, corners and borders included."""
    by_authors = codec == 'authors'
    codec = build_codec(codec, input_size, heatmap_size, sigma=sigma)
    # Blurring a masked target shrinks the offsets, at the border the more.
    margin = 4 * sigma if by_authors else 0
    points = random_points(heatmap_size, 20 if sigma == 6 else 400, margin)
    if not by_authors:
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
        points[0, :4] = corners * (np.float32(heatmap_size) - 1)
    keypoints = F.heatmap_to_input(points, input_size, heatmap_size)
    decoded, scores = codec.decode(codec.encode(keypoints)['heatmaps'])
    error = np.abs(F.toolbox_to_input(decoded, input_size) - keypoints)
    if by_authors:
        assert (error / F.stride(input_size, heatmap_size)).mean() < 0.05
    else:
        assert error.max() < 1e-3
    assert (scores > 0.2).all()


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@each_codec
def test_a_batch_of_any_dtype_is_read_as_its_samples_are(codec, dtype):
    """And nothing changes in place."""
    codec = build_codec(codec)
    # The noise leaves no two pixels equally high, between which rounding decides.
    points = [random_points((48, 64), 17, 4, seed) for seed in range(3)]
    maps = [noisy(encode(codec, each), seed) for seed, each in enumerate(points)]
    maps = torch.from_numpy(np.stack(maps)).to(dtype)
    before = maps.clone()
    keypoints, scores = codec.batch_decode(maps)
    assert len(keypoints) == len(scores) == 3
    for i in range(3):
        single, single_scores = codec.decode(maps[i].float().numpy())
        np.testing.assert_allclose(keypoints[i], single, atol=1e-4)
        np.testing.assert_allclose(scores[i], single_scores, atol=1e-5)
    assert maps.equal(before)


def test_voting_averages_noise_that_one_pixel_keeps():
    codec = build_codec('voting')
    points = random_points((48, 64), 400, margin=8)
    maps = encode(codec, points)
    rng = np.random.default_rng(0)
    maps = maps + 0.05 * rng.standard_normal(maps.shape).astype(np.float32)
    error = {}
    for reading in F.READINGS:
        decoded, _ = F.decode_offset(torch.from_numpy(maps), codec.radius, reading)
        error[reading] = np.linalg.norm(decoded - points[0], axis=-1).mean()
    assert error['voting'] < error['authors'] < error['toolbox']


@pytest.mark.parametrize(
    ('heatmap_size', 'radius'), [((48, 64), 3.5), ((24, 32), 1.75), ((16, 20), 1.09)]
)
def test_votes_are_right_where_offsets_are_too_short(heatmap_size, radius):
    """Shrunk offsets cross zero where they did, and that is where voting looks."""
    points = torch.from_numpy(random_points(heatmap_size, 300, margin=4))
    # As far from all pixels as can be.
    points[0, :20] = points[0, :20].floor() + 0.5
    maps, _ = F.offset_target(points, torch.ones(1, 300), heatmap_size, radius)
    _, scores = F.decode_offset(maps, radius)
    assert (scores - 1).abs().max() < 0.05
    maps[:, 1::3] *= 0.7
    maps[:, 2::3] *= 0.7
    error = {}
    for reading in F.READINGS:
        decoded, _ = F.decode_offset(maps, radius, reading)
        error[reading] = (decoded - points).norm(dim=-1).mean()
    # Of the smallest discs, three or four pixels vote, seldom all around the keypoint.
    assert error['voting'] < (0.4 if radius < 1.5 else 0.15) * error['toolbox']
    assert error['toolbox'] > 0.1


def test_the_score_of_votes_falls_with_their_spread():
    codec = build_codec('voting')
    points = random_points((48, 64), 200, margin=8)
    perfect = torch.from_numpy(encode(codec, points))
    _, scores = F.decode_offset(perfect, codec.radius)
    assert (scores - 1).abs().max() < 0.05
    # Offsets 0.1 R off, one way and the other in turn, so that the mean stays.
    spread = perfect.clone()
    checkers = (torch.arange(64)[:, None] + torch.arange(48)) % 2 * 2 - 1
    spread[1::3] += 0.1 * checkers * perfect[0::3]
    found, lower = F.decode_offset(spread, codec.radius)
    expected = scores / np.sqrt(1 + (0.1 * 6) ** 2)
    torch.testing.assert_close(lower, expected, rtol=0.02, atol=0)
    assert np.abs(found - points[0]).max() < 0.1
    # The geometric mean of both: a quarter of the class is half the score.
    spread[0::3] /= 4
    torch.testing.assert_close(F.decode_offset(spread, 3.5)[1], lower / 2)


@pytest.mark.parametrize('noise', [0.02, 0.05, 0.1])
@pytest.mark.parametrize('sigma', [1, 2, 4, 6])
def test_white_noise_costs_dark_what_it_costs_the_builtins(sigma, noise):
    """The wider a Gaussian, the farther from its middle noise moves the argmax."""
    size, blur = (24 * sigma, 32 * sigma), F.dark_kernel_size(sigma)
    points = random_points(size, 400, margin=3 * sigma + 2)
    maps, _ = F.gaussian_target(
        torch.from_numpy(points), torch.ones(1, 400), size, sigma
    )
    rng = np.random.default_rng(0)
    grain = rng.standard_normal(maps.shape).astype(np.float32)
    maps = (maps + noise * grain).numpy()[0]
    # One input px a heatmap px.
    stock = dict(sigma=sigma, blur_kernel_size=blur)
    msra = MSRAHeatmap(size, size, unbiased=True, **stock).decode(maps.copy())[0]
    udp = UDPHeatmap(size, size, **stock).decode(maps)[0]
    ours, _ = F.decode_dark(torch.from_numpy(maps), blur)
    found = ours.numpy(), F.toolbox_to_input(udp[0], size), msra[0]
    errors = [np.linalg.norm(each - points[0], axis=-1) for each in found]
    for share in (0.5, 0.9, 1):
        mine, *builtins = (np.quantile(each, share) for each in errors)
        assert mine < 1.05 * max(builtins)


@pytest.mark.parametrize(('kernel_size', 'sigma'), [(5, 1.1), (11, 2), (23, 3.8)])
def test_dark_stays_in_its_neighbourhood(kernel_size, sigma):
    """A nearly singular Hessian sends the built-in far out of the map."""
    maps = np.random.default_rng(0).random((300, 64, 48)).astype(np.float32)
    argmax, _ = F.decode_argmax(torch.from_numpy(maps), quarter=False)
    keypoints, _ = F.decode_dark(torch.from_numpy(maps), kernel_size)
    assert (keypoints - argmax).abs().max() <= sigma + 1e-6
    stock, _ = UDPHeatmap((192, 256), (48, 64)).decode(maps)
    stock = F.input_to_heatmap(
        F.toolbox_to_input(stock[0], (192, 256)), (192, 256), (48, 64)
    )
    assert np.abs(stock - argmax.numpy()).max() > 50


def test_only_pixels_within_the_radius_vote():
    """A second keypoint's disc in the window's corner is none of the first's."""
    first, second = np.array([20.0, 30.0]), np.array([23.0, 33.0])
    y, x = np.mgrid[:64, :48]
    maps = np.zeros((3, 64, 48), dtype=np.float32)
    for (m, n), reach in ((first, 2.0), (second, 0.5)):
        disc = (x - m) ** 2 + (y - n) ** 2 <= reach**2
        maps[0][disc] = 1.0
        maps[1][disc], maps[2][disc] = ((m - x) / 3.5)[disc], ((n - y) / 3.5)[disc]
    found, _ = F.decode_offset(torch.from_numpy(maps), 3.5, 'voting')
    np.testing.assert_allclose(found[0], first, atol=1e-4)


def plain_peak(h, kernel_size):
    """The blurred map's argmax among positive pixels, in float64.

    Also its value, and how much higher it is than any other pixel.
    """
    blurred = cv2.GaussianBlur(np.float64(h), (kernel_size, kernel_size), 0)
    blurred = np.where(h > 0, blurred, 0)
    second, first = np.partition(blurred.ravel(), -2)[-2:]
    if first <= 0:
        return np.array(h.shape[::-1]) // 2, 0, 1
    y, x = np.unravel_index(blurred.argmax(), blurred.shape)
    return (x, y), first, first - second


def hard_maps(kind, heatmap_size, count):
    """Classification maps whose blurred peak is not where a quick look finds it."""
    rng = np.random.default_rng(0)
    points = random_points(heatmap_size, count, seed=rng.integers(99))
    discs, _ = F.offset_target(points, np.ones((1, count)), heatmap_size, 3.5)
    discs = discs[0, ::3]
    grain = rng.standard_normal(discs.shape).astype(np.float32)
    if kind == 'noise':
        return grain
    if kind == 'two peaks':
        return discs + np.float32(1.001) * discs[::-1] + 0.01 * grain
    if kind == 'spikes':
        spikes = 3 * (rng.random(discs.shape) < 0.01)
        return (0.8 * discs + spikes + 0.02 * np.abs(grain)).astype(np.float32)
    if kind == 'plateau':
        smooth = np.stack([cv2.blur(disc, (9, 9)) for disc in discs])
        return np.minimum(3 * smooth, 1) + np.float32(0.001) * np.abs(grain)
    assert kind == 'below zero'
    return discs - 0.5 + 0.05 * grain


@pytest.mark.parametrize('kernel_size', [7, 15, 23])
@pytest.mark.parametrize('heatmap_size', [(48, 64), (72, 97), (17, 13), (5, 9)])
@pytest.mark.parametrize(
    'kind', ['noise', 'two peaks', 'spikes', 'plateau', 'below zero']
)
def test_peaks_are_those_of_maps_blurred_as_a_whole(kind, heatmap_size, kernel_size):
    """Wherever there is more to a map than its highest disc."""
    classes = hard_maps(kind, heatmap_size, 60)
    maps = torch.zeros(60, 3, *classes.shape[1:])
    maps[:, 0] = torch.from_numpy(classes)
    found, scores = F.decode_offset(maps.flatten(0, 1), 3.5, 'toolbox', kernel_size)
    peaks, expected, margins = map(
        np.array, zip(*(plain_peak(h, kernel_size) for h in classes))
    )
    clear = margins > 1e-5
    assert clear.sum() > 10
    np.testing.assert_array_equal(found[clear], peaks[clear])
    np.testing.assert_allclose(scores[clear], expected[clear], atol=1e-5)


@each_codec
def test_a_spoilt_map_spoils_no_other(codec):
    codec = build_codec(codec)
    maps = noisy(encode(codec, random_points((48, 64), 24, 4)))
    expected, expected_scores = codec.decode(maps)
    spoilt = maps.copy().reshape(24, codec.channels_per_keypoint, 64, 48)
    # Without a peak, since they are flat or empty; the last three only in the class.
    flat = [0, 0.3, -1, 1e30, 1e38, -1e38, np.nan, np.inf, -np.inf, 0.25, np.nan, -1]
    spoilt[:9] = np.reshape(flat[:9], (9, 1, 1, 1))
    spoilt[9:12, 0] = np.reshape(flat[9:], (3, 1, 1))
    # With some pixels that are not finite.
    spoilt[12, 0, 30:40] = -np.inf
    spoilt[13, 0, 20, 20] = np.inf
    for y, x, value in ((0, 0, np.nan), (63, 0, np.inf), (0, 47, -np.inf)):
        spoilt[14, :, y, x] = value
    # With offsets far beyond the map.
    for k, value in enumerate([3e38, -3e38, np.nan, np.inf], 15):
        spoilt[k, 1:2], spoilt[k, 2:, ::2] = value, -value
    spoilt[19] *= 3e38
    before = spoilt.copy()
    keypoints, scores = codec.decode(spoilt.reshape(maps.shape))
    np.testing.assert_array_equal(spoilt, before)
    np.testing.assert_allclose(keypoints[0, 20:], expected[0, 20:], atol=1e-4)
    np.testing.assert_allclose(scores[0, 20:], expected_scores[0, 20:], atol=1e-6)
    # In the toolbox's coordinates, the last pixel is at the input's pixel count.
    assert ((keypoints >= 0) & (keypoints <= np.array([192, 256]) + 1e-4)).all()
    assert (scores[0, :12] == 0).all()
    assert (scores[0, 12:] > 0).all() and np.isfinite(scores).all()
    # What is not finite counts as nothing, not as the map's end.
    spoilt[~np.isfinite(spoilt)] = 0
    cleaned, cleaned_scores = codec.decode(spoilt.reshape(maps.shape))
    np.testing.assert_allclose(keypoints, cleaned, atol=1e-4)
    np.testing.assert_allclose(scores, cleaned_scores, atol=1e-5)


@pytest.mark.parametrize('radius', [0.8, 1.0, 2.0, 3.5, 5.25])
def test_votes_of_perfect_maps_agree_anywhere_on_the_map(radius):
    points = torch.from_numpy(random_points((24, 32), 400))
    points[0, :20] = points[0, :20].round()
    points[0, :4] = torch.tensor([[0, 0], [23, 31], [23, 0], [0.4, 30.6]])
    maps, _ = F.offset_target(points, torch.ones(1, 400), (24, 32), radius)
    # Of the smallest, not all have a pixel.
    drawn = maps[0, ::3].amax((1, 2)) > 0
    found, scores = F.decode_offset(maps, radius)
    assert (found - points)[0, drawn].abs().max() < 1e-3
    inner = (
        (points > 2 * radius) & (points < points.new_tensor([23, 31]) - 2 * radius)
    ).all(-1)
    assert scores[drawn[None] & inner].min() > 0.9
    assert scores[0, drawn].min() > 0.7
    assert scores.max() < 1.01


@pytest.mark.parametrize('reading', F.READINGS)
def test_decoding_can_be_learnt_through(reading):
    maps = torch.rand(1, 60, 24, 32, requires_grad=True)
    keypoints, scores = F.decode_offset(maps, 2.0, reading)
    (keypoints.sum() + scores.sum()).backward()
    assert maps.grad.isfinite().all()
    assert maps.grad.any()


# --- what is moved, and read with weights kept ----------------------------------------


@pytest.mark.parametrize('distance', [(1, 0), (-2, 0), (0, 3), (3, -1), (60, 0)])
def test_whole_pixels_are_moved_as_slices_with_repeated_edges(distance):
    images = torch.rand(2, 3, 9, 12)
    x, y = distance
    padded = torch.nn.functional.pad(images, (64, 64, 64, 64), mode='replicate')
    expected = padded[..., 64 - y : 64 - y + 9, 64 - x : 64 - x + 12]
    torch.testing.assert_close(F.move(images, distance), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
@pytest.mark.parametrize('distance', [(0.75, 0.0), (-0.3, 0.5), (1.25, -2.6)])
def test_a_gaussian_moves_by_a_fraction(distance, dtype):
    x, y = torch.arange(40.0, dtype=torch.float64), torch.arange(30.0).double()
    blob = torch.exp(-((y[:, None] - 14.2) ** 2 + (x - 19.6) ** 2) / 8).to(dtype)
    for autocast in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            moved = F.move(blob, distance)
        # Neither does autocast round what it is given, nor is it given back wider.
        assert moved.dtype == dtype
        moved, before = moved.double(), blob.double()
        places = [
            ((m.sum(0) @ x / m.sum()).item(), (m.sum(1) @ y / m.sum()).item())
            for m in (before, moved)
        ]
        # bfloat16 rounds each pixel, and thereby the centroid.
        atol = {torch.bfloat16: 5e-2, torch.float16: 5e-3}.get(dtype, 1e-4)
        np.testing.assert_allclose(np.subtract(*places[::-1]), distance, atol=atol)


def test_nothing_and_what_is_not_finite_are_moved_too():
    assert F.move(torch.rand(0, 3, 8, 6), (0.5, -0.5)).shape == (0, 3, 8, 6)
    images = torch.rand(2, 3, 8, 6)
    assert F.move(images, (0.0, 0.0)).equal(images)
    maps, mirrored = torch.rand(2, 2, 4, 16, 12)
    expected = F.flip_average(maps, mirrored, [1, 0, 2, 3], 1, (-0.75, 0.5))
    for value in (float('nan'), float('inf'), -float('inf')):
        spoilt = mirrored.clone()
        spoilt[0, 1, 3, 5] = value
        found = F.flip_average(maps, spoilt, [1, 0, 2, 3], 1, (-0.75, 0.5))
        # In the map of the keypoint's mirror image, and there alone.
        assert found[0, 0].isfinite().all()
        same = torch.ones(2, 4, dtype=torch.bool)
        same[0, 0] = False
        torch.testing.assert_close(found[same], expected[same])


@pytest.mark.parametrize('codec', STOCK_CODECS, ids=lambda codec: codec['type'])
def test_kept_weights_read_something_finite_of_any_map(codec):
    reading = reading_of(KEYPOINT_CODECS.build(dict(codec, **SIZES)))
    channels = reading.channels_per_keypoint
    height, width = 64, 48
    maps = torch.zeros(9, 2 * channels, height, width)
    for index, value in enumerate((np.nan, np.inf, -np.inf, 1e30, -1.0, 0.3)):
        maps[index] = value
    maps[6, :, 5, 7], maps[7, :, -1, -1] = float('nan'), 1.0
    maps[8] = torch.randn(2 * channels, height, width)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        keypoints, scores = reading.batch_decode(maps.to(dtype))
        keypoints, scores = np.stack(keypoints), np.stack(scores)
        assert keypoints.shape == (9, 1, 2, 2) and scores.shape == (9, 1, 2)
        assert np.isfinite(keypoints).all() and np.isfinite(scores).all()
        # In the input, whose edge pixels' cells are half beside it.
        assert (keypoints >= -2.1).all() and (keypoints <= (194.1, 258.1)).all()
    assert reading.batch_decode(maps[:0])[0] == []
