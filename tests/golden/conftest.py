# Configs, not tests: they name a variable that only the toolbox's loader has.
collect_ignore_glob = ['*.py']
