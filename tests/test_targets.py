"""Targets, loss and flipping against the built-ins and plain statements."""

import numpy as np
import pytest
import torch
from helpers import SETUPS, build_codec
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from mmpose.models.losses.heatmap_loss import CombinedTargetMSELoss
from mmpose.models.utils.tta import flip_heatmaps

import udp_plugin
from udp_plugin import functional as F

each_setup = pytest.mark.parametrize(
    ('input_size', 'heatmap_size', 'sigma'), SETUPS[:4]
)
both_codecs = pytest.mark.parametrize('codec', ['gaussian', 'voting'])


def keypoints_around(input_size, seed=0, count=200, margin=40):
    """Keypoints in and around the input, input px, float32 (1, K, 2)."""
    rng = np.random.default_rng(seed)
    low, high = -margin, np.array(input_size) + margin
    return rng.uniform(low, high, (1, count, 2)).astype(np.float32)


def visibility(count=200, seed=0):
    return np.random.default_rng(seed).choice([0.0, 1.0], (1, count)).astype(np.float32)


@each_setup
def test_gaussian_targets_and_weights_are_the_builtin_s(
    input_size, heatmap_size, sigma
):
    keypoints, visible = keypoints_around(input_size), visibility()
    ours = build_codec('gaussian', input_size, heatmap_size, sigma=sigma)
    ours = ours.encode(keypoints, visible)
    stock = UDPHeatmap(input_size, heatmap_size, sigma=sigma)
    # In float64, since rounding to float32 would put it a millionth off.
    stock.scale_factor = F.stride(input_size, heatmap_size)
    stock = stock.encode(keypoints.astype(np.float64), visible)
    np.testing.assert_allclose(ours['heatmaps'], stock['heatmaps'], atol=1e-6)
    np.testing.assert_array_equal(ours['keypoint_weights'], stock['keypoint_weights'])
    assert ours['heatmaps'].dtype == stock['heatmaps'].dtype
    assert ours['keypoint_weights'].shape == stock['keypoint_weights'].shape


@each_setup
def test_biased_gaussian_is_the_builtin_msra_target(input_size, heatmap_size, sigma):
    keypoints, visible = keypoints_around(input_size), visibility()
    stock = MSRAHeatmap(input_size, heatmap_size, sigma).encode(keypoints, visible)
    points = F.input_to_heatmap(
        torch.from_numpy(keypoints), input_size, heatmap_size, unbiased=False
    )
    maps, weights = F.gaussian_target(
        points, torch.from_numpy(visible), heatmap_size, sigma, unbiased=False
    )
    np.testing.assert_allclose(maps[0], stock['heatmaps'], atol=1e-6)
    np.testing.assert_array_equal(weights, stock['keypoint_weights'])


@each_setup
def test_offset_targets_are_the_builtin_s_inside_the_disc(
    input_size, heatmap_size, sigma
):
    keypoints, visible = keypoints_around(input_size), visibility()
    ours = build_codec('voting', input_size, heatmap_size, sigma=sigma)
    ours = ours.encode(keypoints, visible)
    stock = UDPHeatmap(input_size, heatmap_size, heatmap_type='combined')
    stock = stock.encode(keypoints, visible)
    maps = ours['heatmaps'].reshape(-1, 3, *heatmap_size[::-1])
    expected = stock['heatmaps'].reshape(maps.shape)
    np.testing.assert_array_equal(maps[:, 0], expected[:, 0])
    disc = expected[:, 0] > 0
    assert disc.sum() > 1000
    for offsets, wanted in ((maps[:, axis], expected[:, axis]) for axis in (1, 2)):
        np.testing.assert_allclose(offsets[disc], wanted[disc], atol=2e-6)
        assert not offsets[~disc].any()
    np.testing.assert_array_equal(ours['keypoint_weights'], stock['keypoint_weights'])


def test_radius_and_sigma_have_the_stock_meanings():
    def offset(**args):
        return build_codec('voting', (288, 384), (72, 96), **args)

    assert offset(sigma=3).radius == pytest.approx(5.25)
    assert offset().radius == pytest.approx(0.0546875 * 96)
    assert offset(radius_factor=0.05).radius == pytest.approx(4.8)
    assert offset(radius=4).radius == 4.0
    # OpenCV's sigma of an 11 px kernel is 2.
    assert offset(kernel_size=11).radius == pytest.approx(3.5)
    assert build_codec('gaussian', sigma=2).blur_kernel_size == 11
    assert build_codec('gaussian', sigma=3).blur_kernel_size == 17
    assert build_codec('gaussian', kernel_size=11).sigma == pytest.approx(2)


@both_codecs
def test_tensors_and_arrays_of_any_kind_code_as_plain_arrays_do(codec):
    codec = build_codec(codec)
    # Every dtype can say them.
    keypoints = torch.from_numpy(keypoints_around((192, 256))).bfloat16()
    maps = codec.encode(keypoints.float().numpy())['heatmaps']
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        tensor = keypoints.to(dtype)
        before = tensor.clone()
        found = codec.encode(tensor)['heatmaps']
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found, maps)
        assert torch.equal(tensor, before)
    keypoints = keypoints_around((192, 256), count=6, margin=0).round()
    maps = codec.encode(keypoints)['heatmaps']
    backwards = keypoints[:, ::-1].copy()[:, ::-1]
    backwards.flags.writeable = False
    for other in (backwards, keypoints.astype(np.uint16)):
        np.testing.assert_array_equal(codec.encode(other)['heatmaps'], maps)
    expected, _ = codec.decode(maps)
    found, _ = codec.decode(maps[:, ::-1].copy()[:, ::-1])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('use_target_weight', [True, False])
@pytest.mark.parametrize('batch', [1, 4])
@pytest.mark.parametrize('masked', [True, False])
def test_published_loss_and_gradients_are_builtin_s(use_target_weight, batch, masked):
    generator = torch.Generator().manual_seed(0)
    stock = UDPHeatmap((192, 256), (48, 64), heatmap_type='combined')
    codec = build_codec('voting') if masked else stock
    keypoints = [keypoints_around((192, 256), seed, 17, 0) for seed in range(batch)]
    target = [torch.as_tensor(codec.encode(each)['heatmaps']) for each in keypoints]
    target = torch.stack(target)
    weights = torch.rand(batch, 17, generator=generator).round(decimals=1)
    output = torch.randn(target.shape, generator=generator, requires_grad=True)
    args = dict(use_target_weight=use_target_weight, loss_weight=2.0)
    ours = udp_plugin.UDPOffsetLoss(published=True, **args)(output, target, weights)
    (ours_grad,) = torch.autograd.grad(ours, output)
    stock = CombinedTargetMSELoss(**args)(output, target, weights)
    (stock_grad,) = torch.autograd.grad(stock, output)
    torch.testing.assert_close(ours, stock, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_grad, stock_grad, rtol=1e-6, atol=1e-9)


def plain_loss(output, target, weights, published):
    """The loss as its docstring says it, keypoint by keypoint."""
    losses = []
    for maps, right, ws in zip(output, target, weights):
        for k, w in enumerate(ws):
            (h, x, y), (th, tx, ty) = maps[3 * k : 3 * k + 3], right[3 * k : 3 * k + 3]
            loss = 0.5 * ((w * (h - th)) ** 2).mean()
            if published:
                off = th * ((w * (x - tx)) ** 2 + (w * (y - ty)) ** 2)
                loss = loss + 0.5 * off.mean()
            elif th.any():
                g = th * torch.exp(-4.5 * (tx**2 + ty**2))
                off = (w * (x - tx)).abs() + (w * (y - ty)).abs()
                loss = loss + 0.006 * (g * off).sum() / g.sum()
            losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize('published', [True, False])
def test_loss_and_gradients_are_those_of_the_formula(published):
    """In float64; a keypoint without a disc has only its H."""
    generator = torch.Generator().manual_seed(0)
    points = 30 * torch.rand(5, 4, 2, generator=generator)
    points[0, 0] = -50
    target, _ = F.offset_target(points, torch.ones(5, 4), (24, 32), 2.5)
    assert not target[0, :3].any()
    target = target.double()
    output = torch.randn(target.shape, generator=generator).double().requires_grad_()
    weights = torch.rand(5, 4, generator=generator).double()
    weights[1, :2] = torch.tensor([0, 1])
    weights.requires_grad_()
    expected = 3 * plain_loss(output, target, weights, published)
    right = torch.autograd.grad(expected, (output, weights))
    loss = udp_plugin.UDPOffsetLoss(
        use_target_weight=True, loss_weight=3.0, published=published
    )(output, target, weights)
    found = torch.autograd.grad(loss, (output, weights))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found, right)


def test_mined_keypoints_alone_have_gradients():
    points = torch.tensor([[[5.0, 5.0], [9.0, 9.0], [12.0, 4.0]]])
    target, _ = F.offset_target(points, torch.ones(1, 3), (16, 12), 2.0)
    output = target + torch.tensor([0.1, 0.5, 0.2]).repeat_interleave(3)[:, None, None]
    output.requires_grad_()
    F.offset_loss(output, target, topk=1).backward()
    touched = output.grad.unflatten(1, (3, 3)).abs().sum((0, 2, 3, 4)) > 0
    assert touched.tolist() == [False, True, False]


def test_loss_names_shapes_that_do_not_fit():
    maps = torch.zeros(2, 153, 64, 48)
    with pytest.raises(ValueError, match='out_channels of the head is the number of'):
        F.offset_loss(maps, torch.zeros(2, 51, 64, 48))
    with pytest.raises(ValueError, match=r'weights must have shape \(2, 51\)'):
        F.offset_loss(maps, maps, torch.zeros(2, 17))


@pytest.mark.parametrize(('channels', 'mode'), [(1, 'heatmap'), (3, 'udp_combined')])
def test_flipping_is_the_builtin_s_and_changes_nothing_in_place(channels, mode):
    maps = torch.randn(
        2, 4 * channels, 6, 5, generator=torch.Generator().manual_seed(0)
    )
    before, flip_indices = maps.clone(), [0, 2, 1, 3]
    ours = F.flip_maps(maps, flip_indices, channels)
    stock = flip_heatmaps(maps.clone(), flip_indices, mode, shift_heatmap=False)
    torch.testing.assert_close(ours, stock)
    torch.testing.assert_close(F.flip_maps(ours, flip_indices, channels), maps)
    torch.testing.assert_close(maps, before)


@both_codecs
def test_flipped_target_is_the_target_of_the_flipped_keypoints(codec):
    codec = build_codec(codec)
    keypoints = keypoints_around((192, 256), count=4, margin=0)
    flip_indices = [0, 2, 1, 3]
    target = torch.as_tensor(codec.encode(keypoints)['heatmaps'])[None]
    mirrored = F.mirror(keypoints, 192)[:, flip_indices]
    expected = torch.as_tensor(codec.encode(mirrored)['heatmaps'])[None]
    flipped = F.flip_maps(target, flip_indices, codec.channels_per_keypoint)
    torch.testing.assert_close(flipped, expected, atol=1e-5, rtol=0)


def test_flip_indices_of_another_skeleton_are_refused():
    for indices in ([0, 1, 3], [0, 1, -1]):
        with pytest.raises(ValueError, match='must name a keypoint .* each'):
            F.flip_maps(torch.zeros(1, 3, 8, 8), indices)
    with pytest.raises(ValueError, match=r'names 4 keypoints.*\(B, 12, H, W\)'):
        F.flip_maps(torch.zeros(1, 4, 8, 8), [0, 1, 2, 3], channels=3)


@pytest.mark.parametrize('published', [True, False])
def test_the_loss_compiles(published):
    generator = torch.Generator().manual_seed(0)
    points = 10 * torch.rand(2, 3, 2, generator=generator)
    target, _ = F.offset_target(points, torch.ones(2, 3), (12, 12), 2.0)
    maps = (target + 0.1).requires_grad_()

    def loss(maps, target):
        return F.offset_loss(maps, target, published=published)

    compiled = torch.compile(loss, backend='eager')(maps, target)
    (found,) = torch.autograd.grad(compiled, maps)
    (expected,) = torch.autograd.grad(loss(maps, target), maps)
    torch.testing.assert_close(found, expected)


def test_discs_have_the_pixels_on_their_edge():
    for radius, point in ((13, (20, 20)), (3.25, (9.25, 11)), (6.5, (12.5, 16))):
        y, x = np.mgrid[:41, :41]
        expected = (x - point[0]) ** 2 + (y - point[1]) ** 2 <= radius**2
        maps, _ = F.offset_target(
            np.float32([[point]]), np.ones((1, 1)), (41, 41), radius
        )
        np.testing.assert_array_equal(maps[0, 0], expected)


def test_targets_are_where_their_keypoints_are():
    """Whatever torch makes by default, and wherever."""
    keypoints, visible = 20 * torch.rand(1, 3, 2), torch.ones(1, 3)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device('meta'):
            maps, _ = F.gaussian_target(keypoints, visible, (48, 64), 2.0)
        elsewhere, _ = F.offset_target(
            keypoints.to('meta'), visible.to('meta'), (48, 64), 3.5
        )
    finally:
        torch.set_default_dtype(default)
    assert maps.device.type == 'cpu'
    assert elsewhere.device.type == 'meta'
    assert maps.dtype == elsewhere.dtype == torch.float32
