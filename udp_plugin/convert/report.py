"""What ``udp-plugin convert`` writes and prints."""

import shlex
import warnings
from pathlib import Path
from typing import List, Optional

from mmengine.config import Config
from mmengine.logging import MMLogger
from rich import box
from rich.console import Console
from rich.table import Table

from udp_plugin import ui
from udp_plugin.errors import UserError, say_error
from udp_plugin.files import write_text

from .check import Checked, check
from .run import convert, in_words, read
from .swaps import OTHER, Swap


def convert_to(
    out: str,
    config: str,
    codec: Optional[str],
    with_check: bool,
    keep_weights: bool = False,
) -> bool:
    """Convert a config, write it, and say what was done.

    Args:
        out: The file, a folder, or ``-`` to print it.
        config: As :func:`.run.convert` takes it.
        codec, keep_weights: Likewise.
        with_check: Whether to build the result, train it for a step and predict.

    Returns:
        Whether the check passed, or none was asked for.

    Raises:
        UserError: The config cannot be converted, or not be written.
    """
    console = ui.console(stderr=out == '-')
    path: Optional[Path] = None if out == '-' else Path(out or '.')
    folder = path or Path.cwd()
    is_folder = path is not None and (path.is_dir() or out.endswith('/'))
    if path and not is_folder:
        folder = path.parent
        if path.suffix != '.py':
            raise UserError(f'OUT must end in .py or be a folder, got {path}.')
    found = convert(config, codec, folder, keep_weights)
    if is_folder:
        path = folder / found.name
    if path and path.exists():
        raise UserError(f'{path} exists; remove it, or name another file with -o.')
    if not found.swaps:
        if keep_weights:
            nothing = (
                f'{found.source} keeps its weights already; test it as it is, or swap '
                'the rest, too, for a training: udp-plugin convert without '
                '--keep-weights.'
            )
        else:
            nothing = (
                f'{found.source} has UDP of this package throughout already; train it '
                f'as it is, or take the other codec with --codec {OTHER[found.kind]}.'
            )
        if not with_check:
            raise UserError(nothing)
        ui.say(f'nothing to convert: {nothing}', console)
        return _passes(found.source, console)
    if path:
        write_text(path, found.text)
        ui.say(f'{path} is written', console)
    else:
        print(found.text, end='')
    ui.print_table(swap_table(found.swaps), console)
    if with_check:
        with found.file() as file:
            passed = _passes(path or file, console)
        if not passed:
            if path:
                say_error(f'{path} was kept, for you to look into it.')
            return False
    if path and keep_weights:
        call = shlex.join(['python', 'tools/test.py', str(path)])
        ui.say(f"next: {call} CHECKPOINT   (MMPose's script)", console)
    elif path and read(found.source).get('train_dataloader'):
        script = shlex.join(['python', 'tools/train.py', str(path)])
        mim = shlex.join(['mim', 'train', 'mmpose', str(path)])
        ui.say(f"next: {script}   (MMPose's script; or: {mim})", console)
    return True


def _passes(config: Path, console: Console) -> bool:
    """Whether a config trains and predicts; shows what was seen."""
    # Without the optimizers' remarks on each of their parameters.
    MMLogger.get_current_instance().setLevel('WARNING')
    with console.status('building the model, training a step and predicting'):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                checked = check(Config.fromfile(config))
        except Exception as error:
            # Whatever a user's components raise.
            say_error(f'the check failed: {in_words(error)}')
            return False
    ui.print_table(_check_table(checked), console)
    if not checked.losses:
        console.print('without a training step: the config has no train_dataloader')
    if checked.left_out:
        names = ', '.join(checked.left_out)
        console.print(f'left out, since albumentations is not installed: {names}')
    return True


def _check_table(checked: Checked) -> Table:
    step = 'a training step and ' if checked.losses else ''
    table = Table(title=f'{step}a prediction on noise')
    table.add_column('what')
    table.add_column('shape or value', overflow='fold')

    def add(name: str, *shapes: tuple) -> None:
        table.add_row(name, ', '.join(' x '.join(map(str, shape)) for shape in shapes))

    add('input', checked.inputs)
    if checked.losses:
        add('targets', *checked.targets)
        add('maps', *checked.maps)
    for name, value in checked.losses.items():
        table.add_row(name, f'{value:.4g}')
    flip = 'with' if checked.flip_test else 'without'
    add(f'keypoints, {flip} flip test', checked.keypoints)
    return table


def swap_table(swaps: List[Swap]) -> Table:
    """The swaps in a table that breaks no name in two, but for long places."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption='Copies of a value that the config has elsewhere are swapped, too.',
    )
    table.add_column('place', overflow='fold')
    table.add_column('stock', no_wrap=True)
    table.add_column('UDP', no_wrap=True)
    table.add_column('why')
    for place, *both, why in swaps:
        table.add_row(place, *(text.replace(', ', ',\n') for text in both), why)
    return table
