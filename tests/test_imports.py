"""What importing the package imports, and that its components get registered."""

import subprocess
import sys

import pytest

import udp_plugin
from udp_plugin import functional as F

slow = pytest.mark.slow
REGISTERED = """
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
assert KEYPOINT_CODECS.get('UDPOffsetHeatmap') and MODELS.get('UDPMSPNHead')
assert MODELS.get('UDPOffsetLoss') and TRANSFORMS.get('TopDownAffineUDP')
"""
# Whoever asks where MMPose is, before or after, sees its own loader.
WAITING = """
import udp_plugin, importlib.util as u
from udp_plugin import functional as F
F.decode_dark
assert u.find_spec('mmpose').origin
assert u.find_spec('mmpose').loader.is_package('mmpose')
from mmpose.codecs import UDPHeatmap
import mmpose
assert u.find_spec('mmpose').loader is mmpose.__spec__.loader is mmpose.__loader__
assert not type(mmpose.__loader__).__module__.startswith(('udp_plugin', 'wrapt'))
"""
SECOND_TRY = """
import sys, importlib, udp_plugin
importlib.reload(udp_plugin)
del sys.modules['udp_plugin.registration']
importlib.reload(udp_plugin)
sys.modules['mmcv'] = None
try:
    import mmpose
except ImportError:
    del sys.modules['mmcv']
else:
    raise AssertionError
"""


def run(code: str) -> None:
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    'first',
    [
        # In the midst of MMPose's own imports, having waited.
        pytest.param(WAITING, id='udp_plugin, and then mmpose'),
        pytest.param(SECOND_TRY, id='after an mmpose that could not be imported'),
        # As mmengine reads custom_imports.
        'import importlib, mmengine.config; importlib.import_module("udp_plugin")',
        'from udp_plugin.codecs.base import UDPCodec',
        pytest.param('from udp_plugin.models.heads.base import UDPHead', marks=slow),
        # As the modules of the tests do.
        pytest.param('import mmpose, udp_plugin', marks=slow),
    ],
)
def test_components_are_registered_whatever_is_imported_first(first):
    run(first + REGISTERED)


@pytest.mark.parametrize('light', ['', '.cli', '.functional.geometry', '.runtime'])
def test_what_needs_no_torch_imports_none(light):
    heavy = '{"torch", "mmengine", "mmcv", "mmpose", "scipy", "matplotlib", "rich"}'
    run(f'import sys, udp_plugin{light}; assert not {heavy} & set(sys.modules)')


def test_without_mmpose_there_is_still_the_functional_core():
    run(
        'import sys; sys.modules["mmpose"] = None\n'
        'import udp_plugin, udp_plugin.functional as F, torch\n'
        'F.decode_dark(torch.rand(1, 1, 8, 8), 5), F.stride((192, 256), (48, 64))\n'
        'assert F.decoding and not hasattr(udp_plugin, "UDPHeatmapHead")\n'
        'assert not {"mmengine", "mmcv", "cv2"} & set(sys.modules)\n'
    )


@pytest.mark.parametrize('module', [udp_plugin, F])
def test_every_public_name_is_there_and_no_other(module):
    assert set(dir(module)) == set(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match='has no attribute'):
        module.decode_everything  # noqa: B018
