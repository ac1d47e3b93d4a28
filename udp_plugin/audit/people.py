"""People of a COCO-format file, and COCO's AP of what was predicted of them."""

import contextlib
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
from mmengine.logging import MMLogger
from mmpose.datasets.datasets.base import BaseCocoStyleDataset
from mmpose.evaluation.metrics import CocoMetric

from udp_plugin.ui import UserError

from .measures import Person, sigmas_of
from .parts import Parts


def annotated_people(parts: Parts, ann: Path, img: Path) -> List[dict]:
    """The people of a COCO-format file with keypoints, as the toolbox reads them.

    Args:
        parts: The config's, whose test data have the same keypoints.
        ann: The annotation file.
        img: The folder of its images.

    Raises:
        UserError: Files are missing, or have none of these keypoints.
    """
    if not ann.is_file():
        raise UserError(f'--ann {ann}: no such file')
    if not img.is_dir():
        raise UserError(f'--img {img}: no such folder')
    count = parts.metainfo['num_keypoints']
    try:
        content = json.loads(ann.read_text(encoding='utf-8'))
        lengths = {
            len(one['keypoints'])
            for one in content['annotations']
            if one.get('keypoints')
        }
        files = [image['file_name'] for image in content['images']]
    except ValueError as error:
        raise UserError(f'--ann {ann} is not a JSON file: {error}') from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'--ann {ann} is not in COCO format: it needs images (with file_name) and '
            'annotations (with keypoints)'
        ) from error
    if lengths != {3 * count}:
        found = ', '.join(f'{length / 3:g}' for length in sorted(lengths)) or 'no'
        raise UserError(
            f'--ann {ann} has annotations of {found} keypoints, and the test data of '
            f'the config have {count}'
        )
    missing = [name for name in files if not (img / name).is_file()]
    if missing:
        raise UserError(
            f'--img {img} lacks {len(missing)} of {len(files)} images, {missing[0]} '
            'for one'
        )
    try:
        with _quiet():
            dataset = BaseCocoStyleDataset(
                ann_file=str(ann.resolve()),
                data_prefix=dict(img=str(img.resolve())),
                pipeline=[],
                lazy_init=True,
            )
            # Parsed already; it may depend on the data set's other arguments.
            dataset._metainfo = parts.metainfo
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


def average_precision(parts: Parts, persons: Sequence[Person]) -> Optional[float]:
    """COCO's AP (0 to 100) of predictions, by the toolbox's ``CocoMetric``.

    Args:
        parts: The config's.
        persons: As predicted; what is annotated is the truth.
    """
    metainfo = parts.metainfo
    annotations, images, results = [], {}, []
    for index, person in enumerate(persons, 1):
        sample = person.sample
        image_id = int(sample.metainfo['img_id'])
        height, width = sample.metainfo['ori_shape'][:2]
        images[image_id] = dict(id=image_id, width=int(width), height=int(height))
        left, top, right, bottom = sample.gt_instances.bboxes[0].astype(float)
        visible = np.where(person.labelled, 2, 0)
        keypoints = np.c_[person.annotated * person.labelled[:, None], visible]
        annotations.append(
            dict(
                id=index,
                image_id=image_id,
                category_id=1,
                iscrowd=0,
                area=person.area,
                bbox=[left, top, right - left, bottom - top],
                keypoints=keypoints.astype(float).ravel().tolist(),
                num_keypoints=int(person.labelled.sum()),
            )
        )
        result = sample.to_dict()
        result['category_id'] = 1
        results.append(result)
    category = dict(id=1, name='person')
    content = dict(
        images=list(images.values()), annotations=annotations, categories=[category]
    )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / 'annotations.json'
        file.write_text(json.dumps(content), encoding='utf-8')
        metric = CocoMetric(ann_file=str(file))
        metric.dataset_meta = dict(
            num_keypoints=metainfo['num_keypoints'],
            sigmas=sigmas_of(parts).astype(np.float32),
        )
        metric.process({}, results)
        found = metric.evaluate(len(results))
    return 100 * float(found['coco/AP'])


@contextlib.contextmanager
def _quiet():
    """Without what the toolbox and pycocotools print."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
