"""`udp-plugin doctor`, in environments that have the fault."""

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
REBUILD = f'--no-build-isolation --no-deps --force-reinstall --no-cache-dir {MMCV_PIN}'

# The assertion of mmdet 3.3.0.
MMDET_330 = """
import mmcv
from mmengine.utils import digit_version
mmcv_version = digit_version(mmcv.__version__)
assert (mmcv_version >= digit_version('2.0.0rc4')
        and mmcv_version < digit_version('2.2.0')), \\
    f'MMCV=={mmcv.__version__} is used but incompatible. ' \\
    f'Please install mmcv>=2.0.0rc4, <2.2.0.'
"""

# That of MMPose 0.29.
MMPOSE_029 = """
import mmcv
assert mmcv.__version__ < '1.8', \\
    f'MMCV=={mmcv.__version__} is used but incompatible. ' \\
    f'Please install mmcv>=1.3.8, <=1.8.0.'
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


def dist_info(distribution):
    return (
        f'{distribution.replace("-", "_")}-{metadata.version(distribution)}.dist-info'
    )


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

    def drop(self, *names):
        for name in names:
            (self.site / name).unlink()
        return self

    def add(self, distribution, version):
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

    def stub(self, package, text):
        (self.site / package).unlink()
        (self.site / f'{package}.py').write_text(text, encoding='utf-8')
        return self


def without_operators(venv):
    venv.own('mmcv', _ext=None)


def operators_of_another_torch(venv):
    line = 'mmcv/_ext.so: undefined symbol: _ZNK3c105Error4whatEv'
    venv.own('mmcv', _ext=f'raise ImportError({line!r})')


def no_mmcv(venv):
    venv.drop('mmcv', dist_info(MMCV))


def no_mmcv_and_a_newer_torch(venv):
    no_mmcv(venv)
    venv.drop(dist_info('torch')).add('torch', '2.8.0+cu128')


def only_lite(venv):
    without_operators(venv)
    venv.drop(dist_info(MMCV)).add('mmcv-lite', '2.1.0')


def lite_as_well(venv):
    without_operators(venv)
    venv.add('mmcv-lite', '2.1.0')


def no_mmdet(venv):
    venv.drop('mmdet', dist_info(MMDET), 'terminaltables', dist_info('terminaltables'))


def no_imaug(venv):
    # Of a fork of mmdet, whose data sets import it.
    text = (SITE / 'mmdet/datasets/__init__.py').read_text(encoding='utf-8')
    venv.own('mmdet').own('mmdet/datasets', __init__='import imgaug\n' + text)
    for entry in ('imgaug', 'imaug-0.4.3.dist-info'):
        if (venv.site / entry).exists():
            venv.drop(entry)


def new_mmdet(venv):
    if not MODERN:
        # It does go with the mmcv that is there.
        path = SITE / 'mmcv/version.py'
        text = path.read_text(encoding='utf-8').replace("'2.1.0'", "'2.2.0'")
        assert '2.2.0' in text
        venv.own('mmcv', version=text)
        venv.drop(dist_info('mmcv')).add('mmcv', '2.2.0')
    venv.own('mmdet', __init__=MMDET_330)
    venv.drop(dist_info(MMDET)).add('mmdet', '3.3.0')


def numpy_2(venv):
    venv.drop(dist_info('numpy')).add('numpy', '2.0.2')


def xtcocotools_for_numpy_1(venv):
    numpy_2(venv)
    venv.own('xtcocotools', _mask=NUMPY_1_MASK)


def torch_for_numpy_1(venv):
    numpy_2(venv)
    venv.stub('torch', TORCH_212).drop(dist_info('torch')).add('torch', '2.1.2')


def numpy_24(venv):
    venv.drop(dist_info('numpy')).add('numpy', '2.4.6')
    if not MODERN:
        venv.drop(dist_info('torch')).add('torch', '2.8.0')
    name = 'opencv_backend_visualizer'
    text = (SITE / f'mmpose/visualization/{name}.py').read_text(encoding='utf-8')
    venv.own('mmpose').own('mmpose/visualization', **{name: text + INT_OF_NUMPY_24})


def engine_before_torch_26(venv):
    text = (SITE / 'mmengine/runner/checkpoint.py').read_text(encoding='utf-8')
    assert 'torch.load(' in text
    venv.own('mmengine').own(
        'mmengine/runner', checkpoint=text.replace('torch.load(', '_load(') + LOAD_26
    )


def no_mmpose(venv):
    venv.drop('mmpose', dist_info('mmpose'))
    if (venv.site / 'chumpy').exists():
        venv.drop('chumpy', dist_info('chumpy'))


def old_mmpose(venv):
    venv.own('mmpose', __init__=MMPOSE_029)
    venv.drop(dist_info('mmpose')).add('mmpose', '0.29.0')


def no_yaml(venv):
    (info,) = venv.site.glob('[pP]y[yY][aA][mM][lL]-*')
    venv.drop('yaml', info.name)


def crash(venv):
    venv.stub('cv2', 'import os; os.abort()')


#: What is done to an environment, what is said of it, and what mends it.
FAULTS = [
    (without_operators, "without its compiled.*'mmcv._ext'", [REBUILD]),
    (operators_of_another_torch, 'compiled for another torch.*undefined', [REBUILD]),
    (no_mmcv, "mmcv is not installed.*No module named 'mmcv'", [
        f'--force-reinstall --no-cache-dir {MMCV}==']),
    (no_mmcv_and_a_newer_torch, 'mmcv is not installed', [
        '--force-reinstall --no-cache-dir onedl-mmcv==2.3.6\n']),
    (only_lite, 'mmcv-lite has no operators', [
        'uninstall -y mmcv-lite\n', f'--no-cache-dir {MMCV}==']),
    (lite_as_well, f'{MMCV} .*mmcv-lite|mmcv-lite .*{MMCV}', [
        'uninstall -y mmcv-lite\n', REBUILD]),
    (no_mmdet, "mmdet is not installed.*No module named 'mmdet'", [
        f'install --no-deps {MMDET_PIN}\n', 'install terminaltables numpy==']),
    (no_imaug, 'without what its data sets import', [
        'install --no-deps imaug\n']),
    (new_mmdet, f'mmdet 3.3.0 does not go with mmcv {NEW_MMCV}.*is used but', [
        MMDET_PIN if MODERN else 'mmcv==2.1.0']),
    (xtcocotools_for_numpy_1, 'another NumPy than 2.0.2.*numpy.dtype size changed', [
        '--no-build-isolation --no-deps --force-reinstall --no-cache-dir '
        '--no-binary xtcocotools xtcocotools==1.14.3']),
    (torch_for_numpy_1, 'torch 2.1.2 is built for NumPy 1.*Numpy is not available', [
        'install --no-deps --force-reinstall "numpy<2"\n']),
    (no_mmpose, "mmpose is not installed.*chumpy.*No module named 'pip'", [
        'install --no-build-isolation chumpy', 'install --no-deps mmpose==1.3.2\n']),
    (old_mmpose, r'0.29.0 is installed: UDP is for MMPose >=1.1, <1.4.*<=1.8.0', [
        'mmpose==1.3.2']),
    (numpy_24, 'draws no keypoints with NumPy 2.4.6.*only 0-dimensional arrays', [
        'install --no-deps --force-reinstall "numpy<2.4"\n']),
    (engine_before_torch_26, 'does not load what it saves.*weights_only', [
        '   export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1\n']),
    (no_yaml, 'mmengine imports yaml, which is not installed', [
        f'install pyyaml numpy=={metadata.version("numpy")}\n']),
    (crash, r'opencv .* does not import.*Python ended with status -6', [
        'opencv-python-headless']),
]  # fmt: skip


@pytest.fixture
def venv(tmp_path):
    return Venv(tmp_path / 'env')


def doctor(venv):
    done = subprocess.run(
        [str(venv.python), '-m', 'udp_plugin', 'doctor'],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100'},
        capture_output=True,
        text=True,
        cwd=str(ROOT),
    )
    assert not done.stderr
    assert done.returncode in (0, 1), done.stdout
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    'spoil, said, mends', FAULTS, ids=[case[0].__name__ for case in FAULTS]
)
def test_one_fault_is_named_once_and_mended(spoil, said, mends, venv):
    spoil(venv)
    status, output = doctor(venv)
    assert status == 1
    assert re.findall(r'^\d+\. ', output, re.MULTILINE) == ['1. '], output
    fault = output[output.index('\n1. ') :].split('\nnote: ')[0]
    assert re.search(said, fault, re.DOTALL), output
    assert re.search(f'^   ({venv.python} -m pip|export) ', fault, re.MULTILINE)
    for mend in mends:
        assert mend in fault, output
    assert 'http' not in output


def test_all_is_well(venv):
    status, output = doctor(venv)
    assert status == 0, output
    assert '1. ' not in output.split('└')[1]
    assert "MMPose imports, and UDP's components are registered with it." in output
    missing_chumpy = not (venv.site / 'chumpy').exists()
    assert ('note: chumpy' in output) == missing_chumpy


def test_a_missing_chumpy_and_a_second_opencv_are_notes(venv):
    if (venv.site / 'chumpy').exists():
        venv.drop('chumpy', dist_info('chumpy'))
    venv.add('opencv-python-headless', '4.11.0.86')
    status, output = doctor(venv)
    assert status == 0, output
    assert 'note: chumpy' in output
    assert 'opencv-python, opencv-python-headless. One is enough' in output


def both_engines(venv):
    venv.add('mmengine' if MODERN else 'onedl-mmengine', '0.10.5')


def newer_mmdet_that_works(venv):
    venv.drop(dist_info(MMDET)).add('mmdet', '3.3.0')


def no_mmdet_and_no_need(venv):
    """As before MMPose 1.3, whose models import nothing of mmdet."""
    no_mmdet(venv)
    folder = 'mmpose/models/heads/hybrid_heads'
    text = (SITE / folder / 'rtmo_head.py').read_text(encoding='utf-8')
    line = 'from mmdet.utils import ConfigType, reduce_mean'
    assert line in text
    for package in ('mmpose', 'mmpose/models', 'mmpose/models/heads'):
        venv.own(package)
    venv.own(folder, rtmo_head=text.replace(line, 'ConfigType = reduce_mean = None'))


WORKING = [
    (both_engines, r'\bmmengine 0.*overwrite each other', [
        f'uninstall -y {"mmengine" if MODERN else "onedl-mmengine"}\n',
        f'--no-deps --force-reinstall {MMENGINE}==']),
    (no_mmdet_and_no_need, 'mmdet is not installed', [
        f'install --no-deps {MMDET_PIN}\n']),
]  # fmt: skip
if not MODERN:  # The fork looks for its own metadata.
    WORKING.append((
        newer_mmdet_that_works, 'mmdet 3.3.0 is installed.* needs >=3, <3.3', [
            f'--force-reinstall {MMDET_PIN}\n']))  # fmt: skip


@pytest.mark.parametrize(
    'change, said, mends', WORKING, ids=[case[0].__name__ for case in WORKING]
)
def test_where_all_works_what_looks_wrong_is_a_note(change, said, mends, venv):
    change(venv)
    status, output = doctor(venv)
    assert status == 0, output
    (note,) = [part for part in output.split('\nnote: ')[1:] if 'chumpy' not in part]
    assert re.search(said, note, re.DOTALL), output
    assert 'MMPose imports all the same' in note
    for mend in mends:
        assert mend in note, output


def test_setuptools_without_pkg_resources(venv):
    venv.drop('pkg_resources', 'setuptools', dist_info('setuptools'))
    venv.drop('_distutils_hack', 'distutils-precedence.pth')
    status, output = doctor(venv)
    # torch imports it to compile, up to 2.1.
    assert status == (0 if MODERN else 1), output
    assert len(re.findall('has no pkg_resources', output)) == 1
    assert f'install "setuptools<{81 if MODERN else 70}"\n' in output
    assert ('note: setuptools' in output) == MODERN
    assert '\n2. ' not in output
