"""The command ``udp-plugin export``: write a file, compare it, put it in place."""

import os
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

import numpy as np
from rich.table import Table

from udp_plugin.codecs.base import UDPCodec
from udp_plugin.convert.zoo import find_config
from udp_plugin.errors import UserError
from udp_plugin.files import written
from udp_plugin.runtime.session import DATA
from udp_plugin.ui import console, print_table, quiet

from . import OPSET, graph, verify
from .trained import build, load
from .verify import Difference

#: What a decoding can be written as, by the file's suffix: its name, and what loads it.
DECODINGS = {
    '.onnx': ('ONNX', 'onnxruntime.InferenceSession'),
    '.pt': ('TorchScript', 'torch.jit.load'),
    '.pt2': ('torch.export', 'torch.export.load'),
}


class Exported(NamedTuple):
    """A file that was written and compared; it is in place if that was good.

    Attributes:
        out: The file.
        about: What it is, and how it compares, as rows of a table.
        difference: How far its answers are from PyTorch's.
    """

    out: Path
    about: List[Tuple[str, str]]
    difference: Difference


def export(
    config: str,
    checkpoint: Optional[Path],
    out: Path,
    opset: int = OPSET,
    images: Optional[Path] = None,
    progress: Callable[..., None] = lambda **state: None,
    **options: bool,
) -> Exported:
    """Write a trained model as ONNX, from crops to keypoints.

    Args:
        config: That it was trained with: a path, ``mmpose::NAME``, or a name of the
            zoo's.
        checkpoint: Its weights; without them only what turns maps into keypoints is
            written.
        out: The file to write, or to replace: ``.onnx``, or without weights one of
            :data:`DECODINGS`.
        opset: Version of ONNX's operators.
        images: A folder of photographs to compare on; None is drawn figures.
        progress: Takes what a task of rich's progress does.
        options: ``flip_test``, ``dynamic_batch``, ``normalized`` and
            ``source_keypoints``, see :func:`~.graph.write_model`.

    Raises:
        UserError: It cannot be exported.
    """
    suffixes = ['.onnx'] if checkpoint else [*DECODINGS]
    if out.suffix not in suffixes:
        raise UserError(
            f'--out must be a file that ends with {" or ".join(suffixes)}, got {out}'
        )
    if out.is_dir():
        raise UserError(f'--out {out} is a folder; name a file in it')
    folder = next(path for path in out.absolute().parents if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f'--out {out}: {folder} cannot be written to')
    count, samples = verify.samples(images)
    total = 3 + (count if checkpoint else 0)
    progress(description='reading', total=total)
    path = find_config(config)
    with quiet():
        trained = load(path, checkpoint) if checkpoint else build(path)
    codec, keypoints = trained.codec, trained.num_keypoints
    progress(description='recording', completed=1)
    difference = None
    try:
        with quiet(), written(out) as made:
            if checkpoint:
                graph.write_model(made, trained, opset=opset, **options)
                progress(description='comparing', completed=2)
                compared = verify.compare(made, trained, samples, progress)
            else:
                graph.write_decoding(made, codec, keypoints, opset)
                progress(description='comparing', completed=2)
                compared = verify.compare_decoding(made, codec, keypoints)
            # Weights that have a file of their own are put in place first. Until the
            # model is there, too, the runtime tells that they are not of the last one.
            files = list(made.parent.iterdir())
            size = sum(file.stat().st_size for file in files)
            for file in [] if compared.good else files:
                file.unlink()
            difference = compared
        if difference.good and out.suffix == '.onnx' and len(files) == 1:
            # Weights of the file that was there before.
            out.with_name(out.name + DATA).unlink(missing_ok=True)
    except KeyboardInterrupt:
        if difference and difference.good:
            raise KeyboardInterrupt(_while_placed(out, len(files) > 1)) from None
        raise
    progress(description='done', completed=total)

    weights, only = bool(checkpoint), not checkpoint
    normalized, in_source = map(options.get, ('normalized', 'source_keypoints'))
    batch = 'B' if options.get('dynamic_batch') or only else '1'
    shape = f'{batch} × {len(trained.flip_indices) if weights else keypoints}'
    sides = codec.input_size if weights else codec.heatmap_size
    channels = trained.channels if weights else keypoints * codec.channels_per_keypoint
    given = f'{batch} × {channels} × {sides[1]} × {sides[0]}'
    color = 'BGR' if channels == 3 else 'grey'
    form, _ = DECODINGS[out.suffix]
    shown = ('radius', 'reading') if codec.channels_per_keypoint == 3 else ('sigma',)
    if isinstance(trained.head.decoder, UDPCodec):
        settings = [f'{name} {getattr(codec, name)}' for name in shown]
    else:
        settings = ['weights kept']
    settings = ', '.join([type(trained.head.decoder).__name__, *settings])
    x, y = trained.dither
    flips = f'yes, the mirrored crop moved by {x:g}, {y:g} px' if x or y else 'yes'
    pixels = '× 2, in pixels of the'
    px, agreeing = difference.px, ~difference.beyond
    most, score = px[agreeing].max(initial=0), difference.score[agreeing]
    besides, far = (~agreeing).sum(), f'up to {np.nanmax(px):.1g} px'
    why = 'where two peaks are as high' if difference.good else 'more than rounding'
    rows = [
        (weights, 'model', trained.name),
        (only, 'decoding of', trained.name),
        (only, 'as', f'{form}, opset {opset}' if form == 'ONNX' else form),
        (weights and not normalized, 'crops', f'{given}, uint8, {color}'),
        (normalized, 'crops', f'{given}, float32, normalised'),
        (only, 'maps', f'{given}, float32'),
        (True, 'keypoints', f'{shape} {pixels} input'),
        (True, 'scores', shape),
        (in_source, 'centers, scales', f'{batch} {pixels} photograph'),
        (in_source, 'rotations', f'{batch}, in degrees'),
        (in_source, 'source_keypoints', f'{shape} {pixels} photograph'),
        (True, 'codec', settings),
        (weights, 'flip test', flips if options.get('flip_test') else 'no'),
        (weights, 'opset', str(opset)),
        (size >= 1e5, 'size', f'{size / 1e6:.1f} MB'),
        (size < 1e5, 'size', f'{size / 1e3:.0f} kB'),
        (True, 'compared with PyTorch', f'{px.size} keypoints of {len(px)} samples'),
        (agreeing.any(), 'largest difference', f'{most:.1g} px of the input'),
        (agreeing.any(), 'of scores', f'{score.max(initial=0):.1g}'),
        (besides, 'besides', f'{besides} keypoints, {why}, {far}'),
    ]
    return Exported(out, [(name, text) for has, name, text in rows if has], difference)


def _while_placed(out: Path, two: bool) -> str:
    """What is true after an interruption as files are put in place."""
    beside = f', or only its weights ({out.name}{DATA}) are new, which' if two else ''
    then = f'{beside} loading it says; export it again' if two else ''
    return f'stopped as {out} was put in place: it is the old one or the new one{then}'


def show(exported: Exported) -> None:
    """Print what was written, and how far it is from PyTorch."""
    table = Table(title=str(exported.out), title_justify='left', show_header=False)
    for row in exported.about:
        table.add_row(*row)
    print_table(table, console())
