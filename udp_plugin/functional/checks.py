"""Checks of arguments that several functions and the components share."""

from numbers import Integral, Real


def check_kernel_size(kernel_size: int, name: str = 'kernel_size') -> int:
    """Return ``kernel_size`` as an int if it is positive and odd.

    Raises:
        ValueError: It is not; the message says ``name``.

    Example:
        >>> check_kernel_size(11)
        11
    """
    if (
        isinstance(kernel_size, bool)
        or not isinstance(kernel_size, Integral)
        or kernel_size < 1
        or kernel_size % 2 == 0
    ):
        raise ValueError(f'{name} must be a positive odd integer, got {kernel_size!r}')
    return int(kernel_size)


def check_positive(value: float, name: str) -> float:
    """Return ``value`` as a float if it is a positive number.

    Raises:
        ValueError: It is not; the message says ``name``.

    Example:
        >>> check_positive(2, 'sigma')
        2.0
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not 0 < value < float('inf')
    ):
        raise ValueError(f'{name} must be a positive number, got {value!r}')
    return float(value)


def check_maps(maps) -> None:
    """Refuse what is not maps of shape (..., K, H, W), 3 x 3 pixels or more.

    Raises:
        TypeError: ``maps`` is no tensor.
        ValueError: It has another shape.
    """
    # Torch is not imported here, for those who run exported models without it.
    if not hasattr(maps, 'is_floating_point'):
        raise TypeError(f'maps must be a torch.Tensor, got {type(maps).__name__}')
    if maps.ndim < 3 or min(maps.shape[-2:]) < 3:
        raise ValueError(
            'maps must have shape (..., K, H, W) with H and W of at least 3, got '
            f'{tuple(maps.shape)}'
        )
