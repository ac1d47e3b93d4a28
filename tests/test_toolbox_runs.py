"""The toolbox's own scripts, its distributed wrapper and its checkpoints, with UDP."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Callable

import mmpose
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample
from mmpose.utils import register_all_modules
from test_configs import sample_of_noise, swap_names, zoo_config
from torch import distributed, nn
from torch.nn.utils import parameters_to_vector

import udp_plugin  # noqa: F401  (registers the components)

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = Path(mmpose.__file__).parent / '.mim' / 'tools'
COCO = 'body_2d_keypoint/topdown_heatmap/coco'
RES50 = f'{COCO}/td-hm_res50_8xb64-210e_coco-256x192.py'
HRNET = f'{COCO}/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py'

pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


def swapped(name: str, codec: str) -> Config:
    """A zoo config in which nothing but names changed."""
    cfg = swap_names(zoo_config(name).to_dict(), codec)
    imports = {'imports': ['udp_plugin'], 'allow_failed_imports': False}
    return Config(dict(cfg, custom_imports=imports))


def run_tool(script: str, *args, options: dict) -> str:
    """Run a script of the toolbox to its end, and return what it printed."""
    command = [sys.executable, TOOLS / script, *args, '--cfg-options']
    command += [f'{key}={value}' for key, value in options.items()]
    paths = [str(PROJECT), os.environ.get('PYTHONPATH')]
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(filter(None, paths)),
            CUDA_VISIBLE_DEVICES='',
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    tail = '\n'.join(done.stdout.splitlines()[-40:])
    assert done.returncode == 0, f'{script} ended with {done.returncode}:\n{tail}'
    return done.stdout


def small_budget(coco: Path) -> dict:
    """Settings for two iterations an epoch, of two persons each, from scratch."""
    options = {
        'model.backbone.init_cfg': None,
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.indices': 4,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': 1,
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


@pytest.fixture(
    scope='module',
    params=[
        (RES50, 'UDPOffsetHeatmap'),
        (RES50, 'UDPGaussianHeatmap'),
        (HRNET, 'UDPOffsetHeatmap'),
    ],
    ids=['res50-offset', 'res50-gaussian', 'hrnet-offset'],
)
def trained(request, coco_mini, tmp_path_factory):
    """A stock config, swapped by name alone, trained for two iterations."""
    name, codec = request.param
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'swapped.py'
    swapped(name, codec).dump(config)
    options = small_budget(coco_mini)
    log = run_tool('train.py', config, '--work-dir', folder, options=options)
    yield SimpleNamespace(folder=folder, config=config, options=options, log=log)
    # Checkpoints with Adam's state are large, and pytest keeps three runs.
    shutil.rmtree(folder)


def test_swapped_config_trains(trained):
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\].* loss_kpt: .* acc_pose: ', trained.log)
    assert (trained.folder / 'epoch_1.pth').is_file()


def test_swapped_config_tests_with_flip_test(trained):
    test_cfg = Config.fromfile(trained.config).model.test_cfg
    assert test_cfg.flip_test and test_cfg.shift_heatmap

    out = trained.folder / 'metrics.json'
    log = run_tool(
        'test.py',
        trained.config,
        trained.folder / 'epoch_1.pth',
        '--work-dir',
        trained.folder,
        '--out',
        out,
        options=trained.options,
    )
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all' in log
    assert 0 <= json.loads(out.read_text())['coco/AP'] <= 1
    assert log.count('ignores shift_heatmap=True') == 1


@pytest.mark.parametrize('trained', [(RES50, 'UDPOffsetHeatmap')], indirect=True)
def test_training_resumes(trained):
    log = run_tool(
        'train.py',
        trained.config,
        '--work-dir',
        trained.folder,
        '--resume',
        options=dict(trained.options, **{'train_cfg.max_epochs': 2}),
    )
    assert 'resumed epoch: 1, iter: 2' in log
    assert re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d+)/2\]', log) == [
        ('2', '1'),
        ('2', '2'),
    ]

    first, second = (
        torch.load(trained.folder / f'epoch_{epoch}.pth', map_location='cpu')
        for epoch in (1, 2)
    )
    weights = [k for k in first['state_dict'] if k.endswith('.weight')]
    moved = [
        (first['state_dict'][key] - second['state_dict'][key]).abs().max().item()
        for key in weights
    ]
    # Adam moves a weight by at most about the learning rate, here that of the
    # warm-up, a step. Weights drawn anew would be apart by a thousand times that.
    assert 0 < max(moved) < 1e-4
    assert {float(s['step']) for s in second['optimizer']['state'].values()} == {4}


def take_step(cfg: Config, batch: dict, wrap: Callable = nn.Identity) -> dict:
    pass
