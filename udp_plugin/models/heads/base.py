"""What UDP adds to a heatmap head, the same for each of the toolbox's heads."""

import inspect
import logging
from typing import List, Sequence, Set, Tuple

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmpose.registry import KEYPOINT_CODECS
from mmpose.utils.typing import (
    ConfigType,
    Features,
    InstanceList,
    MultiConfig,
    OptSampleList,
    Predictions,
)
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import UDPCodec
from udp_plugin.codecs.kept import KeptReading, reading_of
from udp_plugin.names import full_type_name, type_name

#: The losses of offset maps: the toolbox's, and the one that replaces it.
OFFSET_LOSSES = ('CombinedTargetMSELoss', 'UDPOffsetLoss')
#: The stock losses that UDPOffsetLoss stands in for, with their further settings.
REPLACED_LOSSES = {
    'KeypointMSELoss': {},
    'KeypointOHKMMSELoss': {'topk': 8},
    'CombinedTargetMSELoss': {'published': True},
    'UDPOffsetLoss': {'topk': None, 'published': False},
}


def _loss_name(loss: ConfigType) -> str:
    """The bare name of a loss, or that of another package's in full."""
    if not isinstance(loss, dict) or 'type' not in loss:
        raise ValueError(f"loss must be a dict with the key 'type', got {loss!r}")
    return type_name(loss) or full_type_name(loss)


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
    given = {k: v for k, v in loss.items() if v is not False}
    settings = {**REPLACED_LOSSES[name], **given, 'type': 'UDPOffsetLoss'}
    settings.pop('_scope_', None)
    known = {'type', 'use_target_weight', 'loss_weight', *REPLACED_LOSSES[name]}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise ValueError(
            f'loss {name} of {owner} has settings that mean nothing on offset maps: '
            f'{", ".join(unknown)}; remove them'
        )
    return settings


def number_of_keypoints(
    out_channels: int, loss: MultiConfig, decoder: ConfigType, owner: str
) -> int:
    """``out_channels``, or a third of it in a stock config of combined targets.

    Such a config (``UDPHeatmap`` with ``heatmap_type='combined'`` and
    ``CombinedTargetMSELoss``) counts three channels a keypoint itself.
    """
    if type(out_channels) is not int or out_channels < 1:
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
    # A codec for each level, or None where the sample has its maps.
    codecs = [label.get('target_codecs', (None,))[0] for label in labels]
    if any(other != codecs[0] for other in codecs):
        given = sorted({'maps' if c is None else str(list(c)) for c in codecs})
        raise ValueError(
            'the targets of a batch must be made by the same codecs and in the same '
            f'place, got samples with {" and ".join(given)}; give each '
            'OffsetTargetGenerator of the data sets the same encoder and on_device'
        )
    if codecs[0] is not None:
        points = torch.cat([label.target_keypoints for label in labels])
        factors = torch.cat(weights)
        encoded = [c.encode_batch(points[..., :2], points[..., 2]) for c in codecs[0]]
        return [(maps, visible * factors) for maps, visible in encoded]

    maps = [sample.gt_fields.heatmaps for sample in batch_data_samples]
    if isinstance(maps[0], Tensor):
        return [(torch.stack(maps), torch.cat(weights))]
    levels = zip(zip(*maps), zip(*weights))
    return [(torch.stack(m), torch.cat(w)) for m, w in levels]


class SaysOnce:
    """A head that says what it does differently, each sentence once."""

    def _say_once(self, text: str, level: int = logging.INFO) -> None:
        # Made here, since a constructor would hide the stock head's, which is read.
        said: Set[str] = vars(self).setdefault('_said', set())
        if text not in said:
            said.add(text)
            print_log(f'{type(self).__name__} {text}', logger='current', level=level)


def two_views(feats: Features) -> Features:
    """Features of the input and of its mirror image, if they are that."""
    if not isinstance(feats, list) or len(feats) != 2:
        raise ValueError(
            'feats must be a list of two sets of features (of the input and of its '
            'mirror image) with flip_test=True'
        )
    return feats


def flip_indices_of(sample: BaseDataElement, owner: str) -> Sequence[int]:
    """For each keypoint its mirror image's, as a sample says that a head is given."""
    found = sample.metainfo.get('flip_indices')
    if found is None:
        raise ValueError(
            f"{owner} needs 'flip_indices' of the samples with flip_test=True; "
            'name it in meta_keys of PackPoseInputs in the test pipeline, or leave '
            'meta_keys out'
        )
    return found


def without_nobody(preds: InstanceList, samples: OptSampleList) -> InstanceList:
    """Predictions, with scores of 0 where ``input_scale`` is not positive.

    Of a box of nothing, see TopDownAffineUDP, there is nobody to be seen.
    """
    for pred, sample in zip(preds, samples):
        if not np.all(np.asarray(sample.metainfo.get('input_scale', 1)) > 0):
            pred.keypoint_scores = np.zeros_like(pred.keypoint_scores)
    return preds


class UDPHead(SaysOnce):
    """Mixed into a stock heatmap head, in front of it, this makes a UDP head of it.

    It leaves the stock head's layers, so that its checkpoints load. A batch is decoded
    at once on its device. In the flip test mirrored maps are joined as the codec's kind
    asks: ``flip_mode`` and ``shift_heatmap`` of ``test_cfg`` are ignored.

    With a codec of this package maps coincide as they are, and the training accuracy
    compares decoded keypoints. With a stock codec, the head is for weights that were
    trained with it: targets, loss and accuracy stay the stock head's, mirrored maps are
    moved by what the biased measure has put them apart (Eq. 36), and Gaussians are read
    by DARK's step, see :mod:`udp_plugin.codecs.kept`.

    A head with several outputs, of stages or units, is trained on all of them and
    predicts from the last, as the stock ones. Its targets are one for all, or one a
    level: ``level_indices`` says which output has which level in a head that has this
    argument; in others there is a level for each output.

    Args:
        decoder (dict): ``UDPGaussianHeatmap`` or ``UDPOffsetHeatmap``, or, to keep
            weights, ``MSRAHeatmap``, ``MegviiHeatmap`` or ``UDPHeatmap``; required.
        out_channels (int): The number of keypoints K, whichever the codec of this
            package.
        loss (dict | list[dict]): The Gaussian codec takes any stock heatmap loss. For
            offset maps :class:`UDPOffsetLoss` takes the place of ``KeypointMSELoss``
            and ``KeypointOHKMMSELoss``; ``CombinedTargetMSELoss`` keeps its meaning,
            the loss as published.
        **kwargs: As the stock head.

    Raises:
        ValueError: The codec is none of those, the loss does not go with it,
            ``out_channels`` is no positive integer, or without a final layer the
            channels are not as many as the maps.
    """

    def __init__(self, *args, **kwargs) -> None:
        owner = type(self).__name__
        given = inspect.signature(super().__init__).bind(*args, **kwargs)
        given.apply_defaults()
        arguments = given.arguments
        decoder = arguments['decoder']
        codec = KEYPOINT_CODECS.build(decoder) if isinstance(decoder, dict) else None
        reading = reading_of(codec, f'decoder of {owner}')
        #: ``out_channels`` as it was given, and how many of it are a keypoint.
        given_channels, each = arguments['out_channels'], reading.channels_per_keypoint
        if isinstance(codec, UDPCodec):
            keypoints = self._fit_to_codec(arguments, codec, owner)
            each = given_channels // keypoints
        super().__init__(*given.args, **given.kwargs)
        #: How maps are read: by the decoder itself, unless that is a stock one.
        self.reading = reading_of(self.decoder)
        self._given = given_channels, each

    @staticmethod
    def _fit_to_codec(arguments: dict, codec: UDPCodec, owner: str) -> int:
        """Have the arguments' channels and loss as the codec asks; returns K."""
        decoder, loss = arguments['decoder'], arguments['loss']
        keypoints = number_of_keypoints(arguments['out_channels'], loss, decoder, owner)
        channels = arguments['out_channels'] = keypoints * codec.channels_per_keypoint
        if arguments.get('final_layer', {}) is None:
            layers = map(arguments.get, ('conv_out_channels', 'deconv_out_channels'))
            *_, last = next(filter(None, layers), [arguments['in_channels']])
            if last != channels:
                raise ValueError(
                    f'{owner} has final_layer=None, so what it is given are its maps, '
                    f'which must be {channels}, got {last}; let what is before it (the '
                    'backbone) have so many channels, and in_channels say so, or '
                    'remove final_layer=None'
                )
        if isinstance(loss, list):
            arguments['loss'] = [loss_config(cfg, codec, owner) for cfg in loss]
        else:
            arguments['loss'] = loss_config(loss, codec, owner)
        return keypoints

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
            test_cfg: ``flip_test`` and ``output_heatmaps`` count, and ``dither``: what
                the mirrored input was moved by, input px to the right and down.

        Returns:
            A list of ``InstanceData`` with ``keypoints`` (1, K, 2) as the
            estimator expects them and ``keypoint_scores`` (1, K). With
            ``output_heatmaps`` also a list of ``PixelData``, with ``heatmaps``
            (K, H, W): the Gaussian or the classification maps. Scores are 0 where
            ``input_scale`` of a sample is not positive.

        Raises:
            ValueError: ``flip_test`` is set but there are not two sets of
                features, or ``flip_indices`` are missing or do not name the
                keypoints, or the maps are not of the codec's ``heatmap_size``.
        """
        channels = self.reading.channels_per_keypoint
        if test_cfg.get('flip_test', False):
            both = [self._outputs(view)[-1] for view in two_views(feats)]
            flip_indices = self._flip_indices(batch_data_samples[0], both[0])
            moved = test_cfg.get('dither', (0.0, 0.0))
            apart = self.reading.misalignment(moved)
            maps = F.flip_average(*both, flip_indices, channels, apart)
            self._comment_flip_test(test_cfg, flip_indices)
        else:
            maps = self._outputs(feats)[-1]

        self._comment_kept_weights()
        preds = without_nobody(self.decode(maps), batch_data_samples)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        return preds, [PixelData(heatmaps=m) for m in maps.detach()[:, ::channels]]

    def decode(self, batch_outputs: Tensor) -> InstanceList:
        """What is read from maps (B, C, H, W), as the estimator expects it."""
        read = zip(*self.reading.batch_decode(batch_outputs))
        return [InstanceData(keypoints=k, keypoint_scores=s) for k, s in read]

    def _flip_indices(self, sample: BaseDataElement, maps: Tensor) -> Sequence[int]:
        """The mirror images of the maps' keypoints, as a sample of test data says."""
        owner, (given, each) = type(self).__name__, self._given
        found = flip_indices_of(sample, owner)
        if maps.shape[1] != len(found) * self.reading.channels_per_keypoint:
            raise ValueError(
                f'flip_indices names {len(found)} keypoints, and {owner} has '
                f'out_channels={given}; for these data set out_channels='
                f'{len(found) * each}'
            )
        return found

    def _comment_flip_test(
        self, test_cfg: ConfigType, flip_indices: Sequence[int]
    ) -> None:
        if test_cfg.get('shift_heatmap', False) and self.reading is self.decoder:
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

    def _comment_kept_weights(self) -> None:
        if self.reading is self.decoder:
            return
        done = 'its maps, which are unbiased already, are read in one batch'
        if isinstance(self.reading, KeptReading):
            done = (
                'mirrored maps are moved by what the measure of this codec puts them '
                "apart, and all are read in one batch by DARK's step"
            )
        self._say_once(
            f'keeps weights of {type(self.decoder).__name__}: {done}. Swapping the '
            'other names, too (`udp-plugin convert`), and retraining mends the targets.'
        )

    def loss(
        self,
        feats: Features,
        batch_data_samples: OptSampleList,
        train_cfg: ConfigType = {},  # noqa: B006
    ) -> dict:
        """Compute the loss, and the share of keypoints found.

        With a stock codec they are the stock head's.

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
            ValueError: The targets' levels do not go with the outputs, the
                samples' targets not with each other, or the maps not with the targets
                or with the codec.
        """
        if self.reading is not self.decoder:
            return super().loss(feats, batch_data_samples, train_cfg)
        outputs = self._outputs(feats)
        targets = self._of_outputs(batch_targets(batch_data_samples), len(outputs))
        self.decoder.check_maps(outputs[-1])
        for maps, target in zip(outputs, targets):
            self._check_target(maps, *target)
        modules = self.loss_module
        if not isinstance(modules, nn.ModuleList):
            modules = [modules] * len(outputs)
        parts = [
            module(maps, *target)
            for module, maps, target in zip(modules, outputs, targets)
        ]
        losses = dict(loss_kpt=sum(parts))
        if train_cfg.get('compute_acc', True):
            losses['acc_pose'] = self._accuracy(outputs[-1], *targets[-1])
        return losses

    def _of_outputs(self, targets: list, outputs: int) -> list:
        """The target of each output, from those of the levels."""
        levels = len(targets)
        if levels == 1:
            return targets * outputs
        indices = getattr(self, 'level_indices', range(outputs))
        if not hasattr(self, 'level_indices') and levels != outputs:
            raise ValueError(
                f'the target has {levels} levels, but {type(self).__name__} has '
                f'{outputs} output(s): give OffsetTargetGenerator one encoder, or '
                'with multilevel=True one for each output'
            )
        if not all(0 <= index < levels for index in indices):
            raise ValueError(
                f'level_indices of {type(self).__name__} must be below {levels}, the '
                f'number of encoders of OffsetTargetGenerator, got {list(indices)}'
            )
        return [targets[index] for index in indices]

    def _check_target(self, maps: Tensor, target: Tensor, weights: Tensor) -> None:
        """Refuse a target that a loss would broadcast, or fail on without a reason."""
        if maps.shape == target.shape:
            return
        keypoints, (given, each) = weights.shape[1], self._given
        channels, made = self.reading.channels_per_keypoint, tuple(maps.shape[:1:-1])
        owner, codec = type(self).__name__, type(self.decoder).__name__
        if target.shape[1] != keypoints * channels:
            raise ValueError(
                f'the targets of {owner} have {target.shape[1] // keypoints} map(s) a '
                f'keypoint, and its codec {codec} has {channels}; make them with the '
                'same codec (encoder of OffsetTargetGenerator)'
            )
        if target.shape[1] != maps.shape[1]:
            raise ValueError(
                f'{owner} has out_channels={given}, and the data have {keypoints} '
                f'keypoint(s); set out_channels={keypoints * each}'
            )
        raise ValueError(
            f'the targets of {owner} are maps of {target.shape[3]}x{target.shape[2]}, '
            f'and its network makes maps of {made[0]}x{made[1]} (width x height); set '
            f'heatmap_size={made} in the encoder of OffsetTargetGenerator'
        )

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
