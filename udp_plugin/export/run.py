"""The command ``udp-plugin export``."""

import argparse
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Iterator, List, Tuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from udp_plugin.ui import UserError, quiet

from . import graph, verify
from .trained import (
    Trained,
    build,
    find,
    keypoints_of_maps,
    load,
    pose_head_of,
    read_config,
)

#: What a decoding can be written as, by the file's suffix.
DECODINGS = {'.onnx': 'ONNX', '.pt': 'TorchScript', '.pt2': 'torch.export'}


def run_export(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        _check_out(args)
        with quiet(), Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
        ) as progress:
            export = _export_decoding if args.decoding_only else _export_model
            rows, difference = export(args, progress)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f'error: --out {args.out}: {error.strerror or error}; name a file in a '
            'folder that can be written to, on a disk with room',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        console.print(f'stopped; {args.out} is as it was')
        return 130
    seconds = time.monotonic() - started
    rows += _of_difference(difference)
    table = Table(title=str(args.out), title_justify='left', show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if not difference.good:
        advice = (
            'some networks (Swin) compute for a certain number of crops: export '
            'without --dynamic-batch'
            if args.dynamic_batch
            else 'please report it with the config and the version of torch'
        )
        print(
            f'error: what was written does not compute what PyTorch does, so '
            f'{args.out} is as it was; {advice}',
            file=sys.stderr,
        )
        return 1
    console.print(f'{_next(args)}\ntook {seconds:.0f} s', soft_wrap=True)
    return 0


def _check_out(args: argparse.Namespace) -> None:
    suffixes = DECODINGS if args.decoding_only else ['.onnx']
    if args.out.suffix not in suffixes:
        raise UserError(
            f'--out must be a file that ends with {" or ".join(suffixes)}, got '
            f'{args.out}'
        )
    if args.out.is_dir():
        raise UserError(f'--out {args.out} is a folder; name a file in it')
    # Before the work.
    folder = args.out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f'--out {args.out}: {folder} cannot be written to')


@contextmanager
def _made_beside(out: Path) -> Iterator[Path]:
    """A file to be made, of the name of ``out`` and on the same disk."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix='.export', dir=out.parent) as folder:
        yield Path(folder, out.name)


def _put_in_place(made: Path, out: Path) -> None:
    """Move what was made: first weights that have a file of their own."""
    weights = out.with_name(f'{out.name}.data')
    made_weights = made.with_name(weights.name)
    beside = made_weights.exists()
    if beside:
        os.replace(made_weights, weights)
    os.replace(made, out)
    if not beside and out.suffix == '.onnx' and weights.exists():
        # Those of the file that was there before.
        weights.unlink()


def _export_model(args: argparse.Namespace, progress: Progress) -> tuple:
    samples, count = _samples(args)
    total = 3 + count
    task = progress.add_task('reading', total=total)
    trained = load(find(args.config), args.checkpoint)
    progress.update(task, description='recording', advance=1)
    with _made_beside(args.out) as made:
        graph.write_model(
            made,
            trained,
            flip_test=args.flip_test,
            normalized=args.normalized,
            dynamic_batch=args.dynamic_batch,
            source_keypoints=args.source_keypoints,
            opset=args.opset,
        )
        progress.update(task, description='comparing', advance=1)
        difference = verify.compare(
            made, trained, samples, lambda: progress.advance(task)
        )
        size = sum(path.stat().st_size for path in made.parent.iterdir())
        if difference.good:
            _put_in_place(made, args.out)
        progress.update(task, description='done', completed=total)
    return _of_model(trained, args, size), difference


def _samples(args: argparse.Namespace) -> Tuple[Iterator[verify.Sample], int]:
    """Photographs and boxes, and how many photographs."""
    if args.verify is None:
        return verify.drawn(), verify.FIGURES
    paths = verify.photographs(args.verify)
    return verify.of_photographs(paths), len(paths)


def _export_decoding(args: argparse.Namespace, progress: Progress) -> tuple:
    task = progress.add_task('reading', total=3)
    path = find(args.config)
    model = build(read_config(path), path)
    codec, keypoints = pose_head_of(model).decoder, keypoints_of_maps(model)
    progress.update(task, description='recording', advance=1)
    with _made_beside(args.out) as made:
        graph.write_decoding(made, codec, keypoints, args.opset)
        progress.update(task, description='comparing', advance=1)
        difference = verify.compare_decoding(made, codec, keypoints)
        size = made.stat().st_size
        if difference.good:
            _put_in_place(made, args.out)
        progress.update(task, description='done', advance=1)
    width, height = codec.heatmap_size
    channels = keypoints * codec.channels_per_keypoint
    form = DECODINGS[args.out.suffix]
    if form == 'ONNX':
        form += f', opset {args.opset}'
    rows = [
        ['decoding of', path.stem],
        ['as', form],
        ['maps', f'B × {channels} × {height} × {width}, float32'],
        ['keypoints', f'B × {keypoints} × 2, in pixels of the input'],
        ['scores', f'B × {keypoints}'],
        ['codec', _codec(codec)],
        ['size', _megabytes(size)],
    ]
    return rows, difference


# --- the summary ----------------------------------------------------------------------


def _of_model(trained: Trained, args: argparse.Namespace, size: int) -> List[List[str]]:
    codec = trained.codec
    width, height = codec.input_size
    batch = 'B' if args.dynamic_batch else '1'
    keypoints = len(trained.flip_indices)
    crops = 'float32, normalised' if args.normalized else 'uint8, BGR'
    rows = [
        ['model', trained.name],
        ['crops', f'{batch} × 3 × {height} × {width}, {crops}'],
        ['keypoints', f'{batch} × {keypoints} × 2, in pixels of the input'],
        ['scores', f'{batch} × {keypoints}'],
    ]
    if args.source_keypoints:
        rows += [
            ['centers, scales', f'{batch} × 2, in pixels of the photograph'],
            ['rotations', f'{batch}, in degrees'],
            [
                'source_keypoints',
                f'{batch} × {keypoints} × 2, in pixels of the photograph',
            ],
        ]
    rows += [
        ['codec', _codec(codec)],
        ['flip test', 'yes' if args.flip_test else 'no'],
        ['opset', str(args.opset)],
        ['size', _megabytes(size)],
    ]
    return rows


def _codec(codec) -> str:
    settings = graph.codec_settings(codec)
    shown = ('radius', 'reading') if codec.channels_per_keypoint == 3 else ('sigma',)
    return f'{settings["type"]}, ' + ', '.join(f'{n} {settings[n]}' for n in shown)


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'


def _of_difference(difference: verify.Difference) -> List[List[str]]:
    beyond = int(difference.beyond.sum())
    px, score = difference.px, difference.score
    rows = [['compared with PyTorch', f'{px.size} keypoints of {len(px)} samples']]
    agreeing = ~difference.beyond
    if agreeing.any():
        rows += [
            ['largest difference', f'{px[agreeing].max():.1g} px of the input'],
            ['of scores', f'{score[agreeing].max():.1g}'],
        ]
    if beyond:
        what = (
            'where two peaks are as high' if difference.good else 'more than rounding'
        )
        rows.append(
            ['besides', f'{beyond} keypoints, {what}, up to {np.nanmax(px):.1g} px']
        )
    return rows


def _next(args: argparse.Namespace) -> str:
    """What to do with the file."""
    if not args.decoding_only:
        return (
            f'Try it: udp-plugin infer {args.out} IMAGE --boxes X1,Y1,X2,Y2 -o OUT.png'
        )
    loaders = {
        '.onnx': 'onnxruntime.InferenceSession',
        '.pt': 'torch.jit.load',
        '.pt2': 'torch.export.load',
    }
    return f'Load it with {loaders[args.out.suffix]}.'
