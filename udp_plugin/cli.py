"""The command ``udp-plugin``, also ``python -m udp_plugin``.

A subcommand's module is imported when it is called, so that each needs no more than
its own dependencies.
"""

import argparse
import json
import re
import shlex
import sys
import time
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import List, Optional, Sequence

from .export import OPSET


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not a positive number')
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 2**31')
    return number


def _box(text: str) -> List[float]:
    try:
        left, top, right, bottom = map(float, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not the four numbers X1,Y1,X2,Y2 of a box, with commas and '
            'without spaces (MODEL and IMAGE go before --boxes)'
        ) from None
    return [left, top, right, bottom]


# argparse says "invalid number value", not "invalid positive value".
positive.__name__ = _seed.__name__ = 'number'


def _add_demo(subparsers) -> None:
    parser = subparsers.add_parser(
        'demo',
        help='train and test a stock config and its UDP twins, and compare them',
        description='Draws figures with known sub-pixel keypoints (or takes your '
        "data), trains and tests a stock MMPose config and the same with UDP's names "
        "through MMPose's own tools, and ends with a table and pictures.",
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/demo'),
        metavar='DIR',
        help='where everything goes; what an earlier demo left there is replaced '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--codec',
        choices=['gaussian', 'offset', 'both'],
        default='both',
        help='the codec(s) to compare with the stock one (default: %(default)s)',
    )
    parser.add_argument(
        '--iters',
        type=positive,
        default=None,
        metavar='N',
        help='training iterations of each config (default: 600)',
    )
    parser.add_argument(
        '--seed', type=_seed, default=0, metavar='N', help='default: %(default)s'
    )
    parser.add_argument(
        '--images',
        type=positive,
        default=None,
        metavar='N',
        help='figures drawn for training, and a third as many for testing '
        '(default: 600)',
    )
    own = parser.add_argument_group('your own data, instead of drawn figures')
    own.add_argument(
        '--ann', type=Path, metavar='FILE', help='annotations in COCO format'
    )
    own.add_argument('--img', type=Path, metavar='DIR', help='the images they name')
    parser.set_defaults(call=_demo, parser=parser)


def _demo(args: argparse.Namespace) -> int:
    if (args.ann is None) != (args.img is None):
        args.parser.error('--ann and --img go together')
    if args.ann is not None and args.images is not None:
        args.parser.error('--images is for drawn figures, not for --ann')
    from . import ui
    from .demo.run import demo

    budget = dict(iters=args.iters, seed=args.seed, images=args.images)
    with ui.ends_in_words(f'stopped; what was made so far is in {args.out}'):
        found = demo(args.out, args.codec, ann=args.ann, img=args.img, **budget)
        from .demo.report import show, write_json

        write_json(found, args.command)
        show(found)
    return 0


def _add_audit(subparsers) -> None:
    parser = subparsers.add_parser(
        'audit',
        help="measure the bias of a config's pipeline, and find what does not fit",
        description='Builds what a top-down heatmap config has around its network, '
        'puts a perfect network in its place, and measures: the warps, the flip test, '
        'coding, all from end to end, and the COCO AP that could be reached. It names '
        'what does not go together, with line and fix. Exit status 1 means that a '
        'finding is an error, 2 that there was nothing to audit.',
    )
    parser.add_argument(
        'config',
        metavar='CONFIG',
        nargs='?',
        help="a path, mmpose::NAME, or a name in MMPose's zoo, of which a unique "
        'prefix is enough',
    )
    parser.add_argument(
        '--compare', metavar='CONFIG2', help='a config to put beside it'
    )
    parser.add_argument(
        '-o',
        '--out',
        type=Path,
        metavar='DIR',
        help='write audit.json and figures to DIR',
    )
    parser.add_argument('--json', action='store_true', help='print the figures as JSON')
    own = parser.add_argument_group('your own data, instead of random people')
    own.add_argument(
        '--ann', type=Path, metavar='FILE', help='annotations in COCO format'
    )
    own.add_argument('--img', type=Path, metavar='DIR', help='the images they name')
    maps = parser.add_argument_group(
        'predictions of any framework, instead of a config'
    )
    maps.add_argument(
        '--maps',
        type=Path,
        metavar='FILE',
        help='raw output maps of images and of their mirror images: .npy of shape '
        '(2, N, C, H, W), or .npz with maps and mirrored',
    )
    maps.add_argument(
        '--codec',
        choices=['gaussian', 'offset'],
        help='one map a keypoint, or three (default: gaussian)',
    )
    maps.add_argument(
        '--input-size',
        type=positive,
        nargs=2,
        metavar=('W', 'H'),
        help="the network's input in pixels, for figures in input px",
    )
    maps.add_argument(
        '--flip-indices',
        type=int,
        nargs='+',
        metavar='K',
        help="for each keypoint its mirror image's, from 0 on (default: inferred from "
        'the maps)',
    )
    parser.set_defaults(call=_audit, parser=parser)


def _audit(args: argparse.Namespace) -> int:
    if (args.ann is None) != (args.img is None):
        args.parser.error('--ann and --img go together')
    if (args.config is None) == (args.maps is None):
        args.parser.error('give either CONFIG or --maps')
    if args.maps is not None and (args.compare or args.ann):
        args.parser.error('--compare, --ann and --img are for CONFIG, not for --maps')
    if args.maps is None:
        if args.input_size or args.flip_indices or args.codec:
            args.parser.error('--codec, --input-size and --flip-indices are for --maps')
        if _mmpose_is_missing():
            return 2
    from . import ui

    # With --json, figures alone go to stdout.
    console = ui.console(stderr=args.json)
    with ui.ends_in_words():
        if args.out and args.out.exists() and not args.out.is_dir():
            raise ui.UserError(f'--out {args.out} is a file; name a folder')
        if args.maps is not None:
            from .audit.maps import audit_maps

            with console.status('measuring'):
                codec = args.codec or 'gaussian'
                maps = args.maps, codec, args.input_size, args.flip_indices
                audits = [audit_maps(*maps)]
            for table in audits[0].tables():
                table.print(console)
            console.print(audits[0].verdict.text)
        else:
            from .audit.report import print_audits
            from .audit.run import audit

            with console.status('audit') as status:
                audits = [
                    audit(config, args.ann, args.img, status.update)
                    for config in (args.config, args.compare)
                    if config
                ]
            print_audits(audits, console)
        content = [found.as_dict() for found in audits]
        text = json.dumps(content if args.compare else content[0], indent=1)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            written = [args.out / 'audit.json']
            written[0].write_text(text + '\n', encoding='utf-8')
            if args.maps is None:
                from .audit.figures import draw

                written += draw(audits, args.out)
            for path in written:
                console.print(f'  {path}')
        if args.json:
            print(text)
    return int(any(found.has_errors for found in audits))


def _add_convert(subparsers) -> None:
    parser = subparsers.add_parser(
        'convert',
        help='write the UDP config of a stock top-down heatmap config',
        description='Writes a short config that takes a stock one as its base and '
        'swaps in it what UDP swaps, and says what and why. Exit status 2 means that '
        'the config cannot be converted, 1 that the check failed; the message says '
        'what stopped it.',
    )
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help="a path, mmpose::NAME, or a name in MMPose's zoo, of which a unique "
        'prefix is enough',
    )
    parser.add_argument(
        '-o',
        '--out',
        default='.',
        metavar='OUT',
        help='the file to write, a folder for it, or - to print it, with _base_ '
        'relative to the current folder; an existing file is never overwritten '
        '(default: the current folder)',
    )
    parser.add_argument(
        '--codec',
        choices=['offset', 'gaussian'],
        default=None,
        help='the codec to use (default: offset if the targets of CONFIG have offsets, '
        "that is, UDPHeatmap with heatmap_type='combined'; gaussian otherwise)",
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='build the result, and train a step and predict on noise; a config that '
        'has UDP already is only checked',
    )
    parser.set_defaults(call=_convert)


def _mmpose_is_missing() -> bool:
    missing = find_spec('mmpose') is None
    if missing:
        print(
            'error: MMPose is not installed: "udp-plugin doctor" says how.',
            file=sys.stderr,
        )
    return missing


def _convert(args: argparse.Namespace) -> int:
    if _mmpose_is_missing():
        return 2
    from . import ui
    from .convert.report import convert_to

    with ui.ends_in_words():
        try:
            passed = convert_to(args.out, args.config, args.codec, args.check)
        except OSError as error:
            raise ui.UserError(error) from error
    return 0 if passed else 1


def _add_list(subparsers) -> None:
    parser = subparsers.add_parser(
        'list',
        help="list the configs of MMPose's zoo that can be converted",
        description="Lists the configs of MMPose's zoo that `convert` takes.",
    )
    parser.add_argument(
        'pattern',
        metavar='PATTERN',
        nargs='?',
        default='',
        help='only those whose folder or name has this',
    )
    parser.set_defaults(call=_list)


def _list(args: argparse.Namespace) -> int:
    if _mmpose_is_missing():
        return 2
    from . import ui
    from .convert.zoo import convertible

    console = ui.console()
    with ui.ends_in_words():
        names = convertible(args.pattern)
    for folder, group in groupby(names, lambda name: name.rpartition('/')[0]):
        console.print(folder, style='bold', markup=False)
        for name in group:
            ui.say(f'  {Path(name).stem}', console)
    example = f'udp-plugin convert {Path(names[0]).stem}'
    ui.say(f'\n{len(names)} configs; convert one by its name: {example}', console)
    return 0


def _add_export(subparsers) -> None:
    parser = subparsers.add_parser(
        'export',
        help='write a trained model as ONNX, from crops to keypoints',
        description='Writes a trained model as one ONNX graph: normalisation, network, '
        "flip test and decoding. The file is compared with MMPose's own inference "
        'before it is put in place. Exit status 1 means that it differs by more than '
        'rounding, 2 that it cannot be exported; the message says what to do.',
    )
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='that it was trained with: a path, mmpose::NAME, or a name in the zoo',
    )
    parser.add_argument(
        'checkpoint',
        type=Path,
        nargs='?',
        metavar='CHECKPOINT',
        help='its weights, as tools/train.py leaves them',
    )
    parser.add_argument(
        '-o',
        '--out',
        type=Path,
        required=True,
        metavar='MODEL.onnx',
        help='the file to write; one that is there is replaced',
    )
    parser.add_argument(
        '--flip-test',
        action='store_true',
        help='average over the mirrored crop, too, which takes twice as long',
    )
    parser.add_argument(
        '--dynamic-batch',
        action='store_true',
        help='take any number of crops at a time (default: one)',
    )
    parser.add_argument(
        '--normalized',
        action='store_true',
        help='take crops that are normalised already, as float32 (default: the colours '
        'of the photograph, BGR, as uint8)',
    )
    parser.add_argument(
        '--source-keypoints',
        action='store_true',
        help="take the crops' boxes, too (centers, scales, rotations), and return the "
        "keypoints in the photograph's pixels, too",
    )
    parser.add_argument(
        '--opset',
        type=positive,
        default=OPSET,
        metavar='N',
        help="version of ONNX's operators (default: %(default)s)",
    )
    parser.add_argument(
        '--verify',
        type=Path,
        metavar='IMAGE_DIR',
        help='compare with MMPose on the photographs in this folder (default: on drawn '
        'figures)',
    )
    parser.add_argument(
        '--decoding-only',
        action='store_true',
        help='write only what turns maps into keypoints, which needs no CHECKPOINT: as '
        'ONNX (.onnx), TorchScript (.pt) or a program of torch.export (.pt2)',
    )
    parser.set_defaults(call=_export, parser=parser)


def _export(args: argparse.Namespace) -> int:
    if args.decoding_only:
        others = ('flip_test', 'dynamic_batch', 'normalized', 'source_keypoints')
        if args.checkpoint or args.verify or any(getattr(args, n) for n in others):
            args.parser.error('--decoding-only goes with --out and --opset alone')
    elif args.checkpoint is None:
        args.parser.error('CHECKPOINT is missing (only --decoding-only needs none)')
    if _mmpose_is_missing():
        return 2
    missing = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    if missing:
        names = ' '.join(missing)
        print(
            f'error: {" and ".join(missing)} not installed: pip install {names}',
            file=sys.stderr,
        )
        return 2
    from . import ui
    from .export.run import DECODINGS, export, show

    names = ('flip_test', 'dynamic_batch', 'normalized', 'source_keypoints', 'opset')
    options = {name: getattr(args, name) for name in names}
    started = time.monotonic()
    with ui.ends_in_words(f'stopped; {args.out} is as it was'):
        with ui.progress() as bars:
            task = bars.add_task('', visible=False, note='')
            progress = partial(bars.update, task, visible=True)
            given = args.config, args.checkpoint, args.out
            exported = export(*given, **options, images=args.verify, progress=progress)
        show(exported)
    if not exported.difference.good:
        advice = (
            'some networks (Swin) compute for a certain number of crops: export '
            'without --dynamic-batch'
            if args.dynamic_batch
            else 'please report it with the config and the version of torch'
        )
        ui.say_error(
            f'what was written does not compute what PyTorch does, so {args.out} is as '
            f'it was; {advice}'
        )
        return 1
    usage = f'Try it: udp-plugin infer {args.out} IMAGE --boxes X1,Y1,X2,Y2 -o OUT.png'
    if args.decoding_only:
        usage = f'Load it with {DECODINGS[args.out.suffix][1]}.'
    ui.say(f'{usage}\ntook {time.monotonic() - started:.0f} s')
    return 0


def _add_infer(subparsers) -> None:
    parser = subparsers.add_parser(
        'infer',
        help='find the keypoints of people in a photograph with an exported model',
        description='Crops each box from a photograph, runs a model that `udp-plugin '
        'export` wrote, and prints the keypoints in pixels of the photograph. It needs '
        'OpenCV and onnxruntime, and neither torch nor MMPose. Exit status 2 means '
        'that something given was not as it should be; the message says what.',
    )
    parser.add_argument(
        'model',
        type=Path,
        metavar='MODEL',
        help='the .onnx file of `udp-plugin export`',
    )
    parser.add_argument(
        'image', type=Path, metavar='IMAGE', help='a photograph, as PNG or JPEG, say'
    )
    parser.add_argument(
        '--boxes',
        type=_box,
        nargs='+',
        metavar='X1,Y1,X2,Y2',
        help='left, top, right and bottom of each person in pixels of the photograph; '
        'they may reach out of it (default: one person who fills the photograph)',
    )
    # "-5,10,90,200" is a box and no option, as argparse knows of "-5" alone.
    parser._negative_number_matcher = re.compile(r'-(\d|\.|inf|nan)')
    parser.add_argument(
        '-o',
        '--out',
        type=Path,
        metavar='OUT',
        help='the picture to write, with keypoints and boxes drawn on the photograph; '
        'what scores below 0.3 is left out',
    )
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='write the keypoints to FILE, too; - prints them alone',
    )
    parser.set_defaults(call=_infer)


def _infer(args: argparse.Namespace) -> int:
    if find_spec('cv2') is None:
        print(
            'error: OpenCV is not installed: pip install opencv-python', file=sys.stderr
        )
        return 2
    from .runtime.run import check_outputs, infer, write_picture

    file = None if args.json in (None, '-') else Path(args.json)
    try:
        check_outputs(args.image, args.out, file)
        seen = infer(args.model, args.image, args.boxes)
        content = seen.json(image=str(args.image), model=str(args.model))
        if args.out is not None:
            write_picture(args.out, seen)
        if file is not None:
            file.write_text(content + '\n', encoding='utf-8')
    # Without rich, which `ui` has.
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if args.json == '-':
        print(content)
        return 0
    made = [f'written: {name}' for name in (args.out, args.json) if name is not None]
    print(seen, *made, sep='\n')
    return 0


def _add_doctor(subparsers) -> None:
    parser = subparsers.add_parser(
        'doctor',
        help='find what does not fit in an installation of MMPose, and what mends it',
        description='Compares the installed packages with what MMPose needs, tries '
        'them, and says what does not fit, with the command that mends it. It changes '
        'nothing. Exit status 1 means that something does not fit.',
    )
    parser.set_defaults(call=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import doctor, show

    found = doctor()
    show(found)
    return 0 if found.works and not found.faults else 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog='udp-plugin', description='Unbiased data processing (UDP) for MMPose.'
    )
    subparsers = parser.add_subparsers(metavar='command', required=True)
    _add_demo(subparsers)
    _add_audit(subparsers)
    _add_convert(subparsers)
    _add_list(subparsers)
    _add_export(subparsers)
    _add_infer(subparsers)
    _add_doctor(subparsers)
    args = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    args.command = ' '.join(map(shlex.quote, [parser.prog, *map(str, given)]))
    return args.call(args)
