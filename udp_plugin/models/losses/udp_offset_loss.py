from typing import Optional

from mmpose.registry import MODELS
from torch import Tensor, nn

from udp_plugin import functional as F


@MODELS.register_module()
class UDPOffsetLoss(nn.Module):
    """The loss of offset targets, for all keypoints at once.

    By default the offsets' error is absolute and averaged over the disc, from which
    networks learn offsets several times as accurate as from the published one. With
    ``topk`` it is what ``KeypointOHKMMSELoss`` is to ``KeypointMSELoss``.

    Args:
        use_target_weight: Multiply each keypoint's errors by its weight. Defaults
            to False, as the stock losses.
        loss_weight: Factor of the loss. Defaults to 1.
        topk: Count only so many keypoints of each sample, those with the largest
            errors. Defaults to all.
        published: The loss as published, equal to ``CombinedTargetMSELoss``.

    Raises:
        ValueError: ``topk`` is no positive integer.
    """

    def __init__(
        self,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
        topk: Optional[int] = None,
        published: bool = False,
    ) -> None:
        super().__init__()
        if topk is not None and (type(topk) is not int or topk < 1):
            raise ValueError(f'topk must be a positive integer, got {topk!r}')
        self.topk = topk
        self.use_target_weight = use_target_weight
        self.loss_weight = loss_weight
        self.published = published

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
        loss = F.offset_loss(output, target, weights, self.topk, self.published)
        return loss * self.loss_weight
