"""The toolbox's own scripts, its distributed wrapper and its checkpoints, with UDP."""

import json
import re
import shutil
from pathlib import Path
from typing import Callable, List, Tuple

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
from udp_plugin.convert.run import convert
from udp_plugin.convert.swaps import keep

pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


#: Targets on the device, of keypoints that come from another process.
ON_DEVICE = {
    'train_dataloader.dataset.pipeline.6.on_device': True,
    'train_dataloader.num_workers': 1,
}


@pytest.mark.parametrize(
    ('name', 'codec', 'settings'),
    [
        (RES50, 'UDPOffsetHeatmap', {**SMALL_RES50, **ON_DEVICE}),
        (RES50, 'UDPGaussianHeatmap', SMALL_RES50),
        pytest.param(HRNET, 'UDPOffsetHeatmap', {}, marks=pytest.mark.slow),
    ],
    ids=['offset-on-device', 'gaussian', 'hrnet-offset'],
)
def test_swapped_config_trains_and_tests(name, codec, settings, coco_mini, tmp_path):
    config, checkpoint = tmp_path / 'swapped.py', tmp_path / 'epoch_1.pth'
    cfg = swapped(name, codec)
    cfg.dump(config)
    assert cfg.model.test_cfg.flip_test and cfg.model.test_cfg.shift_heatmap
    options = dict(small_budget(coco_mini), **settings)
    log = log_of_training(config, tmp_path, options)
    on_device = ON_DEVICE.keys() <= settings.keys()
    assert ('on_device=True' in log) == on_device
    assert 'coco/AP: ' in log, tail(log)
    log = log_of_test(config, checkpoint, tmp_path, options)
    assert log.count('ignores shift_heatmap=True') == 1, tail(log)
    if on_device:
        check_that_training_resumes(config, tmp_path, options)
    # Checkpoints with Adam's state are large, and pytest keeps three runs.
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_stock_weights_are_tested_and_trained_on_with_names_swapped(
    coco_mini, tmp_path
):
    """By what ``convert --keep-weights`` writes, from the stock config's checkpoint."""
    stock, kept = tmp_path / 'stock.py', tmp_path / 'kept.py'
    zoo_config(RES50).dump(stock)
    kept.write_text(convert(str(stock), folder=tmp_path, keep_weights=True).text)
    options = dict(small_budget(coco_mini), **SMALL_RES50)
    log_of_training(stock, tmp_path, options)
    log = log_of_test(kept, tmp_path / 'epoch_1.pth', tmp_path, options)
    assert log.count('UDPHeatmapHead keeps weights of MSRAHeatmap') == 1, tail(log)
    check_that_training_resumes(kept, tmp_path, options)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    'decoder', [{}, dict(unbiased=True), dict(type='UDPHeatmap')], ids=str
)
def test_kept_weights_are_trained_on_as_stock_ones(decoder, seeded):
    """A batch has the stock loss and accuracy, with the same weights."""
    stock = zoo_config(RES50)
    stock.model.backbone.init_cfg = None
    stock.merge_from_dict(SMALL_RES50)
    dataset = stock.train_dataloader.dataset
    for codec in (stock.model.head.decoder, dataset.pipeline[6].encoder):
        codec.update(decoder)
    kept = Config(keep(stock.to_dict())[0])
    batch = pseudo_collate([sample_of_noise(dataset) for _ in range(2)])
    models = [MODELS.build(cfg.model).eval() for cfg in (stock, kept)]
    models[1].load_state_dict(models[0].state_dict(), strict=True)
    with torch.no_grad():
        losses, others = (
            model(**model.data_preprocessor(batch, training=True), mode='loss')
            for model in models
        )
    assert losses.keys() == others.keys() == {'loss_kpt', 'acc_pose'}
    assert 0 < losses['loss_kpt'] < 10 and losses['loss_kpt'].equal(others['loss_kpt'])
    assert losses['acc_pose'] == others['acc_pose']


def test_detected_boxes_of_nothing_do_not_end_the_test(coco_mini, tmp_path):
    """The rest is tested, and of them come finite keypoints, which count nothing."""
    annotated = json.loads((coco_mini / 'test_coco.json').read_text())
    image, other = annotated['images'][:2]
    nothing = [[50, 60, 0, 0], [50, 60, -9, -9], [float('nan')] * 4, [9, 9, 1e39, 1e39]]
    people = [(image, [40.0, 30.0, 90.0, 120.0]), *((image, box) for box in nothing)]
    people.append((other, [20.0, 30.0, 60.0, 90.0]))
    like = dict(category_id=1, score=0.9)
    boxes = [dict(like, image_id=of['id'], bbox=box) for of, box in people]
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    cfg = swapped(RES50, 'UDPOffsetHeatmap')
    options = dict(small_budget(coco_mini), **SMALL_RES50)
    options.update(
        {
            'test_dataloader.dataset.bbox_file': tmp_path / 'boxes.json',
            'test_evaluator.outfile_prefix': tmp_path / 'found',
            'test_evaluator.nms_mode': 'none',
            'test_evaluator.keypoint_score_thr': 0,
        }
    )
    cfg.dump(tmp_path / 'swapped.py')
    cfg.merge_from_dict({**SMALL_RES50, 'model.backbone.init_cfg': None})
    register_all_modules()
    weights = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')
    places = tmp_path / 'swapped.py', tmp_path / 'weights.pth', tmp_path
    log = log_of_test(*places, options)
    assert log.count(image['file_name']) == 1 and other['file_name'] not in log
    found = json.loads((tmp_path / 'found.keypoints.json').read_text())
    assert len(found) == len(people)
    for one, (_, box) in zip(found, people):
        assert np.isfinite(one['keypoints']).all() and np.isfinite(one['bbox']).all()
        assert (one['score'] == 0) == (box in nothing)


def check_that_training_resumes(config: Path, folder: Path, options: dict) -> None:
    """After the first epoch comes a second, from the weights of the first."""
    places = (config, '--work-dir', folder, '--resume')
    options = {**options, 'train_cfg.max_epochs': 2}
    log = run_tool('train.py', *places, options=options)
    assert 'resumed epoch: 1, iter: 2' in log, tail(log)
    steps = re.findall(r'Epoch\(train\) +(\S+)', log)
    assert steps == ['[2][1/2]', '[2][2/2]'], tail(log)

    first, second = (
        # Newer versions of torch load no more than weights unless told otherwise.
        torch.load(folder / f'epoch_{epoch}.pth', weights_only=False)
        for epoch in (1, 2)
    )
    moved = [
        float((weights - second['state_dict'][key]).abs().max())
        for key, weights in first['state_dict'].items()
        if key.endswith('.weight')
    ]
    # Adam moves a weight by at most about the learning rate, here that of the
    # warm-up, a step. Weights drawn anew would be apart by hundreds of times that.
    assert 0 < max(moved) < 1e-4
    assert {float(s['step']) for s in second['optimizer']['state'].values()} == {4}


def take_step(
    cfg: Config,
    batch: dict,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Tuple[float, List[torch.Tensor]]:
    """A step of SGD from the same weights always: its loss, and what it changes."""
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # The statistics of half a batch are others, with any head and codec.
            module.eval()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    # So fast that adding a change to a weight does not round the change.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e8)
    logged = wrap(model).train_step(batch, OptimWrapper(optimizer))
    after = [parameter.detach() for parameter in model.parameters()]
    return float(logged['loss']), [new - old for new, old in zip(after, before)]


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
def test_two_processes_take_the_step_of_one(codec, seeded, tmp_path):
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
    losses, steps = zip(*(torch.load(tmp_path / f'{rank}.pt') for rank in range(2)))
    joined_loss, joined = take_step(cfg, batch)

    def apart(step):
        """For each parameter the relative difference of its changes."""
        return [float((a - b).norm() / b.norm()) for a, b in zip(step, joined)]

    assert all(max(apart(step)) < 1e-4 for step in steps)
    assert sum(losses) / 2 == pytest.approx(joined_loss)
    # Which is no matter of course: half the batch alone moves all of them differently.
    half_loss, half = take_step(cfg, part_of(batch, 0))
    assert min(apart(half)) > 1e-3
    assert half_loss != pytest.approx(joined_loss)


@pytest.mark.parametrize(
    ('name', 'codec'),
    [
        (HRNET.replace('w32_', 'w32_udp-'), 'UDPGaussianHeatmap'),
        (HRNET.replace('w32_', 'w32_udp-regress-'), 'UDPOffsetHeatmap'),
    ],
)
def test_stock_udp_checkpoint_loads(name, codec, seeded, monkeypatch):
    register_all_modules()
    stock_cfg, cfg = zoo_config(name).model, swapped(name, codec).model
    stock_cfg.backbone.init_cfg = cfg.backbone.init_cfg = None
    if codec == 'UDPOffsetHeatmap':
        # The stock combined codec reads offsets in this way.
        cfg.head.decoder.reading = 'toolbox'
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
    keypoints = np.random.uniform(0.2, 0.8, (1, 17, 2)) * (width, height)
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
