"""A config's own components, with a perfect network in their midst.

What stands before a network (pipelines, with warp and target) and after it (head
with flip test and codec, estimator) is built from the config by the toolbox's
registries. In the network's place are the maps that it was trained to make: the
target of the keypoints that are seen, in the image or in its mirror image.
"""

import copy
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS
from mmpose.utils import register_all_modules
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.errors import UserError

from .errors import in_words
from .flows import are_alike, are_equal, each_once, flows_of

#: Maps that are made, flipped and read at once: as many numbers as fit well in memory.
NUMBERS_AT_ONCE = 2**24
#: What stands for an input: it tells a head whether it has been mirrored.
MARKER = torch.tensor([0.0, 1.0])


class Parts:
    """What a config has around its network.

    Args:
        cfg: A top-down heatmap config; it is left as it is.

    Attributes:
        every_flow: The ways of samples, of each data set.
        flows: Each kind of them once.
        train, test: The flows that train, if any, and that are tested.
        model: The config's estimator and head, without backbone and neck.
        head: The head that makes heatmaps.
        input_size, heatmap_size: ``(width, height)`` in pixels, by the head's codec.
        channels: Maps a keypoint in the target: 1, or 3 with offsets.
        num_keypoints: Of the target.
        outputs: For each keypoint of the test data its index in the maps.
        metainfo: Of the test data, as their samples have it in the end.

    Raises:
        UserError: It is no top-down heatmap config, or lacks its data.
        Exception: Whatever building its components raises.
    """

    def __init__(self, cfg: Config) -> None:
        register_all_modules()
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        if not isinstance(cfg.get('model'), dict):
            raise UserError('it has no model; it is a part of a config, not a config')
        found = flows_of(cfg)
        self.every_flow = each_once(found, are_equal)
        self.flows = each_once(found, are_alike)
        self.train = next((f for f in self.flows if f.name == 'train'), None)
        tested = [f for f in self.flows if not f.training]
        named = [f for f in tested if 'test' in f.name]
        self.test = next(iter(named or tested), None)
        if self.test is None:
            raise UserError(
                'it has no val_dataloader and no test_dataloader, whose pipelines '
                'would be measured'
            )
        self.model = _estimator(cfg)
        self.head = getattr(self.model, 'head', None)
        decoder = getattr(self.head, 'decoder', None)
        if decoder is None:
            raise UserError('its head has no decoder, the codec that reads heatmaps')
        if not hasattr(decoder, 'heatmap_size'):
            raise UserError(
                f'its codec is {type(decoder).__name__}, which has no heatmaps; the '
                'audit is for top-down heatmap configs, which `udp-plugin list` shows'
            )
        self.input_size = tuple(map(int, decoder.input_size))
        self.heatmap_size = tuple(map(int, decoder.heatmap_size))
        self.metainfo = self.test.metainfo_at()
        for flow in self.every_flow:
            # What is wrong in it is said here.
            flow.metainfo_at()
        encoder = None if self.train is None else self.train.find('encoder')
        #: The training pipeline's step that makes targets; the head's codec without.
        self._target = None if encoder is None else self.train.transforms[encoder]
        self.num_keypoints = count = self.metainfo['num_keypoints']
        # By the codec's own count, of a number of keypoints that no codec has.
        middle = np.full((1, 2, 2), np.asarray(self.input_size) / 2)
        self.channels = self.encode(middle).shape[1] // 2
        if self.channels not in (1, 3):
            raise UserError(
                f'its target has {self.channels} maps a keypoint; the audit knows '
                'heatmaps, of one, and offset maps, of three'
            )
        self.outputs = list(range(count))
        some = self.model.test_cfg.get('output_keypoint_indices')
        if some:
            self.outputs = list(some)
            made = getattr(self.head, 'out_channels', None)
            self.num_keypoints = made // self.channels if made else count

    # --- before the network -----------------------------------------------------------

    def encode(self, keypoints: np.ndarray) -> Tensor:
        """The targets of keypoints, by the training pipeline's own step.

        Args:
            keypoints: Shape (N, K, 2), input px; what is not finite is not visible.

        Returns:
            Maps (N, K * channels, H, W), float32: of the last level, where there are
            several.
        """
        made = []
        for points in keypoints[:, None]:
            visible = np.isfinite(points).all(-1)
            points = np.where(visible[..., None], points, 0).astype(np.float32)
            visible, codec = visible.astype(np.float32), self.head.decoder
            if self._target is not None:
                results = dict(keypoints=points, keypoints_visible=visible)
                results.update(
                    transformed_keypoints=points,
                    dataset_keypoint_weights=np.ones(visible.shape[1], np.float32),
                )
                results = self._target(results)
                # Left to the head.
                codec = results.get('target_codecs', [[None]])[0][-1]
            if codec is not None:
                results = codec.encode(points, visible)
            maps = results['heatmaps']
            made.append(np.asarray(of_last_level(maps, self.head)))
        return torch.as_tensor(np.stack(made))

    # --- after it ---------------------------------------------------------------------

    def decode(self, maps: Tensor) -> np.ndarray:
        """What the head's codec reads, shape (N, K, 2), as the estimator wants it."""
        with torch.no_grad():
            return np.concatenate([pred.keypoints for pred in self.head.decode(maps)])

    def predict(
        self,
        maps: Tensor,
        mirrored: Tensor,
        samples: Sequence[Any],
        flip_test: Optional[bool] = None,
    ) -> Tuple[np.ndarray, Tensor]:
        """Predict as ``tools/test.py`` does, with these maps as the network's.

        Args:
            maps: Of the input, shape (N, C, H, W).
            mirrored: Of the mirrored input, dithered as the estimator does.
            samples: N data samples of the toolbox.
            flip_test: In the place of the config's own.

        Returns:
            tuple: keypoints (N, K, 2) in source px, and the maps that were read,
            (N, C, H, W).
        """
        read: List[Tensor] = []
        decode, one = self.head.decode, not hasattr(self.head, 'num_stages')

        def forward(feats: Any) -> Any:
            flipped = bool(torch.as_tensor(feats)[0, 0, 0, 0] > 0)
            # A copy, since what comes after a network may write on its maps.
            made = (mirrored if flipped else maps).clone()
            return made if one else [made]

        def remember(batch: Tensor) -> list:
            read[:] = [batch.clone()]
            return decode(batch)

        test_cfg = dict(self.model.test_cfg)
        if flip_test is not None:
            test_cfg['flip_test'] = flip_test
        inputs = MARKER.expand(len(samples), 1, 1, 2)
        head = replaced(self.head, forward=forward, decode=remember)
        # What stands for an input cannot be dithered; its maps are.
        plain = dict(mirrored=lambda inputs: inputs.flip(-1), test_cfg=test_cfg)
        with head, replaced(self.model, **plain), torch.no_grad():
            samples = self.model(inputs, list(samples), mode='predict')
        keypoints = [sample.pred_instances.keypoints[0, :, :2] for sample in samples]
        return np.stack(keypoints).astype(float), read[0]

    @property
    def dither(self) -> np.ndarray:
        """What the estimator moves the mirrored input by, input px, shape (2,)."""
        return np.array(getattr(self.model, 'dither', (0.0, 0.0)))

    def loss_failure(self, train_cfg: dict) -> str:
        """Why the loss of a perfect prediction cannot be computed, or nothing."""
        head = self.head
        if hasattr(head, 'num_stages'):
            # Outputs of stages and units have levels of targets of their own.
            return ''
        keypoints = np.full((2, self.num_keypoints, 2), np.asarray(self.input_size) / 3)
        maps = self.encode(keypoints)
        samples = [self.train.run_through()['data_samples'] for _ in range(2)]
        try:
            with torch.no_grad(), replaced(head, forward=lambda feats: maps):
                losses = head.loss(maps, samples, train_cfg=train_cfg)
            finite = all(
                torch.isfinite(torch.as_tensor(v)).all() for v in losses.values()
            )
            return '' if finite else 'it is not finite'
        except Exception as error:
            return in_words(error)

    def mirror(self, keypoints: np.ndarray) -> np.ndarray:
        """What the network sees in the mirrored input, shape (N, K, 2), input px."""
        mirrored = np.full_like(keypoints, np.nan)
        flip = self.flip_indices()
        mirrored[:, flip] = F.mirror(keypoints, self.input_size[0])
        return mirrored

    def flip_indices(self) -> List[int]:
        """For each keypoint of the maps its mirror image's.

        The estimator's own metainfo, where it has some, goes before the data's.
        """
        metainfo = getattr(self.model, 'metainfo', None) or self.metainfo
        flip = list(metainfo['flip_indices'])
        return flip if len(flip) == self.num_keypoints else [*range(self.num_keypoints)]

    def stride(self, unbiased: bool) -> np.ndarray:
        """Input px per heatmap px on each axis, by one measure of the map."""
        return F.stride(self.input_size, self.heatmap_size, unbiased)

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of ``count`` samples whose maps fit well in memory."""
        width, height = self.heatmap_size
        numbers = self.num_keypoints * self.channels * width * height
        size = max(1, NUMBERS_AT_ONCE // numbers)
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))

    def read_targets(
        self, keypoints: np.ndarray, read: Callable[[Tensor], np.ndarray]
    ) -> np.ndarray:
        """Encode keypoints (N, K, 2) in input px, and read the maps, in batches."""
        batches = self.batches(len(keypoints))
        return np.concatenate([read(self.encode(keypoints[b])) for b in batches])


def of_last_level(levels: Any, head: nn.Module) -> Any:
    """What a head's last output learns; the same if there are no levels."""
    if not isinstance(levels, (list, tuple)):
        return levels
    indices = getattr(head, 'level_indices', None)
    return levels[indices[-1] if indices else -1]


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Put something else into an object's dict for a while."""
    had = {key: vars(owner)[key] for key in attributes if key in vars(owner)}
    vars(owner).update(attributes)
    try:
        yield
    finally:
        for key in attributes:
            vars(owner).pop(key)
        vars(owner).update(had)


def network_of(cfg: Config) -> Optional[TopdownPoseEstimator]:
    """The whole model, without a single number in its weights; None if it can't be."""
    try:
        with torch.device('meta'):
            return MODELS.build(copy.deepcopy(cfg.model.to_dict())).eval()
    except Exception:
        # Of a package that is not here, or it needs numbers while it is built.
        return None


def _estimator(cfg: Config) -> TopdownPoseEstimator:
    settings = copy.deepcopy(cfg.model.to_dict())
    for key in ('neck', 'data_preprocessor', 'init_cfg', 'pretrained'):
        settings.pop(key, None)
    # It hands the marker on.
    settings['backbone'] = dict(type=nn.Identity)
    settings['test_cfg'] = settings.get('test_cfg') or {}
    head = settings.get('head') or {}
    if head.get('pose_cfg'):
        # What else a hybrid head predicts needs features.
        settings['head'] = head['pose_cfg']
    model = MODELS.build(settings)
    if not isinstance(model, TopdownPoseEstimator):
        raise UserError(
            f'its model is {type(model).__name__}, and the audit is for top-down '
            'heatmap configs, of TopdownPoseEstimator'
        )
    return model.eval()
