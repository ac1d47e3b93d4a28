"""A stock config of MMPose's own UDP against the same with swapped names, as a whole.

Its parts are built from configs, as the toolbox does it: the train pipeline of a
worker, a training iteration, and a validation pass.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.registry import DATASETS, MODELS, TRANSFORMS
from mmpose.utils import register_all_modules

from udp_plugin import functional as F
from udp_plugin.convert.zoo import find_config, zoo_folder
from udp_plugin.demo.configs import SWAPS

from .answers import compare
from .cases import BUILTIN, Case, Setting
from .data import Size
from .measure import Calls

#: The zoo's config whose pipelines, head and optimizer are taken.
CONFIG = 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192'
#: The data set whose skeleton it is, by number of keypoints.
DATASETS_OF = {17: 'CocoDataset', 133: 'CocoWholeBodyDataset'}
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
IMAGE_SIZE = (640, 480)
#: Samples that a worker makes in a call.
LOADED = 4

SWAPPED = 'names swapped'
ON_DEVICE = 'on_device=True'
OWN_LOSS = 'UDPOffsetLoss'


def stock_config(codec: str, size: Size) -> dict:
    """The toolbox's own UDP, of a slim network."""
    cfg = Config.fromfile(find_config(CONFIG)).to_dict()
    encoder = dict(
        type='UDPHeatmap', input_size=size.input_size, heatmap_size=size.heatmap_size
    )
    head = cfg['model']['head']
    head.update(HEAD, out_channels=size.keypoints)
    if codec == 'gaussian':
        kernel_size = F.dark_kernel_size(size.sigma)
        encoder.update(sigma=size.sigma, blur_kernel_size=kernel_size)
    else:
        encoder.update(heatmap_type='combined')
        head['out_channels'] *= 3
        head['loss'] = dict(type='CombinedTargetMSELoss', use_target_weight=True)
        cfg['model']['test_cfg']['flip_mode'] = 'udp_combined'
        # As in the zoo: the stock accuracy is not defined on these maps.
        cfg['model']['train_cfg'] = dict(compute_acc=False)
    head['decoder'] = encoder
    cfg['model']['backbone'] = BACKBONE
    for pipeline in (cfg['train_pipeline'], cfg['val_pipeline']):
        for step in pipeline:
            if step['type'] == 'TopdownAffine':
                step['input_size'] = size.input_size
            elif step['type'] == 'GenerateTarget':
                step['encoder'] = encoder
    return cfg


def swap_names(node: Any, codec: str) -> Any:
    """A copy of a config with UDP's names, and nothing else changed."""
    names = dict(SWAPS, UDPHeatmap=f'UDP{codec.capitalize()}Heatmap')
    if isinstance(node, dict):
        swapped = {key: swap_names(value, codec) for key, value in node.items()}
        if node.get('type') in names:
            swapped['type'] = names[node['type']]
        return swapped
    if isinstance(node, (list, tuple)):
        return type(node)(swap_names(value, codec) for value in node)
    return node


def configs(codec: str, size: Size) -> Dict[str, dict]:
    """The contenders' configs."""
    stock = stock_config(codec, size)
    swapped = swap_names(stock, codec)
    on_device = copy.deepcopy(swapped)
    for step in on_device['train_pipeline']:
        if step['type'] == SWAPS['GenerateTarget']:
            step['on_device'] = True
    found = {BUILTIN: stock, SWAPPED: swapped, ON_DEVICE: on_device}
    if codec == 'offset':
        found[OWN_LOSS] = copy.deepcopy(swapped)
        found[OWN_LOSS]['model']['head'].update(
            loss=dict(type=OWN_LOSS, use_target_weight=True),
            # With the stock loss of combined targets, it counts maps.
            out_channels=size.keypoints,
        )
    return found


def cases(setting: Setting, folder: Path) -> Iterator[Case]:
    """The three parts of a codec and size.

    Args:
        setting: The codec and the size; its maps stand in for the network's.
        folder: Where a picture is written.
    """
    register_all_modules()
    found = configs(setting.codec, setting.size)
    results = _person(setting.size, folder)
    yield _load(setting, found, results)
    yield _train(setting, found, results)
    yield _validate(setting, found, results)


# --- the parts ------------------------------------------------------------------------


def _person(size: Size, folder: Path) -> dict:
    """What a data set knows of a person, whose image is drawn."""
    rng = np.random.default_rng(0)
    width, height = IMAGE_SIZE
    image = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    path = str(folder / 'person.jpg')
    cv2.imwrite(path, cv2.resize(image, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC))
    metainfo = DATASETS.get(DATASETS_OF[size.keypoints]).METAINFO
    file = zoo_folder().parent / metainfo['from_file']
    box = np.array([[200, 40, 440, 440]], np.float32)
    count = (1, size.keypoints)
    points = rng.uniform(box[:, None, :2], box[:, None, 2:], (*count, 2))
    return dict(
        parse_pose_metainfo(dict(from_file=str(file))),
        id=0,
        img_id=0,
        img_path=path,
        bbox=box,
        bbox_score=np.ones(1, np.float32),
        keypoints=points.astype(np.float32),
        keypoints_visible=(rng.random(count) < 0.9).astype(np.float32),
    )


def _loader(pipeline: List[dict], results: dict, count: int) -> Callable[[], list]:
    """A call that makes samples as a worker does, the same ones each time."""
    steps = Compose([TRANSFORMS.build(step) for step in pipeline])

    def load() -> list:
        samples = []
        for seed in range(count):
            np.random.seed(seed)
            samples.append(steps(copy.deepcopy(results)))
        return samples

    return load


def _load(setting: Setting, found: Dict[str, dict], results: dict) -> Case:
    calls: Calls = {
        name: _loader(cfg['train_pipeline'], results, LOADED)
        for name, cfg in found.items()
        if name != OWN_LOSS
    }

    def check() -> int:
        stock, ours = (
            np.stack([s['data_samples'].gt_fields.heatmaps for s in calls[name]()])
            for name in (BUILTIN, SWAPPED)
        )
        name = 'targets against the built-in'
        if setting.codec == 'gaussian':
            compare(name, ours, stock, 1e-3)
        else:
            disc = (stock[:, ::3] > 0) & (ours[:, ::3] > 0)
            # Rounding of the warp decides on some pixels at the edge.
            other = np.abs(stock[:, ::3] - ours[:, ::3]).sum() / disc.sum()
            compare(f'{name}: share of other pixels', other, 0, 1e-3)
            for axis in (1, 2):
                compare(name, ours[:, axis::3][disc], stock[:, axis::3][disc], 1e-3)
        return ours.shape[0] * ours.shape[1]

    return setting.case('load', calls, check, batch=LOADED, worker=True)


def _models(setting: Setting, found: Dict[str, dict]) -> Dict[str, torch.nn.Module]:
    """Networks of the same weights."""
    torch.manual_seed(0)
    models: Dict[str, torch.nn.Module] = {}
    for name, cfg in found.items():
        models[name] = MODELS.build(cfg['model']).to(setting.device)
        models[name].load_state_dict(models[BUILTIN].state_dict())
    return models


def _train(setting: Setting, found: Dict[str, dict], results: dict) -> Case:
    calls: Calls = {}
    for name, model in _models(setting, found).items():
        cfg = found[name]
        load = _loader(cfg['train_pipeline'], results, setting.batch)
        optimizer = build_optim_wrapper(model.train(), cfg['optim_wrapper'])
        calls[name] = partial(model.train_step, pseudo_collate(load()), optimizer)

    def check() -> int:
        # Of the first step, from the same weights.
        losses = {name: call()['loss_kpt'].item() for name, call in calls.items()}
        stock = losses[BUILTIN]
        for name in (SWAPPED, ON_DEVICE):
            what = f'{name}, loss against the built-in'
            compare(what, losses[name], stock, 1e-3 * stock)
        return 0

    return setting.case('train', calls, check)


def _validate(setting: Setting, found: Dict[str, dict], results: dict) -> Case:
    maps = setting.maps
    mirrored = F.flip_maps(maps, results['flip_indices'], setting.channels)
    found = {name: found[name] for name in (BUILTIN, SWAPPED)}
    calls: Calls = {}
    for name, model in _models(setting, found).items():
        load = _loader(found[name]['val_pipeline'], results, setting.batch)
        calls[name] = partial(
            _predict, model.eval(), pseudo_collate(load()), [maps, mirrored]
        )

    def check() -> int:
        samples = {name: call() for name, call in calls.items()}
        ours, stock = (
            np.concatenate([s.pred_instances.keypoints for s in samples[name]])
            for name in (SWAPPED, BUILTIN)
        )
        # How maps are read is compared by itself, here it is done in two ways.
        scale = samples[SWAPPED][0].metainfo['input_scale'][0]
        pixel = scale / F.unit_length(setting.size.heatmap_size)[0]
        off = np.median(np.linalg.norm(ours - stock, axis=-1)) / pixel
        compare('predictions against the built-in, heatmap px, median', off, 0, 0.3)
        return ours.shape[0] * ours.shape[1]

    return setting.case('validate', calls, check)


def _predict(model: torch.nn.Module, batch: dict, maps: List[torch.Tensor]) -> list:
    """A validation step of a network that, untrained as it is, is given its maps."""
    given = iter(maps)
    hook = model.head.final_layer.register_forward_hook(lambda *_: next(given))
    try:
        with torch.no_grad():
            return model.test_step(batch)
    finally:
        hook.remove()
