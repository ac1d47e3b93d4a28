"""Converting stock configs to UDP: the commands ``convert`` and ``list``.

:mod:`.zoo` finds a config, :mod:`.swaps` says what to swap in it, :mod:`.writer` writes
the result, :mod:`.check` tries it, :mod:`.run` is the course of all that.
"""
