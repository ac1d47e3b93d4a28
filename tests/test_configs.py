"""Every config is its zoo config with other names, and its model takes a step."""

import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import swapped
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpose.registry import MODELS
from mmpose.utils import register_all_modules

from udp_plugin.convert.check import sample_of_noise
from udp_plugin.names import CODECS

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.py'))

#: With large networks, or with one that others have, too.
SLOW = re.compile('w48|384x288|ap10k')
# It says at length that it found the file that was meant.
pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


def plain(node: Any) -> Any:
    """A config without the marks of what it takes from another package's config."""
    if isinstance(node, dict):
        return {key: plain(node[key]) for key in node if key != '_scope_'}
    return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def test_promised_configs_are_there():
    coco = 'body_2d_keypoint/topdown_heatmap/coco/td-hm'
    models = ('res50', 64), ('hrnet-w32', 64), ('hrnet-w48', 32)
    for (model, batch), kind, size in product(models, CODECS, ('256x192', '384x288')):
        assert f'{coco}_{model}_udp-{kind}_8xb{batch}-210e_coco-{size}.py' in CONFIGS
    for field in ('wholebody', 'hand', 'animal'):
        assert any(name.startswith(f'{field}_2d_keypoint/') for name in CONFIGS)


@pytest.mark.parametrize('name', CONFIGS, ids=os.path.basename)
def test_only_the_swap_differs_from_the_zoo_config(name):
    (kind,) = (kind for kind in CODECS if f'_udp-{kind}_' in name)
    cfg = Config.fromfile(FOLDER / name)
    expected = swapped(name.replace(f'udp-{kind}_', ''), CODECS[kind]).to_dict()
    expected['model']['test_cfg']['shift_heatmap'] = False
    assert plain(cfg.to_dict()) == plain(expected)
    assert cfg.model.head.decoder == cfg.codec
    assert cfg.model.head.decoder.type == CODECS[kind]


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=[pytest.mark.slow] * bool(SLOW.search(n))) for n in CONFIGS],
    ids=os.path.basename,
)
def test_model_takes_a_step_and_predicts_with_flip_test(name, seeded):
    register_all_modules()
    cfg = Config.fromfile(FOLDER / name)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)

    batch = pseudo_collate([sample_of_noise(cfg.train_dataloader.dataset)])
    before = model.head.final_layer.weight.detach().clone()
    logged = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert 0 < logged['loss_kpt'] < float('inf')
    assert 0 <= logged['acc_pose'] <= 1
    assert not before.equal(model.head.final_layer.weight)

    assert cfg.model.test_cfg.flip_test
    batch = pseudo_collate([sample_of_noise(cfg.test_dataloader.dataset)])
    (sample,) = model.eval().test_step(batch)
    keypoints = sample.pred_instances.keypoints
    assert keypoints.shape == (1, cfg.model.head.out_channels, 2)
    from_center = np.abs(keypoints - sample.metainfo['input_center'])
    assert (from_center <= sample.metainfo['input_scale'] / 2 + 1e-3).all()
