"""Placeholder of the fused CPU kernels."""


def fit(maps) -> bool:
    """Whether the kernels read these maps."""
    return False


def decode_dark(maps, kernel_size):
    """See :func:`~.decoding.decode_dark`."""


def decode_offset(maps, radius, reading, kernel_size):
    """See :func:`~.decoding.decode_offset`."""
