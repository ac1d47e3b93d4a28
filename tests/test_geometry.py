"""Geometry against the toolbox, an independent float64 statement, and images."""

import cv2
import numpy as np
import pytest
import torch
from mmpose.datasets.transforms import TopdownAffine
from mmpose.structures.bbox import (
    bbox_xyxy2cs,
    get_udp_warp_matrix,
    get_warp_matrix,
)

from udp_plugin import functional as F

SIZES = [(192, 256), (288, 384), (256, 256), (384, 288), (768, 1024)]


def random_box(rng, aspect):
    height = rng.uniform(40, 900)
    center = rng.uniform(-50, 700, 2)
    return center, np.array([height * aspect, height]), rng.uniform(-180, 180)


@pytest.mark.parametrize('input_size', SIZES)
def test_warp_matrix_is_the_toolbox_s(input_size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        center, scale, rotation = random_box(rng, input_size[0] / input_size[1])
        ours = F.warp_matrix(center, scale, rotation, input_size)
        stock = get_udp_warp_matrix(center, scale, rotation, input_size)
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-3)
        assert ours.dtype == np.float64
        # The biased stock warp turns the other way round.
        biased = F.warp_matrix(center, scale, rotation, input_size, unbiased=False)
        stock = get_warp_matrix(center, scale, -rotation, input_size)
        np.testing.assert_allclose(biased, stock, rtol=1e-4, atol=2e-2)


def test_the_box_s_corners_are_the_input_s_corner_pixel_centres():
    """What unit length means, stated without any of the equations."""
    center, scale = np.array([100.0, 80.0]), np.array([60.0, 80.0])
    corners = np.array([center - scale / 2, center + scale / 2])
    unbiased = F.source_to_input(corners, center, scale, 0, (192, 256))
    np.testing.assert_allclose(unbiased, [[0, 0], [191, 255]], atol=1e-9)
    biased = F.source_to_input(corners, center, scale, 0, (192, 256), unbiased=False)
    np.testing.assert_allclose(biased, [[0, 0], [192, 256]], atol=1e-9)


@pytest.mark.parametrize('unbiased', [True, False])
@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_every_map_has_its_inverse(unbiased, kind):
    rng = np.random.default_rng(1)
    for input_size in SIZES:
        heatmap_size = tuple(s // 4 for s in input_size)
        center, scale, rotation = random_box(rng, input_size[0] / input_size[1])
        points = rng.uniform(0, 500, (3, 17, 2))
        points, *box = map(kind, (points, center, scale, rotation))
        there = F.source_to_input(points, *box, input_size, unbiased)
        back = F.input_to_source(there, *box, input_size, unbiased)
        np.testing.assert_allclose(back, points, atol=1e-8)
        on_map = F.input_to_heatmap(there, input_size, heatmap_size, unbiased)
        back = F.heatmap_to_input(on_map, input_size, heatmap_size, unbiased)
        np.testing.assert_allclose(back, there, atol=1e-8)
        direct = F.heatmap_to_source(on_map, *box, heatmap_size, unbiased)
        np.testing.assert_allclose(direct, points, atol=1e-8)


@pytest.mark.parametrize('function', [F.source_to_input, F.input_to_source])
def test_boxes_batch_and_results_are_of_the_kind_of_the_points(function):
    rng = np.random.default_rng(2)
    center, scale = rng.uniform(0, 300, (5, 2)), rng.uniform(50, 400, (5, 2))
    rotation, points = rng.uniform(-90, 90, 5), rng.uniform(0, 300, (5, 17, 2))
    boxes = center, scale, rotation
    expected = [function(p, *box, (192, 256)) for p, *box in zip(points, *boxes)]
    for kind_of_boxes in (np.asarray, torch.as_tensor, np.ndarray.tolist):
        numbers = [kind_of_boxes(each) for each in boxes]
        for kind in (np.asarray, torch.as_tensor):
            found = function(kind(points), *numbers, (192, 256))
            assert type(found) is type(kind(points))
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_rotate_undoes_the_rotation_of_the_warp():
    rng = np.random.default_rng(3)
    center, scale, rotation = random_box(rng, 0.75)
    points = rng.uniform(0, 400, (17, 2))
    turned = F.rotate(points, center, rotation)
    upright = F.source_to_input(turned, center, scale, 0, (192, 256))
    at_once = F.source_to_input(points, center, scale, rotation, (192, 256))
    np.testing.assert_allclose(upright, at_once, atol=1e-9)


def test_toolbox_coordinates_are_what_its_estimator_undoes():
    rng = np.random.default_rng(4)
    center, scale, _ = random_box(rng, 0.75)
    points = rng.uniform(0, 190, (17, 2))
    wanted = F.input_to_source(points, center, scale, 0, (192, 256))
    stretched = F.input_to_toolbox(points, (192, 256))
    estimator = stretched / (192, 256) * scale + center - 0.5 * scale
    np.testing.assert_allclose(estimator, wanted, atol=1e-9)
    np.testing.assert_allclose(F.toolbox_to_input(stretched, (192, 256)), points)


@pytest.mark.parametrize('size', [(192, 48), (256, 32), (288, 72)])
def test_flip_misalignment_is_what_a_perfect_network_shows(size):
    """Sends a keypoint through the mirrored network and back, step by step."""
    input_width, heatmap_width = size
    x = np.array([[37.3, 0.0]])
    sizes = (input_width, 256), (heatmap_width, 64)
    for unbiased in (True, False):
        direct = F.input_to_heatmap(x, *sizes, unbiased)
        mirrored = F.input_to_heatmap(F.mirror(x, input_width), *sizes, unbiased)
        back = F.mirror(mirrored, heatmap_width)
        for shifted in (True, False):
            distance = F.flip_misalignment(*size, unbiased, shifted)
            seen = (back - direct)[0, 0] + shifted
            assert distance == pytest.approx(seen, abs=1e-9)


def test_flip_figures_of_the_paper():
    """Averaged error in input px at 256 x 192 and stride 4."""
    assert F.flip_misalignment(192, 48, unbiased=False) * 4 == -3.0
    assert F.flip_misalignment(192, 48, unbiased=False, shifted=True) * 4 == 1.0
    assert F.flip_misalignment(192, 48) == 0.0
    (stride,) = F.stride((192,), (48,))
    shifted = F.flip_misalignment(192, 48, shifted=True) * stride
    assert shifted == pytest.approx(4.06, abs=0.005)


def test_mirroring_the_source_mirrors_the_input():
    rng = np.random.default_rng(5)
    for input_size in SIZES:
        center, scale, rotation = random_box(rng, input_size[0] / input_size[1])
        points, width = rng.uniform(0, 640, (17, 2)), 640
        warped = F.source_to_input(points, center, scale, rotation, input_size)
        box = F.mirror(center, width), scale, -rotation
        mirrored = F.source_to_input(F.mirror(points, width), *box, input_size)
        np.testing.assert_allclose(mirrored, F.mirror(warped, input_size[0]), atol=1e-4)


def test_image_and_keypoint_agree():
    """A blob's centroid in the warped image is where its keypoint went."""
    rng = np.random.default_rng(6)
    worst = 0.0
    for turned in 30 * [False, True]:
        input_size = SIZES[rng.integers(4)]
        height = rng.uniform(120, 500)
        scale = np.array([height * input_size[0] / input_size[1], height])
        center = rng.uniform(250, 350, 2)
        rotation = rng.uniform(-180, 180) if turned else 0.0
        point = center + rng.uniform(-0.2, 0.2, 2) * scale.min()
        # Wide enough for bilinear sampling at either image's density.
        sigma = max(2.0, 2.0 * height / input_size[1])
        y, x = np.mgrid[:600, :600]
        square = (x - point[0]) ** 2 + (y - point[1]) ** 2
        image = np.exp(-square / (2 * sigma**2)).astype(np.float32)
        matrix = F.warp_matrix(center, scale, rotation, input_size)
        warped = cv2.warpAffine(image, matrix, input_size, flags=cv2.INTER_LINEAR)
        y, x = np.mgrid[: input_size[1], : input_size[0]]
        centroid = np.array([(warped * x).sum(), (warped * y).sum()]) / warped.sum()
        (expected,) = F.apply_affine(point[None], matrix)
        worst = max(worst, np.abs(centroid - expected).max())
    assert worst < 0.03


def test_integer_tensors_are_not_truncated():
    points = torch.tensor([[191, 255], [10, 20]])
    for function in (
        lambda p: F.input_to_heatmap(p, (192, 256), (48, 64)),
        lambda p: F.input_to_toolbox(p, (192, 256)),
        lambda p: F.rotate(p, p[0], 30),
    ):
        expected = function(points.numpy())
        np.testing.assert_allclose(function(points), expected, rtol=1e-5)


def test_impossible_boxes_and_sizes_are_named():
    nan, inf = float('nan'), float('inf')
    for center, scale, rotation in (
        ((10, 10), (0, 20), 0),
        ((10, 10), (-5, 20), 0),
        ((nan, 10), (10, 20), 0),
        ((10, 10), (inf, 20), 0),
        ((10, 10), (10, 20), nan),
    ):
        with pytest.raises(ValueError, match=r'a box needs .* positive scale, got'):
            F.warp_matrix(center, scale, rotation, (192, 256))
    with pytest.raises(ValueError, match=r'at least 2 pixels an axis, got \(1, 64\)'):
        F.unit_length((1, 64))


def test_boxes_are_taken_as_the_toolbox_takes_them():
    rng = np.random.default_rng(5)
    boxes = rng.uniform(0, 300, (40, 4))
    boxes[:, 2:] += 300
    center, scale = F.box_center_scale(boxes, padding=1.25)
    stock_center, stock_scale = bbox_xyxy2cs(boxes, padding=1.25)
    np.testing.assert_allclose(center, stock_center)
    np.testing.assert_allclose(scale, stock_scale)
    for size in SIZES:
        stock = TopdownAffine._fix_aspect_ratio(scale, size[0] / size[1])
        for kind in (np.asarray, torch.as_tensor):
            np.testing.assert_allclose(F.widen(kind(scale), size), stock)


def test_single_precision_maps_back_far_out_in_a_large_photograph():
    rng = np.random.default_rng(6)
    points = rng.uniform(0, 190, (50, 17, 2))
    center = rng.uniform(4000, 8000, (50, 2))
    scale = F.widen(rng.uniform(50, 1000, (50, 2)), (192, 256))
    rotation = rng.uniform(-180, 180, 50)
    exact = F.input_to_source(points, center, scale, rotation, (192, 256))
    single = (torch.tensor(each).float() for each in (points, center, scale, rotation))
    single = F.input_to_source(*single, (192, 256))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), exact, atol=2e-3)
