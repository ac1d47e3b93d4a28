"""The toolbox's own scripts, its distributed wrapper and its checkpoints, with UDP."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Optional

import numpy as np
import pytest
import torch
from forked import processes
from helpers import (
    HRNET,
    RES50,
    SMALL_RES50,
    log_of_test,
    log_of_training,
    run_tool,
    small_budget,
    swapped,
    tail,
    zoo_config,
)
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample
from mmpose.utils import register_all_modules
from torch import distributed, nn

import udp_plugin  # noqa: F401  (registers the components)
from udp_plugin.convert.check import sample_of_noise

pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


#: Targets on the device, of keypoints that come from another process.
ON_DEVICE = {
    'train_dataloader.dataset.pipeline.6.on_device': True,
    'train_dataloader.num_workers': 1,
}
SMALL_ON_DEVICE = (RES50, 'UDPOffsetHeatmap', {**SMALL_RES50, **ON_DEVICE})


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(SMALL_ON_DEVICE, id='offset-on-device'),
        pytest.param((RES50, 'UDPGaussianHeatmap', SMALL_RES50), id='gaussian'),
        pytest.param(
            (HRNET, 'UDPOffsetHeatmap', {}), id='hrnet-offset', marks=pytest.mark.slow
        ),
    ],
)
def trained(request, coco_mini, tmp_path_factory):
    """A stock config, swapped by name alone, trained for two iterations."""
    name, codec, settings = request.param
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'swapped.py'
    swapped(name, codec).dump(config)
    options = dict(small_budget(coco_mini), **settings)
    log = log_of_training(config, folder, options)
    assert ('on_device=True' in log) == ('on_device' in str(settings))
    yield SimpleNamespace(folder=folder, config=config, options=options, log=log)
    # Checkpoints with Adam's state are large, and pytest keeps three runs.
    shutil.rmtree(folder)


def test_swapped_config_trains_and_tests_with_flip_test(trained):
    assert 'coco/AP: ' in trained.log, tail(trained.log)
    test_cfg = Config.fromfile(trained.config).model.test_cfg
    assert test_cfg.flip_test and test_cfg.shift_heatmap
    checkpoint = trained.folder / 'epoch_1.pth'
    log = log_of_test(trained.config, checkpoint, trained.folder, trained.options)
    assert log.count('ignores shift_heatmap=True') == 1, tail(log)


@pytest.mark.parametrize('trained', [SMALL_ON_DEVICE], indirect=True, ids=[''])
def test_training_resumes(trained):
    log = run_tool(
        'train.py',
        trained.config,
        *('--work-dir', trained.folder, '--resume'),
        options=dict(trained.options, **{'train_cfg.max_epochs': 2}),
    )
    assert 'resumed epoch: 1, iter: 2' in log, tail(log)
    steps = re.findall(r'Epoch\(train\) +(\S+)', log)
    assert steps == ['[2][1/2]', '[2][2/2]'], tail(log)

    first, second = (
        # Newer versions of torch load no more than weights unless told otherwise.
        torch.load(trained.folder / f'epoch_{epoch}.pth', weights_only=False)
        for epoch in (1, 2)
    )
    weights = [k for k in first['state_dict'] if k.endswith('.weight')]
    moved = [
        (first['state_dict'][key] - second['state_dict'][key]).abs().max().item()
        for key in weights
    ]
    # Adam moves a weight by at most about the learning rate, here that of the
    # warm-up, a step. Weights drawn anew would be apart by hundreds of times that.
    assert 0 < max(moved) < 1e-4
    assert {float(s['step']) for s in second['optimizer']['state'].values()} == {4}


def take_step(cfg: Config, batch: dict, wrap: Optional[Callable] = None) -> dict:
    """What a step of SGD changes in each parameter, from the same weights always."""
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # The statistics of half a batch are others, with any head and codec.
            module.eval()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    # So fast that adding a change to a weight does not round the change.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e8)
    wrapped = model if wrap is None else wrap(model)
    logged = wrapped.train_step(batch, OptimWrapper(optimizer))
    after = [parameter.detach() for parameter in model.parameters()]
    return {
        'changes': [new - old for new, old in zip(after, before)],
        'loss': float(logged['loss']),
    }


def part_of(batch: dict, rank: int) -> dict:
    """A half of a batch of four."""
    return {key: values[2 * rank : 2 * rank + 2] for key, values in batch.items()}


def take_step_with_another(rank: int, folder: Path, cfg: Config, batch: dict) -> None:
    """What each of two processes does: a step on its half of the batch."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2
    )
    step = take_step(cfg, part_of(batch, rank), MMDistributedDataParallel)
    torch.save(step, folder / f'{rank}.pt')
    distributed.destroy_process_group()


@pytest.mark.parametrize('codec', ['UDPOffsetHeatmap', 'UDPGaussianHeatmap'])
def test_two_processes_take_the_step_of_one(codec, tmp_path):
    np.random.seed(0)
    cfg = swapped(RES50, codec)
    cfg.model.backbone.init_cfg = None
    cfg.merge_from_dict(SMALL_RES50)
    dataset = cfg.train_dataloader.dataset
    batch = pseudo_collate([sample_of_noise(dataset) for _ in range(4)])
    both = [
        processes().Process(
            target=take_step_with_another, args=(rank, tmp_path, cfg, batch)
        )
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0

    steps = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    joined = take_step(cfg, batch)

    def apart(step):
        """For each parameter the relative difference of its changes."""
        return [
            float((change - wanted).norm() / wanted.norm())
            for change, wanted in zip(step['changes'], joined['changes'])
        ]

    assert all(max(apart(step)) < 1e-4 for step in steps)
    assert sum(step['loss'] for step in steps) / 2 == pytest.approx(joined['loss'])
    # Which is no matter of course: half the batch alone moves all of them differently.
    half = take_step(cfg, part_of(batch, 0))
    assert min(apart(half)) > 1e-3
    assert half['loss'] != pytest.approx(joined['loss'])


@pytest.mark.parametrize(
    ('name', 'codec'),
    [
        (HRNET.replace('w32_', 'w32_udp-'), 'UDPGaussianHeatmap'),
        (HRNET.replace('w32_', 'w32_udp-regress-'), 'UDPOffsetHeatmap'),
    ],
)
def test_stock_udp_checkpoint_loads(name, codec, monkeypatch):
    register_all_modules()
    stock_cfg, cfg = zoo_config(name).model, swapped(name, codec).model
    stock_cfg.backbone.init_cfg = cfg.backbone.init_cfg = None
    if codec == 'UDPOffsetHeatmap':
        # The stock combined codec reads offsets in this way.
        cfg.head.decoder.reading = 'toolbox'
    torch.manual_seed(0)
    stock, ours = MODELS.build(stock_cfg).eval(), MODELS.build(cfg).eval()
    ours.load_state_dict(stock.state_dict(), strict=True)

    image = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        maps = stock(image, None)
        assert maps.shape == (1, 17 if codec == 'UDPGaussianHeatmap' else 51, 64, 48)
        assert ours(image, None).equal(maps)

    # Instead of those of an untrained network, maps with clear peaks.
    flip_indices = list(range(17))[::-1]
    width, height = stock_cfg.head.decoder.input_size
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0.2, 0.8, (1, 17, 2)) * (width, height)
    mirrored = keypoints[:, flip_indices] * (-1, 1) + (width - 1, 0)
    encoder = KEYPOINT_CODECS.build(stock_cfg.head.decoder)
    feats = [
        torch.from_numpy(encoder.encode(points, np.ones((1, 17)))['heatmaps'])[None]
        for points in (keypoints, mirrored)
    ]
    sample = PoseDataSample(metainfo={'flip_indices': flip_indices})
    predicted = []
    for model in (stock, ours):
        monkeypatch.setattr(model.head, 'forward', torch.clone)
        (instance,) = model.head.predict(feats, [sample], model.test_cfg)
        predicted.append(instance.keypoints)
    assert np.abs(predicted[0] - predicted[1]).max() < 1e-3
    # Both stretch, so that the estimator can divide by the width.
    keypoints *= np.divide((width, height), (width - 1, height - 1))
    assert np.abs(predicted[1] - keypoints).max() < 0.1
