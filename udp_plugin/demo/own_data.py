"""The user's own COCO-format data, made ready for the demo."""

import json
from pathlib import Path
from pprint import pformat
from typing import Dict, Sequence, Tuple

import numpy as np

from udp_plugin.coco import check_coco, check_photographs, read_coco
from udp_plugin.errors import UserError
from udp_plugin.keypoint_names import mirror_images

from .configs import Data
from .figures import KEYPOINTS

#: With fewer images, all of them serve for training and for testing.
FEWEST_TO_SPLIT = 5
#: Keypoints without a published OKS sigma get a middling one of COCO's.
OKS_SIGMA = 0.05


def read_own_data(
    ann: Path, img: Path, folder: Path, seed: int = 0
) -> Tuple[Data, Dict[Path, str]]:
    """Read a COCO-format file, and split it by image, four fifths for training.

    Args:
        ann: The annotation file.
        img: The folder with its images, which stay there.
        folder: Where what the toolbox reads is going to be.
        seed: Of the split.

    Returns:
        The data set, and the texts of the files that it needs in ``folder``.

    Raises:
        UserError: Files are missing, or not of this format, or have no keypoints.
    """
    if not img.is_dir():
        raise UserError(f'--img {img}: no such folder')
    content = read_coco(ann)
    check_coco(content, ann)
    images, annotations = content['images'], content['annotations']
    categories = [c for c in content['categories'] if c.get('keypoints')]
    notes = []
    category, names = categories[0], categories[0]['keypoints']
    if len(categories) > 1:
        notes.append(
            f'of {len(categories)} categories with keypoints, only the first, '
            f'{category["name"]}, is used'
        )
    annotations = [
        _completed(a)
        for a in annotations
        if a['category_id'] == category['id'] and _is_usable(a)
    ]
    used = {a['image_id'] for a in annotations}
    images = [i for i in images if i['id'] in used]
    if not images:
        raise UserError(
            f'--ann {ann} has no annotation with a bbox and a labelled keypoint'
        )
    missing = [i['file_name'] for i in images if not (img / i['file_name']).is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} of {len(images)} images of {ann} are not in {img}, '
            f'{missing[0]} for one'
        )
    check_photographs(images, img, ann)
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = map(sorted, np.split(order, [len(images) * 4 // 5]))
    if len(images) < FEWEST_TO_SPLIT:
        train = test = range(len(images))
        notes.append(
            f'{len(images)} image{"s" * (len(images) > 1)} with keypoints: too few to '
            'split, so that the same serve for training and for testing'
        )

    files, counts = {}, {}
    for split, chosen in dict(train=train, test=test).items():
        taken = [images[i] for i in chosen]
        ids = {image['id'] for image in taken}
        of_them = [a for a in annotations if a['image_id'] in ids]
        content = dict(images=taken, annotations=of_them, categories=[category])
        counts[split] = len(of_them)
        files[folder / f'{split}.json'] = json.dumps(content)
    metainfo = None
    if names != KEYPOINTS:
        metainfo = folder / 'keypoints.py'
        sigmas = 'those of the file' if category.get('sigmas') else OKS_SIGMA
        files[metainfo] = metainfo_text(category, mirror_images(names), ann.stem)
        notes.append(
            f'these are not the 17 keypoints of COCO: for AP, the OKS sigma of each is '
            f'{sigmas}'
        )
    places = folder / 'train.json', img, folder / 'test.json', img
    data = Data(ann.name, *places, *counts.values(), len(names), metainfo, notes)
    return data, files


def _is_usable(annotation: dict) -> bool:
    """As the toolbox's ``BaseCocoStyleDataset`` has it."""
    keypoints, bbox = annotation.get('keypoints'), annotation.get('bbox')
    return (
        not annotation.get('iscrowd')
        and bool(bbox)
        and min(bbox[2:]) > 0
        and bool(keypoints)
        and any(keypoints[2::3])
    )


def _completed(annotation: dict) -> dict:
    """With what COCO's evaluation needs and other tools leave out."""
    keypoints = annotation['keypoints']
    width, height = annotation['bbox'][2:]
    return {
        'iscrowd': 0,
        # The toolbox's stand-in for the outline's area.
        'area': 0.53 * width * height,
        **annotation,
        'num_keypoints': sum(v > 0 for v in keypoints[2::3]),
    }


def metainfo_text(category: dict, mirrored: Sequence[int], dataset_name: str) -> str:
    """The text of the toolbox's ``dataset_info`` for a category's keypoints."""
    names = category['keypoints']
    info = dict(
        dataset_name=dataset_name,
        keypoint_info={
            i: dict(name=name, id=i, swap=names[twin] if twin != i else '')
            for i, (name, twin) in enumerate(zip(names, mirrored))
        },
        skeleton_info={
            i: dict(link=(names[a - 1], names[b - 1]), id=i)
            for i, (a, b) in enumerate(category.get('skeleton') or [])
        },
        joint_weights=[1.0] * len(names),
        sigmas=category.get('sigmas') or [OKS_SIGMA] * len(names),
    )
    return f'dataset_info = {pformat(info, sort_dicts=False)}\n'
