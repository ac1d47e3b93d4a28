"""The command ``udp-plugin``, also ``python -m udp_plugin``.

A command is a function here: its arguments are the command's, its docstring is the
help, and what it returns is the exit status. What it computes is a typed function of
its own package, imported when it is called, so that each command needs no more than its
own dependencies.
"""

import argparse
import codecs
import inspect
import json
import re
import shlex
import sys
import time
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import (
    Callable,
    List,
    Literal,
    Optional,
    Sequence,
    Tuple,
    Union,
    get_args,
    get_origin,
)

from .errors import UserError, ends_in_words, say_error
from .export import OPSET
from .files import keep_apart, naming, write_text


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not a positive number')
    return number


def seed_number(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 2**31')
    return number


def box(text: str) -> List[float]:
    try:
        left, top, right, bottom = map(float, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not the four numbers X1,Y1,X2,Y2 of a box, with commas and '
            'without spaces (MODEL and IMAGE go before --boxes)'
        ) from None
    return [left, top, right, bottom]


# argparse says "invalid number value", not "invalid positive value".
positive.__name__ = seed_number.__name__ = 'number'


class Misuse(Exception):
    """Arguments that do not go together: shown with the command's usage."""


# --- the commands ---------------------------------------------------------------------


def demo(
    *,
    out: Path = Path('work_dirs/demo'),
    codec: Literal['gaussian', 'offset', 'both'] = 'both',
    iters: Optional[positive] = None,
    seed: seed_number = 0,
    images: Optional[positive] = None,
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    command: str = '',
) -> int:
    """train and test a stock config and its UDP twins, and compare them

    Draws figures with known sub-pixel keypoints (or takes your data), trains and tests
    a stock MMPose config and the same with UDP's names through MMPose's own tools, and
    ends with a table and pictures.

    options:
        out (DIR): where everything goes; what an earlier demo left there is replaced
            (default: %(default)s)
        codec: the codec(s) to compare with the stock one (default: %(default)s)
        iters (N): training iterations of each config (default: 600)
        seed (N): default: %(default)s
        images (N): figures drawn for training, and a third as many for testing
            (default: 600)

    your own data, instead of drawn figures:
        ann (FILE): annotations in COCO format
        img (DIR): the images they name
    """
    _check_own_data(ann, img)
    if ann is not None and images is not None:
        raise Misuse('--images is for drawn figures, not for --ann')
    from .demo import run

    with ends_in_words(f'stopped; what was made so far is in {out}'):
        options = dict(iters=iters, seed=seed, images=images, ann=ann, img=img)
        found = run.demo(out, codec, **options, command=command)
        from .demo.report import show

        show(found)
    return 0


def audit(
    config: Optional[str] = None,
    *,
    compare: Optional[str] = None,
    out_: Optional[Path] = None,
    json_: bool = False,
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    checkpoint: Optional[Path] = None,
    maps: Optional[Path] = None,
    codec: Optional[Literal['gaussian', 'offset']] = None,
    input_size: Optional[Tuple[positive, positive]] = None,
    flip_indices: Optional[List[int]] = None,
) -> int:
    """measure the bias of a config's pipeline, and find what does not fit

    Builds what a top-down heatmap config has around its network, puts a perfect network
    in its place, and measures: the warps, the flip test, coding, all from end to end,
    and the COCO AP that could be reached. It names what does not go together, with line
    and fix. Exit status 1 means that a finding is an error, 2 that there was nothing to
    audit.

    options:
        config (CONFIG): a path, mmpose::NAME, or a name in MMPose's zoo, of which a
            unique prefix is enough
        compare (CONFIG2): a config to put beside it
        out_ (DIR): write audit.json and figures to DIR
        json_: print the figures as JSON

    your own data, instead of random people:
        ann (FILE): annotations in COCO format
        img (DIR): the images they name

    what the trained network does, beside its config:
        checkpoint (FILE): weights of CONFIG, as tools/train.py leaves them; by which
            measure they were trained, their jitter, and their errors are measured on
            drawn figures, or on --ann and --img, which it needs where the keypoints are
            not COCO's 17 (boxes are enough; with labels, also whether these lie off);
            not with --compare

    predictions of any framework, instead of a config:
        maps (FILE): raw output maps of images and of their mirror images: .npy of shape
            (2, N, C, H, W), or .npz with maps and mirrored
        codec: one map a keypoint, or three (default: gaussian)
        input_size (W H): the network's input in pixels, for figures in input px
        flip_indices (K): for each keypoint its mirror image's, from 0 on (default:
            inferred from the maps)
    """
    _check_own_data(ann, img)
    if (config is None) == (maps is None):
        raise Misuse('give either CONFIG or --maps')
    if maps is not None and (compare or ann or checkpoint):
        raise Misuse(
            '--compare, --ann, --img and --checkpoint are for CONFIG, not for --maps'
        )
    if checkpoint is not None and compare is not None:
        raise Misuse(
            '--checkpoint has the weights of one CONFIG, not of --compare, too'
        )
    if maps is None:
        if input_size or flip_indices or codec:
            raise Misuse('--codec, --input-size and --flip-indices are for --maps')
        _needs('mmpose')
    from . import ui

    # With --json, figures alone go to stdout.
    console = ui.console(stderr=json_)
    if out_ is not None:
        if out_.exists() and not out_.is_dir():
            raise UserError(f'--out {out_} is a file; name a folder')
        # Before what takes long.
        with naming(out_):
            out_.mkdir(parents=True, exist_ok=True)
        given = {'CONFIG': config, 'CONFIG2': compare, '--maps': maps, '--ann': ann}
        given['--checkpoint'] = checkpoint
        inputs = {name: path and Path(path) for name, path in given.items()}
        outputs = {'audit.json in --out': out_ / 'audit.json'}
        keep_apart(outputs, inputs)
        keep_apart({'--out': out_}, {'--img': img})
    if maps is not None:
        from .audit.maps import audit_maps

        with console.status('measuring'):
            found = audit_maps(maps, codec or 'gaussian', input_size, flip_indices)
        audits = [found]
        for table in found.tables():
            table.print(console)
        console.print(found.verdict.text)
    else:
        from .audit import run
        from .audit.report import print_audits

        with console.status('audit') as status:
            configs = filter(None, (config, compare))
            given = ann, img, status.update, checkpoint
            audits = [run.audit(each, *given) for each in configs]
        print_audits(audits, console)
    content = [found.as_dict() for found in audits]
    text = json.dumps(content if compare else content[0], indent=1)
    if out_ is not None:
        made = [write_text(out_ / 'audit.json', text + '\n')]
        if maps is None:
            from .audit.figures import draw

            made += draw(audits, out_)
        for path in made:
            ui.say(f'  {path}', console)
    if json_:
        print(text)
    return int(any(found.has_errors for found in audits))


def convert(
    config: str,
    *,
    out_: str = '.',
    codec: Optional[Literal['offset', 'gaussian']] = None,
    keep_weights: bool = False,
    check: bool = False,
) -> int:
    """write the UDP config of a stock top-down heatmap config

    Writes a short config that takes a stock one as its base and swaps in it what UDP
    swaps, and says what and why. What it writes is to be trained, or with
    --keep-weights to be tested with the weights that there are. Exit status 2 means
    that the config cannot be converted, 1 that the check failed; the message says what
    stopped it.

    options:
        config (CONFIG): a path, mmpose::NAME, or a name in MMPose's zoo, of which a
            unique prefix is enough
        out_ (OUT): the file to write, a folder for it, or - to print it, with _base_
            relative to the current folder; an existing file is never overwritten
            (default: the current folder)
        codec: the codec to use (default: offset if the targets of CONFIG have offsets,
            that is, UDPHeatmap with heatmap_type='combined'; gaussian otherwise)
        keep_weights: swap only names that leave the weights of CONFIG as they are: its
            checkpoint loads, and is tested without the bias of the flip test
        check: build the result, and train a step and predict on noise; a config that
            has UDP already is only checked
    """
    if keep_weights and codec:
        raise Misuse('--codec is for a new training, --keep-weights is without one')
    _needs('mmpose')
    from .convert.report import convert_to

    passed = convert_to(out_, config, codec, check, keep_weights)
    return 0 if passed else 1


def list_(pattern: str = '') -> int:
    """list the configs of MMPose's zoo that can be converted

    Lists the configs of MMPose's zoo that `convert` takes.

    options:
        pattern (PATTERN): only those whose folder or name has this
    """
    _needs('mmpose')
    from . import ui
    from .convert.zoo import convertible

    console = ui.console()
    names = convertible(pattern)
    for folder, group in groupby(names, lambda name: name.rpartition('/')[0]):
        console.print(folder, style='bold')
        for name in group:
            ui.say(f'  {Path(name).stem}', console)
    example = f'udp-plugin convert {Path(names[0]).stem}'
    ui.say(f'\n{len(names)} configs; convert one by its name: {example}', console)
    return 0


def export(
    config: str,
    checkpoint: Optional[Path] = None,
    *,
    out_: Path,
    flip_test: bool = False,
    dynamic_batch: bool = False,
    normalized: bool = False,
    source_keypoints: bool = False,
    opset: positive = OPSET,
    verify: Optional[Path] = None,
    decoding_only: bool = False,
) -> int:
    """write a trained model as ONNX, from crops to keypoints

    Writes a trained model as one ONNX graph: normalisation, network, flip test and
    decoding. The file is compared with MMPose's own inference before it is put in
    place. Exit status 1 means that it differs by more than rounding, 2 that it cannot
    be exported; the message says what to do. CONFIG is a program, which is run, so take
    only one that you trust; of CHECKPOINT the weights are read, and nothing in it is
    run.

    options:
        config (CONFIG): that it was trained with: a path, mmpose::NAME, or a name in
            the zoo
        checkpoint (CHECKPOINT): its weights, as tools/train.py leaves them
        out_ (MODEL.onnx): the file to write; one that is there is replaced
        flip_test: average over the mirrored crop, too, which takes twice as long
        dynamic_batch: take any number of crops at a time (default: one)
        normalized: take crops that are normalised already, as float32 (default: the
            colours of the photograph, BGR, as uint8)
        source_keypoints: take the crops' boxes, too (centers, scales, rotations), and
            return the keypoints in the photograph's pixels, too
        opset (N): version of ONNX's operators (default: %(default)s)
        verify (IMAGE_DIR): compare with MMPose on the photographs in this folder
            (default: on drawn figures)
        decoding_only: write only what turns maps into keypoints, which needs no
            CHECKPOINT: as ONNX (.onnx), TorchScript (.pt) or a program of torch.export
            (.pt2)
    """
    options = dict(
        flip_test=flip_test,
        dynamic_batch=dynamic_batch,
        normalized=normalized,
        source_keypoints=source_keypoints,
    )
    if decoding_only and (checkpoint or verify or any(options.values())):
        raise Misuse('--decoding-only goes with --out and --opset alone')
    if checkpoint is None and not decoding_only:
        raise Misuse('CHECKPOINT is missing (only --decoding-only needs none)')
    _needs('mmpose')
    _needs('onnx', 'onnxruntime')
    from . import ui
    from .export import run

    started = time.monotonic()
    keep_apart({'--out': out_}, {'CONFIG': Path(config), 'CHECKPOINT': checkpoint})
    with ends_in_words(f'stopped; {out_} is as it was'):
        with ui.progress() as bars:
            task = bars.add_task('', visible=False, note='')
            progress = partial(bars.update, task, visible=True)
            given = dict(options, opset=opset, images=verify, progress=progress)
            exported = run.export(config, checkpoint, out_, **given)
        run.show(exported)
    if not exported.difference.good:
        advice = (
            'some networks (Swin) compute for a certain number of crops: export '
            'without --dynamic-batch'
            if dynamic_batch
            else 'please report it with the config and the version of torch'
        )
        say_error(
            f'what was written does not compute what PyTorch does, so {out_} is as '
            f'it was; {advice}'
        )
        return 1
    model = shlex.quote(str(out_))
    usage = f'Try it: udp-plugin infer {model} IMAGE --boxes X1,Y1,X2,Y2 -o OUT.png'
    if decoding_only:
        usage = f'Load it with {run.DECODINGS[out_.suffix][1]}.'
    ui.say(f'{usage}\ntook {time.monotonic() - started:.0f} s')
    return 0


def infer(
    model: Path,
    image: Path,
    *,
    boxes: Optional[List[box]] = None,
    out_: Optional[Path] = None,
    json_: Optional[str] = None,
) -> int:
    """find the keypoints of people in a photograph with an exported model

    Crops each box from a photograph, runs a model that `udp-plugin export` wrote, and
    prints the keypoints in pixels of the photograph. It needs OpenCV and onnxruntime,
    and neither torch nor MMPose. Exit status 2 means that something given was not as it
    should be; the message says what.

    options:
        model (MODEL): the .onnx file of `udp-plugin export`
        image (IMAGE): a photograph, as PNG or JPEG, say, of at most 2^28 pixels, with
            sides of at most 32766
        boxes (X1,Y1,X2,Y2): left, top, right and bottom of each person in pixels of the
            photograph; they may reach out of it (default: one person who fills the
            photograph)
        out_ (OUT): the picture to write, with keypoints and boxes drawn on the
            photograph; what scores below 0.3 is left out
        json_ (FILE): write the keypoints to FILE, too, with null for what is not
            finite; - prints them alone
    """
    if find_spec('cv2') is None:
        raise UserError('OpenCV is not installed: pip install opencv-python')
    from .runtime import run

    file = None if json_ in (None, '-') else Path(json_)
    outputs = {'--out': out_, '--json': file}
    weights = model.with_name(f'{model.name}.data')
    inputs = {'MODEL': model, "MODEL's weights": weights, 'IMAGE': image}
    keep_apart(outputs, inputs)
    try:
        run.check_outputs(out_, file)
        seen = run.infer(model, image, boxes)
        content = seen.json(image=str(image), model=str(model))
        if out_ is not None:
            run.write_picture(out_, seen)
        if file is not None:
            write_text(file, content + '\n')
    except (ImportError, MemoryError, OSError, ValueError) as error:
        raise UserError(run.plain(error)) from error
    if json_ == '-':
        print(content)
        return 0
    made = (run.plain(f'written: {each}') for each in (out_, json_) if each)
    print(seen, *made, sep='\n')
    return 0


def doctor() -> int:
    """find what does not fit in an installation of MMPose, and what mends it

    Compares the installed packages with what MMPose needs, tries them, and says what
    does not fit, with the command that mends it. It changes nothing. Exit status 1
    means that something does not fit.
    """
    from . import doctor

    found = doctor.doctor()
    doctor.show(found)
    return 0 if found.works and not found.faults else 1


COMMANDS = {
    **dict(demo=demo, audit=audit, convert=convert, list=list_),
    **dict(export=export, infer=infer, doctor=doctor),
}


#: What is written for characters that an encoding may lack.
SIMILAR = str.maketrans({'×': 'x', '–': '-', '−': '-', '…': '...'})


def _check_own_data(ann: Optional[Path], img: Optional[Path]) -> None:
    if (ann is None) != (img is None):
        raise Misuse('--ann and --img go together')


def _write_in_any_encoding() -> None:
    """Have characters which the output's encoding lacks written in others."""

    def in_others(error: UnicodeEncodeError) -> Tuple[str, int]:
        found = error.object[error.start : error.end].translate(SIMILAR)
        return found.encode('ascii', 'backslashreplace').decode(), error.end

    codecs.register_error('in_others', in_others)
    for stream in (sys.stdout, sys.stderr):
        # Not of what a caller may have put in their places.
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='in_others')


def _needs(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing == ['mmpose']:
        raise UserError('MMPose is not installed: "udp-plugin doctor" says how.')
    if missing:
        raise UserError(
            f'{" and ".join(missing)} not installed: pip install {" ".join(missing)}'
        )


# --- from functions to a command line -------------------------------------------------

#: An argument in a docstring: its name, its metavar and its help.
ARGUMENT = re.compile(r'^ {4}(\w+)(?: \((.*?)\))?: (.*(?:\n {8}.*)*)', re.M)


def add_command(parsers, name: str, function: Callable) -> None:
    """Add a function as a command.

    Args:
        parsers: Of argparse, where it is added.
        name: The command's.
        function: What comes after ``*`` in its signature are options. Its docstring has
            a line that says what it does, some that say more, and sections of arguments
            with their metavars in brackets. A final ``_`` is not part of a name: of
            ``out_``, which is also ``-o``, or of what Python has already.
    """
    what, more, *sections = inspect.getdoc(function).split('\n\n')
    more = ' '.join(more.split())
    parser = parsers.add_parser(name, help=what, description=more)
    parser.set_defaults(call=function, parser=parser)
    # "-5,10,90,200" is a box and no option, as argparse knows of "-5" alone.
    parser._negative_number_matcher = re.compile(r'-(\d|\.|inf|nan)')
    for section in sections:
        title = section.partition(':')[0]
        own = title != 'options'
        group = parser.add_argument_group(title) if own else parser
        for argument, metavar, text in ARGUMENT.findall(section):
            parameter = inspect.signature(function).parameters[argument]
            kwargs = _kwargs(parameter, tuple(metavar.split()))
            dashed = argument.rstrip('_').replace('_', '-')
            flags = [argument]
            if parameter.kind is parameter.KEYWORD_ONLY:
                flags = ['-o'] * (argument == 'out_') + [f'--{dashed}']
                kwargs['dest'] = argument
            group.add_argument(*flags, help=' '.join(text.split()), **kwargs)


def _kwargs(parameter: inspect.Parameter, metavar: Tuple[str, ...]) -> dict:
    """What argparse needs to know of a parameter."""
    kind, default = parameter.annotation, parameter.default
    option, given = parameter.kind is parameter.KEYWORD_ONLY, default is parameter.empty
    kwargs = dict(default=None if given else default)
    if kind is bool:
        return dict(kwargs, action='store_true')
    if get_origin(kind) is Union:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return dict(kwargs, choices=get_args(kind))
    if option:
        kwargs['required'] = given
    elif not given:
        kwargs['nargs'] = '?'
    if get_origin(kind) in (list, tuple):
        kwargs['nargs'] = '+' if get_origin(kind) is list else len(get_args(kind))
        kind = get_args(kind)[0]
    return dict(kwargs, type=kind, metavar=metavar if len(metavar) > 1 else metavar[0])


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    _write_in_any_encoding()
    parser = argparse.ArgumentParser(
        prog='udp-plugin', description='Unbiased data processing (UDP) for MMPose.'
    )
    parsers = parser.add_subparsers(metavar='command', required=True)
    for name, function in COMMANDS.items():
        add_command(parsers, name, function)
    args = vars(parser.parse_args(argv))
    call, parser = args.pop('call'), args.pop('parser')
    if call is demo:
        # For its results.
        given = sys.argv[1:] if argv is None else map(str, argv)
        args['command'] = shlex.join(['udp-plugin', *given])
    with ends_in_words():
        try:
            return call(**args)
        except Misuse as error:
            parser.error(str(error))
