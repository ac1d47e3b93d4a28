"""Converting stock configs to UDP: the commands ``convert`` and ``list``."""


class ConvertError(Exception):
    """A config that cannot be converted, in words for the user."""


class NothingToConvert(ConvertError):
    """A config that has UDP of this package throughout already."""
