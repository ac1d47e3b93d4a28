"""Draws keypoints on a photograph, to a fraction of a pixel."""

from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np

from .checks import FARTHEST, check_boxes, check_image

#: Okabe and Ito's colours, which colour-blind readers can tell apart, as BGR.
COLORS = (
    *((0, 94, 213), (178, 114, 0), (115, 158, 0), (0, 159, 230)),
    *((167, 121, 204), (233, 180, 86), (66, 228, 240)),
)
WHITE = (255, 255, 255)
#: Fractional bits of the coordinates given to OpenCV.
SHIFT = 8
#: Radius of a keypoint, in sizes of the person: all of them together always cover the
#: same part of a person, however many they are. And the least one, in source px.
RADIUS, LEAST = 0.08, 2.0
#: Radius of a keypoint's white edge, and width of lines and boxes, in its radius.
EDGE, LINE, BOX = 1.35, 0.7, 1 / 3


def draw(
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    skeleton: Sequence[Tuple[int, int]],
    boxes: Optional[np.ndarray] = None,
    threshold: float = 0.3,
) -> np.ndarray:
    """Keypoints, the lines between them, and boxes, each person in another colour.

    Args:
        image: The photograph, uint8 of shape (h, w, 3), BGR.
        keypoints: Source px, shape (N, K, 2).
        scores: Shape (N, K).
        skeleton: Pairs of indices of keypoints to draw lines between.
        boxes: Left, top, right and bottom in source px, shape (N, 4); None is none.
        threshold: Keypoints that score lower are left out, and so are their lines.

    Returns:
        A new image of the same shape.

    Raises:
        ValueError: ``image`` is no photograph, or the shapes do not go together.
    """
    drawn = check_image(image).copy()
    keypoints, scores = np.asarray(keypoints, dtype=float), np.asarray(scores)
    if keypoints.ndim != 3 or keypoints.shape != (*scores.shape, 2):
        raise ValueError(
            'keypoints must have shape (N, K, 2) and scores (N, K), got '
            f'{keypoints.shape} and {scores.shape}'
        )
    if boxes is not None:
        boxes = check_boxes(boxes)
        people = len(keypoints)
        if len(boxes) != people:
            got = f'{len(boxes)} of {people} people'
            raise ValueError(f'boxes must be as many as people, got {got}')

    def fixed(points: np.ndarray) -> List[Tuple[int, int]]:
        return [(x, y) for x, y in np.rint(points * 2**SHIFT).astype(int).tolist()]

    smooth = dict(lineType=cv2.LINE_AA, shift=SHIFT)
    for i, points in enumerate(keypoints):
        color = COLORS[i % len(COLORS)]
        near = (np.abs(points) < FARTHEST).all(-1)
        shown = near & (scores[i] >= threshold)
        # What is left out may be anywhere, and says nothing about the person's size.
        size = np.ptp(points[shown], axis=0).max() if shown.any() else 0.0
        radius = max(LEAST, RADIUS * size / len(points) ** 0.5)
        box, line = (max(1, round(each * radius)) for each in (BOX, LINE))
        if boxes is not None:
            corners = fixed(boxes[i].reshape(2, 2))
            cv2.rectangle(drawn, *corners, color, box, **smooth)
        for pair in map(list, skeleton):
            if shown[pair].all():
                cv2.line(drawn, *fixed(points[pair]), color, line, **smooth)
        for point in fixed(points[shown]):
            for length, paint in ((EDGE * radius, WHITE), (radius, color)):
                length = round(length * 2**SHIFT)
                cv2.circle(drawn, point, length, paint, cv2.FILLED, **smooth)
    return drawn
