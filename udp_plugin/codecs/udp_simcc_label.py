from typing import Optional, Tuple

import numpy as np
from mmpose.codecs import SimCCLabel
from mmpose.registry import KEYPOINT_CODECS

from udp_plugin import functional as F
from udp_plugin.functional.geometry import constant, library_of

from .base import Array
from .vectors import Scores, VectorReading


@KEYPOINT_CODECS.register_module()
class UDPSimCCLabel(SimCCLabel):
    """SimCC's vectors with bins of unit length, and targets at their exact place.

    Takes the arguments of ``SimCCLabel`` and stands in for it by name; vectors have the
    same lengths. Mirroring an input reverses its vectors. They are read at parts of a
    bin, whatever ``use_dark`` says.

    Args:
        input_size: ``(width, height)`` of the network's input in pixels.
        smoothing_type: ``'gaussian'``; or ``'standard'``, whose bin is split between
            the two beside the keypoint.
        sigma: Of the Gaussian, and of the blur of the reading, bins.
        simcc_split_ratio: Bins a px.
        **kwargs: As ``SimCCLabel``.

    Raises:
        ValueError: An argument is of the wrong size or kind.

    Example:
        >>> codec = UDPSimCCLabel((192, 256))
        >>> keypoints, scores = codec.decode(np.eye(384)[None], np.eye(512)[None])
    """

    support_batch_decoding = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        #: How vectors are read.
        self.reading = VectorReading(self, unbiased=True)
        self.input_size = self.reading.input_size

    def encode(
        self, keypoints: Array, keypoints_visible: Optional[Array] = None
    ) -> dict:
        """Turn keypoints into vectors.

        Args:
            keypoints: Shape (N, K, D), D >= 2, input px; array or tensor.
            keypoints_visible: Shape (N, K); all visible if not given. A keypoint is
                drawn where it is at least 0.5.

        Returns:
            dict, of arrays or tensors as the keypoints are: ``keypoint_x_labels``
            (N, K, W), ``keypoint_y_labels`` (N, K, H), float32, and
            ``keypoint_weights`` (N, K), which are 0 also where nothing is drawn.
        """
        xp = library_of(keypoints)
        if keypoints_visible is None:
            keypoints_visible = constant(np.ones(tuple(keypoints.shape[:2])), keypoints)
        bins = self.reading.to_bins(F.in_double(keypoints[..., :2]))
        labels, near = [], True
        for axis, length in enumerate(self.reading.lengths):
            given = bins[..., axis], keypoints_visible, length
            if self.smoothing_type == 'gaussian':
                label, within = F.gaussian_vector(*given, self.reading.sigma[axis])
                if self.normalize:
                    label = label / float(self.reading.sigma[axis] * np.sqrt(2 * np.pi))
            else:
                label, within = F.split_vector(*given, self.label_smooth_weight)
            labels.append(label)
            near = near & within
        labels = [label * near[..., None] for label in labels]
        weights = xp.where(near, keypoints_visible, 0 * keypoints_visible)
        return dict(
            keypoint_x_labels=labels[0],
            keypoint_y_labels=labels[1],
            keypoint_weights=weights,
        )

    def batch_decode(self, simcc_x: Array, simcc_y: Array) -> Tuple[list, Scores]:
        """See :meth:`.vectors.VectorReading.batch_decode`."""
        return self.reading.batch_decode(simcc_x, simcc_y)

    def decode(self, simcc_x: Array, simcc_y: Array) -> Tuple[np.ndarray, Scores]:
        """Read one sample's vectors, (K, W) and (K, H), or (1, K, W) and (1, K, H)."""
        if simcc_x.ndim == 2:
            simcc_x, simcc_y = simcc_x[None], simcc_y[None]
        points, scores = self.reading.batch_decode(simcc_x, simcc_y)
        points = np.concatenate(points)
        if isinstance(scores, tuple):
            return points, tuple(np.concatenate(each) for each in scores)
        return points, np.concatenate(scores)
