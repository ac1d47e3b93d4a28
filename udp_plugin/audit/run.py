"""Audit a config: build its parts, measure them, and find what does not fit."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import torch
from mmengine.config import Config

from udp_plugin.convert.zoo import find_config
from udp_plugin.errors import UserError
from udp_plugin.models.heads.base import type_name
from udp_plugin.ui import quiet

from .errors import in_words
from .findings import Checks
from .flows import Flow
from .lines import Lines
from .measures import measure_coding, measure_end_to_end, measure_flip
from .mirroring import Mirroring, measure_mirroring
from .parts import Parts
from .people import annotated_people, average_precision, has_labels, random_people
from .result import Audit, Finding, finding
from .trained import measure_trained, networks, people_of
from .warps import measure_transform

#: People at random places, without annotations.
RANDOM_PEOPLE = 100


def audit(
    config: Union[str, Path, Config],
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    progress: Callable[[str], None] = lambda text: None,
    checkpoint: Optional[Path] = None,
) -> Audit:
    """Audit a top-down heatmap config, and the weights that it trained.

    Args:
        config: A path, a name in MMPose's zoo, or a config; it is left as it is.
        ann: Annotations in COCO format to take people from; random people without.
        img: The images that they name.
        progress: Is told what is done.
        checkpoint: Weights to measure, too, see :mod:`.trained`: on figures that are
            drawn, or on the people of ``ann``, whose boxes are enough.

    Raises:
        UserError: There is no such config, it is of another kind, or ``ann`` and
            ``img`` or the checkpoint do not fit.

    Example::

        found = audit('td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192')
        assert not found.has_errors, found.findings
    """
    cfg = config
    if not isinstance(config, Config):
        path = find_config(str(config))
        try:
            cfg = Config.fromfile(path)
        except Exception as error:
            # Whatever runs in a config may fail.
            words = f'CONFIG {config} cannot be read: {in_words(error)}'
            raise UserError(words) from error
    found = Audit(Path(cfg.filename or 'config').stem)
    with quiet():
        with _failures_are_findings(found):
            progress('building the components')
            parts = found.parts = Parts(cfg)
            found.findings = _broken_pipelines(parts, cfg)
        if found.findings:
            return found
        people = random_people(parts, RANDOM_PEOPLE)
        labelled = ann is not None and (checkpoint is None or has_labels(ann))
        if ann is not None and img is not None and labelled:
            people, found.data = annotated_people(parts, ann, img), ann.name
        with _failures_are_findings(found):
            # What is wrong with it is said before what takes long.
            weights = checkpoint and networks(cfg, parts, checkpoint)
            seen = checkpoint and people_of(parts, ann, img)
        if found.findings:
            return found
        with _failures_are_findings(found):
            progress('mirroring')
            found.mirrorings, found.findings = _mirrorings(parts)
            if found.findings:
                return found
            progress('transforms')
            found.transforms = [measure_transform(parts, flow) for flow in parts.flows]
            progress('encoding and decoding')
            found.coding = measure_coding(parts)
        if found.findings:
            return found
        progress('flip alignment')
        found.flip, found.flip_failure = _attempt(measure_flip, parts, found.coding)
        warps = {one.flow.name: one for one in found.transforms}
        learned = warps[parts.train.name] if parts.train else None
        end = parts, found.coding, warps[parts.test.name], learned, people
        found.end_to_end, found.failure = _attempt(
            measure_end_to_end,
            *end,
            lambda done: progress(f'end to end: {done} of {len(people)} people'),
        )
        if found.end_to_end is not None:
            persons = found.end_to_end.persons
            found.ap, found.failure = _attempt(average_precision, parts, persons)
        if checkpoint is not None:
            given = *weights, checkpoint, *seen, found.coding.kind, progress
            found.trained, failure = _attempt(measure_trained, *given)
            found.failure = found.failure or failure
        progress('findings')
        found.findings = Checks(found, cfg).run()
    return found


@contextmanager
def _failures_are_findings(found: Audit) -> Iterator[None]:
    """Note why components do not build or do not run; nothing more can be measured."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{found.name}: {error}.') from error
    except Exception as error:
        found.findings = [finding('build', 'config', failure=in_words(error))]


def _broken_pipelines(parts: Parts, cfg: Config) -> List[Finding]:
    """Pipelines that do not run to their end, or hand on what does not fit."""
    found: Dict[Tuple[str, str], Finding] = {}
    lines, needed = Lines(cfg), _needed_keys(parts, cfg)
    for flow in sorted(parts.every_flow, key=lambda flow: flow.training):
        if flow.training and found:
            # What it has to make, the test data say.
            break
        end, failure = _attempt(flow.run_through)
        failure = f'it fails: {failure}' if failure else _misfit(parts, flow, end)
        packer = flow.find('meta_keys')
        known = {} if failure else end['data_samples'].metainfo
        missing = [key for key in needed if key not in known]
        if missing and packer is not None and not failure and not flow.training:
            at = f'{flow.place(packer)}.meta_keys', lines.find('meta_keys')
            values = dict(name=type_name(flow.steps[packer]), missing=missing)
            lacking = finding('pipeline/keys', *at, flow=flow, **values)
            found.setdefault((at[0], str(missing)), lacking)
        elif failure:
            where = flow.places[0].rpartition('[')[0] if flow.places else flow.name
            values = dict(flow=flow, failure=failure)
            found.setdefault((where, failure), finding('pipeline', where, **values))
    return list(found.values())


def _mirrorings(parts: Parts) -> Tuple[List[Mirroring], List[Finding]]:
    """What pipelines make of left and right, and where mirroring fails."""
    found, failures = [], []
    for flow in parts.every_flow:
        mirroring, failure = _attempt(measure_mirroring, parts, flow)
        if failure:
            at, values = flow.place_of('RandomFlip'), dict(flow=flow, failure=failure)
            failures.append(finding('flip-indices/fails', at, **values))
        else:
            found.append(mirroring)
    return found, failures


def _needed_keys(parts: Parts, cfg: Config) -> List[str]:
    """What flip test, estimator and evaluation need to know of a sample."""
    needed = ['input_size', 'input_center', 'input_scale']
    if parts.model.test_cfg.get('flip_test'):
        needed.append('flip_indices')
    evaluators = [cfg.get('val_evaluator'), cfg.get('test_evaluator')]
    # CocoMetric and CocoWholeBodyMetric.
    return needed + ['id', 'img_id'] * ('Coco' in str(evaluators))


def _misfit(parts: Parts, flow: Flow, end: dict) -> str:
    """Why what a pipeline hands on does not fit, or nothing."""
    sample, wanted = end.get('data_samples'), parts.num_keypoints * parts.channels
    if sample is None:
        return 'it hands on no data_samples, as PackPoseInputs does'
    count = len(sample.gt_instances.get('keypoints', [[]])[0])
    mirrors = len(sample.metainfo.get('flip_indices', []))
    if not flow.training and count and mirrors and count != mirrors:
        return (
            f'it hands on {count} keypoints with the flip_indices of {mirrors}; data '
            'whose keypoints are converted need a CombinedDataset around them'
        )
    if not flow.training or 'target_codecs' in sample.gt_instance_labels:
        return ''
    if 'gt_fields' not in sample:
        return 'it hands on no target maps, as GenerateTarget does'
    maps = getattr(sample.gt_fields, 'heatmaps', None)
    # Of several levels there are several.
    if isinstance(maps, torch.Tensor) and len(maps) != wanted:
        return f'its targets are {len(maps)} maps, where the test data ask for {wanted}'
    return ''


def _attempt(measure: Callable, *args: Any) -> Tuple[Any, str]:
    """What is measured, or None and why it fails, as a user's own test would."""
    try:
        return measure(*args), ''
    except Exception as error:
        return None, in_words(error)
