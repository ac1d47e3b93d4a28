"""What UDP adds to a heatmap head, the same for each of the toolbox's heads."""

import inspect
import logging
from typing import Any, List, Optional, Sequence, Set, Tuple

import torch
from mmengine.logging import print_log
from mmengine.structures import InstanceData, PixelData
from mmpose.registry import KEYPOINT_CODECS
from mmpose.structures import MultilevelPixelData
from mmpose.utils.typing import (
    ConfigType,
    Features,
    MultiConfig,
    OptConfigType,
    OptSampleList,
    Predictions,
)
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec

#: The losses of offset maps: the toolbox's, and the one that replaces it.
OFFSET_LOSSES = ('CombinedTargetMSELoss', 'UDPOffsetLoss')
#: The stock losses that UDPOffsetLoss stands in for, with their further settings.
REPLACED_LOSSES = {
    'KeypointMSELoss': {},
    'KeypointOHKMMSELoss': {'topk': 8},
    'CombinedTargetMSELoss': {'published': True},
    'UDPOffsetLoss': {'topk': None, 'published': False},
}


def type_name(node: Any) -> Optional[str]:
    """The bare name of a config's type if it is MMPose's or this package's.

    Types of another package, by the first part of a dotted name or by ``_scope_``,
    have none: they only happen to have the name.
    """
    if not isinstance(node, dict) or 'type' not in node:
        return None
    package, _, name = _full_name(node['type']).rpartition('.')
    package = package.partition('.')[0] or node.get('_scope_') or 'mmpose'
    return name if package in ('mmpose', 'udp_plugin') else None


def _full_name(cfg_type: Any) -> str:
    if isinstance(cfg_type, type):
        return f'{cfg_type.__module__}.{cfg_type.__name__}'
    return str(cfg_type)


def _loss_name(loss: ConfigType) -> str:
    """The bare name of a loss, or that of another package's in full."""
    if not isinstance(loss, dict) or 'type' not in loss:
        raise ValueError(f"loss must be a dict with the key 'type', got {loss!r}")
    name = type_name(loss)
    if name is None:
        name = _full_name(loss['type'])
        name = name if '.' in name else f'{loss["_scope_"]}.{name}'
    return name


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
    name = _loss_name(loss)
    if codec.channels_per_keypoint == 1:
        if name in OFFSET_LOSSES:
            raise ValueError(
                f'loss {name} of {owner} is for offset maps, which '
                f'{type(codec).__name__} has not; use KeypointMSELoss'
            )
        return loss
    if name not in REPLACED_LOSSES:
        raise ValueError(
            f'loss {name} of {owner} is not defined on offset maps; use UDPOffsetLoss, '
            'or the codec UDPGaussianHeatmap, which keeps the stock losses'
        )
    # Settings at their stock default of False ask for nothing.
    settings = {k: v for k, v in loss.items() if k != 'type' and v is not False}
    settings = {**REPLACED_LOSSES[name], **settings}
    known = {'use_target_weight', 'loss_weight', '_scope_', *REPLACED_LOSSES[name]}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f'loss {name} of {owner} has settings that mean nothing on offset maps: '
            f'{", ".join(unknown)}; remove them'
        )
    settings.pop('_scope_', None)
    return dict(type='UDPOffsetLoss', **settings)


def number_of_keypoints(
    out_channels: int, loss: MultiConfig, decoder: ConfigType, owner: str
) -> int:
    """``out_channels``, or a third of it in a stock config of combined targets.

    Such a config (``UDPHeatmap`` with ``heatmap_type='combined'`` and
    ``CombinedTargetMSELoss``) counts three channels a keypoint itself.
    """
    if (
        isinstance(out_channels, bool)
        or not isinstance(out_channels, int)
        or out_channels < 1
    ):
        raise ValueError(
            f'out_channels of {owner} must be the number of keypoints, got '
            f'{out_channels!r}'
        )
    losses = loss if isinstance(loss, list) else [loss]
    if decoder.get('heatmap_type') != 'combined' or any(
        _loss_name(cfg) != 'CombinedTargetMSELoss' for cfg in losses
    ):
        return out_channels
    if out_channels % 3:
        raise ValueError(
            "with heatmap_type='combined' and CombinedTargetMSELoss, out_channels of "
            f'{owner} counts three channels a keypoint, as in the stock config, got '
            f'{out_channels}; remove heatmap_type to give the number of keypoints'
        )
    return out_channels // 3


def check_last_channels(arguments: dict, owner: str) -> None:
    """Refuse a head without a final layer whose maps would be too many or too few."""
    channels = [arguments['in_channels']]
    for layers in ('deconv_out_channels', 'conv_out_channels'):
        channels = arguments.get(layers) or channels
    if channels[-1] != arguments['out_channels']:
        raise ValueError(
            f'{owner} has final_layer=None, so what it is given are its maps, which '
            f'must be {arguments["out_channels"]}, got {channels[-1]}; let what is '
            'before it (the backbone) have so many channels, and in_channels say so, '
            'or remove final_layer=None'
        )


def batch_targets(batch_data_samples: OptSampleList) -> List[Tuple[Tensor, Tensor]]:
    """Target maps (B, C, H, W) and weights (B, K) of a batch, a pair for each level.

    Either the samples have their maps, or ``OffsetTargetGenerator(on_device=True)``
    has left it to the head to make them, which is done here, for the batch at once
    and on the device to which the samples have been moved.

    Args:
        batch_data_samples: Samples with ``gt_instance_labels.keypoint_weights``, and
            with ``gt_fields.heatmaps`` or else, in ``gt_instance_labels``, with
            ``target_keypoints`` and ``target_codecs``.

    Raises:
        ValueError: The codecs of the samples differ, or only some have maps.
    """
    labels = [sample.gt_instance_labels for sample in batch_data_samples]
    weights = [label.keypoint_weights for label in labels]
    codecs = _common_codecs(labels)
    if codecs is not None:
        points = torch.cat([label.target_keypoints for label in labels])
        factors = torch.cat(weights)
        encoded = [c.encode_batch(points[..., :2], points[..., 2]) for c in codecs]
        return [(maps, visible * factors) for maps, visible in encoded]

    fields = [sample.gt_fields for sample in batch_data_samples]
    if not isinstance(fields[0], MultilevelPixelData):
        return [(torch.stack([field.heatmaps for field in fields]), torch.cat(weights))]
    return [
        (
            torch.stack([field[level].heatmaps for field in fields]),
            torch.cat([weight[level] for weight in weights]),
        )
        for level in range(fields[0].nlevel)
    ]


def _common_codecs(labels: List[InstanceData]) -> Optional[Tuple[UDPCodec, ...]]:
    """The codecs, one a level, that all samples give; None if they have maps."""
    codecs = [label.get('target_codecs', (None,))[0] for label in labels]
    if any(other != codecs[0] for other in codecs):
        given = sorted({'maps' if c is None else str(list(c)) for c in codecs})
        raise ValueError(
            'the targets of a batch must be made by the same codecs and in the same '
            f'place, got samples with {" and ".join(given)}; give each '
            'OffsetTargetGenerator of the data sets the same encoder and on_device'
        )
    return codecs[0]


class UDPHead:
    """Mixed into a stock heatmap head, in front of it, this makes a UDP head of it.

    It takes the stock head's arguments and leaves its layers, so that its
    checkpoints load. From the codec (``decoder``, which must be one of this
    package) it derives

    - the channels: ``out_channels`` is the number of keypoints K;
    - the loss: :class:`UDPOffsetLoss` in the place of ``KeypointMSELoss`` and
      ``KeypointOHKMMSELoss`` for offset maps (``CombinedTargetMSELoss`` keeps its
      meaning, the loss as published);
    - the flip test: mirrored maps are joined as the codec's kind asks, and never
      shifted. ``flip_mode`` and ``shift_heatmap`` of ``test_cfg`` are ignored.

    A batch is decoded at once on its device, and the training accuracy compares
    decoded keypoints. A head with several outputs, of stages or units, is trained on
    all of them and predicts from the last, as the stock ones. Its targets are one
    for all, or one a level: which output has which level ``level_indices`` says in
    a head that has this argument; in others there is a level for each output.

    Raises:
        ValueError: The codec is not one of this package, the loss does not go
            with it, ``out_channels`` is no positive integer, or without a final
            layer the channels are not as many as the maps.
    """

    def __init__(self, *args, **kwargs) -> None:
        owner = type(self).__name__
        given = inspect.signature(super().__init__).bind(*args, **kwargs)
        given.apply_defaults()
        arguments = given.arguments
        decoder, loss = arguments['decoder'], arguments['loss']
        codec = build_udp_codec(decoder, owner)
        keypoints = number_of_keypoints(arguments['out_channels'], loss, decoder, owner)
        arguments['out_channels'] = keypoints * codec.channels_per_keypoint
        if arguments.get('final_layer', {}) is None:
            check_last_channels(arguments, owner)
        if isinstance(loss, list):
            arguments['loss'] = [loss_config(cfg, codec, owner) for cfg in loss]
        else:
            arguments['loss'] = loss_config(loss, codec, owner)
        arguments['decoder'] = None
        super().__init__(*given.args, **given.kwargs)
        self.decoder = codec
        self._said: Set[str] = set()

    def _outputs(self, feats: Features) -> List[Tensor]:
        """The maps (B, K * channels, H, W) of each output."""
        maps = self.forward(feats)
        return [maps] if isinstance(maps, Tensor) else maps

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
            flip_indices = batch_data_samples[0].metainfo['flip_indices']
            batch_heatmaps = F.flip_average(
                self._outputs(feats[0])[-1],
                self._outputs(feats[1])[-1],
                flip_indices,
                channels,
            )
            self._comment_flip_test(test_cfg, flip_indices)
        else:
            batch_heatmaps = self._outputs(feats)[-1]

        preds = self.decode(batch_heatmaps)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        shown = batch_heatmaps.detach()[:, ::channels]
        return preds, [PixelData(heatmaps=maps) for maps in shown]

    def _comment_flip_test(
        self, test_cfg: ConfigType, flip_indices: Sequence[int]
    ) -> None:
        if test_cfg.get('shift_heatmap', False):
            self._say_once(
                'ignores shift_heatmap=True of test_cfg: with the unbiased measure '
                'mirrored maps coincide as they are.'
            )
        odd = [k for k, mirror in enumerate(flip_indices) if flip_indices[mirror] != k]
        if odd:
            # As in MMPose's own DeepFashion2.
            self._say_once(
                f'mixes keypoints {odd} with others in the flip test: by the '
                'flip_indices of the data they are not the mirror images of their '
                "mirror images; mend their 'swap' in the metainfo.",
                logging.WARNING,
            )

    def _say_once(self, text: str, level: int = logging.INFO) -> None:
        if text not in self._said:
            self._said.add(text)
            print_log(f'{type(self).__name__} {text}', logger='current', level=level)

    def loss(
        self,
        feats: Features,
        batch_data_samples: OptSampleList,
        train_cfg: ConfigType = {},  # noqa: B006
    ) -> dict:
        """Compute the loss, and the share of keypoints found.

        Args:
            feats: Features of the input.
            batch_data_samples: Samples as :func:`batch_targets` takes them.
            train_cfg: ``compute_acc`` (default True) switches the accuracy.

        Returns:
            dict: ``loss_kpt``, the sum of the outputs' losses, and ``acc_pose``: the
            share of keypoints on the map whose decoded place in the last output is
            within 5 % of the input's size of the target's, averaged over the
            keypoints of the skeleton.

        Raises:
            ValueError: The targets' levels do not go with the outputs, or the
                samples' targets not with each other.
        """
        outputs = self._outputs(feats)
        targets = self._targets(batch_data_samples, len(outputs))
        loss_modules = (
            self.loss_module
            if isinstance(self.loss_module, nn.ModuleList)
            else [self.loss_module] * len(outputs)
        )
        losses = dict(
            loss_kpt=sum(
                loss_module(maps, *target)
                for loss_module, maps, target in zip(loss_modules, outputs, targets)
            )
        )
        if train_cfg.get('compute_acc', True):
            losses['acc_pose'] = self._accuracy(outputs[-1], *targets[-1])
        return losses

    def _targets(
        self, batch_data_samples: OptSampleList, outputs: int
    ) -> List[Tuple[Tensor, Tensor]]:
        """Target maps (B, C, H, W) and weights (B, K) for each output."""
        targets = batch_targets(batch_data_samples)
        levels = len(targets)
        if levels == 1:
            return targets * outputs
        indices: Optional[List[int]] = getattr(self, 'level_indices', None)
        if indices is None:
            if levels != outputs:
                raise ValueError(
                    f'the target has {levels} levels, but {type(self).__name__} has '
                    f'{outputs} output(s): give OffsetTargetGenerator one encoder, or '
                    'with multilevel=True one for each output'
                )
            return targets
        if not all(0 <= index < levels for index in indices):
            raise ValueError(
                f'level_indices of {type(self).__name__} must be below {levels}, the '
                f'number of encoders of OffsetTargetGenerator, got {list(indices)}'
            )
        # A level serves several outputs.
        return [targets[index] for index in indices]

    @torch.no_grad()
    def _accuracy(self, maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        predicted, _ = self.decoder.decode_tensors(maps)
        # A keypoint outside the crop has an empty offset target.
        wanted, on_map = self.decoder.decode_tensors(target)
        size = predicted.new_tensor(self.decoder.input_size)
        counted = (weights > 0) & (on_map > 0)
        found = ((predicted - wanted) / size).norm(dim=-1) < 0.05
        of_keypoint = counted.sum(0)
        share = (counted & found).sum(0) / of_keypoint.clamp(min=1)
        return share.sum() / (of_keypoint > 0).sum().clamp(min=1)
