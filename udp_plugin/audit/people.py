"""The people who are sent through a config: random, or of a COCO-format file."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmpose.datasets.datasets.base import BaseCocoStyleDataset
from mmpose.evaluation.metrics import CocoMetric

from udp_plugin.coco import check_coco, check_photographs, read_coco
from udp_plugin.convert.check import results_of
from udp_plugin.errors import UserError

from .flows import Warped
from .parts import Parts

#: The image in which random people stand, width and height in source px.
IMAGE_SIZE = (640, 640)


class Person(NamedTuple):
    """A person, as annotated and as predicted; keypoints are (K, 2) in source px."""

    annotated: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray  #: Shape (K,).
    area: float  #: Source px squared.
    sample: Any  #: The toolbox's data sample, with its prediction.
    warped: Warped  #: At the network's input.


def random_people(parts: Parts, count: int) -> List[dict]:
    """People at random places of a grey image, as a data set has them."""
    rng = np.random.default_rng(0)
    image = np.full((*IMAGE_SIZE[::-1], 3), 127, np.uint8)
    people = []
    for index in range(1, count + 1):
        box_size = rng.uniform([60, 120], [260, 420])
        corner = rng.uniform(0, 1, 2) * (np.array(IMAGE_SIZE) - box_size)
        box = np.concatenate([corner, corner + box_size])
        count = parts.test.metainfo['num_keypoints']
        keypoints = rng.uniform(box[:2], box[2:], (count, 2))
        person = results_of(parts.test.metainfo, image, box, keypoints)
        people.append(dict(person, id=index, img_id=index))
    return people


def annotated_people(parts: Parts, ann: Path, img: Path) -> List[dict]:
    """The people of a COCO-format file and its images, as the toolbox reads them.

    Raises:
        UserError: Files are missing, or have none of the test data's keypoints.
    """
    if not ann.is_file():
        raise UserError(f'--ann {ann}: no such file')
    if not img.is_dir():
        raise UserError(f'--img {img}: no such folder')
    content, wanted = read_coco(ann), parts.test.metainfo['num_keypoints']
    found = (one.get('keypoints') for one in content['annotations'])
    counts = {len(keypoints) / 3 for keypoints in found if isinstance(keypoints, list)}
    if wanted not in counts:
        shown = ', '.join(f'{count:g}' for count in sorted(counts)) or 'no'
        raise UserError(
            f'--ann {ann} has annotations of {shown} keypoints, and the test data of '
            f'the config have {wanted}'
        )
    check_coco(content, ann, wanted)
    files = [image['file_name'] for image in content['images']]
    missing = [name for name in files if not (img / name).is_file()]
    if missing:
        raise UserError(
            f'--img {img} lacks {len(missing)} of {len(files)} images, {missing[0]} '
            'for one'
        )
    steps = [*parts.test.transforms, LoadImageFromFile()]
    load = next(step for step in steps if isinstance(step, LoadImageFromFile))
    check_photographs(
        content['images'],
        img,
        ann,
        read=lambda path: load.transform(dict(img_path=str(path)))['img'],
    )
    try:
        with redirect_stdout(StringIO()):
            dataset = BaseCocoStyleDataset(
                ann_file=str(ann.resolve()),
                data_prefix=dict(img=str(img.resolve())),
                pipeline=[],
                lazy_init=True,
            )
            # Parsed already; it may depend on the data set's other arguments.
            dataset._metainfo = parts.test.metainfo
            dataset.full_init()
            people = [dataset.get_data_info(i) for i in range(len(dataset))]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f'--ann {ann} cannot be read as the toolbox reads it: '
            f'{type(error).__name__}: {error}'
        ) from error
    if not people:
        raise UserError(f'--ann {ann} has no person with a box and a keypoint')
    return people


def sigmas_fault(metainfo: dict) -> str:
    """Why COCO's evaluation fails by these OKS sigmas, or is nonsense; or nothing."""
    sigmas, count = np.asarray(metainfo.get('sigmas', ())), metainfo['num_keypoints']
    if sigmas.shape != (count,):
        return f'there are {sigmas.size} sigmas for {count} keypoints'
    wrong = np.flatnonzero(~(np.isfinite(sigmas) & (sigmas > 0)))
    return f'sigmas[{wrong[0]}] is {sigmas[wrong[0]]:g}' if len(wrong) else ''


def sigmas_of(parts: Parts) -> np.ndarray:
    """OKS sigmas (K,) of the test data; a middling one of COCO's without any."""
    if sigmas_fault(parts.metainfo):
        return np.full(parts.metainfo['num_keypoints'], 0.05)
    return np.asarray(parts.metainfo['sigmas'], float)


def oks(person: Person, sigmas: np.ndarray) -> float:
    """COCO's object keypoint similarity of a person's labelled keypoints."""
    squared = np.square(person.predicted - person.annotated).sum(-1)
    likeness = np.exp(-squared / (2 * person.area * np.square(2 * sigmas)))
    return float(likeness[person.labelled].mean()) if person.labelled.any() else 1.0


def average_precision(parts: Parts, persons: Sequence[Person]) -> float:
    """COCO's AP (0 to 100) of predictions, by the toolbox's ``CocoMetric``."""
    results = []
    for index, person in enumerate(persons, 1):
        result = person.sample.to_dict()
        left, top, right, bottom = result['gt_instances']['bboxes'][0].astype(float)
        labelled = person.labelled[:, None]
        keypoints = np.c_[person.annotated * labelled, 2 * labelled]
        result['category_id'] = 1
        # What a config's own evaluation may do without.
        like = dict(id=index, img_id=index, ori_shape=person.warped.image.shape[:2])
        result = {**like, **result}
        result['raw_ann_info'] = dict(
            id=index,
            image_id=result['img_id'],
            category_id=1,
            iscrowd=0,
            area=person.area,
            bbox=[left, top, right - left, bottom - top],
            keypoints=keypoints.astype(float).ravel().tolist(),
        )
        results.append(result)
    metric = CocoMetric()
    metric.dataset_meta = dict(
        dataset_name='people',
        num_keypoints=parts.metainfo['num_keypoints'],
        sigmas=sigmas_of(parts).astype(np.float32),
        CLASSES=[dict(id=1, name='person')],
    )
    with redirect_stdout(StringIO()):
        metric.process({}, results)
        return 100 * float(metric.evaluate(len(results))['coco/AP'])
