from typing import Optional

from mmpose.registry import MODELS
from torch import Tensor, nn

from udp_plugin import functional as F


@MODELS.register_module()
class UDPOffsetLoss(nn.Module):
    """The loss of offset targets, as published.

    Equal to ``CombinedTargetMSELoss``, for all keypoints at once.

    Args:
        use_target_weight: Multiply each keypoint's errors by its weight before
            they are squared. Defaults to False, as the stock losses.
        loss_weight: Factor of the loss. Defaults to 1.
    """

    def __init__(
        self, use_target_weight: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = loss_weight

    def forward(
        self, output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None
    ) -> Tensor:
        """See :func:`udp_plugin.functional.offset_loss`.

        Args:
            output: Shape (B, 3K, H, W).
            target: Shape (B, 3K, H, W).
            target_weights: Shape (B, K).
        """
        weights = target_weights if self.use_target_weight else None
        return F.offset_loss(output, target, weights) * self.loss_weight
