"""The bias of a config's pipeline, measured: the command ``audit``."""
