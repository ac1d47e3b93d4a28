"""Life with a converted config: training, checkpoints, inference and pictures."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Tuple

import cv2
import numpy as np
import pytest
import torch
from helpers import (
    COCO,
    RES50,
    SMALL_RES50,
    log_of_test,
    log_of_training,
    run_tool,
    small_budget,
)
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpose.apis import MMPoseInferencer, inference_topdown, init_model
from mmpose.registry import DATASETS, MODELS
from mmpose.utils import register_all_modules
from torch import nn

from udp_plugin import functional as F
from udp_plugin.cli import main
from udp_plugin.convert.check import sample_of_noise

HOURGLASS = 'td-hm_hourglass52_8xb32-210e_coco-256x256'
MSPN = 'td-hm_mspn50_8xb32-210e_coco-256x192'
HRNET_UDP = f'{COCO}/td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192.py'
VIPNAS = 'td-hm_vipnas-mbv3_8xb64-210e_coco-256x192'

# A person's own config: a network that learns a few crops in seconds, from data without
# random augmentation.
OWN = """\
_base_ = ['mmpose::{name}']

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, stem_channels=16, base_channels=16
    ),
    head=dict(
        in_channels=128,
        deconv_out_channels=(32, 32, 32),
        deconv_kernel_sizes=(4, 4, 4),
    ),
)

data = dict(data_root={root!r}, ann_file='test_coco.json', data_prefix=dict(img=''))
train_pipeline = [
    step for step in _base_.train_pipeline if not step['type'].startswith('Random')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(bbox_file=None, **data))
test_dataloader = val_dataloader
"""

slow = pytest.mark.slow
# The toolbox draws maps enlarged, and says that it does.
pytestmark = pytest.mark.filterwarnings(
    'ignore:The metainfo config file', 'ignore:Since the spatial dimensions of'
)


def convert(config, codec: str, out: Path) -> Path:
    arguments = ['convert', config, '-o', out, '--codec', codec]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def learn_four_persons(cfg: Config) -> Tuple[nn.Module, list]:
    """A model that knows four persons by heart, and their samples.

    Their keypoints are clear peaks of its maps, in the flip test, too.
    """
    register_all_modules()
    packed = list(DATASETS.build(cfg.train_dataloader.dataset))
    visible = [p['data_samples'].gt_instances.keypoints_visible for p in packed]
    known = [p for p, seen in zip(packed, visible) if (seen > 0).sum() >= 16][:4]
    samples = [p['data_samples'] for p in known]
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    inputs = model.data_preprocessor(pseudo_collate(known), True)['inputs']
    targets = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    channels = targets.shape[1] // 17
    mirrored = F.flip_maps(targets, samples[0].flip_indices, channels)
    steps = 100
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps // 2):
        for images, target in ((inputs, targets), (inputs.flip(-1), mirrored)):
            optimizer.zero_grad()
            # Almost everywhere a target is 0, so the toolbox's loss would take longer.
            peaks = target[:, ::channels].repeat_interleave(channels, 1)
            error = model(images, None) - target
            ((1 + 20 * peaks) * error**2).mean().backward()
            optimizer.step()
            schedule.step()
    return model, samples


def save(model: nn.Module, path: Path) -> Path:
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture(scope='module')
def offset(coco_mini, tmp_path_factory):
    """A config converted to the offset codec, and a checkpoint that knows persons."""
    folder = tmp_path_factory.mktemp('offset')
    stock = folder / 'own.py'
    stock.write_text(OWN.format(name=RES50, root=str(coco_mini)))
    config = convert(stock, 'offset', folder / 'converted.py')
    model, samples = learn_four_persons(Config.fromfile(config))
    checkpoint = save(model, folder / 'learned.pth')
    made = dict(folder=folder, stock=stock, config=config, checkpoint=checkpoint)
    yield SimpleNamespace(**made, samples=samples)
    shutil.rmtree(folder)


def predict(model: nn.Module, sample):
    """The prediction for the person of a sample, by the toolbox's own inference."""
    boxes = sample.gt_instances.bboxes
    (found,) = inference_topdown(model, str(sample.img_path), boxes)
    return found


# Trained and tested by the toolbox's scripts, with settings that make the network small
# where it is too slow, and what else may be wanted of a training run.


SMALL_HOURGLASS = {
    'model.backbone.stage_channels': (256, 32, 32, 32, 32, 32),
    'model.backbone.feat_channel': 32,
    'model.head.in_channels': 32,
}
SMALL_MSPN = {
    'model.backbone.num_blocks': [1, 1, 1, 1],
    'model.backbone.unit_channels': 32,
    'model.head.unit_channels': 32,
}


@pytest.mark.parametrize(
    ('name', 'codec', 'settings', 'flags'),
    [
        pytest.param(VIPNAS, 'gaussian', {}, [], marks=slow),
        pytest.param(HOURGLASS, 'gaussian', SMALL_HOURGLASS, [], marks=slow),
        (MSPN, 'offset', SMALL_MSPN, ['--auto-scale-lr']),
    ],
    ids=['ViPNASHead', 'CPMHead', 'MSPNHead'],
)
def test_converted_config_trains_and_tests(
    name, codec, settings, flags, coco_mini, tmp_path
):
    config = convert(name, codec, tmp_path / 'converted.py')
    options = dict(small_budget(coco_mini), **settings)
    log_of_training(config, tmp_path, options, *flags)
    log_of_test(config, tmp_path / 'epoch_1.pth', tmp_path, options)

    cfg = Config.fromfile(config)
    assert cfg.model.test_cfg.flip_test
    wanted = cfg.optim_wrapper.optimizer.lr
    if flags:
        # From the batch the config is made for to this one.
        wanted *= 2 / cfg.auto_scale_lr.base_batch_size
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    for group in saved['optimizer']['param_groups']:
        assert group['initial_lr'] == pytest.approx(wanted)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ('name', 'codec', 'settings'),
    [
        (RES50, 'gaussian', SMALL_RES50),
        (RES50, 'offset', SMALL_RES50),
        (MSPN, 'offset', SMALL_MSPN),
    ],
    ids=['gaussian', 'offset', 'MSPNHead'],
)
def test_half_precision_trains_as_single(name, codec, settings, seeded, tmp_path):
    register_all_modules()
    cfg = Config.fromfile(convert(f'mmpose::{name}', codec, tmp_path / 'converted.py'))
    cfg.merge_from_dict({'model.backbone.init_cfg': None, **settings})
    model = MODELS.build(cfg.model).train()
    samples = [sample_of_noise(cfg.train_dataloader.dataset) for _ in range(2)]
    data = model.data_preprocessor(pseudo_collate(samples), True)
    last_layer = [weight for weight in model.head.parameters() if weight.dim() == 4][-1]

    losses, gradients = [], []
    for half in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            logged = model(**data, mode='loss')
        model.zero_grad()
        logged['loss_kpt'].backward()
        losses.append(float(logged['loss_kpt']))
        gradients.append(last_layer.grad.clone())
    # bfloat16 keeps eight bits.
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)
    apart = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert apart < 0.1


def test_training_from_a_stock_checkpoint_averages_weights(offset, coco_mini):
    torch.manual_seed(1)
    stock = MODELS.build(Config.fromfile(offset.stock).model)
    before, path = stock.state_dict(), save(stock, offset.folder / 'stock.pth')
    after = init_model(str(offset.config), str(path), device='cpu').state_dict()
    left_out = {'head.final_layer.weight', 'head.final_layer.bias'}
    assert before.keys() == after.keys()
    for key in before.keys() - left_out:
        assert before[key].equal(after[key]), key
    # Three maps a keypoint; there is nothing to load for them.
    assert len(before['head.final_layer.weight']) == 17
    assert len(after['head.final_layer.weight']) == 51

    # The same by load_from in a config. Adam moves a weight by about the learning
    # rate a step, and the warm-up starts at 5e-7.
    config, folder = offset.folder / 'with_average.py', offset.folder / 'with_average'
    config.write_text(
        f"_base_ = ['converted.py']\nload_from = {str(path)!r}\n"
        "custom_hooks = [dict(type='EMAHook')]\n"
    )
    log = log_of_training(config, folder, small_budget(coco_mini))
    assert 'size mismatch for head.final_layer.weight' in log
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=False)
    averaged, last = checkpoint['state_dict'], checkpoint['ema_state_dict']
    for key, values in averaged.items():
        if key.endswith('.weight') and key not in left_out:
            assert (values - before[key]).abs().max() < 1e-5, key

    assert last['steps'] == 2
    for key in ('backbone.conv1.weight', 'backbone.layer4.1.conv2.weight'):
        # The average is mostly the first step's.
        of_average = (averaged[key] - before[key]).abs().mean()
        assert 0 < of_average < 0.7 * (last[f'module.{key}'] - before[key]).abs().mean()


@slow
def test_stock_udp_checkpoint_gives_the_same_keypoints(coco_mini, tmp_path):
    stock = tmp_path / 'own.py'
    stock.write_text(OWN.format(name=HRNET_UDP, root=str(coco_mini)))
    config = convert(stock, 'gaussian', tmp_path / 'converted.py')
    model, samples = learn_four_persons(Config.fromfile(stock))
    checkpoint = save(model, tmp_path / 'stock.pth')
    # The last has the converted model, and the stock config's crops: MMPose computes
    # the warp matrix in single precision, which moves a crop by some 1e-5 px, and
    # OpenCV 5 reads there to the last bit, where 4 reads at multiples of 1/32 px.
    models = [
        init_model(str(path), str(checkpoint), device='cpu')
        for path in (stock, config, config)
    ]
    models[2].cfg.test_dataloader.dataset = models[0].cfg.test_dataloader.dataset
    heads = [type(model.head).__name__ for model in models]
    assert heads == ['HeatmapHead', 'UDPHeatmapHead', 'UDPHeatmapHead']
    for model in models:
        assert model.test_cfg.flip_test
        model.test_cfg.output_heatmaps = True

    compared = 0
    for sample in samples:
        theirs, ours, same_crop = (predict(model, sample) for model in models)
        maps = theirs.pred_fields.heatmaps
        assert maps.equal(same_crop.pred_fields.heatmaps)
        y, x = np.unravel_index(maps.flatten(1).argmax(-1), maps.shape[1:])
        peaks = np.stack((x, y), -1)
        found = theirs.pred_instances.keypoints[0] - theirs.input_center
        found = (found / theirs.input_scale + 0.5) * (47, 63)
        # Where MMPose's blur of 11 pixels, and differences of it, reach over the map's
        # border, it takes what is there for black; and it lets DARK's step go anywhere.
        inside = ((peaks > 6) & (peaks < (47 - 6, 63 - 6))).all(-1)
        near = (np.abs(found - peaks) < 1).all(-1)
        clear = inside & near & (theirs.pred_instances.keypoint_scores[0] > 0.4)
        own_crop = 1e-3 if cv2.__version__ < '5' else 1e-2
        for other, bound in ((same_crop, 1e-3), (ours, own_crop)):
            keypoints = other.pred_instances.keypoints
            apart = np.abs(theirs.pred_instances.keypoints - keypoints)
            assert apart[0][clear].max() < bound
        compared += clear.sum()

        truth = sample.gt_instances
        off = np.linalg.norm(ours.pred_instances.keypoints - truth.keypoints, axis=-1)
        # It is not because both see nothing.
        assert np.median(off[truth.keypoints_visible > 0]) < 5
    assert compared > 40
    shutil.rmtree(tmp_path)


# Pictures. The toolbox draws maps as colours over the photograph, half and half.


def heat(picture: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """How hot, from 0 to 1, each pixel of a drawn map is, told from its colour."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    scale = cv2.applyColorMap(levels, cv2.COLORMAP_JET)
    colours = 2.0 * picture - photo
    apart = [np.abs(colours - colour).sum(-1) for colour in scale[::8, 0].astype(float)]
    return np.argmin(apart, axis=0) / (len(apart) - 1)


def heat_at(map_heat: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The heat at the points (N, 2) that are in the picture."""
    x, y = np.rint(points).astype(int).T
    height, width = map_heat.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return map_heat[y[inside], x[inside]]


def far_from(points: np.ndarray, shape: tuple, distance: float) -> np.ndarray:
    """Which pixels are farther than that from all points."""
    y, x = np.indices(shape)
    nearest = np.min([np.hypot(x - px, y - py) for px, py in points], axis=0)
    return nearest > distance


def test_browsed_targets_are_hot_at_the_keypoints(offset, coco_mini, tmp_path):
    run_tool(
        'misc/browse_dataset.py',
        *(offset.config, '--output-dir', tmp_path, '--not-show'),
        options={'val_dataloader': None},
    )
    sample = offset.samples[0]
    picture = cv2.imread(str(tmp_path / Path(sample.img_path).name))
    assert picture.shape == (2 * 256, 192, 3)
    photo = cv2.imread(str(sample.img_path))
    center, scale = sample.input_center, sample.input_scale
    # Eq. 41, of an upright box.
    corner, step = center - scale / 2, scale / (191, 255)
    warp = np.diag((*(1 / step), 1))[:2]
    warp[:, 2] = -corner / step
    crop = cv2.warpAffine(photo, warp, (192, 256))
    truth = sample.gt_instances
    keypoints = ((truth.keypoints - corner) / step)[truth.keypoints_visible > 0]

    found = heat(picture[256:], crop)
    assert (heat_at(found, keypoints) > 0.8).all()
    # R is 3.5 heatmap px, four times as many in the input.
    assert found[far_from(keypoints, found.shape, 4 * 3.5 + 4)].max() < 0.3


def test_tested_maps_are_hot_at_the_keypoints(offset, coco_mini, tmp_path):
    log = run_tool(
        'test.py',
        *(offset.config, offset.checkpoint, '--work-dir', tmp_path),
        *('--show-dir', tmp_path / 'shown'),
        options=dict(
            small_budget(coco_mini),
            **{
                'model.test_cfg.output_heatmaps': True,
                'default_hooks.visualization.enable': True,
            },
        ),
    )
    assert float(re.search(r'coco/AP: (\S+)', log)[1]) > 0.1
    sample = offset.samples[0]
    photo = cv2.imread(str(sample.img_path))
    name = Path(sample.img_path)
    picture = cv2.imread(str(tmp_path / 'shown' / f'{name.stem}_0{name.suffix}'))
    height, width = photo.shape[:2]
    assert picture.shape == (2 * height, width, 3)
    check_drawn(picture, photo, sample)
    shutil.rmtree(tmp_path)


def check_drawn(picture, photo, sample) -> None:
    """A person that the network knows is drawn, and below that hot maps."""
    truth = sample.gt_instances
    keypoints = truth.keypoints[truth.keypoints_visible > 0]
    height = len(photo)
    drawn = np.abs(picture[:height].astype(int) - photo).max(-1) > 60
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((9, 9)))
    assert np.mean(heat_at(near, keypoints)) > 0.8
    assert np.mean(drawn[far_from(keypoints, drawn.shape, 100)]) < 0.2

    found = heat(picture[height:], photo)
    assert np.median(heat_at(found, keypoints)) > 0.7
    pixel = sample.input_scale[0] / 47
    cold = far_from(keypoints, found.shape, 8 * pixel)
    assert found[cold].mean() < 0.3


def test_inference_draws_a_photograph(offset, tmp_path):
    sample = offset.samples[0]
    model = init_model(str(offset.config), str(offset.checkpoint), device='cpu')
    model.test_cfg.output_heatmaps = True
    found = predict(model, sample)
    truth = sample.gt_instances
    off = np.linalg.norm(found.pred_instances.keypoints - truth.keypoints, axis=-1)
    assert np.median(off[truth.keypoints_visible > 0]) < 8
    # What is shown is the disc's maps, not the offsets'.
    assert found.pred_fields.heatmaps.shape == (17, 64, 48)

    # The inferencer takes all of a photograph for the person, whom this network does
    # not know without what is around: it has to find and draw the same, right or not.
    left, top, right, bottom = np.rint(truth.bboxes[0]).astype(int)
    photo = cv2.imread(str(sample.img_path))[top:bottom, left:right]
    cv2.imwrite(str(tmp_path / 'photo.png'), photo)
    (wanted,) = inference_topdown(model, str(tmp_path / 'photo.png'))
    infer = MMPoseInferencer(
        pose2d=str(offset.config),
        pose2d_weights=str(offset.checkpoint),
        det_model='whole_image',
        device='cpu',
    )
    (result,) = infer(
        str(tmp_path / 'photo.png'),
        vis_out_dir=str(tmp_path / 'drawn'),
        draw_heatmap=True,
        kpt_thr=0.1,
    )
    ((person,),) = result['predictions']
    keypoints = wanted.pred_instances.keypoints
    np.testing.assert_allclose([person['keypoints']], keypoints, atol=1e-2)
    sample = sample.clone()
    sample.gt_instances.keypoints = keypoints
    sample.gt_instances.keypoints_visible = np.ones((1, 17))
    check_drawn(cv2.imread(str(tmp_path / 'drawn' / 'photo.png')), photo, sample)
