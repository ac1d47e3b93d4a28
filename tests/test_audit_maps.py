"""Flip alignment measured from maps alone, on maps whose places are known."""

import json

import numpy as np
import pytest
from mmpose.codecs import MSRAHeatmap, UDPHeatmap

from udp_plugin.audit.maps import infer_flip_indices, measure_maps, read_maps
from udp_plugin.audit.maps_result import MapsAudit
from udp_plugin.cli import main
from udp_plugin.codecs import UDPGaussianHeatmap, UDPOffsetHeatmap
from udp_plugin.errors import UserError

#: A nose, and pairs.
FLIP = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13)
VARIANTS = ('alone', 'shifted', 'averaged', 'averaged_shifted')
SIZE, INPUT_SIZE = (48, 64), (192, 256)


def gaussians(points, size=SIZE, sigma=2.0):
    """Gaussians around points (..., 2), in heatmap px, on maps of (W, H) pixels."""
    y, x = np.mgrid[: size[1], : size[0]]
    m, n = points[..., 0, None, None], points[..., 1, None, None]
    return np.exp(-((x - m) ** 2 + (y - n) ** 2) / (2 * sigma**2))


def discs(points, size=SIZE, radius=3.5):
    """Offset maps by Eq. 24-26: H, X and Y of each of (N, K, 2) points."""
    y, x = np.mgrid[: size[1], : size[0]]
    m, n = points[..., 0, None, None], points[..., 1, None, None]
    disc = (x - m) ** 2 + (y - n) ** 2 <= radius**2
    maps = np.stack((disc, disc * (m - x) / radius, disc * (n - y) / radius), 2)
    return maps.reshape(len(points), -1, *maps.shape[-2:]) * 1.0


DRAW = {1: gaussians, 3: discs}


def flipped(points, size=SIZE):
    """The mirror image of points, left and right keypoints not swapped."""
    return np.stack((size[0] - 1 - points[..., 0], points[..., 1]), -1)


def pair(points, shift=(0.0, 0.0), size=SIZE, draw=gaussians, *of):
    """Maps of points, and those of mirrored images, by so much apart."""
    return draw(points, size, *of), draw(flipped(points + shift, size), size, *of)


def anywhere(seed, margin=0.0, count=(20, 15), size=SIZE):
    """Points in heatmap px."""
    rng = np.random.default_rng(seed) if isinstance(seed, int) else seed
    low = np.full(2, margin)
    return rng.uniform(low, np.array(size) - 1 - margin, (*count, 2))


def measured(maps, mirrored, channels=1):
    return measure_maps(maps, mirrored, channels, range(maps.shape[1] // channels))


@pytest.mark.parametrize('size', [SIZE, (24, 32), (96, 72)])
@pytest.mark.parametrize('sigma', [1, 1.5, 2, 3, 4])
def test_every_gaussian_s_shift_to_a_hundredth_of_a_pixel(size, sigma):
    rng = np.random.default_rng(0)
    points = anywhere(rng, size=size)
    shift = rng.uniform(-1.2, 1.2, 2)
    found = measured(*pair(points, shift, size, gaussians, sigma))
    np.testing.assert_allclose(
        found.shifts, np.tile(shift, (found.maps_counted, 1)), 0, 0.01
    )
    assert found.maps_given == 300
    assert found.maps_apart == 0
    assert found.heatmap_size == size
    # All whose peaks are far enough from the border, and none else.
    border, end = max(2.5, 1.5 * sigma), np.array(size) - 1
    inside = []
    for least in (border + 0.7, border - 0.7):
        both = np.stack((points, points + shift))
        inside.append(((both >= least) & (both <= end - least)).all((0, -1)).sum())
    assert 0 < inside[0] <= found.maps_counted <= inside[1]


@pytest.mark.parametrize('sigma', [1, 2, 4])
def test_noise_averages_out(sigma):
    rng = np.random.default_rng(1)
    shift = (-0.75, 0.3)
    maps = np.stack(pair(anywhere(rng, 8, (60, 15)), shift, SIZE, gaussians, sigma))
    found = measured(*maps + 0.05 * rng.normal(size=maps.shape))
    assert found.maps_counted > 850
    errors = found.shifts - shift
    # No unbiased estimate of it has less than 0.056 (Cramér and Rao, two maps).
    assert (errors.std(0) < 0.07).all()
    np.testing.assert_allclose(errors.mean(0), 0, atol=4 * 0.07 / np.sqrt(850))


@pytest.mark.parametrize(('factor', 'plus'), [(1e-6, 0), (255, 0), (8, -10), (1e30, 0)])
def test_scale_and_background_do_not_matter(factor, plus):
    maps = np.stack(pair(anywhere(2, 8, (2, 15)), (-0.75, 0.0)))
    found = measured(*factor * maps + plus)
    assert found.maps_counted == 30
    np.testing.assert_allclose(found.shifts, [(-0.75, 0.0)] * 30, atol=0.01)


def test_lopsided_peaks_are_as_far_apart_as_they_were_drawn():
    points, shift = anywhere(3, 12, (10, 15)), (-0.75, 0.2)
    maps = np.array(pair(points, shift))
    beside = points + np.array([2.5, 1.0])
    maps += 0.6 * np.array(pair(beside, shift, SIZE, gaussians, 1.3))
    found = measured(*maps)
    assert found.maps_counted == 150
    np.testing.assert_allclose(found.shifts, [shift] * 150, atol=0.01)


def test_slanting_peaks():
    points, shift = anywhere(3, 16, (10, 15)), np.array([-0.75, 0.2])

    def draw(points, slant):
        y, x = np.mgrid[:64, :48]
        x, y = x - points[..., 0, None, None], y - points[..., 1, None, None]
        return np.exp(-(x**2 + 2 * slant * x * y + y**2) / 4)

    found = measured(draw(points, 0.6), draw(flipped(points + shift), -0.6))
    assert found.maps_counted == 150
    np.testing.assert_allclose(found.shifts, [shift] * 150, atol=1e-4)


def _ring(maps, x, y):
    distance = np.hypot(*(np.mgrid[:64, :48] - np.array([y, x])[:, None, None]))
    maps[:] = np.exp(-((distance - 4) ** 2) / 2)


def _hole(maps, x, y):
    maps[y + 1, x + 1] = -100


@pytest.mark.parametrize('spoil', [_ring, _hole])
def test_where_there_is_no_maximum_there_is_no_place(spoil):
    points = anywhere(23, 8, (4, 15))
    # So near the border that no blur fills a ring.
    points[0, 0] = 7, 30
    maps, mirrored = pair(points)
    spoil(maps[0, 0], 7, 30)
    spoil(mirrored[0, 0], 40, 30)
    found = measured(maps, mirrored)
    assert found.maps_counted == 59
    assert np.abs(found.shifts).max() < 0.01


@pytest.mark.parametrize('radius', [2.0, 3.5, 6.3])
@pytest.mark.parametrize('shrunk', [1.0, 0.7])
def test_discs_of_any_radius(radius, shrunk):
    """Also if a network's offsets are too short."""
    rng = np.random.default_rng(4)
    shift = (-0.6, 0.35)
    maps = np.stack(pair(anywhere(rng), shift, SIZE, discs, radius))
    maps[:, :, 1::3] *= shrunk
    maps[:, :, 2::3] *= shrunk
    found = measured(*maps, 3)
    assert found.maps_given == 300
    assert found.maps_counted > 100
    np.testing.assert_allclose(found.shifts, [shift] * found.maps_counted, atol=1e-6)
    found = measured(*maps + 0.05 * rng.normal(size=maps.shape), 3)
    assert found.maps_counted > 100
    np.testing.assert_allclose(found.shifts.mean(0), shift, atol=0.02)
    assert (found.shifts.std(0) < 0.1).all()


@pytest.mark.parametrize('stride', [2, 4, 8])
def test_of_rounded_places_only_the_mean_is_theory_s(stride):
    """SimpleBaseline's target: each shift is of whole pixels."""
    # Evenly within every pixel.
    x = stride * 12 + np.arange(0.5, 24 * 16) * stride / 16
    x = x.reshape(-1, 16)
    width, y = 48 * stride, np.full_like(x, 30)
    places = [np.floor(each / stride + 0.5) for each in (x, width - 1 - x)]
    maps = (gaussians(np.stack((place, y), -1)) for place in places)
    found = measure_maps(*maps, 1, range(16), (width, 64 * stride))
    assert found.maps_counted == x.size
    shifts = found.shifts[:, 0]
    np.testing.assert_allclose(shifts, shifts.round(), atol=1e-3)
    assert set(shifts.round()) == {0.0, -1.0}
    assert shifts.mean() == pytest.approx(-(stride - 1) / stride, rel=1e-3)
    said = found.verdict
    assert (said.kind, said.equation) == ('biased', 'Eq. 36')
    # With one pixel of shift, what is left is 1 / s.
    shifted = found.as_dict()['flip_alignment_heatmap_px']['shifted']['x']
    assert shifted['signed_mean'] == pytest.approx(1 / stride, rel=1e-2)


@pytest.mark.parametrize(
    ('kind', 'measure', 'expected'),
    [
        ('biased', (4.0, 4.0), (3.0, 1.0, 1.5, 0.5)),
        ('unbiased', (191 / 47, 255 / 63), (0.0, 4.06, 0.0, 2.03)),
    ],
)
def test_the_paper_s_figures(kind, measure, expected, tmp_path, capsys):
    """At 256x192 and stride 4, of a perfect network, in input px, by the command."""
    x = np.random.default_rng(5).uniform((40, 40), (150, 215), (4, 15, 2))
    mirror = flipped(x, INPUT_SIZE)[:, FLIP]
    np.save(tmp_path / 'maps.npy', gaussians(np.stack((x, mirror)) / measure))
    args = ['audit', '--maps', tmp_path / 'maps.npy', '--input-size', *INPUT_SIZE]
    assert main([*map(str, args), '--json', '-o', str(tmp_path)]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert json.loads((tmp_path / 'audit.json').read_text(encoding='utf-8')) == found
    assert found['verdict']['kind'] == kind
    assert found['verdict']['text'] in ' '.join(shown.err.split())
    assert found['flip_indices'] == list(FLIP)
    px = found['flip_alignment_px']
    for name, value in zip(VARIANTS, expected):
        for statistic in ('mean', 'median', 'p95', 'max'):
            assert px[name]['x'][statistic] == pytest.approx(value, abs=0.01)
            assert px[name]['y'][statistic] == pytest.approx(0, abs=0.01)
    assert px['alone']['x']['signed_mean'] == pytest.approx(-expected[0], abs=0.01)
    assert px['shifted']['x']['signed_mean'] == pytest.approx(expected[1], abs=0.01)


def codecs():
    for input_size, size in ((INPUT_SIZE, SIZE), ((256, 256), (32, 32))):
        sigma = size[1] / 32
        args = (input_size, size)
        factor = 3.5 / 64
        yield MSRAHeatmap(*args, sigma=sigma), 1, False
        yield MSRAHeatmap(*args, sigma=sigma, unbiased=True), 1, False
        yield UDPHeatmap(*args, heatmap_type='gaussian', sigma=sigma), 1, True
        yield UDPHeatmap(*args, heatmap_type='combined', radius_factor=factor), 3, True
        yield UDPGaussianHeatmap(*args, sigma=sigma), 1, True
        yield UDPOffsetHeatmap(*args), 3, True


@pytest.mark.parametrize(
    ('codec', 'channels', 'unbiased'),
    codecs(),
    ids=lambda value: getattr(type(value), '__name__', ''),
)
def test_codecs_of_the_toolbox_and_ours(codec, channels, unbiased):
    """Their maps of keypoints and of mirrored keypoints, inferred pairs included."""
    rng = np.random.default_rng(6)
    (width, height), size = codec.input_size, codec.heatmap_size
    flip = (*FLIP, 15)
    # Evenly within every pixel of the map, in no order.
    count = 16 * size[0] // 2
    middle = np.arange(0.5, count) / count * width / 2 + width / 4
    x = rng.permutation(middle).reshape(-1, 16)
    keypoints = np.stack((x, rng.uniform(0.25, 0.75, x.shape) * height), -1)
    mirrored = flipped(keypoints, (width, height))[:, flip]
    maps, other = (
        np.stack(
            [codec.encode(each[None].astype(np.float32))['heatmaps'] for each in k]
        )
        for k in (keypoints, mirrored)
    )
    found = measure_maps(maps, other, channels)
    assert found.flip_indices == flip
    assert found.inferred
    assert found.maps_counted == count
    s = width / size[0]
    theory = 0.0 if unbiased else -(s - 1) / s
    mean = found.shifts.mean(0)
    assert mean[0] == pytest.approx(theory, rel=0.01, abs=0.001)
    assert mean[1] == pytest.approx(0, abs=0.001)
    for input_size in (None, codec.input_size):
        said = found._replace(input_size=input_size).verdict
        assert said.kind == ('unbiased' if unbiased else 'biased')
        assert said.theory_heatmap_px == pytest.approx(theory)


@pytest.mark.parametrize('channels', [1, 3])
def test_pairs_are_inferred(channels):
    rng = np.random.default_rng(7)
    for _ in range(5):
        # Any pairs, and some keypoints without one.
        order, flip = rng.permutation(15), np.arange(15)
        for a, b in order[:12].reshape(-1, 2):
            flip[[a, b]] = b, a
        points = anywhere(rng, 6, (3, 15))
        maps = DRAW[channels](points)
        other = DRAW[channels](flipped(points - [0.75, 0])[:, flip])
        # What is not finite tells nothing.
        maps[0, 0] = np.nan
        assert infer_flip_indices(maps, other, channels) == flip.tolist()


def test_a_place_of_its_own_does_not_count():
    points = anywhere(11, 10, (10, 15))
    points[0, 0] = 10, 50
    maps, mirrored = pair(points)
    mirrored[0, 0] = gaussians(np.array([10, 10]))
    found = measured(maps, mirrored)
    assert (found.maps_counted, found.maps_apart) == (149, 1)
    assert np.abs(found.shifts).max() < 0.01


def _twice(maps):
    maps[:] = np.maximum(maps, maps[::-1, ::-1])


def _noise(maps):
    maps[:] = np.random.default_rng(0).normal(size=(64, 48))


@pytest.mark.parametrize(
    'spoil',
    [
        lambda maps: maps.fill(np.nan),
        lambda maps: maps.fill(0.5),
        lambda maps: np.put(maps, 7, np.nan),
        lambda maps: np.put(maps, 7, np.inf),
        lambda maps: np.put(maps, 7, -np.inf),
        lambda maps: np.put(maps, 7, 1e300),
        lambda maps: maps.__imul__(-1),
        lambda maps: maps.__setitem__(..., np.arange(48)),
        _noise,
        _twice,
        lambda maps: maps.__imul__(0.1),
    ],
)
@pytest.mark.parametrize('where', [0, 1], ids=['maps', 'mirrored'])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.filterwarnings('error')
def test_maps_without_a_clear_peak_are_left_out(spoil, where, channels):
    points = anywhere(12, 8, (4, 15))
    # Away from where it would be if it were flipped or turned.
    points[1, 4] = 15, 20
    arrays = pair(points, (-0.75, 0.0), SIZE, DRAW[channels])
    before = measured(*arrays, channels)
    spoil(arrays[where][1, 4 * channels])
    found = measured(*arrays, channels)
    assert (before.maps_counted, found.maps_counted) == (60, 59)
    np.testing.assert_array_equal(found.shifts, np.delete(before.shifts, 15 + 4, 0))


@pytest.mark.filterwarnings('error')
def test_wild_offsets_are_left_out():
    maps, mirrored = pair(anywhere(13, 8, (4, 15)), (0, 0), SIZE, discs)
    maps[0, 1] = 1e308 * np.sign(maps[0, 1])
    maps[0, 4] *= -1
    maps[0, 5] *= -1
    maps[1, 1, 0, 0] = np.nan
    found = measured(maps, mirrored, 3)
    assert found.maps_counted == 57
    assert np.abs(found.shifts).max() < 1e-6


# --- what is said of them -------------------------------------------------------------


def audit_of(shifts, input_size=None):
    return MapsAudit(np.array(shifts), len(shifts), 0, SIZE, (0,), False, input_size)


def scattered(seed, scale, count, mean):
    noise = np.random.default_rng(seed).normal(scale=scale, size=(count, 2))
    return noise - noise.mean(0) + [mean, 0]


@pytest.mark.parametrize('input_size', [None, INPUT_SIZE])
@pytest.mark.parametrize(
    ('x', 'kind', 'equation', 'says'),
    [
        (0.0, 'unbiased', 'Eq. 46', 'Average the maps as they are'),
        (-0.75, 'biased', 'Eq. 36', 'measure by unit lengths'),
        (0.25, 'biased_shifted', 'Eq. 39', 'Do not shift again'),
        (1.0, 'unbiased_shifted', 'Eq. 46, shifted', 'Switch the shift off'),
    ],
)
def test_verdicts(x, kind, equation, says, input_size):
    said = audit_of(scattered(14, 0.3, 400, x + 0.02), input_size).verdict
    assert (said.kind, said.equation, said.theory_heatmap_px) == (kind, equation, x)
    assert says in said.text
    assert 'y axis' not in said.text


FEW = scattered(15, 1.5, 100, 0.05)


@pytest.mark.parametrize(
    ('shifts', 'input_size', 'kind', 'says'),
    [
        (
            [[-0.4, 0.0]] * 100,
            INPUT_SIZE,
            'other',
            'explains (nearest: -0.750, Eq. 36)',
        ),
        # Without the input's size, -0.45 is nearest to stride 2.
        ([[-0.45, 0.0]] * 100, None, 'biased', 'probably stride 2'),
        (
            [[0.0, 0.4]] * 100,
            INPUT_SIZE,
            'unbiased',
            'y axis mirroring should change nothing, but they are +0.400 heatmap px',
        ),
        (np.zeros((10, 2)), None, 'undecided', '10 maps are too few to tell'),
        (FEW, INPUT_SIZE, 'undecided', '100 maps are too few to tell'),
        # Of the same spread, more maps are enough.
        (np.tile(FEW, (100, 1)), INPUT_SIZE, 'unbiased', 'Average the maps'),
        # At stride 1 both measures are the same.
        (scattered(16, 0.1, 100, 0.0), SIZE, 'unbiased', '(Eq. 46: 0)'),
    ],
)
def test_verdicts_on_few_maps_and_on_what_theory_lacks(shifts, input_size, kind, says):
    said = audit_of(shifts, input_size).verdict
    assert said.kind == kind
    assert says in said.text
    if input_size == SIZE:
        assert said.theory_heatmap_px == 0.0


def test_input_px_are_of_the_measure_that_was_found():
    biased, unbiased = (
        audit_of([shift] * 100, INPUT_SIZE).as_dict()['flip_alignment_px']
        for shift in ([-0.75, 0.0], [0.0, 1.0])
    )
    assert biased['alone']['x']['mean'] == pytest.approx(3)
    assert unbiased['shifted']['x']['mean'] == pytest.approx(191 / 47)
    assert unbiased['averaged']['y']['mean'] == pytest.approx(255 / 63 / 2)


def test_statistics_of_known_shifts():
    found = audit_of([[-1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [-1.0, -2.0]]).as_dict()
    alone = found['flip_alignment_heatmap_px']['alone']
    assert alone['x'] == dict(
        signed_mean=-0.75, mean=0.75, median=1.0, p95=1.0, max=1.0
    )
    assert alone['y'] == dict(signed_mean=0.0, mean=1.0, median=1.0, p95=2.0, max=2.0)
    averaged = found['flip_alignment_heatmap_px']['averaged_shifted']
    assert averaged['x']['signed_mean'] == 0.125
    assert averaged['x']['max'] == 0.5
    assert averaged['y']['max'] == 1.0


def test_report():
    points = anywhere(17, 8)
    found = measure_maps(gaussians(points), gaussians(flipped(points)[:, FLIP]))
    assert 'flip_alignment_px' not in found.as_dict()
    assert len(found.tables()) == 2
    found = found._replace(input_size=INPUT_SIZE)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert ' '.join(content) == (
        'flip_alignment_heatmap_px flip_alignment_px flip_indices '
        'flip_indices_inferred heatmap_size maps_given maps_counted maps_apart verdict'
    )
    assert set(content['verdict']) == {'kind', 'theory_heatmap_px', 'equation', 'text'}
    statistics = {'signed_mean', 'mean', 'median', 'p95', 'max'}
    for key in ('flip_alignment_heatmap_px', 'flip_alignment_px'):
        assert set(content[key]) == set(VARIANTS)
        for axes in content[key].values():
            assert {axis: set(of) for axis, of in axes.items()} == dict(
                x=statistics, y=statistics
            )
    assert content['flip_indices'] == list(FLIP)
    assert content['flip_indices_inferred'] is True
    assert content['maps_given'] == content['maps_counted'] == 300
    assert content['verdict']['kind'] == 'unbiased'
    heatmap_px, input_px, about = found.tables()
    assert heatmap_px.text == content['verdict']['text']
    shown = {row[0]: row[1:] for row in input_px.rows}
    assert shown['x: mirrored, shifted'] == ['+4.064', *['4.064'] * 4]
    assert shown['y: averaged'] == ['0.000'] * 5
    for table in (heatmap_px, input_px, about):
        assert all(len(row) == len(table.header) for row in table.rows)
    assert ['maps counted', '300 of 300'] in about.rows
    assert ['flip_indices, inferred', ', '.join(map(str, FLIP))] in about.rows


# --- files and arrays -----------------------------------------------------------------


def test_reading_both_kinds_of_files(tmp_path):
    rng = np.random.default_rng(18)
    maps, mirrored = rng.normal(size=(2, 3, 6, 8, 9)).astype(np.float32)
    np.save(tmp_path / 'maps.npy', np.stack((maps, mirrored)))
    np.savez(tmp_path / 'maps.npz', mirrored=mirrored, maps=maps)
    np.savez_compressed(tmp_path / 'small.npz', mirrored=mirrored, maps=maps)
    for name in ('maps.npy', 'maps.npz', 'small.npz'):
        found = read_maps(tmp_path / name, 3)
        np.testing.assert_array_equal(found, (maps, mirrored))


@pytest.mark.parametrize('dtype', ['float16', 'float32', '>f4', 'uint8'])
def test_numbers_of_any_kind(dtype, tmp_path):
    both = np.stack(pair(anywhere(19, 8, (2, 15))))
    np.save(tmp_path / 'maps.npy', (200 * both).astype(dtype))
    found = measured(*read_maps(str(tmp_path / 'maps.npy')))
    assert found.maps_counted == 30
    np.testing.assert_allclose(found.shifts, 0, atol=0.01)


def test_in_pieces_is_as_at_once(monkeypatch):
    size = (24, 32)
    maps, mirrored = pair(anywhere(20, size=size), size=size)
    at_once = measure_maps(maps, mirrored)
    monkeypatch.setattr('udp_plugin.audit.maps.NUMBERS_AT_ONCE', 3 * maps[0].size)
    in_pieces = measure_maps(maps, mirrored)
    assert in_pieces.flip_indices == at_once.flip_indices
    np.testing.assert_allclose(in_pieces.shifts, at_once.shifts, atol=1e-12)


def _saved(array, cut=0):
    def save(path):
        np.save(path, array)
        path.write_bytes(path.read_bytes()[: -cut or None])

    return save


def _zeros(*shape, cut=0):
    return _saved(np.zeros(shape), cut)


def _archive(cut=0, **shapes):
    """A ``.npz`` file of zeros."""

    def save(path):
        with path.open('wb') as file:
            np.savez(file, **{key: np.zeros(of) for key, of in shapes.items()})
        path.write_bytes(path.read_bytes()[: -cut or None])

    return save


def _objects(path):
    with path.open('wb') as file:
        np.savez(file, maps=np.array([{}], dtype=object), mirrored=np.zeros(3))


ONE, OTHER = (1, 1, 8, 8), (1, 2, 8, 8)


@pytest.mark.parametrize(
    ('save', 'channels', 'message'),
    [
        (lambda path: None, 1, 'cannot be read: No such file'),
        (lambda path: path.mkdir(), 1, 'cannot be read: Is a directory'),
        (lambda path: path.write_bytes(b''), 1, 'NumPy does not read as such'),
        (lambda path: path.write_text('maps'), 1, 'expected numbers in a .npy file'),
        (_zeros(2, *ONE, cut=100), 1, 'NumPy does not read as such'),
        (_archive(100, maps=ONE, mirrored=ONE), 1, 'NumPy does not read as such'),
        (_saved(np.array([{}, []], dtype=object)), 1, 'pickled objects are not read'),
        (_objects, 1, 'pickled objects are not read'),
        (_zeros(3, 4, 8, 8), 1, r'expected .* \(2, N, C, H, W\).* got shape \(3, 4, 8'),
        (_zeros(3, 3, 4, 8, 8), 1, r'\(2, N, C, H, W\).* got shape \(3, 3, 4, 8, 8\)'),
        (_zeros(2, 0, 4, 8, 8), 1, r'no maps in arrays of shape \(0, 4, 8, 8\)'),
        (_zeros(2, 3, 4, 8, 1), 1, 'at least 2 pixels an axis'),
        (_zeros(2, 3, 4, 8, 8), 3, 'got 4 channels, which are no multiple of 3'),
        (_saved(np.full((2, *ONE), 'a')), 1, 'maps must be real numbers, got dtype <U'),
        (_archive(maps=ONE, flipped=ONE), 1, 'maps and mirrored, got maps, flipped'),
        (_archive(), 1, 'needs the arrays maps and mirrored, got none'),
        (
            _archive(maps=ONE, mirrored=OTHER),
            1,
            r'of the same shape, .* \(1, 2, 8, 8\)',
        ),
        (
            _archive(maps=ONE, mirrored=(1, 8)),
            1,
            r'mirrored must .* got shape \(1, 8\)',
        ),
    ],
)
def test_files_that_hold_something_else(save, channels, message, tmp_path):
    path = tmp_path / 'maps.npy'
    save(path)
    with pytest.raises(UserError, match=message) as error:
        read_maps(path, channels)
    assert str(error.value).startswith(f'--maps {path}: ')


def refused(message):
    return pytest.raises(UserError, match=message)


@pytest.mark.parametrize('channels', [1, 3])
def test_maps_that_cannot_be_measured(channels):
    for value in (np.nan, np.inf, 0.0, 3.0):
        maps = np.full((2, 3, 32, 24), value)
        with refused('^--maps: .*nothing to measure'):
            measure_maps(maps, maps, channels)
    noise = np.random.default_rng(21).normal(size=(2, 2, 3, 32, 24))
    with refused('^--maps: no map has a clear peak .* of '):
        measured(*noise, channels)
    with refused('^--maps: .*no map and its counterpart'):
        measured(np.full_like(noise[0], np.nan), noise[1], channels)


def test_maps_that_do_not_belong_together():
    maps, mirrored = pair(anywhere(8, 6, (10, 15)))
    with refused(
        r'^--maps: flip_indices could not be inferred: keypoint 0 .* keypoint \d+ '
        r'.*; give flip_indices$'
    ):
        measure_maps(maps, mirrored[:, np.r_[1, 2, 0, 3:15]])
    # Flipped back already.
    with refused(r'^--maps: \d+ of \d+ clear peaks are at other places .* not flipped'):
        measure_maps(maps, maps, flip_indices=FLIP)
    with refused('^--maps: of 100 clear peaks 0 have offsets that point to them; are'):
        measured(*pair(anywhere(22, 8)), 3)
    for flip in (range(14), [0] * 15, [1, 2, 0, *range(3, 15)], range(1, 16)):
        with refused('flip_indices must name for each of 15 '):
            measure_maps(maps, maps, flip_indices=flip)
    with refused('channels must be 1 or 3, got 2'):
        measure_maps(maps, maps, channels=2)
