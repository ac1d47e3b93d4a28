"""The demo's course: data, configs, MMPose's own train and test scripts, pictures."""

import shutil
import time
from pathlib import Path
from typing import Dict, Optional

from rich.progress import Progress

from udp_plugin import names, ui
from udp_plugin.errors import UserError
from udp_plugin.files import alone_in, is_empty, naming, write_text

from .configs import KEPT, RUNS, Data, write_configs
from .figures import write_dataset
from .measures import Demo, measure_run
from .own_data import read_own_data
from .scripts import find_tools, run_script

#: The default budget: UDP's gain shows, and the whole takes a few minutes.
ITERS = 600
IMAGES = 600

#: Marks a folder as the demo's, with what it may delete there.
MARKER = '.udp_plugin_demo'
MADE = ['data', *RUNS, *(f'{run}.py' for run in RUNS), 'results.json']
MADE += ['predictions.png', 'targets.png', 'errors.png']


def demo(
    out: Path,
    codec: str = 'both',
    iters: Optional[int] = None,
    seed: int = 0,
    images: Optional[int] = None,
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    command: str = '',
) -> Demo:
    """Train and test a stock config and its UDP twins, and compare them.

    Progress is shown in the terminal meanwhile.

    Args:
        out: The folder for everything; what an earlier demo left there is replaced.
        codec: ``'gaussian'``, ``'offset'`` or ``'both'``.
        iters: Training iterations of each config; 600 by default.
        seed: Of data, weights and augmentation.
        images: Figures drawn for training, and a third as many for testing; 600 by
            default.
        ann: Annotations in COCO format, to use instead of drawn figures.
        img: The folder with their images.
        command: As it was called, for ``results.json``.

    Raises:
        UserError: The data are not fit, a script failed, or there is no MMPose.
    """
    started = time.monotonic()
    tools = find_tools()
    data, files = read_own_data(ann, img, out / 'data', seed) if ann else (None, {})
    for path in filter(None, (ann, img)):
        if out.resolve() in path.resolve().parents:
            raise UserError(f'{path} lies in {out}, which the demo replaces')
    with alone_in(out):
        prepare_folder(out)
        codecs = list(names.CODECS) if codec == 'both' else [codec]
        iters = iters or ITERS
        console = ui.console()
        budget = f'{len(codecs) + 1} configs, {iters} iterations each'
        ui.say(f'{budget}; everything goes to {out}', console)
        seconds: Dict[str, float] = {}
        with ui.progress(console) as progress:
            for path, text in files.items():
                write_text(path, text)
            if data is None:
                data, seconds['draw'] = _draw(out / 'data', images, seed, progress)
            for note in data.notes:
                ui.say(f'note: {note}', console)
            configs = write_configs(out, data, codecs, iters, seed)
            for name, config in configs.items():
                folder = out / name
                outputs = [f'--out={folder / "metrics.json"}']
                outputs += [f'--dump={folder / "predictions.pkl"}']
                weights = out / ('stock' if name == KEPT else name)
                for script, total, arguments in (
                    ('train', iters, []),
                    ('test', None, [weights / f'iter_{iters}.pth', *outputs]),
                )[name == KEPT :]:
                    title, log = f'{script} {name}', folder / f'{script}.log'
                    call = [tools / f'{script}.py', config, *arguments]
                    call += ['--work-dir', folder]
                    seconds[title] = run_script(progress, title, total, call, log)
            # It imports the toolbox, which takes a while; arguments are checked by now.
            task = progress.add_task('pictures', total=3, note='')
            from .report import PICTURES, draw, write_json

            runs = {name: measure_run(out / name) for name in configs}
            pictures = []
            for name in PICTURES:
                pictures.append(draw(out / name, runs))
                progress.advance(task)
        seconds['all'] = time.monotonic() - started
        found = Demo(out, data, iters, seed, runs, pictures, seconds)
        write_json(found, command)
        return found


def prepare_folder(out: Path) -> None:
    """Have an output folder without what an earlier demo left there.

    Raises:
        UserError: It holds what no demo made, or what cannot be deleted.
    """
    marker = out / MARKER
    if not is_empty(out) and not marker.exists():
        raise UserError(
            f'--out {out} is a folder with files that no demo made; choose one that is '
            'new or empty'
        )
    with naming(out):
        for name in MADE:
            path = out / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.exists() or path.is_symlink():
                path.unlink()
    text = f'The next udp-plugin demo to this folder deletes: {", ".join(MADE)}\n'
    write_text(marker, text)


def _draw(folder: Path, images: Optional[int], seed: int, progress: Progress):
    """Draw the data set; returns it, and the seconds that it took."""
    started = time.monotonic()
    train = images or IMAGES
    counts = dict(train=train, test=max(train // 3, 1))
    task = progress.add_task('draw figures', total=sum(counts.values()), note='')
    for done in write_dataset(folder, counts, seed):
        progress.update(task, completed=done)
    seconds = time.monotonic() - started
    progress.update(task, note=f'{seconds:.0f} s')
    train, test = folder / 'train', folder / 'test'
    places = train.with_suffix('.json'), train, test.with_suffix('.json'), test
    return Data('drawn figures', *places, *counts.values()), seconds
