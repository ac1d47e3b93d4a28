"""Converting stock configs to UDP: the commands ``convert`` and ``list``."""


class ConvertError(Exception):
    """A config that cannot be converted, in words for the user."""
