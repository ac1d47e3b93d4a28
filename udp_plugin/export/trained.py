"""A config's model with the weights of a checkpoint, and what surrounds it."""

import copy
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor, revert_sync_batchnorm
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings
from mmpose.datasets.transforms import GetBBoxCenterScale
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from torch import nn

from udp_plugin.codecs.base import UDPCodec
from udp_plugin.convert.check import forget_weights, metainfo_of
from udp_plugin.convert.zoo import find_config
from udp_plugin.datasets import TopDownAffineUDP
from udp_plugin.models.heads.base import UDPHead
from udp_plugin.ui import UserError

#: So many names a message lists.
LISTED = 4


class Trained(NamedTuple):
    """A model as a config tests it.

    Attributes:
        name: Of the config.
        model: The estimator, in evaluation, with its ``cfg`` and ``dataset_meta`` as
            MMPose's ``inference_topdown`` asks for them.
        metainfo: What the toolbox knows of the keypoints.
        padding: Of boxes, see :func:`~udp_plugin.functional.box_center_scale`.
    """

    name: str
    model: TopdownPoseEstimator
    metainfo: dict
    padding: float

    @property
    def codec(self) -> UDPCodec:
        """Of the model's head."""
        return pose_head_of(self.model).decoder

    @property
    def flip_indices(self) -> List[int]:
        """For each keypoint its mirror image's."""
        return list(self.metainfo['flip_indices'])

    @property
    def preprocessor(self) -> ImgDataPreprocessor:
        """What makes the network's input of crops."""
        return self.model.data_preprocessor


def find(words: str) -> Path:
    """The config that a user means.

    Raises:
        UserError: There is none, or several.
    """
    try:
        return find_config(words)
    except UserError as error:
        raise UserError(str(error)) from error


def read_config(path: Path) -> Config:
    """A config, its ``custom_imports`` imported.

    Raises:
        UserError: It cannot be read, or names a module that is not there.
    """
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
        register_all_modules()
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    except Exception as error:
        raise UserError(
            f'CONFIG {path} cannot be read: {type(error).__name__}: {error}'
        ) from error
    return cfg


def load(path: Path, checkpoint: Path) -> Trained:
    """Build the model of a config, with the weights of a checkpoint, on the CPU.

    Raises:
        UserError: A file is missing or of another model, the config is not one of
            top-down heatmaps with this package's components, or names what is not
            registered.
    """
    if not checkpoint.is_file():
        raise UserError(
            f'CHECKPOINT {checkpoint} is no file; tools/train.py leaves checkpoints '
            'such as epoch_210.pth in its --work-dir'
        )
    cfg = read_config(path)
    model = build(cfg, path)
    _load_weights(model, checkpoint, path)
    dataset = _test_dataset(cfg, path)
    padding = _padding(dataset, model, path)
    metainfo = metainfo_of(_innermost(dataset))
    if dataset.get('metainfo'):
        metainfo = metainfo_of(dataset)
    chosen = chosen_keypoints(model)
    keypoints = keypoints_of_maps(model) if chosen is None else len(chosen)
    if metainfo['num_keypoints'] != keypoints:
        raise UserError(
            f'the model of {path} has {keypoints} keypoints, but the data set of its '
            f'test_dataloader {metainfo["num_keypoints"]}; mend out_channels or the '
            'metainfo'
        )
    # As inference_topdown asks for them.
    cfg.test_dataloader = dict(dataset=dataset)
    model.cfg, model.dataset_meta = cfg, metainfo
    return Trained(path.stem, model.eval(), metainfo, padding)


def keypoints_of_maps(model: TopdownPoseEstimator) -> int:
    """The number of keypoints that a model makes maps of."""
    head = pose_head_of(model)
    return head.out_channels // head.decoder.channels_per_keypoint


def pose_head_of(model: TopdownPoseEstimator) -> nn.Module:
    """The head that makes the maps, also if ``VisPredictHead`` holds it."""
    head = getattr(model, 'head', None)
    return getattr(head, 'pose_head', head)


def chosen_keypoints(model: TopdownPoseEstimator) -> Optional[List[int]]:
    """Which of its keypoints the estimator gives, in which order; None is all.

    Models of several data sets have it.
    """
    return (model.test_cfg or {}).get('output_keypoint_indices')


def build(cfg: Config, path: Path) -> TopdownPoseEstimator:
    """The model of a config, if it is one that can be exported.

    Raises:
        UserError: It is not.
    """
    if not cfg.get('model'):
        raise UserError(f'CONFIG {path} has no model')
    model_cfg = copy.deepcopy(cfg.model)
    forget_weights(model_cfg)
    try:
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
    except Exception as error:
        raise UserError(
            f'the model of {path} cannot be built: {_in_words(error)}'
        ) from error
    head = pose_head_of(model)
    if not isinstance(model, TopdownPoseEstimator) or not isinstance(head, UDPHead):
        raise UserError(
            f"{path} has {type(head).__name__} as its head, not one of this package's; "
            f'convert the config (udp-plugin convert {path}), with which checkpoints '
            'of a stock UDP model work as they are'
        )
    preprocessor = model.data_preprocessor
    if not isinstance(preprocessor, ImgDataPreprocessor):
        raise UserError(
            f'data_preprocessor of {path} is {type(preprocessor).__name__}, of which '
            'it is not known what it does to crops; take PoseDataPreprocessor, or '
            "export the decoding alone (--decoding-only) for what's after your own"
        )
    size, divisor = head.decoder.input_size, preprocessor.pad_size_divisor
    if any(pixels % divisor for pixels in size):
        raise UserError(
            f'data_preprocessor of {path} pads crops of {size} to multiples of '
            f'{divisor}, which moves the box in them; remove pad_size_divisor'
        )
    return model


def _in_words(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if 'is not in the' in text:
        # Mmengine's hint at spelling and at its documentation follows.
        text = text.split('. Please')[0] + (
            '; the module that registers it belongs into custom_imports of the config'
        )
    return text


def _load_weights(model: nn.Module, checkpoint: Path, config: Path) -> None:
    try:
        read = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
        state = read.get('state_dict', read) if isinstance(read, dict) else None
        if not isinstance(state, dict):
            raise TypeError(f'it holds a {type(read).__name__}, not weights by name')
        state = {re.sub(r'^module\.', '', name): each for name, each in state.items()}
    except Exception as error:
        raise UserError(
            f'CHECKPOINT {checkpoint} cannot be read as one of PyTorch: '
            f'{type(error).__name__}: {error}'
        ) from error
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(
            f'CHECKPOINT {checkpoint} is of another model than {config}: '
            f'{_some(problems)}; give the config that it was trained with'
        ) from error
    if missing:
        raise UserError(
            f'CHECKPOINT {checkpoint} has no weights for {_some(missing)} of {config}; '
            'give the config that it was trained with'
        )
    # Of other things that are in checkpoints, none is of a part of the model.
    parts = {name for name, _ in model.named_children()}
    unexpected = [name for name in unexpected if name.split('.')[0] in parts]
    if unexpected:
        raise UserError(
            f'CHECKPOINT {checkpoint} is of another model than {config}, which has no '
            f'{_some(unexpected)}; give the config that it was trained with'
        )
    broken = [n for n, each in model.state_dict().items() if not each.isfinite().all()]
    if broken:
        raise UserError(
            f'CHECKPOINT {checkpoint} has weights that are NaN or infinite: '
            f'{_some(broken)}; take one from before the training broke down'
        )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - LISTED
    return ', '.join(names[:LISTED]) + (f' and {rest} more' if rest > 0 else '')


def _test_dataset(cfg: Config, path: Path) -> dict:
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader or not loader.get('dataset'):
        raise UserError(
            f'CONFIG {path} has no test_dataloader, which says how boxes are cropped '
            'and how keypoints are called'
        )
    dataset = copy.deepcopy(loader.dataset)
    if not dataset.get('pipeline'):
        dataset.pipeline = _innermost(dataset).get('pipeline')
    return dataset


def _innermost(dataset: dict) -> dict:
    inner = dataset.get('dataset') or dataset.get('datasets')
    if not inner:
        return dataset
    return _innermost(inner[0] if isinstance(inner, (list, tuple)) else inner)


def _padding(dataset: dict, model: TopdownPoseEstimator, path: Path) -> float:
    """The padding of boxes in a test pipeline, which is that of this package."""
    try:
        steps = [TRANSFORMS.build(step) for step in dataset.get('pipeline') or []]
    except Exception as error:
        raise UserError(
            f'the test pipeline of {path} cannot be built: {_in_words(error)}'
        ) from error
    boxes = [step for step in steps if isinstance(step, GetBBoxCenterScale)]
    warps = [step for step in steps if isinstance(step, TopDownAffineUDP)]
    if len(boxes) != 1 or len(warps) != 1:
        names = ', '.join(type(step).__name__ for step in steps) or 'none'
        raise UserError(
            f'the test pipeline of {path} must crop with GetBBoxCenterScale and '
            f'TopDownAffineUDP, once each; its steps are {names}. If it has '
            f'TopdownAffine, convert the config: udp-plugin convert {path}'
        )
    expected: Tuple[int, int] = pose_head_of(model).decoder.input_size
    if tuple(warps[0].input_size) != expected:
        raise UserError(
            f'TopDownAffineUDP in the test pipeline of {path} has input_size '
            f"{tuple(warps[0].input_size)}, the head's codec {expected}; they must be "
            'the same'
        )
    return float(boxes[0].padding)
