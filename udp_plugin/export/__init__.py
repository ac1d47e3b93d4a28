"""``udp-plugin export``: a trained model as one graph from crops to keypoints.

:mod:`.trained` reads a config and its checkpoint, :mod:`.graph` says what the graph
computes and writes it, :mod:`.verify` compares it with MMPose's own
inference. :mod:`udp_plugin.runtime` runs it.
"""

#: Of ONNX's operators: the newest that torch 2.1 writes.
OPSET = 17
