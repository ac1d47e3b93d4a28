"""What UDP adds to a head of vectors, the same for SimCC, RTMPose and RTMW."""

from typing import List, Tuple

import numpy as np
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmpose.codecs import SimCCLabel
from mmpose.models.heads import SimCCHead
from mmpose.utils.typing import (
    ConfigType,
    Features,
    InstanceList,
    OptSampleList,
    Predictions,
)
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs.udp_simcc_label import UDPSimCCLabel
from udp_plugin.codecs.vectors import VectorReading

from .base import SaysOnce, flip_indices_of, two_views, without_nobody

Vectors = Tuple[Tensor, Tensor]


class UDPVectorHead(SaysOnce):
    """Mixed into a stock SimCC head, in front of it, this makes a UDP head of it.

    It leaves the stock head's layers and loss, so that its checkpoints load. In the
    flip test mirrored vectors, reversed, are moved by what the measure puts them apart:
    by nothing with ``UDPSimCCLabel``, by ``r - 1`` bins with the stock ``SimCCLabel``
    of kept weights. Vectors are read at parts of a bin, a batch at once on its device.

    Args:
        decoder (dict): ``UDPSimCCLabel``, or to keep weights ``SimCCLabel``; required.
        **kwargs: As the stock head.

    Raises:
        ValueError: The codec is none of these, or a setting is not as it should be.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        owner, codec = type(self).__name__, self.decoder
        if type(codec) not in (SimCCLabel, UDPSimCCLabel):
            raise ValueError(
                f'decoder of {owner} must be the config of UDPSimCCLabel, or of the '
                f'stock SimCCLabel with which weights were trained, got '
                f'{type(codec).__name__}'
            )
        self._keeps = type(codec) is SimCCLabel
        #: How vectors are read.
        self.reading = (
            VectorReading(codec, unbiased=False) if self._keeps else codec.reading
        )

    def predict(
        self,
        feats: Features,
        batch_data_samples: OptSampleList,
        test_cfg: ConfigType = {},  # noqa: B006
    ) -> Predictions:
        """Predict keypoints from features.

        Args:
            feats: Features of the input, or with ``flip_test`` of the input and of its
                mirror image.
            batch_data_samples: The samples; their metainfo has ``flip_indices``.
            test_cfg: ``flip_test`` and ``output_heatmaps`` count.

        Returns:
            A list of ``InstanceData`` as the stock head's. With ``output_heatmaps``
            they have ``keypoint_x_labels`` and ``keypoint_y_labels``, and there is a
            list of ``PixelData``, too, as the stock head makes it.

        Raises:
            ValueError: ``flip_test`` is set but there are not two sets of features, or
                ``flip_indices`` are missing or do not name the keypoints.
        """
        vectors = self.vectors(feats, batch_data_samples, test_cfg)
        if self._keeps:
            self._say_once(
                'keeps weights of SimCCLabel: mirrored vectors are moved by '
                f'{self.reading.misalignment:g} bins, and all are read at parts of a '
                'bin. UDPSimCCLabel as the codec of head and target, TopDownAffineUDP '
                'for the warp, and retraining also mend the targets.'
            )
        preds = without_nobody(self.decode(vectors), batch_data_samples)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        return preds, self._fields(vectors, preds)

    def vectors(
        self, feats: Features, samples: OptSampleList, test_cfg: ConfigType
    ) -> Vectors:
        """The vectors (B, K, W) and (B, K, H) to be read, averaged in a flip test."""
        if not test_cfg.get('flip_test', False):
            return self.forward(feats)
        (x, y), (mirrored_x, mirrored_y) = map(self.forward, two_views(feats))
        flip = self._flip_indices(samples[0], x.shape[1])
        apart = self.reading.misalignment
        return (
            F.flip_average_vectors(x, mirrored_x, flip, apart),
            (y + mirrored_y[:, flip]) / 2,
        )

    def _flip_indices(self, sample: BaseDataElement, keypoints: int) -> List[int]:
        """The mirror images of the keypoints, as a sample of test data says."""
        owner = type(self).__name__
        found = flip_indices_of(sample, owner)
        if len(found) != keypoints:
            raise ValueError(
                f'flip_indices names {len(found)} keypoints, and {owner} has '
                f'out_channels={keypoints}; for these data set '
                f'out_channels={len(found)}'
            )
        return list(found)

    def decode(self, batch_outputs: Vectors) -> InstanceList:
        """What is read from vectors (B, K, W) and (B, K, H), for the estimator."""
        keypoints, scores = self.reading.batch_decode(*batch_outputs)
        told = dict(keypoints=keypoints, keypoint_scores=scores)
        if isinstance(scores, tuple):
            told.update(keypoint_scores=scores[0], keypoints_visible=scores[1])
        names, columns = list(told), zip(*told.values())
        return [InstanceData(**dict(zip(names, each))) for each in columns]

    def _fields(self, vectors: Vectors, preds: InstanceList) -> List[PixelData]:
        """Maps (K, H, W) of the vectors' products, as the stock heads make them."""
        shown = [vector.detach().clamp(min=0) for vector in vectors]
        if isinstance(self, SimCCHead):
            norms = (sigma * np.sqrt(2 * np.pi) for sigma in self.reading.sigma)
            shown = [vector / norm for vector, norm in zip(shown, norms)]
        highest = [vector.amax(-1, keepdim=True) for vector in shown]
        shown = [v / top.clamp(min=1) for v, top in zip(shown, highest)]
        for pred, x, y in zip(preds, *(vector.cpu().numpy() for vector in shown)):
            pred.keypoint_x_labels, pred.keypoint_y_labels = x[None], y[None]
        x, y = shown
        return [PixelData(heatmaps=maps) for maps in y[..., None] * x[..., None, :]]
