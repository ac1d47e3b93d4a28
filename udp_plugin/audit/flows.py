"""The ways that samples go: a data set's pipeline, and those of the wrappers around it.

Transforms are built from the config by the toolbox's registry.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmengine.config import Config
from mmpose.registry import TRANSFORMS

from udp_plugin.convert.check import loads_grey, metainfo_of, of_sample, results_of
from udp_plugin.errors import UserError
from udp_plugin.models.heads.base import type_name

#: A pipeline's steps, by what is done with the samples.
LOADERS = {
    'train': 'train_dataloader',
    'val': 'val_dataloader',
    'test': 'test_dataloader',
}
#: Configs from a data set to its outermost wrapper, with their pipelines' places.
Chain = Sequence[Tuple[str, dict]]


class Warped(NamedTuple):
    """A sample as it comes from the warp, and at the end of its pipeline."""

    image: np.ndarray  #: Shape (h, w, 3), the network's input, also if it is grey.
    source: np.ndarray  #: Keypoints (K, 2) in source px, after what was done to them.
    keypoints: np.ndarray  #: Keypoints (K, 2) in input px, as the pipeline has them.
    visible: np.ndarray  #: Which of them are labelled, shape (K,).
    center: np.ndarray  #: Of the box that became the input, shape (2,), source px.
    scale: np.ndarray  #: Its size.
    end: dict  #: What the pipeline's last step returned.

    @property
    def size(self) -> Tuple[int, int]:
        """Width and height of the network's input, in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass
class Flow:
    """The way of a data set's samples, through its pipeline and those around it."""

    name: str  #: ``'train'``, ``'train, stage 2'``, ``'val'``, ``'val, test'`` etc.
    data: str  #: Where the data set is in the config.
    steps: List[dict]
    places: List[str]  #: Where each step is in the config.
    dataset: dict  #: Its config.
    #: Data sets around it whose metainfo replaces its own, from a step's index on.
    around: Dict[int, dict]

    @property
    def training(self) -> bool:
        """Whether its samples train, in whichever stage."""
        return self.name.startswith('train')

    @cached_property
    def metainfo(self) -> dict:
        """What the data set says of its keypoints, before the first step."""
        return metainfo_of(self.dataset)

    @cached_property
    def replaced(self) -> Dict[int, dict]:
        """Other metainfo that samples have from a step on."""
        return {index: metainfo_of(around) for index, around in self.around.items()}

    def metainfo_at(self, index: Optional[int] = None) -> dict:
        """What samples have of it at a step, or in the end."""
        known = [self.metainfo]
        known += [m for i, m in self.replaced.items() if index is None or i <= index]
        return known[-1]

    @property
    def averaged(self) -> List[int]:
        """Keypoints in the middle between two of the data set's, and what mirrors them.

        Nothing in a drawn image is there.
        """
        found = set()
        for step in self.steps:
            if type_name(step) == 'KeypointConverter':
                found |= {k for source, k in step['mapping'] if np.ptp(source)}
        flip = self.metainfo_at()['flip_indices']
        return sorted(found | {flip[k] for k in found if k < len(flip)})

    @cached_property
    def transforms(self) -> list:
        """The steps, built."""
        return [TRANSFORMS.build(step) for step in self.steps]

    def replaced_between(self, start: int, end: int) -> bool:
        """Whether samples get another metainfo after a step and before another."""
        return any(start < index <= end for index in self.around)

    def last(self, name: str) -> Optional[int]:
        """The index of the last step of a type."""
        found = [i for i, step in enumerate(self.steps) if type_name(step) == name]
        return found[-1] if found else None

    def find(self, key: str) -> Optional[int]:
        """The index of the first step whose config has the key."""
        return next((i for i, step in enumerate(self.steps) if key in step), None)

    def place(self, index: Optional[int]) -> str:
        """Where a step is in the config; the flow's name if there is no such step."""
        return self.name if index is None else self.places[index]

    def place_of(self, name: str) -> str:
        """Where the last step of a type is in the config, or else the data set."""
        index = self.last(name)
        return self.data if index is None else self.places[index]

    def with_mirroring(self, chance: float) -> 'Flow':
        """The same with a RandomFlip that mirrors as often as this.

        Halves of bodies, whose box depends on where keypoints are, are left out.
        """
        chances = dict(RandomFlip=chance, RandomHalfBody=0.0)
        names = map(type_name, self.steps)
        steps = [
            dict(step, prob=chances[name]) if name in chances else step
            for step, name in zip(self.steps, names)
        ]
        return replace(self, steps=steps)

    def run(self, person: dict) -> Iterator[Tuple[int, dict]]:
        """Send a person through the pipeline: each step, and what comes out of it."""
        results = person
        if loads_grey(self.steps) and np.ndim(results.get('img')) == 3:
            # Those that are drawn have none but grey pixels.
            results['img'] = results['img'][..., 0]
        for index, transform in enumerate(self.transforms):
            results.update(of_sample(self.replaced.get(index, {})))
            results = transform(results)
            if results is None:
                raise UserError(f'the {self.name} pipeline dropped a sample')
            yield index, results

    def before_target(self, person: dict) -> dict:
        """A warped person, as the step that makes the target gets it."""
        target, found = self.find('encoder'), {}
        for index, results in self.run(person):
            found = results if _is_warped(results) else found
            if found and target is not None and index + 1 >= target:
                break
        return found

    def warp(self, person: dict, to_the_end: bool = True) -> Warped:
        """Send a person through the pipeline.

        Args:
            person: As a data set has it; it is changed.
            to_the_end: Whether to go on after the warp; if not, ``end`` is empty.

        Raises:
            UserError: No step warps the person to the network's input.
        """
        results, warped = person, None
        for _, results in self.run(person):
            if warped is None and _is_warped(results):
                # MMPose 1.1 leaves the box itself alone.
                center = results.get('input_center', results['bbox_center'])
                scale = results.get('input_scale', results['bbox_scale'])
                keypoints = results['transformed_keypoints']
                warped = Warped(
                    image=_in_color(results['img']),
                    source=np.array(results['keypoints'][0, :, :2], float),
                    keypoints=np.array(keypoints[0, :, :2], float),
                    visible=labelled_in(results),
                    center=np.array(center, float).reshape(2),
                    scale=np.array(scale, float).reshape(2),
                    end={},
                )
                if not to_the_end:
                    return warped
        if warped is None:
            raise UserError(
                f'no step of the {self.name} pipeline warps a person to the '
                "network's input, as TopdownAffine and TopDownAffineUDP do"
            )
        return warped._replace(end=results)

    def run_through(self) -> dict:
        """What comes out at the end, of a person in the middle of an image.

        It is not mirrored, in which what comes out might be chance.
        """
        image = np.zeros((640, 640, 3), np.uint8)
        box = np.array([100.0, 100.0, 300.0, 400.0])
        np.random.seed(0)
        shape = (self.metainfo['num_keypoints'], 2)
        keypoints = np.random.uniform(box[:2], box[2:], shape)
        person = results_of(self.metainfo, image, box, keypoints)
        return self.with_mirroring(0.0).warp(person).end


def labelled_in(results: dict) -> np.ndarray:
    """Which keypoints of a person are labelled, shape (K,)."""
    visible = np.asarray(results['keypoints_visible'], float)[0]
    return (visible[:, 0] if visible.ndim == 2 else visible) > 0


def flows_of(cfg: Config) -> List[Flow]:
    """The ways of samples through a config's pipelines, of each data set."""
    found: List[Flow] = []
    for name, key in LOADERS.items():
        dataset = (cfg.get(key) or {}).get('dataset')
        if dataset:
            found += [
                _flow(name, chain) for chain in _chains(dataset, f'{key}.dataset')
            ]
    hooks = enumerate(cfg.get('custom_hooks') or [])
    for index, hook in hooks if any(flow.training for flow in found) else ():
        if hook.get('switch_pipeline'):
            dataset = cfg.train_dataloader.dataset
            for *inner, (_, outer) in _chains(dataset, 'train_dataloader.dataset'):
                # Only the outermost pipeline is switched.
                outer = dict(outer, pipeline=hook['switch_pipeline'])
                place = f'custom_hooks[{index}].switch_pipeline'
                found.append(_flow('train, stage 2', [*inner, (place, outer)]))
    return found


def each_once(flows: Sequence[Flow], alike: Callable[[Flow, Flow], bool]) -> List[Flow]:
    """The first of flows that are alike, by the names of all of them."""
    once: List[Flow] = []
    for flow in flows:
        like = next((i for i, one in enumerate(once) if alike(one, flow)), None)
        if like is None:
            same = sum(one.name.split(' (')[0] == flow.name for one in once)
            name = f'{flow.name} ({same + 1})' if same else flow.name
            once.append(replace(flow, name=name))
        elif flow.name not in once[like].name:
            name = f'{once[like].name}, {flow.name}'
            once[like] = replace(once[like], name=name)
    return once


def _in_color(image: np.ndarray) -> np.ndarray:
    """An image, of which a grey one has the same in three channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, -1)


def are_equal(one: Flow, other: Flow) -> bool:
    """Whether flows do the same with the same keypoints."""
    first, second = (
        [f.training, f.steps, f.dataset.get('type'), f.dataset.get('metainfo')]
        + [(i, around['metainfo']) for i, around in f.around.items()]
        for f in (one, other)
    )
    return first == second


def are_alike(one: Flow, other: Flow) -> bool:
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


def _is_warped(results: dict) -> bool:
    return 'transformed_keypoints' in results and 'input_size' in results


def _chains(dataset: dict, place: str, around: Chain = ()) -> Iterator[Chain]:
    """Each data set and the wrappers around it, with their pipelines' places."""
    chain = [(f'{place}.pipeline', dataset), *around]
    inner = dataset.get('dataset') or dataset.get('datasets') or []
    several = isinstance(inner, (list, tuple))
    for index, one in enumerate(inner if several else [inner]):
        where = f'{place}.datasets[{index}]' if several else f'{place}.dataset'
        yield from _chains(one, where, chain)
    if not inner:
        yield chain


def _flow(name: str, chain: Chain) -> Flow:
    """The way of samples through the pipelines of a data set and its wrappers."""
    (start, dataset), *_ = chain
    flow = Flow(name, start.rpartition('.')[0], [], [], dataset, {})
    for place, owner in chain:
        start = len(flow.steps)
        for index, step in enumerate(owner.get('pipeline') or []):
            # Colours do not matter here, and its library may be missing.
            if type_name(step) != 'Albumentation':
                flow.places.append(f'{place}[{index}]')
                step = step.to_dict() if hasattr(step, 'to_dict') else dict(step)
                flow.steps.append(step)
        if owner is not dataset and owner.get('metainfo') and flow.steps[start:]:
            flow.around[start] = owner
    return flow
