"""A config's own components, with a perfect network in their midst.

What stands before a network (pipelines, with warp and target) and after it (head
with flip test and codec, estimator) is built from the config by the toolbox's
registries. In the network's place are the maps that it was trained to make: the
target of the keypoints that are seen, in the image or in its mirror image.
"""

import copy
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.registry import MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.convert.check import metainfo_of, of_sample, results_of
from udp_plugin.models.heads.base import type_name
from udp_plugin.ui import UserError

#: A pipeline's steps, by what is done with the samples.
LOADERS = {
    'train': 'train_dataloader',
    'val': 'val_dataloader',
    'test': 'test_dataloader',
}
#: Maps that are made, flipped and read at once: as many numbers as fit well in memory.
NUMBERS_AT_ONCE = 2**24
#: What stands for an input: it tells a head whether it has been mirrored.
MARKER = torch.tensor([0.0, 1.0])


class Flow(NamedTuple):
    """The way of a data set's samples, through its pipeline and those around it."""

    name: str  #: ``'train'``, ``'train, stage 2'``, ``'val'``, ``'val, test'`` etc.
    steps: List[dict]
    places: List[str]  #: Where each step is in the config.
    dataset: dict  #: Its config.
    #: Data sets around it whose metainfo replaces its own, each with the index of the
    #: first step after that.
    around: Sequence[Tuple[int, dict]] = ()

    @property
    def training(self) -> bool:
        """Whether its samples train, in whichever stage."""
        return self.name.startswith('train')

    def find(self, key: str) -> Optional[int]:
        """The index of the first step whose config has the key."""
        return next((i for i, step in enumerate(self.steps) if key in step), None)

    def place(self, index: Optional[int]) -> str:
        """Where a step is in the config; the flow's name if there is no such step."""
        return self.name if index is None else self.places[index]


class Warped(NamedTuple):
    """A sample as it comes from the warp, and at the end of its pipeline."""

    image: np.ndarray  #: Shape (h, w, 3), the network's input.
    source: np.ndarray  #: Keypoints (K, 2) in source px, after what was done to them.
    keypoints: np.ndarray  #: Keypoints (K, 2) in input px, as the pipeline has them.
    center: np.ndarray  #: Of the box that became the input, shape (2,), source px.
    scale: np.ndarray  #: Its size.
    end: dict  #: What the pipeline's last step returned.

    @property
    def size(self) -> Tuple[int, int]:
        """Width and height of the network's input, in pixels."""
        return self.image.shape[1], self.image.shape[0]


class Parts:
    """What a config has around its network.

    Args:
        cfg: A top-down heatmap config; it is left as it is.

    Attributes:
        flows: The ways of samples, each kind once.
        train, test: The flows that train, if any, and that are tested.
        model: The config's estimator and head, without backbone and neck.
        head: The head that makes heatmaps.
        input_size, heatmap_size: ``(width, height)`` in pixels, by the head's codec.
        channels: Maps a keypoint in the target: 1, or 3 with offsets.
        num_keypoints: Of the target.
        outputs: For each keypoint of the test data its index in the maps.
        metainfo: Of the test data.

    Raises:
        UserError: It is no top-down heatmap config, or lacks its data.
        Exception: Whatever building its components raises.
    """

    def __init__(self, cfg: Config) -> None:
        register_all_modules()
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        #: By flow: parsed metainfo, and transforms.
        self._metainfo: Dict[str, dict] = {}
        self._built: Dict[str, list] = {}
        if not isinstance(cfg.get('model'), dict):
            raise UserError('it has no model; it is a part of a config, not a config')
        self.flows = _flows(cfg)
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
        self.head = _heatmap_head(self.model)
        self.input_size = tuple(int(n) for n in self.head.decoder.input_size)
        self.heatmap_size = tuple(int(n) for n in self.head.decoder.heatmap_size)
        self.metainfo = self.metainfo_of(self.test)
        encoder = None if self.train is None else self.train.find('encoder')
        #: The training pipeline's step that makes targets; the head's codec without.
        self._target = None if encoder is None else self._steps(self.train)[encoder]
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

    def metainfo_of(self, flow: Flow) -> dict:
        """What the flow's data set says of its keypoints."""
        if flow.name not in self._metainfo:
            self._metainfo[flow.name] = metainfo_of(flow.dataset)
        return self._metainfo[flow.name]

    def flip_indices_of(self, flow: Flow) -> List[int]:
        """Those of the samples: of a wrapper's metainfo, where it has some."""
        last = metainfo_of(flow.around[-1][1]) if flow.around else None
        return list((last or self.metainfo_of(flow))['flip_indices'])

    def person(
        self, flow: Flow, image: np.ndarray, box: np.ndarray, keypoints: np.ndarray
    ) -> dict:
        """What a data set knows of a person, for :meth:`warp`.

        Args:
            flow: Where the person will go.
            image: Shape (h, w, 3).
            box: Left, top, right and bottom in source px, shape (4,).
            keypoints: Shape (K, 2), source px.
        """
        return results_of(self.metainfo_of(flow), image, box, keypoints)

    def warp(self, flow: Flow, person: dict, to_the_end: bool = True) -> Warped:
        """Send a person through a pipeline.

        Args:
            flow: The pipeline.
            person: As a data set has it; it is changed.
            to_the_end: Whether to go on after the warp; if not, ``end`` is empty.

        Raises:
            UserError: No step warps the person to the network's input.
        """
        results, warped = person, None
        around = {index: metainfo_of(dataset) for index, dataset in flow.around}
        for index, transform in enumerate(self._steps(flow)):
            results.update(of_sample(around.get(index, {})))
            results = transform(results)
            if results is None:
                raise UserError(f'the {flow.name} pipeline dropped a sample')
            done = 'transformed_keypoints' in results and 'input_size' in results
            if warped is None and done:
                # MMPose 1.1 leaves the box itself alone.
                center = results.get('input_center', results['bbox_center'])
                scale = results.get('input_scale', results['bbox_scale'])
                keypoints = results['transformed_keypoints']
                warped = Warped(
                    image=results['img'],
                    source=np.array(results['keypoints'][0, :, :2], float),
                    keypoints=np.array(keypoints[0, :, :2], float),
                    center=np.array(center, float).reshape(2),
                    scale=np.array(scale, float).reshape(2),
                    end={},
                )
                if not to_the_end:
                    return warped
        if warped is None:
            raise UserError(
                f'no step of the {flow.name} pipeline warps a person to the '
                "network's input, as TopdownAffine and TopDownAffineUDP do"
            )
        return warped._replace(end=results)

    def run_through(self, flow: Flow) -> dict:
        """What comes out at a pipeline's end, of a person in the middle of an image."""
        image = np.zeros((640, 640, 3), np.uint8)
        box = np.array([100.0, 100.0, 300.0, 400.0])
        np.random.seed(0)
        shape = (self.metainfo_of(flow)['num_keypoints'], 2)
        keypoints = np.random.uniform(box[:2], box[2:], shape)
        return self.warp(flow, self.person(flow, image, box, keypoints)).end

    def _steps(self, flow: Flow) -> list:
        if flow.name not in self._built:
            self._built[flow.name] = [TRANSFORMS.build(step) for step in flow.steps]
        return self._built[flow.name]

    def encode(self, keypoints: np.ndarray) -> Tensor:
        """The targets of keypoints, by the training pipeline's own step.

        Args:
            keypoints: Shape (N, K, 2), input px; what is not finite is not visible.

        Returns:
            Maps (N, K * channels, H, W), float32: of the last level, where there are
            several.
        """
        return torch.stack([self._encode_one(points[None]) for points in keypoints])

    def _encode_one(self, keypoints: np.ndarray) -> Tensor:
        visible = np.isfinite(keypoints).all(-1)
        keypoints = np.where(visible[..., None], keypoints, 0).astype(np.float32)
        visible = visible.astype(np.float32)
        if self._target is None:
            maps = self.head.decoder.encode(keypoints, visible)['heatmaps']
            return torch.as_tensor(np.asarray(maps))
        results = self._target(
            dict(
                keypoints=keypoints,
                transformed_keypoints=keypoints,
                keypoints_visible=visible,
                dataset_keypoint_weights=np.ones(visible.shape[1], np.float32),
            )
        )
        if 'target_codecs' in results:
            # Left to the head.
            codec = results['target_codecs'][0][-1]
            results = codec.encode(keypoints, visible)
        maps = results['heatmaps']
        if isinstance(maps, list):
            levels = getattr(self.head, 'level_indices', None)
            maps = maps[levels[-1] if levels else -1]
        return torch.as_tensor(np.asarray(maps))

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
            mirrored: Of the mirrored input.
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
        with head, replaced(self.model, test_cfg=test_cfg), torch.no_grad():
            samples = self.model(inputs, list(samples), mode='predict')
        keypoints = [sample.pred_instances.keypoints[0, :, :2] for sample in samples]
        return np.stack(keypoints).astype(float), read[0]

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


def _heatmap_head(model: TopdownPoseEstimator) -> nn.Module:
    head = getattr(model, 'head', None)
    decoder = getattr(head, 'decoder', None)
    if decoder is None:
        raise UserError('its head has no decoder, the codec that reads heatmaps')
    if not hasattr(decoder, 'heatmap_size'):
        raise UserError(
            f'its codec is {type(decoder).__name__}, which has no heatmaps; the audit '
            'is for top-down heatmap configs, which `udp-plugin list` shows'
        )
    return head


# --- pipelines ------------------------------------------------------------------------


def _flows(cfg: Config) -> List[Flow]:
    found: List[Flow] = []
    for name, key in LOADERS.items():
        loader = cfg.get(key)
        if loader and loader.get('dataset'):
            found += _of_dataset(name, loader.dataset, f'{key}.dataset')
    if any(flow.training for flow in found):
        for index, hook in enumerate(cfg.get('custom_hooks') or []):
            if hook.get('switch_pipeline'):
                # Only the outermost pipeline is switched.
                outer = cfg.train_dataloader.dataset
                outer = dict(outer, pipeline=hook['switch_pipeline'])
                place = f'custom_hooks[{index}].switch_pipeline'
                name, inside = 'train, stage 2', 'train_dataloader.dataset'
                found += _of_dataset(name, outer, inside, place)
    once: List[Flow] = []
    for flow in found:
        like = next((i for i, one in enumerate(once) if _alike(one, flow)), None)
        if like is None:
            same = sum(one.name.split(' (')[0] == flow.name for one in once)
            name = f'{flow.name} ({same + 1})' if same else flow.name
            once.append(flow._replace(name=name))
        elif flow.name not in once[like].name:
            once[like] = once[like]._replace(name=f'{once[like].name}, {flow.name}')
    return once


def _alike(one: Flow, other: Flow) -> bool:
    """Whether flows have one way; in training, keypoints of other data do not matter.

    Test data's keypoints are those of the data set's type and metainfo.
    """
    steps = [
        [step for step in flow.steps if type_name(step) != 'KeypointConverter']
        for flow in (one, other)
    ]
    data = [(f.dataset.get('type'), f.dataset.get('metainfo')) for f in (one, other)]
    return (
        steps[0] == steps[1]
        and one.training == other.training
        and (one.training or data[0] == data[1])
    )


def _of_dataset(
    name: str, dataset: dict, place: str, pipeline: str = '', after: Sequence = ()
) -> Iterator[Flow]:
    """The flows of a data set, or of those in a wrapper.

    Args:
        name: Of the flow.
        dataset: Its config.
        place: Where that is in the whole config.
        pipeline: Where its pipeline is, if elsewhere.
        after: The steps of the wrappers, each with its place and its wrapper.
    """
    steps = [
        (
            f'{pipeline or place + ".pipeline"}[{index}]',
            step.to_dict() if hasattr(step, 'to_dict') else dict(step),
            dataset,
        )
        for index, step in enumerate(dataset.get('pipeline') or [])
        # Colours do not matter here, and its library may be missing.
        if type_name(step) != 'Albumentation'
    ]
    steps += after
    inner = dataset.get('dataset') or dataset.get('datasets') or []
    several = isinstance(inner, (list, tuple))
    for index, one in enumerate(inner if several else [inner]):
        where = f'{place}.datasets[{index}]' if several else f'{place}.dataset'
        yield from _of_dataset(name, one, where, after=steps)
    if not inner:
        owners = [owner for _, _, owner in steps]
        around = [
            (index, owner)
            for index, owner in enumerate(owners)
            if owner is not dataset and owner.get('metainfo')
            # Its first step.
            if not index or owners[index - 1] is not owner
        ]
        settings, places = [step for _, step, _ in steps], [at for at, _, _ in steps]
        yield Flow(name, settings, places, dataset, around)
