"""`udp-plugin doctor`, in environments that have the fault."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip('mmpose')

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(sysconfig.get_path('purelib'))
MODERN = int(metadata.version('torch').split('.')[1]) >= 4
MMCV, MMDET, MMENGINE = (
    ('onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine')
    if MODERN
    else ('mmcv', 'mmdet', 'mmengine')
)
MMCV_PIN = f'{MMCV}=={metadata.version(MMCV)}'
MMDET_PIN = 'onedl-mmdetection==3.5.1' if MODERN else 'mmdet==3.2.0'
NEW_MMCV = metadata.version(MMCV) if MODERN else '2.2.0'
SAME_NUMPY = f'numpy=={metadata.version("numpy")}'
COMPILED = '--no-build-isolation --no-deps --force-reinstall --no-cache-dir'
REBUILD = f'{COMPILED} {MMCV_PIN}'
UNDEFINED = 'mmcv/_ext.so: undefined symbol: _ZNK3c105Error4whatEv'
# The assertion of mmdet 3.3.0, and of MMPose 0.29.
REFUSES_MMCV = """
import mmcv
assert mmcv.__version__ < '{0}', \\
    f'MMCV=={{mmcv.__version__}} is used but incompatible. Please install mmcv<={0}.'
"""
# What torch 2.1.2 does beside NumPy 2, and xtcocotools' wheel.
TORCH_212 = """
def from_numpy(array):
    raise RuntimeError('Numpy is not available')
"""
NUMPY_1_MASK = """
raise ValueError('numpy.dtype size changed, may indicate binary incompatibility. '
                 'Expected 96 from C header, got 88 from PyObject')
"""
# How torch 2.6 answers to what is not weights alone, likewise.
LOAD_26 = """
def _load(*args, **kwargs):
    import pickle
    raise pickle.UnpicklingError('Weights only load failed.\\n'
        'Check torch.load for types accepted by default with weights_only.')
"""
# What NumPy 2.4 makes of int(), for the module that this is added to.
INT_OF_NUMPY_24 = """
def int(value):
    if np.ndim(value):
        raise TypeError('only 0-dimensional arrays can be converted to Python scalars')
    return np.int64(value).item()
"""


class Venv:
    """An environment of its own, which has all that the running one has, but..."""

    def __init__(self, folder):
        create = ['-m', 'venv', '--without-pip', str(folder)]
        subprocess.run([sys.executable, *create], check=True)
        self.python = folder / 'bin/python'
        version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
        self.site = folder / 'lib' / version / 'site-packages'
        for entry in SITE.iterdir():
            (self.site / entry.name).symlink_to(entry)

    def drop(self, *patterns):
        """Without these entries, if they are there."""
        for pattern in patterns:
            for path in self.site.glob(pattern):
                path.unlink()
        return self

    def add(self, distribution, version, instead_of=None):
        """As if this were installed, without another's metadata or its own."""
        self.drop(f'{(instead_of or distribution).replace("-", "_")}-*.dist-info')
        info = self.site / f'{distribution.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        text = f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n'
        (info / 'METADATA').write_text(text, encoding='utf-8')
        return self

    def own(self, package, **modules):
        """Makes a package's folder our own, its modules given or the real ones."""
        (self.site / package).unlink()
        (self.site / package).mkdir()
        for entry in (SITE / package).iterdir():
            name = entry.name.split('.')[0]
            if name not in modules:
                (self.site / package / entry.name).symlink_to(entry)
        for name, text in modules.items():
            if text is not None:
                path = self.site / package / f'{name}.py'
                path.write_text(text, encoding='utf-8')
        return self

    def edit(self, module, added='', old='', new=''):
        """Makes the folders on a module's way our own, and changes its text."""
        *packages, name = module.split('/')
        for depth in range(1, len(packages)):
            self.own('/'.join(packages[:depth]))
        text = (SITE / f'{module}.py').read_text(encoding='utf-8')
        assert old in text
        text = text.replace(old, new) if old else text
        return self.own('/'.join(packages), **{name: text + added})

    def stub(self, package, text):
        self.drop(package)
        (self.site / f'{package}.py').write_text(text, encoding='utf-8')
        return self


def missing(module):
    return f"ModuleNotFoundError: No module named '{module}'"


def with_new_mmdet(venv):
    if not MODERN:
        # It does go with the mmcv that is there.
        venv.edit('mmcv/version', old="'2.1.0'", new="'2.2.0'").add('mmcv', '2.2.0')
    refusal = REFUSES_MMCV.format('2.2.0')
    return venv.own('mmdet', __init__=refusal).add('mmdet', '3.3.0', instead_of=MMDET)


def with_numpy_24(venv):
    venv.add('numpy', '2.4.6')
    if not MODERN:
        venv.add('torch', '2.8.0')
    module = 'mmpose/visualization/opencv_backend_visualizer'
    return venv.edit(module, added=INT_OF_NUMPY_24)


MMCV_INFO, MMDET_INFO = (
    f'{name.replace("-", "_")}-*.dist-info' for name in (MMCV, MMDET)
)
#: What is done to an environment, what the steps say then, what is said of it, and
#: what mends it.
FAULTS = {
    'without operators': (
        lambda venv: venv.own('mmcv', _ext=None), {'mmcv': missing('mmcv._ext')},
        "without its compiled.*'mmcv._ext'", [REBUILD]),
    'operators of another torch': (
        lambda venv: venv.own('mmcv', _ext=f'raise ImportError({UNDEFINED!r})'),
        {'mmcv': f'ImportError: {UNDEFINED}'},
        'compiled for another torch.*undefined', [REBUILD]),
    'no mmcv': (
        lambda venv: venv.drop('mmcv', MMCV_INFO), {'mmcv': missing('mmcv')},
        "mmcv is not installed.*No module named 'mmcv'",
        [f'--force-reinstall --no-cache-dir {MMCV}==']),
    'no mmcv and a newer torch': (
        lambda venv: venv.drop('mmcv', MMCV_INFO).add('torch', '2.8.0+cu128'),
        {'mmcv': missing('mmcv')}, 'mmcv is not installed',
        ['--force-reinstall --no-cache-dir onedl-mmcv==2.3.6\n']),
    'only lite': (
        lambda venv: venv.own('mmcv', _ext=None).add('mmcv-lite', '2.1.0', MMCV),
        {'mmcv': missing('mmcv._ext')}, 'mmcv-lite has no operators',
        ['uninstall -y mmcv-lite\n', f'--no-cache-dir {MMCV}==']),
    'lite as well': (
        lambda venv: venv.own('mmcv', _ext=None).add('mmcv-lite', '2.1.0'),
        {'mmcv': missing('mmcv._ext')}, f'{MMCV} .*mmcv-lite|mmcv-lite .*{MMCV}',
        ['uninstall -y mmcv-lite\n', REBUILD]),
    'no mmdet': (
        lambda venv: venv.drop('mmdet', MMDET_INFO, 'terminaltables*'),
        {'mmdet': missing('mmdet')},
        "mmdet is not installed.*No module named 'mmdet'",
        [f'install --no-deps {MMDET_PIN}\n', 'install terminaltables numpy==']),
    'no imaug': (
        # Of a fork of mmdet, whose data sets import it.
        lambda venv: venv.edit('mmdet/datasets/__init__', added='import imgaug').drop(
            'imgaug', 'imaug-*'),
        {'mmdet': missing('imgaug')}, 'without what its data sets import',
        ['install --no-deps imaug\n']),
    'new mmdet': (
        with_new_mmdet, {'mmdet': f'AssertionError: MMCV=={NEW_MMCV} is used but'},
        f'mmdet 3.3.0 does not go with mmcv {NEW_MMCV}.*is used but',
        [MMDET_PIN if MODERN else 'mmcv==2.1.0']),
    'xtcocotools for numpy 1': (
        lambda venv: venv.add('numpy', '2.0.2').own('xtcocotools', _mask=NUMPY_1_MASK),
        {'xtcocotools': 'ValueError: numpy.dtype size changed'},
        'another NumPy than 2.0.2.*numpy.dtype size changed',
        [f'{COMPILED} --no-binary xtcocotools xtcocotools==1.14.3']),
    'torch for numpy 1': (
        lambda venv: venv.add('numpy', '2.0.2').stub('torch', TORCH_212).add(
            'torch', '2.1.2'),
        {'torch': 'RuntimeError: Numpy is not available'},
        'torch 2.1.2 is built for NumPy 1.*Numpy is not available',
        ['install --no-deps --force-reinstall "numpy<2"\n']),
    'no mmpose': (
        lambda venv: venv.drop('mmpose', 'mmpose-*', 'chumpy', 'chumpy-*'),
        {'mmpose': missing('mmpose')},
        "mmpose is not installed.*chumpy.*No module named 'pip'",
        ['install --no-build-isolation chumpy', 'install --no-deps mmpose==1.3.2\n']),
    'old mmpose': (
        lambda venv: venv.own('mmpose', __init__=REFUSES_MMCV.format('1.8.0')).add(
            'mmpose', '0.29.0'),
        {'mmpose': 'AssertionError: Please install mmcv<=1.8.0.'},
        r'0.29.0 is installed: UDP is for MMPose >=1.1, <1.4.*<=1.8.0',
        ['mmpose==1.3.2']),
    'numpy 2.4': (
        with_numpy_24, {'drawing': 'TypeError: only 0-dimensional arrays'},
        'draws no keypoints with NumPy 2.4.6.*only 0-dimensional arrays',
        ['install --no-deps --force-reinstall "numpy<2.4"\n']),
    'engine before torch 2.6': (
        lambda venv: venv.edit(
            'mmengine/runner/checkpoint', LOAD_26, 'torch.load(', '_load('),
        {'loading': 'UnpicklingError: types accepted with weights_only.'},
        'does not load what it saves.*weights_only',
        ['   export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1\n']),
    'no yaml': (
        lambda venv: venv.drop('yaml', '[pP]y[yY][aA][mM][lL]-*'),
        {'mmengine': missing('yaml')},
        'mmengine imports yaml, which is not installed',
        [f'install pyyaml {SAME_NUMPY}\n']),
    'crash': (
        lambda venv: venv.stub('cv2', 'import os; os.abort()'),
        {'opencv': 'Python ended with status -6'},
        r'opencv .* does not import.*Python ended with status -6',
        ['opencv-python-headless']),
}  # fmt: skip
#: Runs the doctor with given answers of the steps, and of those that need them.
WITH_ANSWERS = """
import json, sys
from udp_plugin import cli, doctor
answers = json.loads(sys.argv[1])
needs = {name: package.after for name, package in doctor.PACKAGES.items()}
for name, after in {**needs, **dict.fromkeys(doctor.LAST, ['mmpose'])}.items():
    said = [answers[other] for other in after if other in answers]
    answers.update({name: said[0]} if said and name not in answers else {})
doctor.probe = lambda steps: ({name: answers.get(name) for name in steps}, [])
sys.exit(cli.main(['doctor']))
"""
#: With given answers, which is quick, and with the real ones.
REALLY = pytest.mark.parametrize(
    'really', [False, pytest.param(True, marks=pytest.mark.slow)]
)


@pytest.fixture
def venv(tmp_path):
    return Venv(tmp_path / 'env')


def doctor(venv, answers=None, cwd=ROOT):
    """The command's status and output."""
    call = ['-c', WITH_ANSWERS, json.dumps(answers)]
    done = subprocess.run(
        [venv.python, *(['-m', 'udp_plugin', 'doctor'] if answers is None else call)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100'},
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert not done.stderr
    assert done.returncode in (0, 1), done.stdout
    return done.returncode, done.stdout


def notes_of(output):
    return [part for part in output.split('\nnote: ')[1:] if 'chumpy' not in part]


@REALLY
@pytest.mark.parametrize('name', FAULTS)
def test_one_fault_is_named_once_and_mended(name, really, venv):
    spoil, answers, said, mends = FAULTS[name]
    status, output = doctor(spoil(venv), None if really else answers)
    assert status == 1
    assert re.findall(r'^\d+\. ', output, re.MULTILINE) == ['1. '], output
    fault = output[output.index('\n1. ') :].split('\nnote: ')[0]
    assert re.search(said, fault, re.DOTALL), output
    assert re.search(f'^   ({venv.python} -m pip|export) ', fault, re.MULTILINE)
    for mend in mends:
        assert mend in fault, output
    assert 'http' not in output


def test_all_is_well_without_chumpy_and_numba_and_with_two_opencv(venv):
    venv.drop('chumpy', 'chumpy-*', 'numba', 'numba-*')
    status, output = doctor(venv.add('opencv-python-headless', '4.11.0.86'))
    assert status == 0, output
    assert '1. ' not in output.split('└')[1]
    assert "MMPose imports, and UDP's components are registered with it." in output
    assert 'note: chumpy' in output
    opencv, numba = notes_of(output)
    assert 'opencv-python, opencv-python-headless. One is enough' in opencv
    assert "No module named 'numba'" in numba and 'decoding on a CPU' in numba
    assert f'   {venv.python} -m pip install --upgrade numba {SAME_NUMPY}\n' in numba
    assert re.search('numba .*missing', output)


def test_nothing_is_noted_where_nothing_is_odd_and_tables_without_rich(
    venv,
):
    status, output = doctor(venv.add('chumpy', '0.70'), {})
    assert status == 0
    assert 'note: ' not in output and '1. ' not in output.split('└')[1]

    status, output = doctor(venv.drop('rich', 'rich-*'), {'mmengine': missing('rich')})
    assert status == 1
    assert re.search('^mmpose +1', output, re.MULTILINE), output
    assert 'mmengine imports rich, which is not installed' in output


def without_need_of_mmdet(venv):
    """As before MMPose 1.3, whose models import nothing of mmdet."""
    return venv.drop('mmdet', MMDET_INFO, 'terminaltables*').edit(
        'mmpose/models/heads/hybrid_heads/rtmo_head',
        old='from mmdet.utils import ConfigType, reduce_mean',
        new='ConfigType = reduce_mean = None',
    )


OTHER_ENGINE = 'mmengine' if MODERN else 'onedl-mmengine'
WORKING = {
    'both engines': (
        lambda venv: venv.add(OTHER_ENGINE, '0.10.5'),
        r'\bmmengine 0.*overwrite each other',
        [f'uninstall -y {OTHER_ENGINE}\n', f'--force-reinstall {MMENGINE}==']),
    'no mmdet and no need': (
        without_need_of_mmdet,
        'mmdet is not installed', [f'install --no-deps {MMDET_PIN}\n']),
}  # fmt: skip
if not MODERN:  # The fork looks for its own metadata.
    WORKING['newer mmdet that works'] = (
        lambda venv: venv.add('mmdet', '3.3.0'),
        'mmdet 3.3.0 is installed.* needs >=3, <3.3',
        [f'--force-reinstall {MMDET_PIN}\n'],
    )


@REALLY
@pytest.mark.parametrize('name', WORKING)
def test_where_all_works_what_looks_wrong_is_a_note(name, really, venv):
    change, said, mends = WORKING[name]
    status, output = doctor(change(venv), None if really else {})
    assert status == 0, output
    (note,) = notes_of(output)
    assert re.search(said, note, re.DOTALL), output
    assert 'MMPose imports all the same' in note
    for mend in mends:
        assert mend in note, output


@REALLY
def test_setuptools_without_pkg_resources(really, venv):
    venv.drop('pkg_resources', 'setuptools', 'setuptools-*')
    venv.drop('_distutils_hack', 'distutils-precedence.pth')
    status, output = doctor(venv, None if really else {})
    # torch imports it to compile, up to 2.1.
    assert status == (0 if MODERN else 1), output
    assert len(re.findall('has no pkg_resources', output)) == 1
    assert f'install "setuptools<{81 if MODERN else 70}"\n' in output
    assert ('note: setuptools' in output) == MODERN
    assert '\n2. ' not in output


#: A folder or file of the current folder, what is in it, whether it is the cause, and
#: where that is said. One without ``__init__`` counts where no package is installed.
SHADOWS = {
    'clone of another version': (
        'mmpose/__init__.py', REFUSES_MMCV.format('1.8.0'), True, '1. '),
    # On the newer stack, imgaug takes it for numba.
    'namesake without __init__': (
        'numba/README.md', '', MODERN, '1. ' if MODERN else 'note: numba'),
    'numba unbuilt': ('numba/__init__.py', 'import numba._none', True, 'note: '),
    'file': ('mmdet.py', '', True, '1. '),
    'clone without __init__': ('mmpose/README.md', '', False, '1. '),
}  # fmt: skip


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(n, marks=[pytest.mark.slow] * (i > 1))
        for i, n in enumerate(SHADOWS)
    ],
)
def test_what_shadows_a_package_is_the_cause(name, venv, tmp_path):
    place, text, cause, head = SHADOWS[name]
    path = tmp_path / 'here' / place
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding='utf-8')
    module = re.split('[/.]', place)[0]
    assert SITE.joinpath(module).is_dir()
    if path.suffix == '.md':
        venv.drop(module, f'{module}-*')
    status, output = doctor(venv, cwd=tmp_path / 'here')
    assert status == (1 if head == '1. ' else 0), output
    said = output[output.index(f'\n{head}') :]
    shadow = str(tmp_path / 'here' / place.split('/')[0])
    if cause:
        assert f'{shadow} is imported in place of the package {module},' in said
        assert 'Run it in another folder' in said and f'   mv {shadow} ' in said
        assert ' -m pip ' not in said[1:].split('\nnote: ')[0], output
    else:
        # A package takes precedence of a folder that is none.
        assert ' -m pip install' in said and 'mv ' not in said, output
    assert '\n2. ' not in output


def test_a_clone_that_works_is_noted(venv, tmp_path):
    (tmp_path / 'mmpose').symlink_to(SITE / 'mmpose')
    status, output = doctor(venv, cwd=tmp_path)
    assert status == 0, output
    assert f'note: {tmp_path}/mmpose is imported in place of the package' in output
