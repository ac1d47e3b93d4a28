"""Checks of arguments that several functions and the components share."""

from numbers import Integral, Real


def check_kernel_size(kernel_size: int, name: str = 'kernel_size') -> int:
    """``kernel_size`` as an int if it is positive and odd, else a ``ValueError``."""
    if (
        isinstance(kernel_size, bool)
        or not isinstance(kernel_size, Integral)
        or kernel_size < 1
        or kernel_size % 2 == 0
    ):
        raise ValueError(f'{name} must be a positive odd integer, got {kernel_size!r}')
    return int(kernel_size)


def check_positive(value: float, name: str) -> float:
    """``value`` as a float if it is a positive number, else a ``ValueError``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not 0 < value < float('inf')
    ):
        raise ValueError(f'{name} must be a positive number, got {value!r}')
    return float(value)
