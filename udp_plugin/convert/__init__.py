"""Converting stock configs to UDP: the commands ``convert`` and ``list``."""

from udp_plugin.ui import UserError


class NothingToConvert(UserError):
    """A config that has UDP of this package throughout already."""
