"""``python -m benchmarks bench``: how fast, and how much memory it takes.

Ours beside the built-ins of MMPose and the authors' decoding, in one run, on the same
data, one after the other in turn; before each is timed, its answers are compared. It
is the only source of what this project says about speed.
"""
