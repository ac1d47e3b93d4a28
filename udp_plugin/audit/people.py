"""The people who are sent through a config: random, or of a COCO-format file."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmpose.datasets.datasets.base import BaseCocoStyleDataset
from mmpose.evaluation.metrics import CocoMetric

from udp_plugin.coco import check_coco, check_photographs, read_coco
from udp_plugin.convert.check import results_of
from udp_plugin.demo.figures import bounding_box, random_image
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


def drawn_people(parts: Parts, count: int) -> List[dict]:
    """Figures, drawn with COCO's keypoints, as a data set has them."""
    people = []
    for index in range(1, count + 1):
        # Another seed than the demo's, whose networks are trained on such figures.
        image, figure, _ = random_image(np.random.default_rng([index, 2]))
        left, top, width, height = bounding_box(figure, image.shape[1::-1])
        box = np.array([left, top, left + width, top + height])
        person = results_of(parts.test.metainfo, image, box, figure.keypoints)
        people.append(dict(person, id=index, img_id=index))
    return people


def annotated_people(parts: Parts, ann: Path, img: Path) -> List[dict]:
    """The people of a COCO-format file and its images, as the toolbox reads them.

    Raises:
        UserError: Files are missing, or have none of the test data's keypoints.
    """
    _read_checked(parts, ann, img)
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


def has_labels(ann: Path) -> bool:
    """Whether a COCO-format file has a labelled keypoint."""
    if not ann.is_file():
        # Whoever reads it says so.
        return True
    keypoints = (one.get('keypoints') for one in read_coco(ann)['annotations'])
    return any(isinstance(each, list) and any(each[2::3]) for each in keypoints)


def boxed_people(parts: Parts, ann: Path, img: Path) -> List[dict]:
    """The people of a COCO-format file by their boxes alone, with nothing labelled.

    Raises:
        UserError: Files are missing or wrong, or there are no boxes.
    """
    content = _read_checked(parts, ann, img, labels=False)
    paths = {image['id']: str(img / image['file_name']) for image in content['images']}
    nothing, people = np.zeros((parts.test.metainfo['num_keypoints'], 2)), []
    for one in content['annotations']:
        left, top, width, height = one.get('bbox') or (0, 0, 0, 0)
        if one.get('iscrowd') or min(width, height) <= 0:
            continue
        box = np.array([left, top, left + width, top + height])
        person = results_of(parts.test.metainfo, np.zeros((1, 1, 3)), box, nothing)
        person['keypoints_visible'][:] = 0
        # The pipeline loads it.
        del person['img']
        ids = dict(id=one['id'], img_id=one['image_id'])
        people.append({**person, **ids, 'img_path': paths[one['image_id']]})
    if not people:
        raise UserError(f'--ann {ann} has no person with a box')
    return people


def _read_checked(
    parts: Parts, ann: Path, img: Path, labels: bool = True
) -> Dict[str, List[dict]]:
    """What a COCO-format file has, if it and its images are as they should be."""
    if not ann.is_file():
        raise UserError(f'--ann {ann}: no such file')
    if not img.is_dir():
        raise UserError(f'--img {img}: no such folder')
    content, wanted = read_coco(ann), parts.test.metainfo['num_keypoints']
    found = (one.get('keypoints') for one in content['annotations'])
    counts = {len(keypoints) / 3 for keypoints in found if isinstance(keypoints, list)}
    if wanted not in counts and (labels or counts):
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
    return content


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
