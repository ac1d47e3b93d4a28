"""What several test modules share."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import mmpose
import numpy as np
import pytest
import torch
from forked import processes, run_script
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpose.datasets.transforms import GetBBoxCenterScale, PackPoseInputs
from mmpose.registry import KEYPOINT_CODECS, MODELS, TRANSFORMS

from udp_plugin import names

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = Path(mmpose.__file__).parent / '.mim' / 'tools'
COCO = 'body_2d_keypoint/topdown_heatmap/coco'
RES50 = f'{COCO}/td-hm_res50_8xb64-210e_coco-256x192.py'
HRNET = f'{COCO}/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py'
#: What makes the network of RES50 small.
SMALL_RES50 = {
    'model.backbone.depth': 18,
    'model.head.in_channels': 512,
    'model.head.deconv_out_channels': (32, 32, 32),
}
PURE = """
from mmengine.config import read_base
from mmpose.codecs import MSRAHeatmap
from mmpose.datasets import CocoDataset
from mmpose.datasets.transforms import (
    GenerateTarget, GetBBoxCenterScale, LoadImage, PackPoseInputs, TopdownAffine)
from mmpose.models import (
    HeatmapHead, KeypointMSELoss, PoseDataPreprocessor, ResNet, TopdownPoseEstimator)

with read_base():
    from .runtime import *

codec = dict(type=MSRAHeatmap, input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
model = dict(
    type=TopdownPoseEstimator,
    data_preprocessor=dict(type=PoseDataPreprocessor),
    backbone=dict(type=ResNet, depth=18),
    head=dict(
        type=HeatmapHead, in_channels=512, out_channels=17,
        loss=dict(type=KeypointMSELoss, use_target_weight=True), decoder=codec),
    test_cfg=dict(flip_test=True, shift_heatmap=True))
train_pipeline = [
    dict(type=LoadImage), dict(type=GetBBoxCenterScale),
    dict(type=TopdownAffine, input_size=(192, 256)),
    dict(type=GenerateTarget, encoder=codec), dict(type=PackPoseInputs)]
train_dataloader = dict(
    batch_size=4, dataset=dict(type=CocoDataset, pipeline=train_pipeline))
"""
RUNTIME = (
    "default_scope = 'mmpose'\noptim_wrapper = dict(optimizer=dict(type='Adam'))\n"
)
CODECS = {
    'gaussian': dict(type='UDPGaussianHeatmap'),
    'unblurred': dict(type='UDPOffsetHeatmap', reading='toolbox'),
    'voting': dict(type='UDPOffsetHeatmap'),
    'authors': dict(type='UDPOffsetHeatmap', reading='authors'),
}
K = 17
FLIP_INDICES = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
SIZES = dict(input_size=(192, 256), heatmap_size=(48, 64))
# A small head of each kind, its arguments in the words of its stock counterpart.
HEADS = {
    'HeatmapHead': dict(in_channels=8, deconv_out_channels=None),
    'ViPNASHead': dict(
        in_channels=8,
        deconv_out_channels=(8,),
        deconv_kernel_sizes=(4,),
        deconv_num_groups=(2,),
    ),
    'CPMHead': dict(in_channels=8, num_stages=3),
    'MSPNHead': dict(
        num_stages=2,
        num_units=2,
        out_shape=(64, 48),
        unit_channels=8,
        level_indices=[0, 1, 0, 1],
    ),
}
#: The output levels of the target for heads that have several outputs.
LEVELS = {'CPMHead': [0, 1, 2], 'MSPNHead': [0, 1, 0, 1]}
#: Input size, heatmap size and sigma of the toolbox's configs, and the largest last.
SETUPS = [
    ((192, 256), (48, 64), 2),
    ((288, 384), (72, 96), 3),
    ((256, 256), (64, 64), 2),
    ((384, 288), (96, 72), 3),
    ((768, 1024), (192, 256), 6),
]
each_codec = pytest.mark.parametrize('codec', CODECS)
each_head_and_levels = pytest.mark.parametrize(
    ('name', 'multilevel'),
    [*((name, False) for name in HEADS), *((name, True) for name in LEVELS)],
)


def zoo_config(name: str) -> Config:
    """The zoo config, of which the toolbox knows the path."""
    return Config.fromstring(f"_base_ = ['mmpose::{name}']", '.py')


def swap_names(node: Any, codec: str) -> Any:
    """A copy of a stock config in which nothing but ``type=`` is replaced."""
    to = {**names.swaps('offset'), **dict.fromkeys(names.STOCK_CODECS, codec)}
    if isinstance(node, dict):
        swapped = {key: swap_names(value, codec) for key, value in node.items()}
        if 'type' in swapped:
            swapped['type'] = to.get(swapped['type'], swapped['type'])
        return swapped
    if isinstance(node, (list, tuple)):
        return type(node)(swap_names(value, codec) for value in node)
    return node


def swapped(name: str, codec: str) -> Config:
    """A zoo config in which nothing but names changed."""
    cfg = swap_names(zoo_config(name).to_dict(), codec)
    imports = {'imports': ['udp_plugin'], 'allow_failed_imports': False}
    return Config(dict(cfg, custom_imports=imports))


def tail(log: str) -> str:
    return '\n'.join(log.splitlines()[-40:])


def run_tool(script: str, *args, options: dict) -> str:
    """Run a script of the toolbox to its end, and return what it printed."""
    command = [TOOLS / script, *args, '--cfg-options']
    command += [f'{key}={value}'.replace(', ', ',') for key, value in options.items()]
    with tempfile.NamedTemporaryFile('r') as log:
        arguments = ([*map(str, command)], log.name)
        process = processes().Process(target=run_script, args=arguments)
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
            process.join()
        printed = log.read()
    ended = f'{script} ended with {process.exitcode}:\n{tail(printed)}'
    assert process.exitcode == 0, ended
    return printed


def log_of_training(config: Path, folder: Path, options: dict, *flags) -> str:
    """What training of two iterations says, which ended with a checkpoint."""
    log = run_tool('train.py', config, '--work-dir', folder, *flags, options=options)
    step = re.search(r'Epoch\(train\) +\[1\]\[2/2\].* loss_kpt: (\S+).*', log)
    assert step and 0 < float(step[1]) < 1e4 and 'acc_pose: ' in step[0], tail(log)
    assert (folder / 'epoch_1.pth').is_file()
    return log


def log_of_test(config: Path, checkpoint: Path, folder: Path, options: dict) -> str:
    """What a test of a checkpoint says, which ended with COCO's measures."""
    out = folder / 'metrics.json'
    places = (config, checkpoint, '--work-dir', folder, '--out', out)
    log = run_tool('test.py', *places, options=options)
    assert '(AP) @[ IoU=0.50:0.95 | area=   all' in log, tail(log)
    assert 0 <= json.loads(out.read_text())['coco/AP'] <= 1, tail(log)
    return log


def small_budget(coco: Path) -> dict:
    """Settings for two iterations an epoch, of two persons each, from scratch."""
    options = {
        'model.backbone.init_cfg': None,
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.indices': 4,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.save_best': None,
        'val_dataloader.dataset.indices': 2,
        # Several batches.
        'test_dataloader.batch_size': 4,
        # Ground-truth boxes.
        'val_dataloader.dataset.bbox_file': None,
        'test_dataloader.dataset.bbox_file': None,
        'val_evaluator.ann_file': coco / 'test_coco.json',
        'test_evaluator.ann_file': coco / 'test_coco.json',
    }
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options[f'{loader}.num_workers'] = 0
        options[f'{loader}.persistent_workers'] = False
        options[f'{loader}.dataset.data_root'] = coco
        options[f'{loader}.dataset.ann_file'] = 'test_coco.json'
        options[f'{loader}.dataset.data_prefix.img'] = ''
    return options


def build_codec(name, input_size=(192, 256), heatmap_size=(48, 64), **args):
    sizes = dict(input_size=input_size, heatmap_size=heatmap_size)
    return KEYPOINT_CODECS.build({**CODECS[name], **sizes, **args})


def build_head(name, codec, **args):
    """The UDP head that stands in for a stock one, with the latter's arguments."""
    config = dict(HEADS[name], out_channels=K, decoder=dict(CODECS[codec], **SIZES))
    return MODELS.build(dict(config, type=f'UDP{name}', **args))


def features_for(name, batch=2):
    """Random features as the head's backbone gives them."""
    if name == 'MSPNHead':
        return [[torch.randn(batch, 8, 16, 12) for _ in range(2)] for _ in range(2)]
    if name == 'CPMHead':
        return [torch.randn(batch, 8, 64, 48) for _ in range(3)]
    size = (32, 24) if name == 'ViPNASHead' else (64, 48)
    return (torch.randn(batch, 8, *size),)


def encoders_for(name, codec, multilevel):
    """One encoder, or for each level one of another width; the last decodes."""
    decoder = dict(CODECS[codec], **SIZES)
    if not multilevel:
        return decoder, decoder
    levels = max(LEVELS[name]) + 1
    # As MSPN has it: the later a level, the narrower.
    encoders = [dict(decoder, sigma=2 + levels - level) for level in range(levels)]
    return encoders, encoders[-1]


def random_person():
    """A box, in part beside the photograph, and keypoints in it, which the crop has."""
    size = np.random.uniform(60, 300, 2)
    corner = np.random.uniform(-20, (640, 480) - size / 2)
    keypoints = corner + np.random.uniform(0, 1, (K, 2)) * size
    return dict(
        bbox=np.array([[*corner, *(corner + size)]], np.float32),
        keypoints=keypoints[None].astype(np.float32),
        keypoints_visible=np.ones((1, K), np.float32),
    )


def target_of(encoder, **args):
    """The transform that makes the target(s) of the encoder(s)."""
    if isinstance(encoder, list):
        args['multilevel'] = True
    return TRANSFORMS.build(dict(type='OffsetTargetGenerator', encoder=encoder, **args))


def packed(person, target, input_size=SIZES['input_size'], augment=()):
    """What goes to the model of a person, out of a pipeline of UDP."""
    results = dict(
        {name: value.copy() for name, value in person.items()},
        img=np.zeros((480, 640, 3), np.uint8),
        bbox_score=np.ones(1, np.float32),
        flip_indices=FLIP_INDICES,
        dataset_keypoint_weights=np.linspace(0.5, 1.5, K, dtype=np.float32),
    )
    warp = TRANSFORMS.build(dict(type='TopDownAffineUDP', input_size=input_size))
    steps = [GetBBoxCenterScale(), *augment, warp, target, PackPoseInputs()]
    return Compose(steps)(results)
