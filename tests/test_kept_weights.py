"""Weights kept: a network trained by the stock codecs, read without their bias.

In the networks' place is a perfect one: it sees the centroid of a blob in the input,
wherever the flip test has moved that, and answers with a Gaussian by the codec's own
equation, in float64.
"""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmpose.registry import MODELS
from mmpose.structures import PoseDataSample
from torch import nn

from udp_plugin import UDPHeatmapHead, UDPTopdownPoseEstimator

K = 3
#: Stride, input and heatmap size: 2, 4, 8, 16, and one that is no whole number.
SIZES = {
    2: ((96, 128), (48, 64)),
    4: ((192, 256), (48, 64)),
    8: ((256, 256), (32, 32)),
    16: ((384, 384), (24, 24)),
    3: ((96, 144), (32, 48)),
    4.5: ((216, 252), (48, 56)),
}
#: Of which some are left to the slow tests.
STRIDES = [
    pytest.param(stride, marks=[pytest.mark.slow] * (stride in (2, 3, 16)))
    for stride in SIZES
]
CODECS = {
    'MSRAHeatmap': dict(sigma=2),
    'MSRAHeatmap, unbiased': dict(sigma=2, unbiased=True),
    'MegviiHeatmap': dict(kernel_size=11),
    'UDPHeatmap': dict(sigma=2),
}
#: Of the warped box, so that input px and source px differ.
CENTER, SCALE = np.array([310.0, 220.0]), np.array([150.0, 210.0])


class BlobsSeen(nn.Module):
    """Where each channel of the input has its blob, as a feature (B, K, 1, 2)."""

    def forward(self, inputs: torch.Tensor) -> tuple:
        mass = inputs.double().sum((-2, -1))
        x = (inputs.double().sum(-2) * torch.arange(inputs.shape[-1])).sum(-1) / mass
        y = (inputs.double().sum(-1) * torch.arange(inputs.shape[-2])).sum(-1) / mass
        return (torch.stack((x, y), -1)[:, :, None],)


def blobs(points: np.ndarray, size) -> torch.Tensor:
    """An input for each sample, with a Gaussian blob a channel, shape (B, K, H, W)."""
    x, y = (torch.arange(float(n), dtype=torch.float64) for n in size)
    points = torch.as_tensor(points)[..., None]
    across = torch.exp(-((x - points[:, :, 0]) ** 2) / 50)
    down = torch.exp(-((y - points[:, :, 1]) ** 2) / 50)
    return down[..., None] * across[:, :, None]


def codec_of(name: str, stride: float) -> dict:
    input_size, heatmap_size = SIZES[stride]
    sizes = dict(input_size=input_size, heatmap_size=heatmap_size)
    return dict(type=name.split(',')[0], **sizes, **CODECS[name])


def learnt(name: str, seen: torch.Tensor, stride: float, rounded: bool):
    """The maps (B, K, H, W) that a codec teaches for keypoints (B, K, 1, 2)."""
    (pw_i, ph_i), (pw_o, ph_o) = SIZES[stride]
    place = seen[:, :, 0] / torch.tensor([pw_i / pw_o, ph_i / ph_o])
    if name == 'UDPHeatmap':
        place = seen[:, :, 0] * torch.tensor(
            [(pw_o - 1) / (pw_i - 1), (ph_o - 1) / (ph_i - 1)]
        )
    elif name == 'MegviiHeatmap':
        place = place.floor() if rounded else place - 0.5
    elif rounded:
        place = (place + 0.5).floor()
    x, y = (torch.arange(float(n), dtype=torch.float64) for n in (pw_o, ph_o))
    away = (x - place[..., 0, None])[:, :, None] ** 2
    away = away + (y - place[..., 1, None])[..., None] ** 2
    return (255 if name == 'MegviiHeatmap' else 1) * torch.exp(-away / 8)


def perfect(
    name: str,
    stride: float,
    rounded: bool,
    estimator=UDPTopdownPoseEstimator,
    head=UDPHeatmapHead,
    **test_cfg,
):
    model = MODELS.build(
        dict(
            type=estimator,
            backbone=dict(type=nn.Identity),
            head=dict(
                type=head,
                in_channels=1,
                out_channels=K,
                deconv_out_channels=None,
                decoder=codec_of(name, stride),
            ),
            test_cfg=dict(flip_test=True, shift_heatmap=True, **test_cfg),
        )
    )
    model.backbone = BlobsSeen()
    model.head.forward = lambda feats: learnt(name, feats[-1], stride, rounded)
    return model.eval()


def errors_of(
    model, name: str, stride: float, count: int = 224, mirrored: bool = False
) -> np.ndarray:
    """Errors (count, K, 2) from source to source, input px.

    Positions are even in x and in y; with ``mirrored`` there are their mirror images,
    too, twice as many.
    """
    size = np.array(SIZES[stride][0], dtype=float)
    measure = size - 1 if name == 'UDPHeatmap' else size
    rng = np.random.default_rng(0)
    even = (np.arange(count * K) + 0.5) / (count * K)
    # From pixel to pixel of the map, so that all sub-pixel positions are alike.
    pixels = np.array(SIZES[stride][1])
    points = np.stack([rng.permutation(even) for _ in range(2)], -1)
    points = (pixels * 2 // 5 + points * (pixels // 4)) * size / pixels
    points = points.reshape(count, K, 2)
    if mirrored:
        points = np.concatenate((points, points * [-1, 1] + [size[0] - 1, 0]))
    found = []
    for start in range(0, len(points), 50):
        batch = points[start : start + 50]
        samples = [sample_of(size) for _ in batch]
        with torch.no_grad():
            out = model(blobs(batch, size.astype(int)), samples, mode='predict')
        found += [s.pred_instances.keypoints[0] for s in out]
    source = (points / measure - 0.5) * SCALE + CENTER
    return (np.stack(found) - source) / SCALE * measure


def sample_of(size: np.ndarray) -> PoseDataSample:
    box = np.array([[0.0, 0.0, 9.0, 9.0]])
    sample = PoseDataSample(
        gt_instances=InstanceData(bboxes=box, bbox_scores=np.ones(1))
    )
    sample.set_metainfo(
        dict(
            input_center=CENTER,
            input_scale=SCALE,
            input_size=tuple(size.astype(int)),
            flip_indices=[*range(K)],
        )
    )
    return sample


@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('name', CODECS)
def test_sub_pixel_maps_come_back_exactly(name, stride):
    """Dithered, and with the stock estimator as well."""
    for estimator in (UDPTopdownPoseEstimator, 'TopdownPoseEstimator'):
        model = perfect(name, stride, rounded=False, estimator=estimator)
        assert np.abs(errors_of(model, name, stride, 40)).max() < 1e-3


@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('name', ['MSRAHeatmap', 'MegviiHeatmap'])
def test_rounded_targets_lose_half_as_much(name, stride):
    """Of targets on whole pixels a quarter pixel is lost; dithered, an eighth."""
    s = SIZES[stride][0][0] / SIZES[stride][1][0]
    errors = errors_of(perfect(name, stride, rounded=True), name, stride)
    assert np.abs(errors.mean((0, 1))).max() < 0.01
    assert np.abs(errors).max() < s / 4 + 0.02
    np.testing.assert_allclose(np.abs(errors).mean((0, 1)), s / 8, rtol=0.05)
    # With the stock estimator nothing is dithered: the flip is exact, no more.
    stock = dict(estimator='TopdownPoseEstimator')
    model = perfect(name, stride, rounded=True, **stock)
    plain = errors_of(model, name, stride, 112, mirrored=True)
    assert abs(plain[..., 0].mean()) < 0.01
    assert np.abs(plain[..., 1]).mean() > 1.8 * np.abs(errors[..., 1]).mean()


@pytest.mark.parametrize('stride', [s for s in STRIDES if s.values[0] in (2, 4, 8, 16)])
def test_the_stock_head_is_half_a_pixel_off(stride):
    """The bias that is mended here is there: the figure is not zero by construction."""
    stock = dict(estimator='TopdownPoseEstimator', head='HeatmapHead')
    for name, expected in {'MSRAHeatmap, unbiased': 0.5, 'UDPHeatmap': None}.items():
        model = perfect(name, stride, rounded=False, **stock)
        x, y = errors_of(model, name, stride, 40).mean((0, 1))
        if expected is None:
            # Not shifted, as its configs have it, it is exact.
            model.test_cfg['shift_heatmap'] = False
            x, expected = errors_of(model, name, stride, 40)[..., 0].mean(), 0.0
        assert abs(x - expected) < 0.02 and abs(y) < 0.02
