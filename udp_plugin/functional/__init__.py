"""The maths of UDP, on NumPy arrays and torch tensors; it needs no MMPose.

:mod:`.geometry` says where things are, :mod:`.encoding` turns keypoints into
targets, :mod:`.decoding` maps into keypoints (with :mod:`.peaks` and
:mod:`.blurring`), :mod:`.flipping` joins the maps of the flip test, :mod:`.loss`
compares offset maps.
"""

from .blurring import blur, gaussian_kernel_sigma
from .checks import check_kernel_size, check_positive
from .decoding import (
    READINGS,
    dark_kernel_size,
    decode_argmax,
    decode_dark,
    decode_offset,
)
from .encoding import RADIUS_PER_SIGMA, gaussian_target, in_double, offset_target
from .flipping import flip_average, flip_maps
from .geometry import (
    apply_affine,
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
)
from .loss import offset_loss

__all__ = [
    'RADIUS_PER_SIGMA',
    'READINGS',
    'apply_affine',
    'blur',
    'check_kernel_size',
    'check_positive',
    'dark_kernel_size',
    'decode_argmax',
    'decode_dark',
    'decode_offset',
    'flip_average',
    'flip_maps',
    'flip_misalignment',
    'gaussian_kernel_sigma',
    'gaussian_target',
    'heatmap_to_input',
    'heatmap_to_source',
    'in_double',
    'input_to_heatmap',
    'input_to_source',
    'input_to_toolbox',
    'invert_affine',
    'mirror',
    'offset_loss',
    'offset_target',
    'rotate',
    'source_to_input',
    'stride',
    'toolbox_to_input',
    'unit_length',
    'warp_matrix',
]
