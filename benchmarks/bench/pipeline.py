"""A stock config of MMPose's own UDP against the same as ``convert`` swaps its names.

Its parts are built from configs, as the toolbox does it: the train pipeline of a
worker, a training iteration, and a validation pass.
"""

import copy
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpose.registry import MODELS, TRANSFORMS
from mmpose.utils import register_all_modules
from torch import nn

from udp_plugin import functional as F
from udp_plugin.convert.check import metainfo_of, results_of
from udp_plugin.convert.swaps import swap
from udp_plugin.convert.zoo import find_config

from .answers import compare
from .cases import BUILTIN, Case, compare_targets
from .data import Setting
from .measure import ONE

#: The zoo's configs whose pipelines, head and optimizer are taken.
CONFIGS = {
    'gaussian': 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192',
    'offset': 'td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192',
}
#: The data set whose skeleton it is, by number of keypoints.
DATASETS = {17: 'CocoDataset', 133: 'CocoWholeBodyDataset'}
#: A ResNet-18 without its last stage, as in the demo: so light that the rest shows.
BACKBONE = dict(
    type='ResNet',
    depth=18,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(2,),
    stem_channels=16,
    base_channels=16,
)
HEAD = dict(in_channels=64, deconv_out_channels=(32, 32), deconv_kernel_sizes=(4, 4))
#: Samples that a worker makes in a call.
LOADED = 4
CONVERTED, ON_DEVICE = 'converted', 'converted, on_device=True'


def pipeline_cases(setting: Setting, folder: str) -> Iterator[Case]:
    """A worker's samples, a training iteration, and a validation pass.

    Args:
        setting: The codec and the size; its maps stand in for the network's.
        folder: Where a picture is written.
    """
    register_all_modules()
    found, person = configs(setting), _person(setting, folder)
    yield _load(setting, found, person)
    yield _train(setting, found, person)
    yield _validate(setting, found, person)


def configs(setting: Setting) -> Dict[str, dict]:
    """The contenders' configs, of a slim network and this size."""
    stock = Config.fromfile(find_config(CONFIGS[setting.codec])).to_dict()
    codec = dict(setting.stock_cfg, type='UDPHeatmap')
    stock['model']['backbone'] = BACKBONE
    stock['model']['head'].update(HEAD, out_channels=setting.shape[1], decoder=codec)
    for step in stock['train_pipeline'] + stock['val_pipeline']:
        if step['type'] == 'TopdownAffine':
            step['input_size'] = setting.sizes[0]
        elif step['type'] == 'GenerateTarget':
            step['encoder'] = codec

    converted, _ = swap(stock, setting.codec)
    on_device = copy.deepcopy(converted)
    for step in on_device['train_pipeline']:
        if 'encoder' in step:
            step['on_device'] = True
    return {BUILTIN: stock, CONVERTED: converted, ON_DEVICE: on_device}


def _person(setting: Setting, folder: str) -> dict:
    """What a data set knows of a person, whose image is drawn."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    image = cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC)
    box = np.array([200, 40, 440, 440])
    points = rng.uniform(box[:2], box[2:], (setting.size.keypoints, 2))
    metainfo = metainfo_of(dict(type=DATASETS[setting.size.keypoints]))
    person = results_of(metainfo, image, box, points)
    # To be read from its file.
    photo = Path(folder, 'person.jpg')
    photo.write_bytes(cv2.imencode('.jpg', person.pop('img'))[1])
    return dict(person, img_path=str(photo))


def _loading(pipeline: List[dict], person: dict) -> Callable[[int], list]:
    """Makes so many samples as a worker does, the same ones each time."""
    steps = Compose([TRANSFORMS.build(step) for step in pipeline])

    def load(count: int) -> list:
        samples = []
        for seed in range(count):
            np.random.seed(seed)
            samples.append(steps(copy.deepcopy(person)))
        return samples

    return load


def _networks(
    setting: Setting, found: Dict[str, dict], pipeline: str, person: dict
) -> Iterator[Tuple[str, nn.Module, dict]]:
    """The contenders' networks, of the same weights, and a batch for each."""
    weights = {}
    for name, cfg in found.items():
        torch.manual_seed(0)
        network = MODELS.build(cfg['model']).to(setting.device)
        weights = weights or network.state_dict()
        network.load_state_dict(weights)
        samples = _loading(cfg[pipeline], person)(setting.batch)
        yield name, network, pseudo_collate(samples)


def _load(setting: Setting, found: Dict[str, dict], person: dict) -> Case:
    setting = Setting(setting.codec, setting.size, LOADED)
    calls = {
        name: partial(_loading(cfg['train_pipeline'], person), LOADED)
        for name, cfg in found.items()
    }

    def check() -> None:
        ours, stock = (
            np.stack([s['data_samples'].gt_fields.heatmaps for s in calls[name]()])
            for name in (CONVERTED, BUILTIN)
        )
        compare_targets(setting, ours, stock, allowed=1e-3)

    return Case('load', setting, calls, check, (ONE,))


def _train(setting: Setting, found: Dict[str, dict], person: dict) -> Case:
    calls = {}
    for name, network, batch in _networks(setting, found, 'train_pipeline', person):
        optimizer = build_optim_wrapper(network.train(), found[name]['optim_wrapper'])
        calls[name] = partial(network.train_step, batch, optimizer)

    def check() -> None:
        # Of the first step, from the same weights.
        losses = {name: call()['loss_kpt'].item() for name, call in calls.items()}
        ratio = losses[ON_DEVICE] / losses[CONVERTED]
        compare('loss of targets made on the device', ratio, 1, 1e-3)
        # Convert gives offset maps another loss.
        if setting.codec == 'gaussian':
            ratio = losses[CONVERTED] / losses[BUILTIN]
            compare('loss against the built-in', ratio, 1, 1e-3)

    return Case('train', setting, calls, check)


def _validate(setting: Setting, found: Dict[str, dict], person: dict) -> Case:
    found = {name: found[name] for name in (BUILTIN, CONVERTED)}
    maps, calls = setting.maps, {}
    mirrored = F.flip_maps(maps, person['flip_indices'], setting.channels)
    for name, network, batch in _networks(setting, found, 'val_pipeline', person):
        # Untrained as it is, the network is given its maps.
        given = cycle((maps, mirrored))
        network.head.final_layer.register_forward_hook(lambda *_, g=given: next(g))
        calls[name] = partial(torch.no_grad()(network.eval().test_step), batch)

    def check() -> None:
        ours, stock = (
            np.concatenate([s.pred_instances.keypoints for s in calls[name]()])
            for name in (CONVERTED, BUILTIN)
        )
        # How maps are read is compared by itself, here it is done in two ways.
        off = np.median(np.linalg.norm(ours - stock, axis=-1))
        scale = calls[CONVERTED]()[0].metainfo['input_scale'][0]
        pixel = scale / F.unit_length(setting.size.heatmap_size)[0]
        compare('predictions, heatmap px, median difference', off / pixel, 0, 0.3)

    return Case('validate', setting, calls, check)
