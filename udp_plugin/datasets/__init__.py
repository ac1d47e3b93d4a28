from .transforms import *  # noqa: F403
