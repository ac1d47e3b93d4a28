"""Where things are: source image, network input, heatmap, and the maps between.

Convention. A coordinate is continuous and a pixel's *centre* has the pixel's
integer index, as in OpenCV's ``warpAffine`` and in COCO's keypoints as MMPose
reads them: the first pixel centre is 0, the last one ``pixels - 1``. The
unbiased measure of an image is therefore its *unit length*, the interval
between the first and the last pixel centre, ``pixels - 1``; the biased measure
is ``pixels``. Everything UDP changes follows from that one choice, and this
module is the only place where it is made.

Three spaces: *source px* (the photograph), *input px* (the network's input) and
*heatmap px* (the network's output). Equation numbers are those of Huang et al.,
arXiv:1911.07524v2. Functions take NumPy arrays (and compute in float64) or
torch tensors (and keep their floating dtype and their device). Torch is not imported
here, so that exported models are run without it.
"""

import math
import sys
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Sequence, Tuple, Union

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Array = Union[np.ndarray, 'Tensor']

#: The two measures, by the names that reports and exported models have for them.
UNIT_LENGTH = 'unit length'
PIXELS = 'pixels'


def library_of(values) -> ModuleType:
    """The library that computes with ``values``: torch with tensors, else NumPy."""
    # Who has a tensor has imported it.
    torch = sys.modules.get('torch')
    return torch if torch and isinstance(values, torch.Tensor) else np


def unit_length(size: Sequence[int]) -> Tuple[int, ...]:
    """Intervals between the first and the last pixel centre.

    Args:
        size: Pixel counts, e.g. ``(width, height)``; each at least 2.

    Returns:
        ``pixels - 1`` of each; also the index of the last pixel.

    Raises:
        ValueError: A count is below 2, so that there is no interval.

    Example:
        >>> unit_length((192, 256))
        (191, 255)
    """
    if any(int(pixels) < 2 for pixels in size):
        raise ValueError(f'size must be at least 2 pixels an axis, got {tuple(size)}')
    return tuple(int(pixels) - 1 for pixels in size)


def _measure(size: Sequence[int], unbiased: bool) -> Tuple[int, ...]:
    return unit_length(size) if unbiased else tuple(int(pixels) for pixels in size)


def constant(values, like: Array) -> Array:
    """``values`` as an array of the library, floating dtype and device of ``like``."""
    torch = library_of(like)
    if torch is not np:
        floating = like.is_floating_point()
        dtype = like.dtype if floating else torch.get_default_dtype()
        return torch.as_tensor(values, dtype=dtype, device=like.device)
    return np.asarray(values, dtype=np.float64)


def _box(center: Array, scale: Array, rotation: Array) -> Tuple:
    """What computes with a box, and the box: its rotation in radians."""
    xp = library_of(center)
    scale, rotation = constant(scale, center), constant(rotation, center)
    center, degree = constant(center, center), math.pi / 180
    if xp is np and not (
        np.isfinite(center).all()
        and np.isfinite(scale).all()
        and np.isfinite(rotation).all()
        and (scale > 0).all()
    ):
        raise ValueError(
            'a box needs a finite center and rotation and a positive scale, got '
            f'center {center.tolist()}, scale {scale.tolist()}, rotation '
            f'{rotation.tolist()}'
        )
    return xp, center, scale, rotation * degree


def warp_matrix(
    center: Array,
    scale: Array,
    rotation: Array,
    input_size: Sequence[int],
    unbiased: bool = True,
) -> Array:
    """The affine map from source px to input px: Eq. 41, or Eq. 30 if biased.

    With ``a = (pw_i - 1) / w_b`` (unbiased) or ``pw_i / w_b`` (biased)::

        x_i = a * (cos(r) * (x_s - x_b) - sin(r) * (y_s - y_b) + w_b / 2)

    and likewise for y.

    Args:
        center: Box centre ``(x_b, y_b)`` in source px, shape (..., 2).
        scale: Box size ``(w_b, h_b)`` in source px, shape (..., 2).
        rotation: Rotation ``r`` in degrees, shape (...).
        input_size: Network input ``(pw_i, ph_i)`` in pixels.
        unbiased: Measure the input by its unit length.

    Returns:
        Matrices of shape (..., 2, 3), float64 for NumPy input.

    Raises:
        ValueError: A box (NumPy) is not finite or not larger than nothing.

    Example:
        >>> warp_matrix([95.5, 127.5], [191, 255], 0, (192, 256)).round(6) + 0.0
        array([[1., 0., 0.],
               [0., 1., 0.]])
    """
    xp, center, scale, rotation = _box(center, scale, rotation)
    cos, sin = xp.cos(rotation), xp.sin(rotation)
    x_b, y_b = center[..., 0], center[..., 1]
    w_b, h_b = scale[..., 0], scale[..., 1]
    width, height = _measure(input_size, unbiased)
    a, b = width / w_b, height / h_b
    row_x = (a * cos, -a * sin, a * (-cos * x_b + sin * y_b + w_b / 2))
    row_y = (b * sin, b * cos, b * (-sin * x_b - cos * y_b + h_b / 2))
    return xp.stack((xp.stack(row_x, -1), xp.stack(row_y, -1)), -2)


def apply_affine(points: Array, matrix: Array) -> Array:
    """Map points by affine matrices.

    Args:
        points: Shape (..., K, 2).
        matrix: Shape (2, 3) or (..., 2, 3).

    Returns:
        Points of shape (..., K, 2).

    Example:
        >>> apply_affine(np.array([[1, 2]]), np.array([[2.0, 0, 5], [0, 2, 0]]))
        array([[7., 4.]])
    """
    points = constant(points, points)
    matrix = constant(matrix, points)
    x, y = points[..., 0:1], points[..., 1:2]
    return (
        x * matrix[..., None, :, 0]
        + y * matrix[..., None, :, 1]
        + matrix[..., None, :, 2]
    )


def invert_affine(matrix: Array) -> Array:
    """The inverse map of :func:`warp_matrix`, shape (..., 2, 3).

    Example:
        >>> invert_affine(np.array([[2.0, 0, 4], [0, 2, 0]])) + 0.0
        array([[ 0.5,  0. , -2. ],
               [ 0. ,  0.5,  0. ]])
    """
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    d, e, f = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
    det = a * e - b * d
    xp = library_of(matrix)
    row_x = (e / det, -b / det, (b * f - c * e) / det)
    row_y = (-d / det, a / det, (c * d - a * f) / det)
    return xp.stack((xp.stack(row_x, -1), xp.stack(row_y, -1)), -2)


def box_center_scale(boxes: Array, padding: float = 1.0) -> Tuple[Array, Array]:
    """Centres and sizes of boxes, as ``GetBBoxCenterScale`` takes them.

    Args:
        boxes: Left, top, right and bottom in source px, shape (..., 4).
        padding: The factor by which sizes are enlarged.

    Returns:
        tuple: centres and sizes in source px, both of shape (..., 2).

    Example:
        >>> box_center_scale([10, 20, 30, 60], padding=1.25)
        (array([20., 40.]), array([25., 50.]))
    """
    boxes = constant(boxes, boxes)
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) / 2, (last - first) * padding


def widen(scale: Array, input_size: Sequence[int]) -> Array:
    """Box sizes enlarged on one axis to the aspect ratio of the network's input.

    The ratio is that of pixel counts, as in the toolbox: it says which part of the
    photograph is seen, and not where anything in it is.

    Args:
        scale: Sizes in source px, shape (..., 2).
        input_size: Network input ``(pw_i, ph_i)`` in pixels.

    Returns:
        Sizes of the same shape.

    Example:
        >>> widen([30, 80], (192, 256)), widen([90, 80], (192, 256))
        (array([60., 80.]), array([ 90., 120.]))
    """
    xp = library_of(scale)
    scale = constant(scale, scale)
    width, height = input_size
    aspect = width / height
    w, h = scale[..., 0], scale[..., 1]
    return xp.stack((xp.maximum(w, h * aspect), xp.maximum(h, w / aspect)), -1)


def source_to_input(points, center, scale, rotation, input_size, unbiased=True):
    """Source px to input px: Eq. 41, or Eq. 30 if biased.

    Args:
        points: Shape (..., K, 2), source px.
        center, scale, rotation, input_size, unbiased: See :func:`warp_matrix`.

    Returns:
        Points in input px, shape (..., K, 2).

    Example:
        >>> source_to_input([[100, 50]], [100, 50], [382, 510], 0, (192, 256))
        array([[ 95.5, 127.5]])
    """
    matrix = warp_matrix(center, scale, rotation, input_size, unbiased)
    return apply_affine(points, matrix)


def input_to_source(points, center, scale, rotation, input_size, unbiased=True):
    """Input px to source px: the exact inverse of :func:`source_to_input`.

    From the box's centre, so that single precision is lost neither to the size of the
    photograph nor to a matrix' inverse.

    Example:
        >>> input_to_source([[95.5, 127.5]], [100, 50], [382, 510], 0, (192, 256))
        array([[100.,  50.]])
    """
    _, *box = _box(center, scale, rotation)
    points = constant(points, points)
    xp = library_of(points)
    # Shape (..., 1, 2) and (..., 1), to go with the points of each box.
    center, scale = (constant(each, points)[..., None, :] for each in box[:2])
    rotation = constant(box[2], points)[..., None]
    cos, sin = xp.cos(rotation), xp.sin(rotation)
    measure = constant(_measure(input_size, unbiased), points)
    away = points / measure * scale - scale / 2
    x, y = away[..., 0], away[..., 1]
    return center + xp.stack((cos * x + sin * y, cos * y - sin * x), -1)


def heatmap_to_source(points, center, scale, rotation, heatmap_size, unbiased=True):
    """Heatmap px to source px: Eq. 47, or Eq. 33 if biased.

    The heatmap covers the same box as the input, so its own size takes the
    input's place in the inverse of Eq. 41 (or of Eq. 30).

    Example:
        >>> heatmap_to_source([[23.5, 31.5]], [100, 50], [382, 510], 0, (48, 64))
        array([[100.,  50.]])
    """
    return input_to_source(points, center, scale, rotation, heatmap_size, unbiased)


def stride(
    input_size: Sequence[int], heatmap_size: Sequence[int], unbiased: bool = True
) -> np.ndarray:
    """Input px per heatmap px: ``t`` of Eq. 43, or ``s`` of Eq. 32 if biased.

    Returns:
        Float64 of shape (2,), for x and y.

    Example:
        >>> stride((192, 256), (48, 64)).round(4), stride((192, 256), (48, 64), False)
        (array([4.0638, 4.0476]), array([4., 4.]))
    """
    return _stride(tuple(input_size), tuple(heatmap_size), unbiased).copy()


@lru_cache(maxsize=64)
def _stride(input_size: tuple, heatmap_size: tuple, unbiased: bool) -> np.ndarray:
    measure_i = np.asarray(_measure(input_size, unbiased), dtype=np.float64)
    return measure_i / np.asarray(_measure(heatmap_size, unbiased))


def input_to_heatmap(points, input_size, heatmap_size, unbiased=True):
    """Input px to heatmap px: Eq. 43, or Eq. 32 if biased. Shape (..., 2).

    Example:
        >>> input_to_heatmap(np.array([191.0, 255.0]), (192, 256), (48, 64))
        array([47., 63.])
    """
    t = _stride(tuple(input_size), tuple(heatmap_size), unbiased)
    return points / constant(t, points)


def heatmap_to_input(points, input_size, heatmap_size, unbiased=True):
    """Heatmap px to input px: the exact inverse of :func:`input_to_heatmap`.

    Example:
        >>> heatmap_to_input(np.array([47.0, 63.0]), (192, 256), (48, 64))
        array([191., 255.])
    """
    t = _stride(tuple(input_size), tuple(heatmap_size), unbiased)
    return points * constant(t, points)


def input_to_toolbox(points: Array, input_size: Sequence[int]) -> Array:
    """Input px to what MMPose's ``TopdownPoseEstimator`` expects of a codec.

    The estimator maps to the source by ``/ pw_i * w_b`` where Eq. 47 asks for
    ``/ (pw_i - 1) * w_b``. Coordinates stretched by ``pw_i / (pw_i - 1)`` come
    out right in the source. Shape (..., 2).

    Example:
        >>> input_to_toolbox(np.array([191.0, 255.0]), (192, 256))
        array([192., 256.])
    """
    return points * constant(_stretch(tuple(input_size)), points)


def toolbox_to_input(points: Array, input_size: Sequence[int]) -> Array:
    """The inverse of :func:`input_to_toolbox`: decoded coordinates to input px.

    Example:
        >>> toolbox_to_input(np.array([192.0, 256.0]), (192, 256))
        array([191., 255.])
    """
    return points / constant(_stretch(tuple(input_size)), points)


@lru_cache(maxsize=64)
def _stretch(input_size: tuple) -> np.ndarray:
    return np.array(input_size, dtype=np.float64) / unit_length(input_size)


def rotate(points: Array, center: Array, degrees: float) -> Array:
    """Rotate points about a centre by the rotation that Eq. 41 contains.

    Args:
        points: Shape (..., 2).
        center: Shape (2,), in the same px.
        degrees: Positive is from the x axis towards the y axis.

    Example:
        >>> rotate([[2, 1]], center=[1, 1], degrees=90).round(6)
        array([[1., 2.]])
    """
    points = constant(points, points)
    center = constant(center, points)
    angle = np.deg2rad(float(degrees))
    turn = constant(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], points
    )
    return (points - center) @ turn + center


def mirror(points: Array, width: int) -> Array:
    """Mirror in an image of ``width`` pixels: ``x -> pw - 1 - x``, in any space.

    Args:
        points: Shape (..., 2).
        width: Pixel count of the image the points are in.

    Returns:
        New points of the same shape; left and right keypoints are not swapped.

    Example:
        >>> mirror(np.array([[0.0, 5.0]]), 48)
        array([[47.,  5.]])
    """
    (length,) = unit_length((width,))
    points = constant(points, points)
    return constant([length, 0], points) + points * constant([-1, 1], points)


def flip_misalignment(
    input_width: int,
    heatmap_width: int,
    unbiased: bool = True,
    shifted: bool = False,
    cells: bool = False,
) -> float:
    """How far a perfect network's mirrored output lies from the direct one.

    Eq. 36 (biased: ``-(s - 1) / s``), Eq. 39 (biased and shifted by one heatmap
    pixel: ``1 / s``), Eq. 46 (unbiased: 0; shifted, a whole heatmap pixel).

    Args:
        input_width: In pixels.
        heatmap_width: In pixels.
        unbiased: The target measures the map by its unit length.
        shifted: The mirrored output is moved to the right by a heatmap pixel.
        cells: If biased, keypoints are counted from the cells' corners, as Megvii's
            codec does: ``1 / s``, and ``1 + 1 / s`` if shifted.

    Returns:
        The distance along x in heatmap px; averaging the two outputs leaves
        half of it as an error.

    Example:
        >>> flip_misalignment(192, 48, unbiased=False)
        -0.75
    """
    s = input_width / heatmap_width
    distance = 0.0 if unbiased else 1 / s if cells else -(s - 1) / s
    return distance + 1.0 if shifted else distance


def dither(
    input_size: Sequence[int], heatmap_size: Sequence[int]
) -> Tuple[float, float]:
    """How to move a mirrored input, so that its rounding differs from the direct one's.

    Of a network that was trained on targets rounded to whole heatmap pixels, biased.
    The mirrored input is moved by ``(1 - s / 2, s / 2)``, with ``s`` of each axis; its
    output, mirrored back, then lies an odd multiple of half a heatmap pixel from the
    direct one in x and in y: what one rounds up, the other rounds down.

    Returns:
        Input px, to the right and down.

    Example:
        >>> dither((192, 256), (48, 64))
        (-1.0, 2.0)
    """
    x, y = stride(input_size, heatmap_size, unbiased=False)
    return float(1 - x / 2), float(y / 2)
