"""The demo's configs: a stock one, and the same with swapped names.

In one of them only those names are swapped that keep the stock weights, so that it is
tested with them, and not trained.
"""

from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from udp_plugin import names
from udp_plugin.files import write_text

#: Width and height of the network's input and output in pixels.
INPUT_SIZE = (96, 128)
STRIDE = 4
HEATMAP_SIZE = (24, 32)
#: A 32nd of the longer side, as in the zoo.
SIGMA = 1
BATCH_SIZE = 32

#: The config that keeps the stock weights.
KEPT = 'kept'
#: The configs by their names, and the codec of each.
RUNS = {
    **dict.fromkeys(('stock', KEPT), 'MSRAHeatmap'),
    **{f'udp_{kind}': codec for kind, codec in names.CODECS.items()},
}
IMPORTS = "custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)"

TEMPLATE = """\
_base_ = ['mmpose::body_2d_keypoint/topdown_heatmap/coco/\\
td-hm_res50_8xb64-210e_coco-256x192.py']

# The network: a ResNet-18 without its last stage, slim enough for two CPU cores.
codec = dict(
    type='MSRAHeatmap',
    input_size={input_size},
    heatmap_size={heatmap_size},
    sigma={sigma})
model = dict(
    type='TopdownPoseEstimator',
    backbone=dict(
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, ),
        stem_channels=16,
        base_channels=16,
        init_cfg=None),
    head=dict(
        type='HeatmapHead',
        in_channels=64,
        out_channels={num_keypoints},
        deconv_out_channels={deconv_channels},
        deconv_kernel_sizes={deconv_kernels},
        decoder=codec),
    test_cfg=dict(flip_test=True, shift_heatmap=True))

# The data.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(
        type='RandomBBoxTransform',
        shift_factor=0.08,
        scale_factor=(0.8, 1.25),
        rotate_factor=30),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs')
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs')
]
metainfo = {metainfo}
train_dataloader = dict(
    batch_size={batch_size},
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        data_root='',
        metainfo=metainfo,
        ann_file={train_ann!r},
        data_prefix=dict(img={train_img!r}),
        pipeline=train_pipeline))
test_dataloader = dict(
    dataset=dict(
        data_root='',
        metainfo=metainfo,
        ann_file={test_ann!r},
        bbox_file='',
        data_prefix=dict(img={test_img!r}),
        pipeline=val_pipeline))
test_evaluator = dict(ann_file={test_ann!r})

# The budget.
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters={iters})
val_cfg, val_dataloader, val_evaluator = None, None, None
optim_wrapper = dict(optimizer=dict(lr=8e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end={warmup}, by_epoch=False),
    dict(type='MultiStepLR', milestones={milestones}, by_epoch=False)
]
auto_scale_lr = dict(enable=False)
default_hooks = dict(
    logger=dict(interval={log_interval}, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval={iters}, save_best=None))
log_processor = dict(by_epoch=False)
randomness = dict(seed={seed})
"""


class Data(NamedTuple):
    """A data set, split for training and testing."""

    #: What it is, in a few words.
    title: str
    train_ann: Path
    train_img: Path
    test_ann: Path
    test_img: Path
    #: Persons with keypoints, for training and testing.
    train_count: int
    test_count: int
    num_keypoints: int = 17
    #: A file with the toolbox's ``dataset_info``; COCO's if there is none.
    metainfo: Optional[Path] = None
    #: What the user should know of how the data were taken.
    notes: Sequence[str] = ()


def swap_names(config: str, codec: str) -> str:
    """Turn the text of a stock config into one with UDP.

    Args:
        config: The stock config.
        codec: A key of :data:`udp_plugin.names.CODECS`.
    """
    return _swapped(config, names.swaps(codec))


def _swapped(config: str, swaps: Mapping[str, str]) -> str:
    for stock, unbiased in swaps.items():
        config = config.replace(f"type='{stock}'", f"type='{unbiased}'")
    base, rest = config.split('\n\n', 1)
    return f'{base}\n{IMPORTS}\n\n{rest}'


def stock_config(
    data: Data,
    iters: int,
    seed: int,
    input_size: Tuple[int, int] = INPUT_SIZE,
    stride: int = STRIDE,
    sigma: float = SIGMA,
) -> str:
    """The text of the stock config.

    Args:
        data: What to train and test on.
        iters: Training iterations.
        seed: Of the weights and of the data's order and augmentation.
        input_size: ``(width, height)`` of the network's input in pixels.
        stride: Input px per heatmap px, 4 or 8.
        sigma: Of the Gaussian, heatmap px.
    """
    fields = {
        key: value.as_posix() if isinstance(value, Path) else value
        for key, value in data._asdict().items()
    }
    if data.metainfo:
        fields['metainfo'] = f"dict(from_file='{fields['metainfo']}')"
    # From stride 16, where the backbone ends.
    deconvs = {4: 2, 8: 1}[stride]
    return TEMPLATE.format(
        input_size=input_size,
        heatmap_size=tuple(pixels // stride for pixels in input_size),
        sigma=sigma,
        deconv_channels=(32,) * deconvs,
        deconv_kernels=(4,) * deconvs,
        batch_size=BATCH_SIZE,
        iters=iters,
        warmup=max(min(100, iters // 4), 2),
        milestones=[max(int(iters * share), 1) for share in (0.7, 0.9)],
        log_interval=max(min(10, iters // 10), 1),
        seed=seed,
        **fields,
    )


def write_configs(
    folder: Path, data: Data, codecs: Sequence[str], iters: int, seed: int
) -> Dict[str, Path]:
    """Write the stock config and its UDP twins into a folder.

    Returns:
        The files by the names of the runs: ``stock`` first, then ``kept``, and
        ``udp_gaussian`` or ``udp_offset``.
    """
    stock = stock_config(data, iters, seed)
    twins = {f'udp_{codec}': swap_names(stock, codec) for codec in codecs}
    paths = {}
    kept = _swapped(stock, names.kept_swaps())
    for name, text in {'stock': stock, KEPT: kept, **twins}.items():
        paths[name] = folder / f'{name}.py'
        write_text(paths[name], text)
    return paths
