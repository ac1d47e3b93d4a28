"""How vectors of bins along x and y are read: by both measures, a batch at once."""

from typing import List, Sequence, Tuple, Union

import numpy as np
import torch
from mmpose.codecs import SimCCLabel
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.functional.geometry import constant

from .base import Array, as_tensor, check_size

#: Scores (B, K), or scores and visibilities.
Scores = Union[List[np.ndarray], Tuple[List[np.ndarray], List[np.ndarray]]]


class VectorReading:
    """Reads vectors of SimCC, RTMPose and RTMW at parts of a bin.

    Args:
        codec: ``SimCCLabel`` or a subclass, whose settings count.
        unbiased: Whether bins have unit length; else they are the toolbox's.

    Attributes:
        input_size: ``(width, height)`` in pixels.
        lengths: Bins of the vectors along x and y.
    """

    def __init__(self, codec: SimCCLabel, unbiased: bool) -> None:
        self.input_size = check_size(codec.input_size, 'input_size', least=2)
        self.split_ratio = F.check_positive(
            codec.simcc_split_ratio, 'simcc_split_ratio'
        )
        self.lengths = tuple(
            F.vector_length(pixels, self.split_ratio) for pixels in self.input_size
        )
        sigma = np.broadcast_to(np.asarray(codec.sigma, dtype=float), 2)
        self.sigma = tuple(F.check_positive(float(each), 'sigma') for each in sigma)
        self.decode_visibility = bool(codec.decode_visibility)
        self.decode_beta = codec.decode_beta
        self.unbiased = unbiased

    def to_bins(self, points: Array) -> Array:
        """Input px to bins: ``i (W - 1) / (pw - 1)``, or ``r i`` if biased."""
        return points * constant(self._bins_per_px, points)

    def to_input(self, bins: Array) -> Array:
        """Bins to input px: the inverse of :meth:`to_bins`."""
        return bins / constant(self._bins_per_px, bins)

    @property
    def _bins_per_px(self) -> np.ndarray:
        if not self.unbiased:
            return np.full(2, self.split_ratio)
        return F.stride(self.lengths, self.input_size)

    def to_toolbox(self, points: Array) -> Array:
        """Input px to what ``TopdownPoseEstimator`` expects, shape (..., 2)."""
        return F.input_to_toolbox(points, self.input_size) if self.unbiased else points

    @property
    def misalignment(self) -> float:
        """Where mirrored vectors along x, reversed, lie from direct ones, bins."""
        if self.unbiased:
            return 0.0
        return F.vector_misalignment(self.input_size[0], self.split_ratio)

    def check_vectors(self, x: Tensor, y: Tensor) -> None:
        """Refuse what is not vectors (B, K, W) and (B, K, H) of this codec.

        Raises:
            ValueError: They are not of that shape.
        """
        shapes, (w, h) = (tuple(x.shape), tuple(y.shape)), self.lengths
        if len(shapes[0]) != 3 or shapes != (
            (*shapes[0][:2], w),
            (*shapes[0][:2], h),
        ):
            raise ValueError(
                f'SimCC vectors of inputs of {self.input_size} at simcc_split_ratio='
                f'{self.split_ratio:g} have shapes (B, K, {w}) and (B, K, {h}), got '
                f'{shapes[0]} and {shapes[1]}; set input_size and simcc_split_ratio '
                'alike in codec and head'
            )

    def decode_tensors(self, x: Tensor, y: Tensor) -> Tuple[Tensor, Tensor]:
        """Read a batch of vectors, leaving the results on its device.

        Args:
            x, y: Shapes (B, K, W) and (B, K, H).

        Returns:
            tuple: keypoints (B, K, 2) in input px and scores (B, K), the lower of both
            maxima, as the toolbox has it.

        Raises:
            ValueError: The vectors are not of that shape.
        """
        self.check_vectors(x, y)
        both = [F.decode_vectors(v.detach(), s) for v, s in zip((x, y), self.sigma)]
        bins = torch.stack([place for place, _ in both], -1)
        return self.to_input(bins), torch.minimum(*(score for _, score in both))

    def visibility(self, x: Tensor, y: Tensor) -> Tensor:
        """How sure it is that keypoints are visible, (B, K): 0 to 1, as the toolbox."""
        shares = [
            torch.nan_to_num((v * (self.decode_beta * s)).softmax(-1).amax(-1))
            for v, s in zip((x, y), self.sigma)
        ]
        return torch.minimum(*shares)

    def batch_decode(self, x: Array, y: Array) -> Tuple[List[np.ndarray], Scores]:
        """Read a batch of vectors (B, K, W) and (B, K, H), arrays or tensors.

        Returns:
            tuple of lists with an array per sample: keypoints (1, K, 2), as
            :meth:`to_toolbox` has them, finite; and scores (1, K), or with
            ``decode_visibility`` a tuple of scores and visibilities, (1, K) each.

        Raises:
            ValueError: The vectors are not of those shapes.
        """
        x, y = as_tensor(x), as_tensor(y)
        points, scores = self.decode_tensors(x, y)
        told: Sequence[Tensor] = [self.to_toolbox(points), scores]
        if self.decode_visibility:
            told = [*told, self.visibility(x.detach(), y.detach())]
        arrays = [list(each.cpu().numpy()[:, None]) for each in told]
        return arrays[0], tuple(arrays[1:]) if self.decode_visibility else arrays[1]
