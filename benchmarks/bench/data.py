"""What is measured on: sizes, and maps as a network gives them."""

from typing import NamedTuple, Sequence, Tuple

import cv2
import numpy as np
import torch
from torch import Tensor

from udp_plugin.codecs.base import UDPCodec
from udp_plugin.functional import unit_length

#: How the maps are made, for the report.
ABOUT = (
    'Keypoints are drawn uniformly over the map. Maps are as a network gives them: '
    'the target times 0.8 plus smooth noise of standard deviation 0.03 (a normal noise '
    'blurred by 5×5 px), with a second peak of 0.6 elsewhere in one map of 20 (as '
    'where left and right are confused) and no peak in another one of 20.'
)
#: Maps without a peak: the height on which the noise lies.
NOISES = {'noise': 0.0, 'noise on a plateau': 0.5}

HEIGHT, SECOND_HEIGHT, NOISE = 0.8, 0.6, 0.03
#: Share of the maps that have a second peak, and as many have none.
ODD = 1 / 20
#: Different maps of noise, from which each map is given one.
NOISE_MAPS = 256


class Size(NamedTuple):
    """A skeleton, the size of its maps, and batches of them."""

    keypoints: int
    #: Width and height in pixels.
    heatmap_size: Tuple[int, int]
    #: Of the Gaussian, heatmap px.
    sigma: float
    batches: Sequence[int] = ()

    @property
    def input_size(self) -> Tuple[int, int]:
        """Of the network's input, at stride 4."""
        width, height = self.heatmap_size
        return 4 * width, 4 * height

    @property
    def pixels(self) -> int:
        """Of a map."""
        return self.heatmap_size[0] * self.heatmap_size[1]

    @property
    def label(self) -> str:
        """For people."""
        return '{} keypoints, {}×{}'.format(self.keypoints, *self.heatmap_size)


SIZES = (
    Size(17, (48, 64), 2, (1, 64, 256)),
    Size(133, (72, 96), 3, (1, 16, 64)),
    Size(308, (192, 256), 6, (1, 4)),
)


def draw_points(
    size: Size, count: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Keypoints anywhere on the map, heatmap px, float32 (*count, 2)."""
    high = unit_length(size.heatmap_size)
    return rng.uniform(0, high, (*count, 2)).astype(np.float32)


def network_maps(
    codec: UDPCodec, size: Size, batch: int, rng: np.random.Generator
) -> Tuple[Tensor, Tensor, Tensor]:
    """Maps as a network gives them, see :data:`ABOUT`.

    Returns:
        tuple: keypoints (B, K, 2) in heatmap px, their target and the maps, both
        (B, K * C, H, W), float32 on the CPU.
    """
    channels, count = codec.channels_per_keypoint, (batch, size.keypoints)
    points = torch.from_numpy(draw_points(size, count, rng))
    target, _ = codec.target(points, torch.ones(count))
    maps = (HEIGHT * target).unflatten(1, (size.keypoints, channels))

    kind = torch.from_numpy(rng.random(count))
    second_peak, no_peak = kind < ODD, kind > 1 - ODD
    others = torch.from_numpy(draw_points(size, (int(second_peak.sum()),), rng))
    second, _ = codec.target(others, torch.ones(len(others)))
    heights = torch.tensor([SECOND_HEIGHT, HEIGHT, HEIGHT])[:channels, None, None]
    second = second.unflatten(0, (len(others), channels)) * heights
    first = maps[second_peak]
    maps[second_peak] = torch.where(first[:, :1] < second[:, :1], second, first)
    maps[no_peak] = 0

    noise = _smooth_noise(size, rng)
    for sample in maps.flatten(1, 2):
        sample += noise[torch.from_numpy(rng.integers(len(noise), size=len(sample)))]
    return points, target, maps.flatten(1, 2)


def _smooth_noise(size: Size, rng: np.random.Generator) -> Tensor:
    width, height = size.heatmap_size
    noise = rng.standard_normal((NOISE_MAPS, height, width), np.float32)
    noise = np.stack([cv2.GaussianBlur(one, (5, 5), 0) for one in noise])
    return torch.from_numpy(NOISE / noise.std() * noise)


def noise_maps(codec: UDPCodec, size: Size, batch: int, height: float) -> Tensor:
    """Maps of noise without a peak, (B, K * C, H, W), float32 on the CPU."""
    width, rows = size.heatmap_size
    channels = size.keypoints * codec.channels_per_keypoint
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, channels, rows, width, generator=generator)
    return maps.mul_(NOISE).add_(height)
