"""The bias of a config's pipeline, measured: the command ``audit``."""


class AuditError(Exception):
    """What cannot be audited, in words for the user."""
