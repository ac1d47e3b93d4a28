"""The maths of UDP, on NumPy arrays and torch tensors; it needs no MMPose.

:mod:`.geometry` says where things are, :mod:`.encoding` turns keypoints into
targets, :mod:`.decoding` maps into keypoints (with :mod:`.peaks` and
:mod:`.blurring`), :mod:`.flipping` joins the maps of the flip test, :mod:`.loss`
compares offset maps. All but :mod:`.geometry` import torch, and are imported when
something of theirs is asked for.
"""

from importlib import import_module

from .checks import check_kernel_size, check_positive
from .geometry import (
    apply_affine,
    box_center_scale,
    flip_misalignment,
    heatmap_to_input,
    heatmap_to_source,
    input_to_heatmap,
    input_to_source,
    input_to_toolbox,
    invert_affine,
    mirror,
    rotate,
    source_to_input,
    stride,
    toolbox_to_input,
    unit_length,
    warp_matrix,
    widen,
)

#: By name, the module of what needs torch.
_WITH_TORCH = {
    'RADIUS_PER_SIGMA': 'constants',
    'READINGS': 'decoding',
    'blur': 'blurring',
    'dark_kernel_size': 'decoding',
    'decode_argmax': 'decoding',
    'decode_dark': 'decoding',
    'decode_offset': 'decoding',
    'flip_average': 'flipping',
    'flip_maps': 'flipping',
    'gaussian_kernel_sigma': 'blurring',
    'gaussian_target': 'encoding',
    'in_double': 'encoding',
    'offset_loss': 'loss',
    'offset_target': 'encoding',
}

__all__ = [
    'apply_affine',
    'box_center_scale',
    'check_kernel_size',
    'check_positive',
    'flip_misalignment',
    'heatmap_to_input',
    'heatmap_to_source',
    'input_to_heatmap',
    'input_to_source',
    'input_to_toolbox',
    'invert_affine',
    'mirror',
    'rotate',
    'source_to_input',
    'stride',
    'toolbox_to_input',
    'unit_length',
    'warp_matrix',
    'widen',
    *_WITH_TORCH,
]


def __getattr__(name: str):
    if name in _WITH_TORCH.values():
        return import_module(f'.{name}', __name__)
    if name not in _WITH_TORCH:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'.{_WITH_TORCH[name]}', __name__), name)
    # Found at once from now on.
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
