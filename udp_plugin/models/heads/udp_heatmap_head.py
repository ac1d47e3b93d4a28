from typing import Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmpose.evaluation.functional import keypoint_pck_accuracy
from mmpose.models.heads import HeatmapHead
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.utils.tensor_utils import to_numpy
from mmpose.utils.typing import (
    ConfigType,
    Features,
    OptConfigType,
    OptSampleList,
    Predictions,
)
from torch import Tensor

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec

#: The losses of offset maps: the toolbox's, and the one that replaces it.
OFFSET_LOSSES = ('CombinedTargetMSELoss', 'UDPOffsetLoss')


def _type_name(cfg: ConfigType) -> str:
    """The bare type name of a config, whether given as a string or a class."""
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(f"loss must be a dict with the key 'type', got {cfg!r}")
    cfg_type = cfg['type']
    name = cfg_type if isinstance(cfg_type, str) else cfg_type.__name__
    return name.rpartition('.')[-1]


def build_udp_codec(decoder: OptConfigType, owner: str) -> UDPCodec:
    """The codec of a head's config, if it is one of this package."""
    codec = KEYPOINT_CODECS.build(decoder) if isinstance(decoder, dict) else None
    if not isinstance(codec, UDPCodec):
        given = type(decoder if codec is None else codec).__name__
        raise ValueError(
            f'decoder of {owner} must be the config of UDPGaussianHeatmap or '
            f'UDPOffsetHeatmap, got {given}; swap the codec by name, too'
        )
    return codec


def loss_config(loss: ConfigType, codec: UDPCodec, owner: str) -> ConfigType:
    """The loss that goes with the codec's targets, from the one configured."""
    name = _type_name(loss)
    if codec.channels_per_keypoint == 1:
        if name in OFFSET_LOSSES:
            raise ValueError(
                f'loss {name} of {owner} is for offset maps, which '
                f'{type(codec).__name__} has not; use KeypointMSELoss'
            )
        return loss
    if name not in (*OFFSET_LOSSES, 'KeypointMSELoss'):
        raise ValueError(
            f'loss {name} of {owner} is not defined on offset maps; use UDPOffsetLoss, '
            'or the codec UDPGaussianHeatmap, which keeps the stock losses'
        )
    # Settings at their stock default of False ask for nothing.
    settings = {k: v for k, v in loss.items() if k != 'type' and v is not False}
    unknown = sorted(set(settings) - {'use_target_weight', 'loss_weight', '_scope_'})
    if unknown:
        raise ValueError(
            f'loss {name} of {owner} has settings that mean nothing on offset maps: '
            f'{", ".join(unknown)}; remove them'
        )
    settings.pop('_scope_', None)
    return dict(type='UDPOffsetLoss', **settings)


def number_of_keypoints(
    out_channels: int, loss: ConfigType, decoder: ConfigType, owner: str
) -> int:
    """``out_channels``, or a third of it in a stock config of combined targets.

    Such a config (``UDPHeatmap`` with ``heatmap_type='combined'`` and
    ``CombinedTargetMSELoss``) counts three channels a keypoint itself.
    """
    if (
        decoder.get('heatmap_type') != 'combined'
        or _type_name(loss) != 'CombinedTargetMSELoss'
    ):
        return out_channels
    if out_channels % 3:
        raise ValueError(
            "with heatmap_type='combined' and CombinedTargetMSELoss, out_channels of "
            f'{owner} counts three channels a keypoint, as in the stock config, got '
            f'{out_channels}; remove heatmap_type to give the number of keypoints'
        )
    return out_channels // 3


@MODELS.register_module()
class UDPHeatmapHead(HeatmapHead):
    """``HeatmapHead`` that takes from its codec what belongs together under UDP.

    Stands in for ``HeatmapHead`` by name, with its arguments and parameters; a
    stock UDP checkpoint loads. From its codec it derives

    - the channels: ``out_channels`` is the number of keypoints K;
    - the loss: :class:`UDPOffsetLoss` in the place of ``KeypointMSELoss`` for
      offset maps;
    - the flip test: mirrored maps are joined as the codec's kind asks, and never
      shifted. ``flip_mode`` and ``shift_heatmap`` of ``test_cfg`` are ignored.

    A batch is decoded at once on its device, and the training accuracy compares
    decoded keypoints.

    Args:
        in_channels (int | Sequence[int]): Channels of the features.
        out_channels (int): K.
        loss (dict): See above; ``UDPGaussianHeatmap`` takes any stock heatmap loss.
        decoder (dict): ``UDPGaussianHeatmap`` or ``UDPOffsetHeatmap``; required.
        **kwargs: As ``HeatmapHead``: ``deconv_out_channels``,
            ``deconv_kernel_sizes``, ``conv_out_channels``, ``conv_kernel_sizes``,
            ``final_layer`` and ``init_cfg``.

    Raises:
        ValueError: The codec is not one of this package, the loss does not go
            with it, or ``out_channels`` is no positive integer.
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]],
        out_channels: int,
        *args,
        loss: ConfigType = dict(type='KeypointMSELoss', use_target_weight=True),  # noqa: B006
        decoder: OptConfigType = None,
        **kwargs,
    ) -> None:
        owner = type(self).__name__
        if (
            isinstance(out_channels, bool)
            or not isinstance(out_channels, int)
            or out_channels < 1
        ):
            raise ValueError(
                f'out_channels of {owner} must be the number of keypoints, got '
                f'{out_channels!r}'
            )
        codec = build_udp_codec(decoder, owner)
        keypoints = number_of_keypoints(out_channels, loss, decoder, owner)
        super().__init__(
            in_channels,
            keypoints * codec.channels_per_keypoint,
            *args,
            loss=loss_config(loss, codec, owner),
            **kwargs,
        )
        self.decoder = codec
        self._said_flip = False

    def predict(
        self,
        feats: Features,
        batch_data_samples: OptSampleList,
        test_cfg: ConfigType = {},  # noqa: B006
    ) -> Predictions:
        """Predict keypoints from features.

        Args:
            feats: Features of the input, or with ``flip_test`` of the input and
                of its mirror image.
            batch_data_samples: The samples; their metainfo has ``flip_indices``.
            test_cfg: ``flip_test`` and ``output_heatmaps`` count.

        Returns:
            A list of ``InstanceData`` with ``keypoints`` (1, K, 2) as the
            estimator expects them and ``keypoint_scores`` (1, K). With
            ``output_heatmaps`` also a list of ``PixelData``, with ``heatmaps``
            (K, H, W): the Gaussian or the classification maps.

        Raises:
            ValueError: ``flip_test`` is set but there are not two sets of
                features.
        """
        channels = self.decoder.channels_per_keypoint
        if test_cfg.get('flip_test', False):
            if not isinstance(feats, list) or len(feats) != 2:
                raise ValueError(
                    'feats must be a list of two sets of features (of the input and '
                    'of its mirror image) with flip_test=True'
                )
            self._say_flip_once(test_cfg)
            batch_heatmaps = F.flip_average(
                self.forward(feats[0]),
                self.forward(feats[1]),
                batch_data_samples[0].metainfo['flip_indices'],
                channels,
            )
        else:
            batch_heatmaps = self.forward(feats)

        preds = self.decode(batch_heatmaps)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        shown = batch_heatmaps.detach()[:, ::channels]
        return preds, [PixelData(heatmaps=maps) for maps in shown]

    def _say_flip_once(self, test_cfg: ConfigType) -> None:
        if test_cfg.get('shift_heatmap', False) and not self._said_flip:
            self._said_flip = True
            print_log(
                f'{type(self).__name__} ignores shift_heatmap=True of test_cfg: with '
                'the unbiased measure mirrored maps coincide as they are.',
                logger='current',
            )

    def loss(
        self,
        feats: Tuple[Tensor],
        batch_data_samples: OptSampleList,
        train_cfg: ConfigType = {},  # noqa: B006
    ) -> dict:
        """Compute the loss, and the share of keypoints found.

        Args:
            feats: Features of the input.
            batch_data_samples: Samples with ``gt_fields.heatmaps`` and
                ``gt_instance_labels.keypoint_weights``.
            train_cfg: ``compute_acc`` (default True) switches the accuracy.

        Returns:
            dict: ``loss_kpt``, and ``acc_pose``: the share of keypoints on the map
            whose decoded place is within 5 % of the input's size of the target's,
            averaged over the keypoints of the skeleton.
        """
        maps = self.forward(feats)
        target = torch.stack([d.gt_fields.heatmaps for d in batch_data_samples])
        weights = torch.cat(
            [d.gt_instance_labels.keypoint_weights for d in batch_data_samples]
        )
        losses = dict(loss_kpt=self.loss_module(maps, target, weights))
        if train_cfg.get('compute_acc', True):
            losses['acc_pose'] = self._accuracy(maps, target, weights)
        return losses

    @torch.no_grad()
    def _accuracy(self, maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        predicted, _ = self.decoder.decode_tensors(maps)
        # A keypoint outside the crop has an empty offset target.
        wanted, on_map = self.decoder.decode_tensors(target)
        _, accuracy, _ = keypoint_pck_accuracy(
            to_numpy(predicted),
            to_numpy(wanted),
            mask=to_numpy((weights > 0) & (on_map > 0)),
            thr=0.05,
            norm_factor=np.tile(
                np.float32(self.decoder.input_size), (len(predicted), 1)
            ),
        )
        return torch.tensor(float(accuracy), device=maps.device)
