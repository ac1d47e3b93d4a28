"""The command ``udp-plugin infer``: a photograph's keypoints, printed and drawn."""

import json
import shutil
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import cv2
import numpy as np

from udp_plugin.files import write_bytes

from .drawing import draw
from .metadata import plain
from .model import Keypoints, PoseModel, whole
from .reading import read_photograph

__all__ = ['Inferred', 'check_outputs', 'infer', 'plain', 'write_picture']


class Inferred(NamedTuple):
    """The people found in a photograph.

    Attributes:
        image: The photograph, shape (h, w, 3), BGR.
        boxes: Left, top, right and bottom in source px, shape (N, 4).
        found: Their keypoints.
        model: What found them.
    """

    image: np.ndarray
    boxes: np.ndarray
    found: Keypoints
    model: PoseModel

    def json(self, **names: str) -> str:
        """As JSON, after these names of files; what is not finite is null."""
        people = [
            dict(box=_listed(box), keypoints=_listed(keypoints), scores=_listed(scores))
            for box, keypoints, scores in zip(self.boxes, *self.found)
        ]
        names.update(keypoint_names=self.model.keypoint_names, people=people)
        return json.dumps(names, indent=1, allow_nan=False)

    def __str__(self) -> str:
        """As a table for each person, that fits the terminal."""
        names, columns = self.model.keypoint_names, shutil.get_terminal_size().columns
        width = max(len(name) for name in ('keypoint', *names))
        # A row has 29 columns of figures, and on a narrow terminal nothing else.
        after = '' if width + 31 <= columns else '\n'
        tables = []
        for i, (box, keypoints, scores) in enumerate(zip(self.boxes, *self.found)):
            corners = ', '.join(f'{corner:g}' for corner in box)
            lines = textwrap.wrap(
                f'person {i + 1} of {len(self.boxes)}, box {corners}', columns
            )
            lines.append(f'  {"keypoint":{width}}{after}  {"x":>9}  {"y":>9}  score')
            for name, (x, y), score in zip(names, keypoints, scores):
                figures = f'{x:9.2f}  {y:9.2f}  {score:5.3f}'
                lines.append(f'  {name:{width}}{after}  {figures}')
            tables.append('\n'.join(lines))
        return '\n\n'.join(tables)


def _listed(numbers: np.ndarray) -> list:
    return np.where(np.isfinite(numbers), numbers.astype(object), None).tolist()


def infer(
    model: Path, image: Path, boxes: Optional[Sequence[Sequence[float]]] = None
) -> Inferred:
    """Find the keypoints of the people in a photograph.

    Args:
        model: A file that ``udp-plugin export`` wrote.
        image: The photograph; it is turned as its EXIF data say.
        boxes: Left, top, right and bottom of each person, source px; None is one
            person who fills the photograph.

    Raises:
        ImportError: onnxruntime is not installed.
        OSError, ValueError: What is given is not as it should be.
    """
    must = 'IMAGE must be a photograph, and'
    try:
        pixels = read_photograph(image)
    except OSError as error:
        raise type(error)(f'{must} {image} cannot be read: {error.strerror}') from error
    except ValueError as error:
        raise ValueError(f'{must} {image} is none that can be used: {error}') from error
    if pixels is None:
        raise ValueError(
            f'{must} {image} is none that OpenCV can read; convert it to PNG or JPEG'
        )
    loaded = PoseModel(model)
    boxes = whole(pixels) if boxes is None else np.array(boxes)
    return Inferred(pixels, boxes, loaded(pixels, boxes), loaded)


def check_outputs(out: Optional[Path], file: Optional[Path]) -> None:
    """Refuse, before the work, a picture or a JSON file that cannot be written.

    Raises:
        OSError, ValueError: It is a folder, in none, or no picture.
    """
    for option, path in (('--out', out), ('--json', file)):
        if path is not None and path.is_dir():
            raise IsADirectoryError(f'{option} {path} is a folder; name a file in it')
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(
                f'{option} must be a file in a folder that exists, got {path}; make '
                f'{path.parent} first'
            )
    # By its suffix alone: OpenCV crashes on a path that is no text.
    known = out and out.suffix.isascii() and cv2.haveImageWriter(f'a{out.suffix}')
    if out and not (out.suffix and known):
        raise ValueError(
            f'--out must be a picture that OpenCV can write, got {out}; name it '
            f'{out.with_suffix(".png").name}, say'
        )


def write_picture(out: Path, seen: Inferred) -> None:
    """Draw keypoints and boxes on the photograph."""
    picture = draw(seen.image, *seen.found, seen.model.skeleton, seen.boxes)
    written = False
    with suppress(cv2.error):
        written, content = cv2.imencode(out.suffix, picture)
    if not written:
        png = out.with_suffix('.png').name
        raise ValueError(f'--out {out} cannot hold this picture; name it {png}')
    write_bytes(out, content.tobytes())
