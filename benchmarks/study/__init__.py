"""The study: what UDP changes in trained networks, over seeds and input sizes.

:mod:`.networks` says what is trained and how it is tested, :mod:`.components` has
what only the study needs in a config, :mod:`.run` calls the toolbox's train and test
scripts, :mod:`.readings` reads the same maps in several ways, :mod:`.report` makes
tables, plots and the page of it.
"""
