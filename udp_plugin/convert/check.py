"""Whether a config trains and predicts: one step and one prediction on noise."""

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.utils import import_modules_from_strings
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.registry import DATASETS, MODELS, TRANSFORMS
from mmpose.utils import register_all_modules

from udp_plugin.keypoint_names import refuse_duplicates
from udp_plugin.models.heads.base import batch_targets, type_name

from .swaps import LOADERS, nodes

Shape = Tuple[int, ...]
#: Of the training step: the fewest that batch normalisation trains on.
BATCH_SIZE = 2
#: What a metainfo must have.
METAINFO_KEYS = (
    *('dataset_name', 'keypoint_info', 'skeleton_info'),
    *('joint_weights', 'sigmas'),
)


class Checked(NamedTuple):
    """What a check saw."""

    #: Shape (B, 3, h, w) of the network's input, or (B, 1, h, w) if grey.
    inputs: Shape
    #: Shape (N, K, 2) of the keypoints predicted for a sample.
    keypoints: Shape
    #: Whether the prediction was flip-tested, as the config says.
    flip_test: bool
    #: Transforms left out, since the library they need is not installed.
    left_out: List[str]
    #: Shape of each of the head's outputs in training.
    #: Without a ``train_dataloader`` there are no maps, targets and losses.
    maps: List[Shape] = []
    #: Shape of each level's target maps.
    targets: List[Shape] = []
    #: What the training step logged.
    losses: Dict[str, float] = {}


def check(cfg: Config) -> Checked:
    """Build a config's model, train it for a step and predict, on noise.

    The samples go through the config's own pipelines, and the optimizer is the
    config's; weights to start from are not loaded and no data set's files are read.

    Args:
        cfg: A top-down heatmap config; it is left as it is.

    Raises:
        ValueError: A value that the model or the pipelines made is not finite,
            the network does not take inputs of this size, the data set's type is not
            registered, or the config has no data loader or no optimizer.
    """
    train, *others = (cfg.get(name) for name in LOADERS)
    loaders = [loader for loader in (*others, train) if loader]
    if not loaders:
        raise ValueError(
            'the config has no train_dataloader, val_dataloader or test_dataloader, '
            'through whose pipelines samples would go'
        )
    if train and not cfg.get('optim_wrapper'):
        raise ValueError('the config has no optim_wrapper to train a step with')
    register_all_modules()
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    np.random.seed(0)
    torch.manual_seed(0)
    cfg = copy.deepcopy(cfg)
    forget_weights(cfg.model)
    left_out = _leave_out_missing(cfg)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    sample = sample_of_noise(loaders[0].dataset)
    try:
        seen = _train_step(cfg, model) if train else {}
        model.eval()
        with torch.no_grad():
            (predicted,) = model.test_step(pseudo_collate([sample]))
    except Exception as error:
        size = tuple(sample['inputs'].shape[:0:-1])
        larger = larger_input(model.eval(), size)
        if larger is None:
            raise
        raise ValueError(
            f'the network ({type(model.backbone).__name__}) fails on inputs of '
            f'{size[0]}x{size[1]} (width x height), which it cannot halve evenly as '
            f'often as it does; set input_size={larger} in codec and pipelines, and '
            f'heatmap_size={map_size(model, larger)} in the codec'
        ) from error
    found = predicted.pred_instances
    _finite(found.keypoint_scores, 'score')
    return Checked(
        keypoints=tuple(_finite(found.keypoints, 'keypoint').shape),
        flip_test=bool((cfg.model.get('test_cfg') or {}).get('flip_test')),
        left_out=left_out,
        **{'inputs': (1, *sample['inputs'].shape), **seen},
    )


def _train_step(cfg: Config, model: torch.nn.Module) -> Dict[str, Any]:
    """Train a step; returns the fields of :class:`Checked` that tell of it."""
    dataset = cfg.train_dataloader.dataset
    samples = [sample_of_noise(dataset) for _ in range(BATCH_SIZE)]
    targets = batch_targets([sample['data_samples'] for sample in samples])
    maps: List[torch.Tensor] = []

    # The head that makes the maps, also if another head holds it.
    heads = [m for m in model.head.modules() if getattr(m, 'decoder', None) is not None]
    forward = heads[-1].forward

    def remember(*args, **kwargs):
        output = forward(*args, **kwargs)
        maps[:] = [output] if isinstance(output, torch.Tensor) else list(output)
        return output

    heads[-1].forward = remember
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    if wrapper.get('type') in ('AmpOptimWrapper', AmpOptimWrapper):
        # In full precision: half has its own machines.
        wrapper['type'] = 'OptimWrapper'
        for key in ('dtype', 'loss_scale', 'use_fp16'):
            wrapper.pop(key, None)
    model.train()
    batch = pseudo_collate(samples)
    logged = model.train_step(batch, build_optim_wrapper(model, wrapper))
    seen = dict(
        inputs=(BATCH_SIZE, *samples[0]['inputs'].shape),
        targets=[tuple(_finite(level, 'target').shape) for level, _ in targets],
        maps=[tuple(_finite(output, 'map').shape) for output in maps],
        losses={name: float(_finite(value, name)) for name, value in logged.items()},
    )
    for name, parameter in model.named_parameters():
        _finite(parameter, f'parameter {name} after the step')
    return seen


def map_size(
    model: torch.nn.Module, input_size: Sequence[int]
) -> Optional[Tuple[int, int]]:
    """Width and height of the maps that a model makes of inputs of a size, in pixels.

    Args:
        model: A pose estimator, on any device; on ``meta`` nothing is computed.
        input_size: ``(width, height)`` in pixels.

    Returns:
        Those of its last output; None if it fails on such inputs or makes no maps.
    """
    weights = list(model.backbone.parameters())
    colours = next((w.shape[1] for w in weights if w.ndim == 4), 3)
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), torch.device(device):
            inputs = torch.zeros(1, colours, *input_size[::-1])
            made = model(inputs, None, mode='tensor')
    except Exception:
        # Why is its own matter, and who runs it will see.
        return None
    made = made if isinstance(made, (list, tuple)) else [made]
    maps = [each for each in made if getattr(each, 'ndim', 0) == 4]
    return tuple(maps[-1].shape[:1:-1]) if maps else None


def larger_input(
    model: torch.nn.Module, input_size: Sequence[int]
) -> Optional[Tuple[int, int]]:
    """The next larger input that a model takes, where it does not take this one.

    Arguments are those of :func:`map_size`. Networks that halve their input and join
    what they make of it take multiples of 32, a few of 64 or 128 px.

    Returns:
        Its width and height; None if the model takes this input, or no other either.
    """
    if map_size(model, input_size):
        return None
    for step in (32, 64, 128):
        width, height = (-(-side // step) * step for side in input_size)
        if map_size(model, (width, height)):
            return width, height
    return None


def _finite(values: Any, name: str) -> torch.Tensor:
    values = torch.as_tensor(values)
    if not torch.isfinite(values).all():
        raise ValueError(f'not every {name} is finite')
    return values


def forget_weights(cfg: dict) -> None:
    """Remove what would download weights or read them from a file."""
    for _, node in nodes(cfg, 'model'):
        init = node.get('init_cfg')
        inits = init if isinstance(init, list) else [init]
        if any(isinstance(i, dict) and 'checkpoint' in i for i in inits):
            node['init_cfg'] = None
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None


def _leave_out_missing(cfg: Config) -> List[str]:
    """Remove augmentations for which the toolbox needs a library that is not there."""
    if find_spec('albumentations'):
        return []
    left_out = set()
    for _, node in nodes(cfg._cfg_dict):
        for steps in node.values():
            if isinstance(steps, list):
                of_library = [s for s in steps if type_name(s) == 'Albumentation']
                left_out.update(map(type_name, of_library))
                steps[:] = [s for s in steps if s not in of_library]
    return sorted(left_out)


def metainfo_of(dataset: dict) -> dict:
    """What the toolbox knows of a data set's keypoints, by its config.

    Raises:
        ValueError: The data set's type is not registered, the metainfo lacks what the
            toolbox asks for, or its keypoints are not counted from 0 on, each with a
            name of its own.
    """
    cls = dataset['type']
    cls = DATASETS.get(cls) if isinstance(cls, str) else cls
    if cls is None:
        raise ValueError(
            f'the data set {dataset["type"]} is not registered; the module that '
            'does it belongs into custom_imports'
        )
    metainfo = dataset.get('metainfo')
    # DeepFashion writes that of the subset it had last into its class.
    if not metainfo and 'subset' not in dataset:
        metainfo = cls.METAINFO
    with warnings.catch_warnings():
        # It says at length that it found the file that was meant.
        warnings.filterwarnings('ignore', 'The metainfo config file')
        try:
            if metainfo:
                parsed = parse_pose_metainfo(dict(metainfo))
            else:
                # It depends on the arguments, as DeepFashion's on its subset.
                settings = dict(dataset, lazy_init=True, pipeline=[], test_mode=False)
                parsed = DATASETS.build(settings).metainfo
        except AssertionError as error:
            if not metainfo:
                raise
            # The toolbox does not say what it misses.
            file = metainfo.get('from_file')
            has = Config.fromfile(file).dataset_info if file else metainfo
            missing = ', '.join(key for key in METAINFO_KEYS if key not in has)
            raise ValueError(
                f'the metainfo of {dataset["type"]} lacks {missing}; '
                f'{file or "it"} must have {", ".join(METAINFO_KEYS)}'
            ) from error
        except KeyError as error:
            _check_names(cls, _names_in(metainfo or {}))
            raise ValueError(
                f"the metainfo of {cls.__name__} has no {error}; each 'swap' and each "
                "'link' is the name of a keypoint"
            ) from error
    _check_names(cls, parsed['keypoint_id2name'])
    return parsed


def _names_in(metainfo: dict) -> Dict[int, str]:
    """The names in metainfo, by number, whatever else is in it."""
    path = metainfo.get('from_file')
    if path and Path(path).is_file():
        metainfo = Config.fromfile(path).get('dataset_info') or {}
    points = metainfo.get('keypoint_info') or {}
    return {k: point.get('name', f'keypoint {k}') for k, point in points.items()}


def _check_names(cls: type, names: Dict[int, str]) -> None:
    """Refuse keypoints that are not counted from 0 on, or of one name."""
    if list(names) != list(range(len(names))):
        raise ValueError(
            f'the keypoint_info of {cls.__name__} counts keypoints '
            f'{", ".join(map(str, names))}; it is to count them from 0 on'
        )
    try:
        refuse_duplicates(list(names.values()))
    except ValueError as error:
        raise ValueError(f'the metainfo of {cls.__name__}: {error}') from error


def loads_grey(pipeline: Optional[Sequence[dict]]) -> bool:
    """Whether a pipeline loads photographs as grey ones, which have no channels."""
    types = (str(step.get('color_type')) for step in pipeline or [])
    return any(name.startswith('grayscale') for name in types)


def sample_of_noise(dataset: dict, grey: bool = False) -> dict:
    """A sample of noise that has gone through a data set's own pipelines.

    Args:
        dataset: The config of a data set or of a wrapper around some, of which the
            first one counts.
        grey: Whether a wrapper around it loads grey photographs.
    """
    grey = grey or loads_grey(dataset.get('pipeline'))
    inner = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
    if inner:
        results = sample_of_noise(inner, grey)
        if dataset.get('metainfo'):
            results.update(of_sample(metainfo_of(dataset)))
    else:
        metainfo = metainfo_of(dataset)
        box = np.array([40.0, 30.0, 200.0, 220.0])
        shape = (240, 240) if grey else (240, 240, 3)
        image = np.random.randint(0, 256, shape, np.uint8)
        keypoints = np.random.uniform(box[:2], box[2:], (metainfo['num_keypoints'], 2))
        results = results_of(metainfo, image, box, keypoints)
    for transform in dataset.get('pipeline') or []:
        results = TRANSFORMS.build(transform)(results)
    return results


def of_sample(metainfo: dict) -> dict:
    """What a data set puts of its metainfo into each sample."""
    keys = 'upper_body_ids', 'lower_body_ids', 'flip_pairs', 'flip_indices'
    keys += ('dataset_keypoint_weights',)
    # A copy, since the toolbox's KeypointConverter writes on it.
    return {key: copy.deepcopy(metainfo[key]) for key in keys if key in metainfo}


def results_of(
    metainfo: dict, image: np.ndarray, box: np.ndarray, keypoints: np.ndarray
) -> dict:
    """What a data set knows of a person, as pipelines take it.

    Args:
        metainfo: The data set's.
        image: Shape (h, w, 3), or (h, w) if grey.
        box: Left, top, right and bottom in source px, shape (4,).
        keypoints: Shape (K, 2), source px; all are visible.
    """
    return {
        'id': 0,
        'img_id': 0,
        'img_path': 'drawn.png',
        'img': image,
        'img_shape': image.shape[:2],
        'ori_shape': image.shape[:2],
        'bbox': np.asarray(box, np.float32)[None],
        'bbox_score': np.ones(1, np.float32),
        'keypoints': np.asarray(keypoints, np.float32)[None],
        'keypoints_visible': np.ones((1, len(keypoints)), np.float32),
        **of_sample(metainfo),
    }
