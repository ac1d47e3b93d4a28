"""A config's model with the weights of a checkpoint, and what surrounds it."""

import copy
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor, revert_sync_batchnorm
from mmengine.utils import import_modules_from_strings
from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from torch import nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import Distance, MapReading, UDPCodec
from udp_plugin.convert.check import forget_weights, loads_grey, metainfo_of
from udp_plugin.datasets import TopDownAffineUDP
from udp_plugin.errors import UserError
from udp_plugin.models.heads.base import UDPHead
from udp_plugin.weights import check_is_file, load_weights


class Trained(NamedTuple):
    """A model as a config tests it.

    Attributes:
        name: Of the config.
        model: The estimator, in evaluation, with its ``cfg`` and, if it has weights,
            its ``dataset_meta``, as MMPose's ``inference_topdown`` asks for them.
        head: The head that makes the maps, also if ``VisPredictHead`` holds it.
        codec: What reads the head's maps: its codec, or what stands in for a stock one.
        num_keypoints: Of which there are maps.
        chosen: Which of these the estimator gives, in which order; None is all. Models
            of several data sets have it.
        flip_indices: For each keypoint its mirror image's, by the data set.
        padding: Of boxes, see :func:`~udp_plugin.functional.box_center_scale`.
        warp: The name of the transform that crops.
        channels: Of crops: 3, or 1 where the pipeline loads grey photographs.
    """

    name: str
    model: TopdownPoseEstimator
    head: nn.Module
    codec: MapReading
    num_keypoints: int
    chosen: Optional[List[int]]
    flip_indices: Sequence[int] = ()
    padding: float = 1.0
    warp: str = 'TopDownAffineUDP'
    channels: int = 3

    @property
    def dither(self) -> Distance:
        """What the estimator moves a mirrored input by, input px right and down."""
        return getattr(self.model, 'dither', (0.0, 0.0))


def build(path: Path) -> Trained:
    """The model of a config, without weights, if it is one that can be exported.

    Raises:
        UserError: It is not.
    """
    with _refusing(f'CONFIG {path} cannot be read', kind=True):
        cfg = Config.fromfile(path, import_custom_modules=False)
        register_all_modules()
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    if not cfg.get('model'):
        raise UserError(f'CONFIG {path} has no model')
    settings = copy.deepcopy(cfg.model)
    forget_weights(settings)
    with _refusing(f'the model of {path} cannot be built'):
        model = revert_sync_batchnorm(MODELS.build(settings))
    model.cfg, head = cfg, getattr(model, 'head', None)
    head = getattr(head, 'pose_head', head)
    if not isinstance(model, TopdownPoseEstimator) or not isinstance(head, UDPHead):
        raise UserError(
            f"{path} has {type(head).__name__} as its head, not one of this package's; "
            f'convert the config: {_conversion(path, "--keep-weights")} keeps the '
            'checkpoint'
        )
    preprocessor = model.data_preprocessor
    if not isinstance(preprocessor, ImgDataPreprocessor):
        raise UserError(
            f'data_preprocessor of {path} is {type(preprocessor).__name__}, of which '
            'it is not known what it does to crops; take PoseDataPreprocessor, or '
            "export the decoding alone (--decoding-only) for what's after your own"
        )
    codec, divisor = head.reading, preprocessor.pad_size_divisor
    if any(pixels % divisor for pixels in codec.input_size):
        raise UserError(
            f'data_preprocessor of {path} pads crops of {codec.input_size} to '
            f'multiples of {divisor}, which moves the box in them; remove '
            'pad_size_divisor'
        )
    count = head.out_channels // codec.channels_per_keypoint
    chosen = (model.test_cfg or {}).get('output_keypoint_indices')
    return Trained(path.stem, model.eval(), head, codec, count, chosen)


def load(path: Path, checkpoint: Path) -> Trained:
    """Build the model of a config, with the weights of a checkpoint, on the CPU.

    Raises:
        UserError: A file is missing or of another model, the config is not one of
            top-down heatmaps with this package's components, or names what is not
            registered.
    """
    check_is_file(checkpoint)
    trained = build(path)
    model, cfg = trained.model, trained.model.cfg
    load_weights(model, checkpoint, path)
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    if not loader.get('dataset'):
        raise UserError(
            f'CONFIG {path} has no test_dataloader, which says how boxes are cropped '
            'and how keypoints are called'
        )
    dataset = inner = innermost = copy.deepcopy(loader.dataset)
    while inner:
        innermost = inner[0] if isinstance(inner, (list, tuple)) else inner
        inner = innermost.get('dataset') or innermost.get('datasets')
    if not dataset.get('pipeline'):
        dataset.pipeline = innermost.get('pipeline')
    padding, warp = _cropping(dataset, trained, path)
    metainfo = metainfo_of(dataset if dataset.get('metainfo') else innermost)
    keypoints = len(trained.chosen or range(trained.num_keypoints))
    if metainfo['num_keypoints'] != keypoints:
        raise UserError(
            f'the model of {path} has {keypoints} keypoints, but the data set of its '
            f'test_dataloader {metainfo["num_keypoints"]}; mend out_channels or the '
            'metainfo'
        )
    cfg.test_dataloader, model.dataset_meta = dict(dataset=dataset), metainfo
    return trained._replace(
        padding=padding,
        warp=warp,
        flip_indices=metainfo['flip_indices'],
        channels=1 if loads_grey(dataset.pipeline) else 3,
    )


def _conversion(path: Path, *options: str) -> str:
    """The command, as a shell reads it."""
    return shlex.join(['udp-plugin', 'convert', str(path), *options])


@contextmanager
def _refusing(problem: str, kind: bool = False) -> Iterator[None]:
    """Whatever is raised within as a ``UserError``; ``kind`` says the error's type."""
    try:
        yield
    except Exception as error:
        text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        if 'is not in the' in text:
            # Mmengine's hint at spelling and at its documentation follows.
            text = (
                f'{text.split(". Please")[0]}; the module that registers it belongs '
                'into custom_imports of the config'
            )
        text = f'{type(error).__name__}: {text}' if kind else text
        raise UserError(f'{problem}: {text}') from error


def _cropping(dataset: dict, trained: Trained, path: Path) -> Tuple[float, str]:
    """The padding of boxes in a test pipeline, and the name of what warps them."""
    pipeline = f'the test pipeline of {path}'
    with _refusing(f'{pipeline} cannot be built'):
        steps = [TRANSFORMS.build(step) for step in dataset.get('pipeline') or []]
    boxes = [step for step in steps if isinstance(step, GetBBoxCenterScale)]
    warps = [
        step
        for step in steps
        if isinstance(step, TopDownAffineUDP) or type(step) is TopdownAffine
    ]
    codec, decoder = trained.codec, trained.head.decoder
    if isinstance(decoder, UDPCodec):
        right, cure = 'TopDownAffineUDP', f'convert the config: {_conversion(path)}'
    else:
        udp = '(use_udp=True)' if codec.measure == F.UNIT_LENGTH else ''
        right, learnt = f'TopdownAffine{udp}', type(decoder).__name__
        cure = f'use that, by which weights of {learnt} were trained'
    names = ', '.join(type(step).__name__ for step in steps) or 'none'
    must = f'{pipeline} must crop with GetBBoxCenterScale and {right}, once each'
    if len(boxes) != 1 or len(warps) != 1:
        raise UserError(f'{must}; its steps are {names}')
    (warp,) = warps
    name = type(warp).__name__
    measure = F.UNIT_LENGTH if warp.use_udp else F.PIXELS
    if measure != codec.measure:
        raise UserError(
            f'{must}, since the decoder {type(decoder).__name__} measures the input by '
            f'{codec.measure}; its steps are {names}, and {name} measures it by '
            f'{measure}: {cure}'
        )
    size, expected = tuple(warp.input_size), codec.input_size
    if size != expected:
        raise UserError(
            f"{name} in {pipeline} has input_size {size}, the head's codec {expected}; "
            'they must be the same'
        )
    return float(boxes[0].padding), name
