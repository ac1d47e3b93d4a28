"""What importing the package imports, and that its components get registered."""

import subprocess
import sys

import pytest

import udp_plugin
from udp_plugin import functional as F

HEAVY = '{"torch", "mmengine", "mmcv", "mmpose", "scipy", "matplotlib", "rich"}'
REGISTERED = """
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS
assert KEYPOINT_CODECS.get('UDPOffsetHeatmap') and MODELS.get('UDPMSPNHead')
assert MODELS.get('UDPOffsetLoss') and TRANSFORMS.get('TopDownAffineUDP')
import sys
assert not [f for f in sys.meta_path if 'udp_plugin' in type(f).__module__]
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    'first',
    [
        'import udp_plugin',
        'import mmpose, udp_plugin',
        # As mmengine reads custom_imports.
        'import importlib, mmengine.config; importlib.import_module("udp_plugin")',
        'from udp_plugin.codecs.base import UDPCodec',
        'from udp_plugin.models.heads.base import UDPHead',
        'from udp_plugin import functional as F; F.decode_dark',
        # To look for MMPose is not to import it.
        'import udp_plugin, importlib.util as u; assert u.find_spec("mmpose").origin',
        # In the midst of MMPose's own imports.
        'import udp_plugin; from mmpose.codecs import UDPHeatmap',
    ],
)
def test_components_are_registered_whatever_is_imported_first(first):
    run(first + REGISTERED)


@pytest.mark.parametrize(
    'light',
    [
        'udp_plugin',
        'udp_plugin.cli',
        'udp_plugin.functional.geometry',
        'udp_plugin.runtime',
    ],
)
def test_what_needs_no_torch_imports_none(light):
    run(f'import sys, {light}; assert not {HEAVY} & set(sys.modules), sys.modules')


def test_without_mmpose_there_is_still_the_functional_core():
    run(
        'import sys; sys.modules["mmpose"] = None\n'
        'import udp_plugin, udp_plugin.functional as F, torch\n'
        'F.decode_dark(torch.rand(1, 1, 8, 8), 5), F.stride((192, 256), (48, 64))\n'
        'assert F.decoding and not hasattr(udp_plugin, "UDPHeatmapHead")\n'
        'assert not {"mmengine", "mmcv", "cv2"} & set(sys.modules)\n'
    )


def test_mmpose_is_as_if_nothing_had_waited_for_it():
    run(
        'import udp_plugin, mmpose, importlib.util as u\n'
        'spec = u.find_spec("mmpose")\n'
        'assert type(spec.loader) is type(mmpose.__loader__)\n'
        'assert "udp_plugin" not in type(mmpose.__loader__).__module__\n'
        'assert spec.loader is mmpose.__spec__.loader is mmpose.__loader__\n'
    )


def test_a_second_import_and_a_second_try():
    run(
        'import sys, importlib, copy, udp_plugin\n'
        'importlib.reload(udp_plugin)\n'
        'del sys.modules["udp_plugin.registration"]\n'
        'importlib.reload(udp_plugin)\n'
        'copy.copy(importlib.util.find_spec("mmpose").loader)\n'
        'sys.modules["mmcv"] = None\n'
        'try:\n    import mmpose\n'
        'except ImportError:\n    del sys.modules["mmcv"]\n'
        'else:\n    raise AssertionError\n' + REGISTERED
    )


def test_an_unknown_name_is_an_attribute_error():
    for module in (udp_plugin, F):
        with pytest.raises(AttributeError, match='has no attribute'):
            module.decode_everything  # noqa: B018


def test_every_public_name_is_there():
    for module in (udp_plugin, F):
        assert set(dir(module)) == set(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
