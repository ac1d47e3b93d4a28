"""The user's own COCO-format data, made ready for the demo."""

import json
from operator import itemgetter
from pathlib import Path
from pprint import pformat
from typing import Dict, Sequence, Tuple

import numpy as np

from udp_plugin.keypoint_names import mirror_images
from udp_plugin.ui import UserError

from .configs import Data
from .figures import KEYPOINTS

#: What the toolbox needs to know of an image.
IMAGE_KEYS = ('id', 'file_name', 'width', 'height')
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
    try:
        dataset = json.loads(ann.read_text(encoding='utf-8'))
        images, annotations = dataset['images'], dataset['annotations']
        categories = [c for c in dataset['categories'] if c.get('keypoints')]
        for image in images:
            itemgetter(*IMAGE_KEYS)(image)
    except OSError as error:
        raise UserError(f'--ann {ann}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'--ann {ann} is not a JSON file: {error}') from error
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'--ann {ann} is not in COCO format: it needs images (with '
            f'{", ".join(IMAGE_KEYS)}), annotations and categories'
        ) from error
    if not categories:
        raise UserError(
            f'--ann {ann} has no keypoints: none of its categories names any. In '
            "COCO's data they are in person_keypoints_*.json"
        )
    notes = []
    category, names = categories[0], categories[0]['keypoints']
    if len(categories) > 1:
        notes.append(
            f'of {len(categories)} categories with keypoints, only the first, '
            f'{category["name"]}, is used'
        )
    annotations = [
        _completed(a, len(names), ann)
        for a in annotations
        if a.get('category_id') == category['id'] and _is_usable(a)
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
        try:
            mirrored = mirror_images(names)
        except ValueError as error:
            raise UserError(f'--ann {ann}: {error}') from error
        files[metainfo] = _metainfo(category, mirrored, ann.stem)
        notes.append(
            f'these are not the 17 keypoints of COCO: for AP, the OKS sigma of each is '
            f'{OKS_SIGMA}'
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


def _completed(annotation: dict, num_keypoints: int, ann: Path) -> dict:
    """With what COCO's evaluation needs and other tools leave out."""
    keypoints = annotation['keypoints']
    if len(keypoints) != 3 * num_keypoints:
        raise UserError(
            f'{ann}: annotation {annotation.get("id")} has {len(keypoints)} numbers '
            f'for the {num_keypoints} keypoints of its category, and not three each'
        )
    width, height = annotation['bbox'][2:]
    return {
        'iscrowd': 0,
        # The toolbox's stand-in for the outline's area.
        'area': 0.53 * width * height,
        **annotation,
        'num_keypoints': sum(v > 0 for v in keypoints[2::3]),
    }


def _metainfo(category: dict, mirrored: Sequence[int], dataset_name: str) -> str:
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
        sigmas=[OKS_SIGMA] * len(names),
    )
    return f'dataset_info = {pformat(info, sort_dicts=False)}\n'
