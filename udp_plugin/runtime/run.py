"""The command ``udp-plugin infer``: a photograph's keypoints, printed and drawn."""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from .drawing import draw
from .model import Keypoints, PoseModel, whole


def run_infer(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    try:
        if args.out is not None:
            _check_picture(args.out, args.image)
        if args.json not in (None, '-'):
            _check_file('--json', Path(args.json))
        image = _read_image(args.image)
        model = PoseModel(args.model)
        boxes = whole(image) if args.boxes is None else np.array(args.boxes)
        found = model(image, boxes)
        content = json.dumps(_as_dict(args, model, boxes, found), indent=1)
        if args.out is not None:
            picture = draw(image, *found, model.skeleton, boxes)
            _write_picture(picture, args.out)
        if args.json not in (None, '-'):
            Path(args.json).write_text(content + '\n', encoding='utf-8')
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if args.json == '-':
        print(content)
        return 0
    print(_table(model, boxes, found))
    for written in (args.out, args.json):
        if written is not None:
            print(f'written: {written}')
    return 0


def _check_file(name: str, file: Path) -> None:
    if file.is_dir():
        raise IsADirectoryError(f'{name} {file} is a folder; name a file in it')
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f'{name} must be a file in a folder that exists, got {file}; make '
            f'{file.parent} first'
        )


def _check_picture(out: Path, image: Path) -> None:
    _check_file('--out', out)
    if not out.suffix or not cv2.haveImageWriter(str(out)):
        raise ValueError(
            f'--out must be a picture that OpenCV can write, got {out}; name it '
            f'{out.with_suffix(".png").name}, say'
        )
    if out.exists() and image.exists() and out.samefile(image):
        raise ValueError(f'--out {out} is IMAGE itself; name another file')


def _read_image(file: Path) -> np.ndarray:
    """Shape (h, w, 3), uint8, BGR, turned as its EXIF data say."""
    # Reads what cv2.imread reads, but says nothing itself.
    try:
        content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise type(error)(
            f'IMAGE must be a photograph, and {file} cannot be read: {error.strerror}'
        ) from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise ValueError(
            f'IMAGE must be a photograph, and {file} is none that OpenCV can read; '
            'convert it to PNG or JPEG'
        )
    return image


def _write_picture(picture: np.ndarray, out: Path) -> None:
    try:
        written, content = cv2.imencode(out.suffix, picture)
    except cv2.error:
        written = False
    if not written:
        raise ValueError(
            f'--out {out} cannot hold this picture; name it '
            f'{out.with_suffix(".png").name}'
        )
    out.write_bytes(content.tobytes())


def _as_dict(
    args: argparse.Namespace, model: PoseModel, boxes: np.ndarray, found: Keypoints
) -> dict:
    return dict(
        image=str(args.image),
        model=str(args.model),
        keypoint_names=list(model.keypoint_names),
        people=[
            dict(box=box.tolist(), keypoints=keypoints.tolist(), scores=scores.tolist())
            for box, keypoints, scores in zip(boxes, *found)
        ],
    )


def _table(model: PoseModel, boxes: np.ndarray, found: Keypoints) -> str:
    width = max(len(name) for name in ('keypoint', *model.keypoint_names))
    lines = []
    for i, (box, keypoints, scores) in enumerate(zip(boxes, *found)):
        corners = ', '.join(f'{corner:g}' for corner in box)
        lines += [
            f'person {i + 1} of {len(boxes)}, box {corners}',
            f'  {"keypoint":{width}}  {"x":>9}  {"y":>9}  score',
        ]
        for name, (x, y), score in zip(model.keypoint_names, keypoints, scores):
            lines.append(f'  {name:{width}}  {x:9.2f}  {y:9.2f}  {score:5.3f}')
        lines.append('')
    return '\n'.join(lines[:-1])
