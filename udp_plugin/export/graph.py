"""What exported graphs compute, and what they say of themselves."""

from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmengine.model import ImgDataPreprocessor
from mmpose.models.pose_estimators import TopdownPoseEstimator
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec
from udp_plugin.ui import UserError

from . import OPSET
from .trained import Trained, chosen_keypoints, keypoints_of_maps, pose_head_of
from .writing import as_metadata, recorded, write_onnx


class Decoding(nn.Module):
    """A codec's reading of maps, to be recorded alone.

    It can be given to ``torch.jit.trace`` and ``torch.onnx.export``, and with torch
    2.7 or later to ``torch.export.export``. The number of samples is free.

    Args:
        codec: ``UDPGaussianHeatmap`` or ``UDPOffsetHeatmap``.
    """

    def __init__(self, codec: UDPCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """Read maps.

        Args:
            maps: Shape (B, K * channels_per_keypoint, H, W).

        Returns:
            tuple: keypoints (B, K, 2) in input px, and scores (B, K).
        """
        return self.codec.decode_tensors(maps)


class CropsToKeypoints(nn.Module):
    """A trained model from crops to keypoints, as the toolbox tests it.

    Args:
        model: With a head of this package.
        flip_indices: For the flip test, for each keypoint its mirror image's; without
            them there is none.
        normalized: Crops are given as the network takes them.
    """

    def __init__(
        self,
        model: TopdownPoseEstimator,
        flip_indices: Optional[Sequence[int]] = None,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = pose_head_of(model)
        self.decoding = Decoding(self.head.decoder)
        self.flip_indices = flip_indices
        self.chosen = chosen_keypoints(model)
        self.normalized = normalized

    def forward(
        self,
        crops: Tensor,
        centers: Optional[Tensor] = None,
        scales: Optional[Tensor] = None,
        rotations: Optional[Tensor] = None,
    ) -> Tuple[Tensor, ...]:
        """Find keypoints.

        Args:
            crops: Shape (B, 3, H, W): the colours of the photograph, 0 to 255, or what
                the network takes, if they are normalized.
            centers, scales, rotations: If given, of the crops' boxes, shapes (B, 2),
                (B, 2) and (B), source px and degrees, see
                :func:`~udp_plugin.functional.warp_matrix`.

        Returns:
            tuple: keypoints (B, K, 2) in input px and scores (B, K); with boxes also
            keypoints (B, K, 2) in source px (Eq. 47).
        """
        inputs = crops if self.normalized else self._normalize(crops)
        maps = self._maps(inputs)
        keypoints, scores = self.decoding(maps)
        if self.chosen is not None:
            keypoints, scores = keypoints[:, self.chosen], scores[:, self.chosen]
        if centers is None:
            return keypoints, scores
        codec = self.decoding.codec
        box = centers, scales, rotations
        in_source = F.input_to_source(keypoints, *box, codec.input_size)
        return keypoints, scores, in_source

    def _normalize(self, crops: Tensor) -> Tensor:
        preprocessor: ImgDataPreprocessor = self.model.data_preprocessor
        inputs = crops.float()
        if preprocessor._channel_conversion:
            inputs = inputs.flip(1)
        if preprocessor._enable_normalize:
            inputs = (inputs - preprocessor.mean) / preprocessor.std
        return inputs

    def _maps(self, inputs: Tensor) -> Tensor:
        """The maps (B, K * channels, H, W) to be read."""
        if self.flip_indices is None:
            return self._outputs(inputs)
        # Mirror images as further samples, so that the graph has one network.
        both = self._outputs(torch.cat((inputs, inputs.flip(-1))))
        count = inputs.shape[0]
        channels = self.decoding.codec.channels_per_keypoint
        return F.flip_average(both[:count], both[count:], self.flip_indices, channels)

    def _outputs(self, inputs: Tensor) -> Tensor:
        return self.head._outputs(self.model.extract_feat(inputs))[-1]


def metadata_of(trained: Trained, flip_test: bool, normalized: bool) -> Dict[str, str]:
    """What a model file says of itself: by name, each value in JSON."""
    codec = trained.codec
    names = trained.metainfo['keypoint_id2name']
    flip_pairs = [
        (k, mirror) for k, mirror in enumerate(trained.flip_indices) if k < mirror
    ]
    values = dict(
        config=trained.name,
        input_size=codec.input_size,
        heatmap_size=codec.heatmap_size,
        codec=codec_settings(codec),
        measure='unit length',
        keypoint_names=[names[k] for k in range(len(names))],
        flip_pairs=flip_pairs,
        skeleton=[list(link) for link in trained.metainfo['skeleton_links']],
        padding=trained.padding,
        flip_test=flip_test,
        normalized=normalized,
        **_colors(trained.preprocessor, normalized),
    )
    return as_metadata(values)


def _colors(preprocessor: ImgDataPreprocessor, normalized: bool) -> dict:
    """The order of the crops' channels, and what normalises them, in that order."""
    mean, std = torch.zeros(3), torch.ones(3)
    if preprocessor._enable_normalize:
        mean = preprocessor.mean.flatten().expand(3)
        std = preprocessor.std.flatten().expand(3)
    turned = preprocessor._channel_conversion
    if turned and not normalized:
        mean, std = mean.flip(0), std.flip(0)
    return dict(
        color='RGB' if turned and normalized else 'BGR',
        mean=mean.tolist(),
        std=std.tolist(),
    )


def codec_settings(codec: UDPCodec) -> dict:
    """A codec's type and settings."""
    return dict(type=type(codec).__name__, **vars(codec))


def write_model(
    path: Path,
    trained: Trained,
    flip_test: bool = False,
    normalized: bool = False,
    dynamic_batch: bool = False,
    source_keypoints: bool = False,
    opset: int = OPSET,
) -> None:
    """Write a model as an ONNX file, which nobody has verified yet.

    Args:
        path: The file. What is larger than 2 GB has its weights in one beside it.
        trained: The model.
        flip_test: Average over the mirrored crop, too.
        normalized: Take crops as the network takes them.
        dynamic_batch: Take any number of crops; else one.
        source_keypoints: Take the crops' boxes, too, and return keypoints in source
            px, too.
        opset: Version of ONNX's operators.

    Raises:
        UserError: It cannot be written so.
    """
    keypoints = keypoints_of_maps(trained.model)
    if flip_test and len(trained.flip_indices) != keypoints:
        raise UserError(
            f'--flip-test: the model has {keypoints} keypoints, and the data set of '
            f'its test_dataloader tells of {len(trained.flip_indices)} which are '
            "each other's mirror images; leave --flip-test out"
        )
    flip_indices = trained.flip_indices if flip_test else None
    module = CropsToKeypoints(trained.model, flip_indices, normalized)
    width, height = trained.codec.input_size
    # Two, so that no batch of one is taken for a fixed size.
    batch = 2 if dynamic_batch else 1
    dtype = torch.float32 if normalized else torch.uint8
    inputs = {'crops': torch.zeros(batch, 3, height, width, dtype=dtype)}
    outputs = ['keypoints', 'scores']
    if source_keypoints:
        inputs['centers'] = torch.zeros(batch, 2)
        inputs['scales'] = torch.ones(batch, 2)
        inputs['rotations'] = torch.zeros(batch)
        outputs.append('source_keypoints')
    metadata = metadata_of(trained, flip_test, normalized)
    dynamic = [*inputs, *outputs] if dynamic_batch else []
    write_onnx(path, module, inputs, outputs, metadata, dynamic, opset)


def write_decoding(path: Path, codec: UDPCodec, keypoints: int, opset: int) -> None:
    """Write a codec's reading of maps alone, of any number of samples.

    Args:
        path: Its suffix says as what: ``.onnx``, ``.pt`` (TorchScript) or ``.pt2``
            (``torch.export``, with torch 2.7 or later).
        codec: What reads.
        keypoints: ``K``.
        opset: For ONNX, version of its operators.

    Raises:
        UserError: It cannot be written so.
    """
    width, height = codec.heatmap_size
    channels = keypoints * codec.channels_per_keypoint
    maps = torch.rand(2, channels, height, width)
    module = Decoding(codec).eval()
    metadata = as_metadata(
        dict(
            codec=codec_settings(codec),
            input_size=codec.input_size,
            heatmap_size=codec.heatmap_size,
            measure='unit length',
        )
    )
    if path.suffix == '.onnx':
        outputs = ['keypoints', 'scores']
        dynamic = ['maps', *outputs]
        write_onnx(path, module, dict(maps=maps), outputs, metadata, dynamic, opset)
        return
    with recorded():
        if path.suffix == '.pt':
            traced = torch.jit.trace(module, (maps,))
            torch.jit.save(traced, str(path), _extra_files=metadata)
        elif not hasattr(torch.compiler, 'is_exporting'):
            raise UserError(
                f'--out {path.name}: programs of torch.export take torch 2.7 or later, '
                f'this is {torch.__version__}; take .pt or .onnx'
            )
        else:
            batch = torch.export.Dim('batch', min=1, max=2**16)
            exported = torch.export.export(
                module, (maps,), dynamic_shapes={'maps': {0: batch}}
            )
            torch.export.save(exported, str(path), extra_files=metadata)
