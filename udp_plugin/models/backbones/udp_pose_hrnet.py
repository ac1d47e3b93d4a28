from typing import List

from mmpose.models.backbones import HRNet
from mmpose.models.backbones.hrnet import HRModule
from mmpose.registry import MODELS
from torch import Tensor, nn

#: How many times as wide the last fusion is.
FACTOR = 4


@MODELS.register_module()
class UDPPoseHRNet(HRNet):
    """HRNet as the repository of UDP-Pose has it, for weights that come from there.

    Its last fusion makes four times as many channels as the finest branch has, 128 in
    W32 and 192 in W48, so the head needs that for ``in_channels``. It takes the
    arguments of ``HRNet``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.stage4[-1] = WideFusion(self.stage4[-1])


class WideFusion(nn.Module):
    """The branches of a module of HRNet, fused at the finest resolution alone.

    Args:
        module: Its branches are taken, and the kind of its norms.
    """

    def __init__(self, module: HRModule) -> None:
        super().__init__()
        self.branches = module.branches
        outputs = FACTOR * module.in_channels[0]
        paths, narrow = [], module.fuse_layers[0]
        for i, inputs in enumerate(module.in_channels):
            layers: List[nn.Module] = [nn.Conv2d(inputs, outputs, 1, bias=False)]
            if i > 0:
                norm = type(narrow[i][1])(outputs)
                layers += [norm, nn.Upsample(scale_factor=2**i, mode='nearest')]
            paths.append(nn.Sequential(*layers))
        self.fuse_layers = nn.ModuleList([nn.ModuleList(paths)])

    def forward(self, features: List[Tensor]) -> List[Tensor]:
        """Fuse features (N, C_i, H_i, W_i), finest first, into one map in a list."""
        (paths,) = self.fuse_layers
        every = zip(paths, self.branches, features)
        return [sum(path(branch(each)) for path, branch, each in every).relu()]
