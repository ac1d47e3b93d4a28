"""The demo: a stock config and its UDP twins, trained, tested and compared.

:mod:`.figures` draws the data, :mod:`.own_data` takes the user's instead,
:mod:`.configs` writes the configs, :mod:`.run` calls the toolbox's train and test
scripts, :mod:`.report` measures the predictions and shows them.
"""
