"""What codecs share: checks, types, and the toolbox's contract."""

from abc import ABC, abstractmethod
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmpose.codecs.base import BaseKeypointCodec
from torch import Tensor

from udp_plugin import functional as F

Array = Union[np.ndarray, Tensor]
Distance = Tuple[float, float]


def check_size(size, name: str, least: int) -> Tuple[int, int]:
    """``size`` as ``(width, height)`` if it is one, else a ``ValueError``."""
    valid = (
        isinstance(size, (list, tuple, np.ndarray))
        and len(size) == 2
        and all(isinstance(s, (int, np.integer)) and s >= least for s in size)
    )
    if not valid:
        raise ValueError(
            f'{name} must be two integers (width, height) of at least {least} '
            f'pixels, got {size!r}'
        )
    return int(size[0]), int(size[1])


def check_one_instance(keypoints: Array, owner: str) -> None:
    """Refuse keypoints that are not of shape (1, K, D), D >= 2."""
    shape = tuple(keypoints.shape)
    if len(shape) != 3 or shape[0] != 1 or shape[-1] < 2:
        raise ValueError(
            f'{owner} encodes the keypoints of one instance, of shape (1, K, 2), got '
            f'{shape}'
        )


def as_tensor(values: Array) -> Tensor:
    """Values as a floating tensor: without a copy, if torch can share the array."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.float()
    values = np.asarray(values)
    if values.dtype.kind != 'f':
        values = values.astype(np.float32)
    elif not values.flags.writeable or any(s < 0 for s in values.strides):
        values = values.copy()
    return torch.from_numpy(values)


def sigma_of(sigma, kernel_size: Optional[int], default: float) -> float:
    """The Gaussian's sigma in heatmap px, from whichever argument gives it."""
    if kernel_size is None:
        return default if sigma is None else F.check_positive(sigma, 'sigma')
    if sigma is not None:
        raise ValueError(
            f'sigma={sigma!r} and kernel_size={kernel_size!r} both give the width of '
            'the Gaussian; give one of them'
        )
    return F.gaussian_kernel_sigma(F.check_kernel_size(kernel_size))


class MapReading(ABC):
    """How maps become keypoints, a batch at once, for the toolbox's estimator.

    Attributes:
        input_size, heatmap_size: ``(width, height)`` in pixels.
    """

    #: Maps a keypoint.
    channels_per_keypoint: int
    #: By what it measures: :data:`~udp_plugin.functional.geometry.UNIT_LENGTH` or
    #: :data:`~udp_plugin.functional.geometry.PIXELS`.
    measure = F.UNIT_LENGTH

    input_size: Tuple[int, int]
    heatmap_size: Tuple[int, int]

    @abstractmethod
    def read(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """Keypoints (..., K, 2) in heatmap px and scores (..., K) of maps."""

    @abstractmethod
    def to_input(self, points: Array) -> Array:
        """Heatmap px to input px, shape (..., 2)."""

    @abstractmethod
    def to_toolbox(self, points: Array) -> Array:
        """Input px to what ``TopdownPoseEstimator`` expects, shape (..., 2)."""

    @property
    def dither(self) -> Distance:
        """By how much a mirrored input is moved, input px to the right and down."""
        return 0.0, 0.0

    def misalignment(self, moved: Distance) -> Distance:
        """Where mirrored maps, mirrored back, lie from direct ones (Eq. 36, 46).

        Args:
            moved: What the mirrored input was moved by, input px.

        Returns:
            Heatmap px to the right and down.
        """
        x, y = F.stride(self.input_size, self.heatmap_size)
        return float(-moved[0] / x), float(moved[1] / y)

    def decode_tensors(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """Read a batch of maps, leaving the results on its device.

        Args:
            maps: Shape (B, K * channels_per_keypoint, H, W).

        Returns:
            tuple: keypoints (B, K, 2) in input px and scores (B, K).

        Raises:
            ValueError: The maps are not of that shape.
        """
        keypoints, scores = self._read_checked(maps)
        return self.to_input(keypoints), scores

    def check_maps(self, maps: Tensor) -> None:
        """Refuse what is not maps (B, K * channels_per_keypoint, H, W) of this codec.

        Raises:
            ValueError: The maps are not of that shape.
        """
        width, height = self.heatmap_size
        channels = self.channels_per_keypoint
        size = tuple(maps.shape[:1:-1])
        if maps.ndim == 4 and size == (width, height) and not maps.shape[1] % channels:
            return
        cure = ''
        if maps.ndim == 4 and size != (width, height):
            cure = ' (width and height are swapped)' if size == (height, width) else ''
            cure += (
                f'; if the network makes such maps of inputs of {self.input_size}, '
                f'set heatmap_size={size} in the codec of head and target'
            )
        raise ValueError(
            f'{type(self).__name__} reads maps of shape (B, {channels} * K, '
            f'{height}, {width}), since heatmap_size is {self.heatmap_size}, got '
            f'{tuple(maps.shape)}{cure}'
        )

    def _read_checked(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """:meth:`read` of maps, once they are known to be of this codec."""
        self.check_maps(maps)
        return self.read(maps.detach())

    def batch_decode(
        self, batch_encoded: Array
    ) -> Tuple[List[np.ndarray], List[np.ndarray]]:
        """Read a batch of maps.

        Args:
            batch_encoded: Shape (B, K * channels_per_keypoint, H, W), an array
                or a tensor of any device and floating dtype; not changed.

        Returns:
            tuple of lists with an array per sample:

            - keypoints (1, K, 2), as :meth:`to_toolbox` has them; finite and within
              the map, whatever the maps hold.
            - scores (1, K); 0 where there is no peak.

        Raises:
            ValueError: The maps are not of that shape.
        """
        read = self._read_checked(as_tensor(batch_encoded))
        if read[0].device.type != 'cpu':
            # One transfer from the device.
            read = torch.cat((read[0], read[1][..., None]), -1).cpu().split((2, 1), -1)
        points, scores = (each.numpy() for each in read)
        points = self.to_toolbox(self.to_input(points)).astype(points.dtype)[:, None]
        return list(points), list(scores.reshape(*points.shape[:-1]))

    def decode(self, encoded: Array) -> Tuple[np.ndarray, np.ndarray]:
        """Read one sample's maps, (K * channels_per_keypoint, H, W).

        See :meth:`batch_decode` for results and errors.
        """
        keypoints, scores = self.batch_decode(as_tensor(encoded)[None])
        return keypoints[0], scores[0]


class UDPCodec(MapReading, BaseKeypointCodec):
    """A heatmap codec under the unbiased measure.

    Subclasses say how many maps a keypoint has, and which functions of
    :mod:`udp_plugin.functional` draw and read them.
    """

    label_mapping_table = dict(keypoint_weights='keypoint_weights')
    field_mapping_table = dict(heatmaps='heatmaps')

    def __init__(
        self,
        input_size: Sequence[int],
        heatmap_size: Sequence[int],
        unbiased: bool = True,
    ) -> None:
        super().__init__()
        self.input_size = check_size(input_size, 'input_size', least=2)
        self.heatmap_size = check_size(heatmap_size, 'heatmap_size', least=3)
        if not unbiased:
            raise ValueError(
                'unbiased=False asks for the biased coding that this codec replaces; '
                'remove it, or keep MSRAHeatmap'
            )

    def __eq__(self, other: object) -> bool:
        """Whether the other is a codec of the same kind and settings."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.input_size, self.heatmap_size))

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value!r}' for name, value in vars(self).items())
        return f'{type(self).__name__}({settings})'

    @abstractmethod
    def target(self, keypoints: Array, visible: Array) -> Tuple[Array, Array]:
        """Maps (..., C, H, W) and weights (..., K) of keypoints in heatmap px."""

    def to_input(self, points: Array) -> Array:
        """Eq. 43; see :func:`udp_plugin.functional.heatmap_to_input`."""
        return F.heatmap_to_input(points, self.input_size, self.heatmap_size)

    def to_toolbox(self, points: Array) -> Array:
        """Eq. 47; see :func:`udp_plugin.functional.input_to_toolbox`."""
        return F.input_to_toolbox(points, self.input_size)

    def encode(
        self, keypoints: Array, keypoints_visible: Optional[Array] = None
    ) -> dict:
        """Turn the keypoints of one instance into its target.

        Args:
            keypoints: Shape (1, K, D), D >= 2, input px; array or tensor.
            keypoints_visible: Shape (1, K), see :meth:`encode_batch`.

        Returns:
            dict, of arrays or tensors as :meth:`encode_batch` gives them:

            - heatmaps: Shape (K * channels_per_keypoint, H, W).
            - keypoint_weights: Shape (1, K).

        Raises:
            ValueError: Shapes are not as said.
        """
        if not isinstance(keypoints, Tensor):
            keypoints = np.asarray(keypoints)
        check_one_instance(keypoints, type(self).__name__)
        maps, weights = self.encode_batch(keypoints, keypoints_visible)
        return dict(heatmaps=maps[0], keypoint_weights=weights)

    def encode_batch(
        self, keypoints: Array, visible: Optional[Array] = None
    ) -> Tuple[Array, Array]:
        """Turn a batch's keypoints into targets, on the device of the keypoints.

        Args:
            keypoints: Shape (B, K, D), D >= 2, input px; array or tensor.
            visible: Shape (B, K); all visible if not given. A keypoint is drawn
                where it is at least 0.5.

        Returns:
            tuple of arrays or tensors, as the keypoints are: maps (B, K *
            channels_per_keypoint, H, W), float32, and weights (B, K), which are 0 also
            where a keypoint is NaN or infinite.

        Raises:
            ValueError: Shapes are not as said.
        """
        if keypoints.ndim != 3 or keypoints.shape[-1] < 2:
            raise ValueError(
                f'{type(self).__name__} encodes a batch of keypoints, of shape '
                f'(B, K, 2), got {tuple(keypoints.shape)}'
            )
        if visible is None:
            visible = np.ones(tuple(keypoints.shape[:2]), np.float32)
        visible = as_tensor(visible)
        if isinstance(keypoints, Tensor):
            visible = visible.to(keypoints.device)
        else:
            visible = visible.numpy()
        points = F.input_to_heatmap(
            F.in_double(keypoints[..., :2]), self.input_size, self.heatmap_size
        )
        return self.target(points, visible)
