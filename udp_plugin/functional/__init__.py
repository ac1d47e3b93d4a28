"""The maths of UDP, on NumPy arrays and torch tensors; it needs no MMPose.

Each module is imported when something of it is asked for, so that :mod:`.geometry`, and
who runs exported models, need no torch.
"""

from importlib import import_module

#: The public functions by their modules.
_NAMES = {
    # Where things are: source, input and heatmap px, and the maps between.
    'geometry': (
        *('apply_affine', 'box_center_scale', 'dither', 'flip_misalignment', 'mirror'),
        *('heatmap_to_input', 'heatmap_to_source', 'input_to_heatmap'),
        *('input_to_source', 'input_to_toolbox', 'invert_affine', 'rotate'),
        *('source_to_input', 'stride', 'toolbox_to_input', 'unit_length'),
        *('warp_matrix', 'widen', 'PIXELS', 'UNIT_LENGTH'),
    ),
    # Keypoints to targets.
    'encoding': ('gaussian_target', 'in_double', 'offset_target'),
    # Maps to keypoints.
    'decoding': (
        *('READINGS', 'dark_kernel_size', 'decode_argmax', 'decode_dark'),
        'decode_offset',
    ),
    'blurring': ('blur', 'gaussian_kernel_sigma'),
    # The flip test.
    'flipping': ('flip_average', 'flip_average_vectors', 'flip_maps', 'move'),
    # SimCC's vectors.
    'vectors': (
        *('decode_vectors', 'gaussian_vector', 'split_vector', 'vector_length'),
        'vector_misalignment',
    ),
    'loss': ('offset_loss',),
    'constants': ('RADIUS_PER_SIGMA',),
    'checks': ('check_kernel_size', 'check_positive'),
    # The same decoding, fused, for the CPU.
    'kernels': (),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_MODULES]


def __getattr__(name: str):
    if name in _NAMES:
        return import_module(f'.{name}', __name__)
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'.{_MODULES[name]}', __name__), name)
    # Found at once from now on.
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
