"""``udp-plugin doctor``: what of an installation of MMPose does not fit, and the cure.

It works where anything is broken or missing: versions are read from metadata, and what
is imported is imported in a process of its own.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

Version = Tuple[int, ...]
ANY: Version = (9999,)


class Package(NamedTuple):
    """What MMPose needs of a package, and how to try whether it has it."""

    module: str
    low: Version
    #: To install, where torch is of MMPose's time, and where it is newer.
    pins: Tuple[str, str]
    #: Packages without which the step fails, too: their faults are the cause then.
    after: Tuple[str, ...] = ()
    below: Version = ANY
    #: What is tried: to import it, if nothing else.
    step: str = ''
    #: Further names under which it is distributed; a fork's last.
    others: Tuple[str, ...] = ()
    flags: str = '--no-deps'
    dependencies: Tuple[str, ...] = ()


COMPILED = '--no-build-isolation --no-deps --force-reinstall --no-cache-dir'

PACKAGES: Dict[str, Package] = {
    'numpy': Package('numpy', (1, 19), ('numpy<2', 'numpy<2.4')),
    'torch': Package(
        'torch', (1, 8),
        ('torch==2.1.2 torchvision==0.16.2', 'torch==2.8.0 torchvision==0.23.0'),
        ('numpy',), step='import numpy, torch; torch.from_numpy(numpy.zeros(1))',
        flags='',
    ),
    'torchvision': Package(
        'torchvision', (0, 9), ('torchvision==0.16.2', 'torchvision==0.23.0'),
        ('torch',),
    ),
    'opencv': Package(
        'cv2', (3,), ('opencv-python-headless<4.12', 'opencv-python-headless'),
        ('numpy',), others=(
            'opencv-python', 'opencv-python-headless', 'opencv-contrib-python',
            'opencv-contrib-python-headless',
        ),
    ),
    'mmengine': Package(
        'mmengine', (0, 6), ('mmengine==0.10.7', 'onedl-mmengine==0.10.12'),
        ('torch', 'torchvision', 'opencv'), (1,), 'import mmengine.runner',
        ('mmengine-lite', 'onedl-mmengine'),
        dependencies=('addict', 'matplotlib', 'pyyaml', 'rich', 'termcolor', 'yapf'),
    ),
    'mmcv': Package(
        'mmcv', (2,), ('mmcv==2.1.0', 'onedl-mmcv==2.3.6'), ('mmengine',), (3,),
        'import mmcv.ops', ('mmcv-full', 'mmcv-lite', 'onedl-mmcv'), COMPILED,
        ('addict', 'packaging', 'pillow', 'pyyaml', 'yapf'),
    ),
    'xtcocotools': Package(
        'xtcocotools', (1, 12), ('xtcocotools==1.14.3', 'xtcocotools==1.14.3'),
        ('numpy', 'torch'), step='import xtcocotools._mask',
        dependencies=('matplotlib',),
    ),
    'mmdet': Package(
        'mmdet', (3,), ('mmdet==3.2.0', 'onedl-mmdetection==3.5.1'), ('mmcv',), (3, 3),
        'import mmdet.datasets, mmdet.models', ('onedl-mmdetection',),
        dependencies=(
            'terminaltables', 'pycocotools', 'shapely', 'six', 'tqdm', 'scipy',
        ),
    ),
    'mmpose': Package(
        'mmpose', (1, 1), ('mmpose==1.3.2', 'mmpose==1.3.2'),
        ('mmcv', 'mmdet', 'xtcocotools'), (1, 4), 'import mmpose.apis, mmpose.models',
        dependencies=('json-tricks', 'munkres', 'matplotlib', 'scipy', 'pillow'),
    ),
}  # fmt: skip

#: What is tried after them, and what it means if it fails.
LAST = {
    'UDP': (
        'import udp_plugin; from mmpose.registry import KEYPOINT_CODECS, MODELS; '
        "assert KEYPOINT_CODECS.get('UDPGaussianHeatmap'), 'no codec is registered'; "
        "assert MODELS.get('UDPHeatmapHead'), 'no head is registered'",
        "UDP's components are not registered.",
    ),
    'loading': (
        'import torch; from mmengine.logging import HistoryBuffer; '
        'from mmengine.runner.checkpoint import CheckpointLoader; '
        'from tempfile import TemporaryDirectory; folder = TemporaryDirectory(); '
        "path = folder.name + '/last.pth'; "
        'torch.save(dict(message_hub=HistoryBuffer([1], [1])), path); '
        'CheckpointLoader.load_checkpoint(path)',
        'MMPose loads no checkpoints of trainings.',
    ),
    'drawing': (
        'import numpy; from mmpose.visualization import PoseLocalVisualizer; '
        'drawing = PoseLocalVisualizer(); drawing.set_image(numpy.zeros((9, 9, 3))); '
        'drawing.draw_circles(numpy.ones(2), numpy.ones(1), face_colors=(0, 0, 0))',
        'MMPose draws no keypoints.',
    ),
}

#: Tries each step, in order, and writes a line of JSON about each as it goes, since
#: the next may crash; and about what it imports from the current folder, which may be
#: left out of the path instead.
PROBE = """
import json, os, sys
from importlib.machinery import PathFinder
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
steps, own, elsewhere = json.loads(sys.argv[1])
here = os.getcwd()

class Here:
    def find_spec(name, path=None, target=None):
        spec = path is None and name != 'udp_plugin' and PathFinder.find_spec(name)
        for place in (spec.submodule_search_locations or [spec.origin]) if spec else ():
            if place and os.path.dirname(os.path.abspath(place)) == here:
                print('doctor:' + json.dumps(['here', place]), file=answers, flush=True)

if elsewhere:
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here] + [own]
else:
    sys.meta_path.insert(0, Here)
for name, step in steps.items():
    said = None
    try:
        exec(step, {})
    except BaseException as error:
        lines = str(error).strip().splitlines() or ['']
        said = type(error).__name__ + ': ' + lines[-1]
    print('doctor:' + json.dumps([name, said]), file=answers, flush=True)
"""


class Fault(NamedTuple):
    """Something that does not fit."""

    what: str
    #: How it shows.
    line: str
    #: Commands.
    mend: List[str]


class Diagnosis(NamedTuple):
    """What is installed, what does not fit, and what mends it.

    Attributes:
        rows: Of each package: name, version, what MMPose needs, and ``ok`` or ``no``.
        faults: The first cause first.
        notes: What is odd, and no fault.
        works: Whether MMPose imports, with UDP's components registered.
    """

    rows: List[List[str]]
    faults: List[Fault]
    notes: List[str]
    works: bool


#: Errors that are known: whose step, what it says, what that means, and what to install
#: or else a command.
KNOWN = (
    ('', "No module named 'pkg_resources'",
     'setuptools is missing or has no pkg_resources (82 removed it), which torch '
     'before 2.2 imports to compile, and mmcv with it.', 'setuptools'),
    ('torch', 'Numpy is not available',
     'torch {torch} is built for NumPy 1, and NumPy is {numpy}.', 'numpy'),
    ('opencv', 'cannot open shared object file',
     "OpenCV asks for a system's graphics library; its headless variant does not.",
     'opencv'),
    ('torchvision', 'operator torchvision::|undefined symbol',
     'torchvision {torchvision} is made for another torch than {torch}.', 'torch'),
    ('mmcv', r"No module named 'mmcv\._ext'",
     'mmcv {mmcv} is installed without its compiled operators. Compiling them takes '
     '8 to 19 minutes.', 'mmcv'),
    ('mmcv', r'undefined symbol|_ext|lib(cudart|torch|c10)',
     'The operators of mmcv {mmcv} are compiled for another torch than {torch}. '
     'Compiling them anew takes 8 to 19 minutes.', 'mmcv'),
    ('xtcocotools', 'size changed|multiarray failed|compiled using NumPy',
     'xtcocotools is compiled for another NumPy than {numpy}: its wheel is for '
     'NumPy 1. It has to be compiled here.', 'xtcocotools'),
    ('mmdet', r'MMCV==2\.2\.\d+ is used',
     'mmdet {mmdet} does not go with mmcv {mmcv}, nor does any that MMPose knows.',
     'mmcv'),
    ('mmdet', r'(MMCV|MMEngine)==.* is used',
     'mmdet {mmdet} does not go with mmcv {mmcv} and mmengine {mmengine}.', 'mmdet'),
    ('mmdet', "No module named 'imgaug'",
     'mmdet {mmdet} was installed without what its data sets import.', 'imaug'),
    ('loading', 'weights_only|Weights only',
     'mmengine {mmengine} does not load what it saves with torch {torch}: since 2.6, '
     'torch loads nothing but weights unless it is told that a file can be trusted. '
     'This tells it so of all files:', 'export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'),
    ('drawing', 'only 0-dimensional arrays',
     'MMPose draws no keypoints with NumPy {numpy}: since NumPy 2.4, int() refuses an '
     'array of one number.', 'numpy'),
)  # fmt: skip

#: Of modules that these packages import, those which are distributed by another name.
DISTRIBUTIONS = {'PIL': 'pillow', 'yaml': 'pyyaml', 'skimage': 'scikit-image'}


def _number(version: str) -> Version:
    return tuple(map(int, re.findall(r'\d+', version.split('+')[0])[:2]))


def _version(distribution: str) -> Optional[str]:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pip(arguments: str, *names: str) -> str:
    words = [sys.executable, '-m', 'pip', *arguments.split(), *names]
    return ' '.join(f'"{w}"' if re.search('[<>]', w) else shlex.quote(w) for w in words)


class Environment:
    """The packages which the running Python finds."""

    def __init__(self) -> None:
        self.found: Dict[str, Dict[str, str]] = {}
        for name, package in PACKAGES.items():
            versions = {d: _version(d) for d in (name, *package.others)}
            self.found[name] = {d: v for d, v in versions.items() if v is not None}
        self.versions = {
            name: next(iter(found.values()), 'of unknown version')
            for name, found in self.found.items()
        }
        # What would be installed, where there is none: MMPose knows torch up to 2.1,
        # which knows Python up to 3.11.
        target = '2.1' if sys.version_info < (3, 12) else '2.8'
        self.torch = _number(self.found['torch'].get('torch', target))
        # Whether to install the maintained forks: with a torch that they know, unless
        # there is an mmcv that was compiled for it.
        self.modern = self.torch >= (2, 4) and set(self.found['mmcv']) != {'mmcv'}
        self.numpy_2 = self.torch >= (2, 3)

    def missing(self, name: str) -> bool:
        """Whether a package is neither installed nor in a folder of the path."""
        return not self.found[name] and find_spec(PACKAGES[name].module) is None

    def needs(self, name: str) -> str:
        """What MMPose needs of a package, in words."""
        package = PACKAGES[name]
        below = package.below
        if 'onedl-mmdetection' in self.found[name]:
            return 'to import'
        if name == 'numpy':
            # MMPose does not draw with a newer one.
            below = (2, 4) if self.numpy_2 else (2,)
        words = '>=' + '.'.join(map(str, package.low))
        return words + ('' if below == ANY else ', <' + '.'.join(map(str, below)))

    def fits(self, name: str) -> bool:
        """Whether the installed version is one that MMPose knows."""
        low, below = PACKAGES[name].low, PACKAGES[name].below
        return all(
            low <= _number(version) < (ANY if fork == 'onedl-mmdetection' else below)
            for fork, version in self.found[name].items()
        )

    def install(self, name: str) -> List[str]:
        """The commands that install a package as it should be."""
        if name == 'setuptools':
            pin = 'setuptools<81' if self.modern else 'setuptools<70'
            return [_pip('install', pin)]
        if name == 'imaug':
            # It asks for an older OpenCV, and for that alone in vain.
            needed = self._dependencies('scikit-image', 'shapely', 'six')
            return [*needed, _pip('install --no-deps', 'imaug')]
        package, found = PACKAGES[name], self.found[name]
        pins = package.pins[self.numpy_2 if name == 'numpy' else self.modern]
        target, flags = re.split('[=<]', pins)[0], package.flags
        if name == 'mmcv' and target in found and self.fits(name):
            # mmdet knows no newer one, but the fork's does.
            known = self.modern or _number(found[target]) < (2, 2)
            pins = f'{target}=={found[target]}' if known else pins
        commands = []
        others = [d for d in found if d != target]
        if others:
            commands.append(_pip('uninstall -y', *others))
        numpy = self.found['numpy'].get('numpy', '2' if self.numpy_2 else '1')
        if name == 'mmcv':
            commands += self.install('setuptools')
            commands.append(_pip('install', 'wheel', 'ninja', 'psutil'))
        elif name == 'xtcocotools' and _number(numpy) >= (2,):
            flags = f'{COMPILED} --no-binary xtcocotools'
            commands.append(_pip('install', 'setuptools', 'wheel', 'cython'))
        if found and '--force' not in flags:
            flags += ' --force-reinstall'
        commands.append(_pip(f'install {flags}', *pins.split()))
        commands += self._dependencies(*package.dependencies)
        if target == 'onedl-mmdetection' and find_spec('imgaug') is None:
            commands += self.install('imaug')
        return commands

    def _dependencies(self, *names: str) -> List[str]:
        """What installs those that are missing, with their own, and keeps NumPy."""
        absent = [name for name in names if _version(name) is None]
        return [_pip('install', *absent, self.same_numpy())] if absent else []

    def same_numpy(self) -> str:
        """The requirement of the NumPy that is there, or of one that fits."""
        numpy = self.found['numpy'].get('numpy')
        pins = PACKAGES['numpy'].pins[self.numpy_2]
        return f'numpy=={numpy}' if numpy else pins


def probe(
    steps: Dict[str, str], elsewhere: bool = False, timeout: float = 600
) -> Tuple[Dict[str, Optional[str]], List[str]]:
    """Try steps in a process of their own.

    Args:
        steps: What each tries.
        elsewhere: Whether to try them as in a folder that has no modules.
        timeout: For all, s.

    Returns:
        tuple: what each step says, or None where it works; and the files and folders
        that were imported, but lie in the current folder.
    """
    told = json.dumps([steps, str(Path(__file__).parents[1]), elsewhere])
    command = [sys.executable, '-W', 'ignore', '-c', PROBE, told]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        done = subprocess.run(command, timeout=timeout, **pipes)
        output, end = done.stdout, f'Python ended with status {done.returncode}'
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b'', f'no answer within {timeout:.0f} s'
    # Others may print as Python starts.
    lines = re.findall('^doctor:(.*)$', output.decode(errors='replace'), re.MULTILINE)
    found = [json.loads(line) for line in lines]
    here = [place for name, place in found if name == 'here']
    answers = {name: said for name, said in found if name != 'here'}
    # What comes after a crash is not known.
    crashed = [name for name in steps if name not in answers][:1]
    return {**answers, **dict.fromkeys(crashed, end)}, list(dict.fromkeys(here))


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Look for packages as in a folder that has none."""
    before, here = sys.path[:], os.getcwd()
    sys.path[:] = [path for path in before if os.path.abspath(path) != here]
    try:
        yield
    finally:
        sys.path[:] = before


def _shadow(place: str) -> Tuple[str, List[str]]:
    """What is said of what shadows a package, and the command that renames it."""
    path = Path(os.path.abspath(place))
    what = (
        f'{path} is imported in place of the package {path.stem}, by whatever looks '
        'in the current folder first. Run it in another folder, or rename this:'
    )
    renamed = path.with_name(f'{path.stem}-copy{path.suffix}')
    return what, [' '.join(map(shlex.quote, ['mv', str(path), str(renamed)]))]


def _known(name: str, said: Optional[str]) -> Optional[Tuple[str, str]]:
    """What an error of a step means, and what to install, if it is known."""
    for step, pattern, what, mend in KNOWN:
        if step in ('', name) and re.search(pattern, said or ''):
            return what, mend
    return None


def _by_metadata(name: str, env: Environment, said: Optional[str]) -> Optional[Fault]:
    """What metadata alone says about a package."""
    found, line = env.found[name], said or 'none yet'
    names = ' and '.join(f'{d} {v}' for d, v in found.items())
    if env.missing(name):
        what = f'{name} is not installed.'
        line = f"No module named '{PACKAGES[name].module}'"
        if name == 'mmpose' and _version('chumpy') is None:
            what += (
                ' Its metadata asks for chumpy, whose setup.py imports pip: a plain '
                '`pip install mmpose` fails. Nothing in MMPose imports chumpy; '
                f'{_pip("install --no-build-isolation chumpy")} installs it.'
            )
            line += ", or, while chumpy is built, No module named 'pip'"
    elif 'mmcv-lite' in found:
        what = f'{names} installed: mmcv-lite has no operators, which MMPose needs.'
    elif len(found) > 1 and name != 'opencv':
        what = f'{names} are both installed, and overwrite each other.'
    elif not env.fits(name) and not _known(name, said):
        needs = ', and MMPose needs' if name != 'mmpose' else ': UDP is for MMPose'
        what = f'{names} is installed{needs} {env.needs(name)}.'
    else:
        return None
    return Fault(what, line, env.install(name))


def _by_error(name: str, env: Environment, said: str) -> Fault:
    """What a step's error means."""
    known = _known(name, said)
    if known:
        what, mend = known
        commands = [mend] if ' ' in mend else env.install(mend)
        return Fault(what.format(**env.versions), said, commands)
    module = re.search(r"No module named '(\w+)", said)
    if module and module[1] not in {p.module for p in PACKAGES.values()}:
        what = f'{name} imports {module[1]}, which is not installed.'
        distribution = DISTRIBUTIONS.get(module[1], module[1])
        return Fault(what, said, [_pip('install', distribution, env.same_numpy())])
    if name in LAST:
        return Fault(LAST[name][1], said, [])
    spec = find_spec(PACKAGES[name].module)
    place = f' ({spec.origin})' if spec and spec.origin else ''
    what = f'{name} {env.versions[name]}{place} does not import.'
    return Fault(what, said, env.install(name))


def doctor() -> Diagnosis:
    """Find what does not fit in the running Python's packages."""
    steps = {name: p.step or f'import {p.module}' for name, p in PACKAGES.items()}
    steps.update({name: step for name, (step, _) in LAST.items()})
    # A folder of this name imports, too, and has nothing.
    steps['numba'] = 'import numba; numba.njit'
    answers, here = probe(steps)
    failed = {n: answers.get(n, '') for n in steps if answers.get(n, '') is not None}
    if not here:
        return _diagnose(answers)
    with _elsewhere():
        if failed:
            answers, _ = probe(steps, elsewhere=True)
        found = _diagnose(answers)
        installed = [place for place in here if find_spec(Path(place).stem)]
    # What is in the current folder is the cause of what goes well without it.
    mended = {n: said for n, said in failed.items() if answers.get(n, '') is None}
    if not mended.keys() <= {'numba'}:
        line = next(iter(mended.values()))
        faults = [Fault(what, line, commands) for what, commands in map(_shadow, here)]
        return found._replace(faults=[*faults, *found.faults], works=False)
    if mended or not failed:
        notes = [_with_commands(*_shadow(place)) for place in installed]
        return found._replace(notes=[*notes, *found.notes])
    return found


def _diagnose(answers: Dict[str, Optional[str]]) -> Diagnosis:
    """What the answers of the steps, and metadata, mean."""
    env = Environment()
    works = all(answers.get(step, '') is None for step in ('mmpose', 'UDP'))
    faults: Dict[str, Fault] = {}
    notes: List[str] = []
    fine: Dict[str, bool] = {}
    for name, package in PACKAGES.items():
        said = answers.get(name)
        fault = _by_metadata(name, env, said)
        if fault is None and said and all(fine[other] for other in package.after):
            fault = _by_error(name, env, said)
        fine[name] = fault is None and name in answers and said is None
        if fault is not None and works and (said is None or env.missing(name)):
            same = 'MMPose imports all the same; should it ever not:'
            notes.append(_with_commands(f'{fault.what} {same}', fault.mend))
            fault, fine[name] = None, True
        if fault is not None:
            faults.setdefault(fault.what, fault)
    for name in LAST:
        said = answers.get(name)
        if said and all(fine.values()):
            fault = _by_error(name, env, said)
            faults[fault.what] = fault
        fine[name] = name in answers and said is None
    if find_spec('pkg_resources') is None:
        line = "No module named 'pkg_resources'"
        fault = _by_error('setuptools', env, line)
        if env.torch < (2, 2):
            faults = {fault.what: fault, **faults}
        else:
            notes.append(f'{fault.what} Before you compile either: {fault.mend[0]}')
    if fine['mmpose'] and _version('chumpy') is None:
        notes.append("chumpy, for which MMPose's metadata asks, is missing: no matter.")
    if len(env.found['opencv']) > 1:
        names = ', '.join(env.found['opencv'])
        notes.append(f'Several OpenCV overwrite each other: {names}. One is enough.')
    if answers.get('numba'):
        what = (
            f'numba does not import ({answers["numba"]}): decoding on a CPU runs by '
            'plain torch, more slowly. This installs it:'
        )
        install = _pip('install --upgrade', 'numba', env.same_numpy())
        notes.append(f'{what}\n   {install}')

    rows = [['Python', platform.python_version(), '>=3.8', 'ok']]
    for name in PACKAGES:
        versions = [
            version if distribution == name else f'{version} ({distribution})'
            for distribution, version in env.found[name].items()
        ]
        nothing = 'missing' if env.missing(name) else 'unknown'
        installed = ', '.join(versions) or nothing
        rows.append([name, installed, env.needs(name), 'ok' if fine[name] else 'no'])
    export, speed = 'to export alone', 'for speed alone'
    for name, use in dict(onnx=export, onnxruntime=export, numba=speed).items():
        rows.append([name, _version(name) or 'missing', use, 'ok'])
    return Diagnosis(rows, list(faults.values()), notes, fine['mmpose'] and fine['UDP'])


def _with_commands(what: str, commands: List[str]) -> str:
    return ''.join([what, *(f'\n   {command}' for command in commands)])


def show(found: Diagnosis) -> None:
    """Print what was found: faults with the commands that mend them, and notes."""
    header = ['package', 'installed', 'MMPose needs', '']
    try:
        from . import ui
    except Exception:
        # It needs NumPy and rich, which may be what is broken.
        # Where a row would be broken anywhere, its cells are below each other.
        wide = shutil.get_terminal_size().columns >= 80
        for row in (header, *found.rows):
            line = ''.join(cell.ljust(26) for cell in row).rstrip()
            print(line if wide else '\n  '.join(filter(None, row)))
    else:
        ui.Table('What MMPose needs', header, found.rows).print(ui.console())
    # Plain, or rich would break commands over lines.
    for number, fault in enumerate(found.faults, 1):
        what = f'\n{number}. {fault.what}\n   error: {fault.line}'
        print(_with_commands(what, fault.mend))
    for note in found.notes:
        print(f'\nnote: {note}')
    print(
        "\nMMPose imports, and UDP's components are registered with it."
        if found.works
        else '\nMMPose does not import yet: mend the above from the top, and try again.'
    )
