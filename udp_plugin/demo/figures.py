"""Drawn figures whose keypoints are known exactly, as a COCO-format data set.

Hand-made annotations are a pixel or more off, which hides what this package is
about. Here the annotation is what was drawn: OpenCV draws with fractional
coordinates, a pixel's centre having the pixel's integer index, and the discs'
centres are the keypoints to a few hundredths of a pixel (``tests/test_demo.py``
measures that on the images).

Figures face the viewer, and nothing but the pose tells left from right: the
mirror image of a figure is the figure of the mirrored pose, as the flip test and
``RandomFlip`` assume. Lengths of a pose are in trunks (hips to shoulders), those of
a figure in source px.
"""

import json
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from udp_plugin import functional as F
from udp_plugin.files import write_bytes, write_text

#: COCO's keypoints, in COCO's order.
KEYPOINTS = ['nose']
for _part in ('eye', 'ear', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle'):
    KEYPOINTS += [f'left_{_part}', f'right_{_part}']
#: COCO's skeleton, counted from 1.
# fmt: off
SKELETON = [
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8),
    (7, 9), (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
]
# fmt: on
FACE = range(5)
EARS = slice(3, 5)
#: Outline of the trunk.
TRUNK = [5, 6, 12, 11]
#: Limbs as pairs of joints; the lower ones go on for a hand's or a foot's length.
UPPER_LIMBS = [(5, 7), (6, 8), (11, 13), (12, 14)]
LOWER_LIMBS = [(7, 9), (8, 10), (13, 15), (14, 16)]
HAND = 0.35

#: Drawn this much larger and averaged down, which brings the error of OpenCV's
#: anti-aliased discs from 0.06 px to below 0.03 px.
OVERSAMPLING = 2
#: Fractional bits of the coordinates given to OpenCV.
SHIFT = 8


class Figure(NamedTuple):
    """A figure to draw; lengths in source px, colours BGR."""

    #: Shape (17, 2).
    keypoints: np.ndarray
    head_height: float
    limb_width: float
    joint_radius: float
    dot_radius: float
    body_color: Tuple[int, ...]
    joint_color: Tuple[int, ...]


def _tips(keypoints: np.ndarray) -> np.ndarray:
    """Where hands and feet end, shape (4, 2)."""
    start, end = np.transpose(LOWER_LIMBS)
    return keypoints[end] + HAND * (keypoints[end] - keypoints[start])


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """A pose whose keypoints do not hide each other, shape (17, 2), in trunks."""
    while True:
        pose = _any_pose(rng)
        distance = np.linalg.norm(pose[:, None] - pose, axis=-1)
        np.fill_diagonal(distance, np.inf)
        if distance[5:, 5:].min() > 0.24 and distance.min() > 0.12:
            return pose


def _any_pose(rng: np.random.Generator) -> np.ndarray:
    def turned(axis, degrees):
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([cos * axis[0] - sin * axis[1], sin * axis[0] + cos * axis[1]])

    def limb(length, degrees):
        # Limbs come a bit foreshortened.
        return length * rng.uniform(0.75, 1) * turned(down, degrees)

    pose = np.zeros((17, 2))
    down = turned((0, 1), rng.normal(0, 14))
    # Towards the figure's left, which is the viewer's right.
    left = turned(down, -90 + rng.normal(0, 5))
    chest = -down
    turn = np.cos(np.deg2rad(rng.uniform(-45, 45)))
    shoulder, hip = rng.uniform(0.34, 0.44) * turn, rng.uniform(0.2, 0.27) * turn
    arms, legs = rng.uniform(0.5, 0.68), rng.uniform(0.65, 0.85)

    nod = rng.normal(0, 9)
    head_down, head_left = turned(down, nod), turned(down, nod - 90)
    head = chest - rng.uniform(0.55, 0.62) * head_down
    look = rng.uniform(-0.1, 0.1)
    pose[0] = head + 1.4 * look * head_left + rng.uniform(0.02, 0.08) * head_down
    for i, side in enumerate((1, -1)):
        pose[1 + i] = head + (look + side * 0.16) * head_left - 0.09 * head_down
        pose[3 + i] = head + side * rng.uniform(0.33, 0.36) * head_left
        pose[5 + i] = chest + side * shoulder * left
        pose[11 + i] = side * hip * left

        # Angles grow outwards, away from the trunk.
        upper = rng.uniform(0, 165) if rng.random() < 0.9 else rng.uniform(-50, 0)
        lower = upper + rng.uniform(-110, 70)
        pose[7 + i] = pose[5 + i] + limb(arms, -side * upper)
        pose[9 + i] = pose[7 + i] + limb(arms, -side * lower)
        upper = rng.uniform(-8, 55)
        lower = upper + rng.uniform(-65, 20)
        pose[13 + i] = pose[11 + i] + limb(legs, -side * upper)
        pose[15 + i] = pose[13 + i] + limb(legs, -side * lower)
    return pose


def random_figure(rng: np.random.Generator, size: Sequence[int]) -> Figure:
    """A figure that lies within an image of ``size`` (width, height)."""
    pose = random_pose(rng)
    points = np.vstack((pose, _tips(pose)))
    low, high = points.min(0) - [0.15, 0.35], points.max(0) + 0.15
    # The figure fills 65 to 95 % of the image, in whichever direction is tighter.
    trunk = rng.uniform(0.65, 0.95) * min(np.asarray(size) / (high - low))
    free = F.unit_length(size) - trunk * (high - low)
    keypoints = trunk * (pose - low) + rng.uniform(0, 1, 2) * free
    return Figure(
        # To a hundredth of a pixel, so that the annotation is exactly what is drawn.
        keypoints=keypoints.round(2),
        head_height=trunk * rng.uniform(0.38, 0.42),
        limb_width=trunk * rng.uniform(0.1, 0.2),
        joint_radius=trunk * rng.uniform(0.085, 0.11),
        dot_radius=trunk * rng.uniform(0.05, 0.06),
        # Light on dark, before something in between: easy to find, so that a small
        # network is soon down to the sub-pixel errors that this is about.
        body_color=_random_color(rng, 20, 70),
        joint_color=_random_color(rng, 200, 240),
    )


def _random_color(rng: np.random.Generator, low: float, high: float) -> Tuple[int, ...]:
    """A muted colour, BGR, with a brightness between ``low`` and ``high``."""
    tint = rng.uniform(-45, 45, 3)
    color = rng.uniform(low, high) + tint - tint.mean()
    return tuple(np.clip(color, 0, 255).astype(int).tolist())


def random_background(rng: np.random.Generator, size: Sequence[int]) -> np.ndarray:
    """A gradient with soft blobs and shapes, uint8 of shape (H, W, 3).

    Args:
        rng: Source of randomness.
        size: ``(width, height)``.
    """
    width, height = map(int, size)
    cells = rng.integers(2, 5), 3
    soft = rng.normal(_random_color(rng, 90, 170), 25, (*cells, 3)).astype(np.float32)
    # cv2 repeats the outer cells' colours beyond their centres; nothing to mend.
    image = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    image = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 9)):
        color = _random_color(rng, 90, 170)
        x, y = map(int, rng.uniform(0, size))
        u, v = map(int, rng.uniform(0.02, 0.3, 2) * min(width, height))
        kind = rng.integers(3)
        if kind == 0:
            angle = int(rng.integers(180))
            cv2.ellipse(image, (x, y), (u, v), angle, 0, 360, color, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(image, (x - u, y - v), (x + u, y + v), color, -1)
        else:
            end = tuple(map(int, rng.uniform(0, size)))
            cv2.line(image, (x, y), end, color, int(rng.integers(1, 9)), cv2.LINE_AA)
    return image


def draw_figure(
    background: np.ndarray, figure: Figure, discs: Optional[Sequence[int]] = None
) -> np.ndarray:
    """Draw a figure over a background.

    Parts of one kind share a colour and lie in one layer (body, joints, face), so
    that the order in which left and right are drawn leaves no trace.

    Args:
        background: uint8 of shape (H, W, 3); not changed.
        figure: What to draw.
        discs: Indices of the keypoints whose discs are drawn; all if not given.

    Returns:
        uint8 of shape (H, W, 3).
    """
    height, width = background.shape[:2]
    s = OVERSAMPLING
    enlarged = s * width, s * height
    image = cv2.resize(background, enlarged, interpolation=cv2.INTER_NEAREST)

    def fixed(points):
        """Source px to the enlarged image's, in OpenCV's fixed-point numbers."""
        # Pixels grow about the image's corner, which is at -0.5.
        points = s * (np.asarray(points) + 0.5) - 0.5
        return np.round(points * 2**SHIFT).astype(np.int32)

    def length(pixels):
        return round(float(s * pixels * 2**SHIFT))

    style = dict(lineType=cv2.LINE_AA, shift=SHIFT)
    filled = dict(color=figure.body_color, thickness=-1, **style)
    stroke = {**filled, 'thickness': max(round(float(s * figure.limb_width)), 1)}
    at = fixed(figure.keypoints)
    starts = at[[start for start, _ in UPPER_LIMBS + LOWER_LIMBS]]
    ends = [*at[[end for _, end in UPPER_LIMBS]], *fixed(_tips(figure.keypoints))]
    for start, end in zip(starts, ends):
        cv2.line(image, start.tolist(), end.tolist(), **stroke)
    cv2.fillPoly(image, [at[TRUNK]], color=figure.body_color, **style)
    cv2.polylines(image, [at[TRUNK]], True, **stroke)
    ears = figure.keypoints[EARS]
    head, neck = fixed([ears.mean(0), figure.keypoints[5:7].mean(0)]).tolist()
    cv2.line(image, head, neck, **stroke)
    across = ears[0] - ears[1]
    axes = length(np.hypot(*across) / 2), length(figure.head_height)
    angle = np.degrees(np.arctan2(across[1], across[0]))
    cv2.ellipse(image, head, axes, angle, 0, 360, **filled)
    # Faces last: a hand in front of a face would hide it.
    for k in (*range(5, 17), *FACE):
        if discs is None or k in discs:
            radius = figure.dot_radius if k in FACE else figure.joint_radius
            disc = dict(filled, color=figure.joint_color)
            cv2.circle(image, at[k].tolist(), length(radius), **disc)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def bounding_box(figure: Figure, size: Sequence[int]) -> np.ndarray:
    """The box ``(x, y, w, h)`` around the drawn figure, within the image."""
    margin = max(figure.joint_radius, figure.limb_width / 2)
    crown = figure.keypoints[EARS].mean(0) - [0, figure.head_height]
    points = np.vstack((figure.keypoints, _tips(figure.keypoints), crown))
    low = np.maximum(points.min(0) - margin, 0)
    high = np.minimum(points.max(0) + margin, F.unit_length(size))
    return np.concatenate((low, high - low)).round(2)


def random_image(rng: np.random.Generator) -> Tuple[np.ndarray, Figure, int]:
    """An image (H, W, 3), uint8, of a figure; the figure, and its area in source px."""
    size = rng.integers(150, 220), rng.integers(190, 260)
    figure = random_figure(rng, size)
    background = random_background(rng, size)
    image = draw_figure(background, figure)
    area = int((image != background).any(-1).sum())
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    noise = rng.integers(-6, 7, image.shape, dtype=np.int16)
    image = np.clip(image + noise * rng.uniform(0, 1), 0, 255).astype(np.uint8)
    return image, figure, area


def write_dataset(folder: Path, counts: Dict[str, int], seed: int = 0):
    """Draw a data set in COCO's format.

    Args:
        folder: Gets a folder of images and a file ``<split>.json`` a split.
        counts: Images a split.
        seed: The same seed draws the same images, whatever the counts.

    Yields:
        The number of images written so far, one by one.
    """
    written = 0
    for split_index, (split, count) in enumerate(counts.items()):
        images, annotations = [], []
        for i in range(count):
            rng = np.random.default_rng([seed, split_index, i])
            image, figure, area = random_image(rng)
            height, width = image.shape[:2]
            # Lossless, and read ten times as fast as PNG.
            name = f'{i + 1:06d}.bmp'
            content = cv2.imencode('.bmp', image)[1].tobytes()
            write_bytes(folder / split / name, content)
            images.append(dict(id=i + 1, file_name=name, width=width, height=height))
            keypoints = np.column_stack((figure.keypoints, np.full(17, 2)))
            annotations.append(
                dict(
                    id=i + 1,
                    image_id=i + 1,
                    category_id=1,
                    bbox=bounding_box(figure, (width, height)).tolist(),
                    area=area,
                    iscrowd=0,
                    num_keypoints=17,
                    keypoints=keypoints.ravel().tolist(),
                )
            )
            written += 1
            yield written
        person = dict(id=1, name='person', keypoints=KEYPOINTS, skeleton=SKELETON)
        dataset = dict(images=images, annotations=annotations, categories=[person])
        write_text(folder / f'{split}.json', json.dumps(dataset))
