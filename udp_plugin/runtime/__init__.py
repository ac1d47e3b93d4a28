"""From a photograph to keypoints with a model that ``udp-plugin export`` wrote.

It needs NumPy, OpenCV and onnxruntime, and neither torch nor MMPose:

    import cv2
    from udp_plugin.runtime import PoseModel, draw

    model = PoseModel('model.onnx')
    image = cv2.imread('photograph.jpg')
    keypoints, scores = model(image, boxes=[[412, 157, 465, 295]])
    cv2.imwrite('keypoints.png', draw(image, keypoints, scores, model.skeleton))

:mod:`.model` is also the reference for the same in another language.
"""

from .drawing import draw
from .model import Keypoints, PoseModel, Regions

__all__ = ['Keypoints', 'PoseModel', 'Regions', 'draw']
