"""Every config is its zoo config with other names, and its model takes a step."""

from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import pytest
from helpers import swap_names, zoo_config
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpose.registry import MODELS
from mmpose.utils import register_all_modules

from udp_plugin.convert.check import sample_of_noise

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.py'))
CODECS = {'offset': 'UDPOffsetHeatmap', 'gaussian': 'UDPGaussianHeatmap'}

each_config = pytest.mark.parametrize(
    'name', CONFIGS, ids=[name.rpartition('/')[-1] for name in CONFIGS]
)
# It says at length that it found the file that was meant.
pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


def kind_of(name: str) -> str:
    """The codec's kind, as a config's file name says it."""
    (kind,) = (kind for kind in CODECS if f'_udp-{kind}_' in name)
    return kind


def leaves(node: Any, place: str = '') -> Iterator[Tuple[str, Any]]:
    """All values of a config with the places where they are."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            # With it mmengine marks what a config takes from the config of another
            # package; it is no setting.
            if key != '_scope_':
                yield from leaves(value, f'{place}.{key}')
    elif isinstance(node, (list, tuple)) and node:
        for index, value in enumerate(node):
            yield from leaves(value, f'{place}[{index}]')
    else:
        yield place, node


def differences(ours: Any, theirs: Any) -> Dict[str, tuple]:
    ours, theirs = dict(leaves(ours)), dict(leaves(theirs))
    absent = 'absent'
    return {
        place: (ours.get(place, absent), theirs.get(place, absent))
        for place in sorted({*ours, *theirs})
        if ours.get(place, absent) != theirs.get(place, absent)
    }


def test_promised_configs_are_there():
    coco = 'body_2d_keypoint/topdown_heatmap/coco/td-hm'
    for model, batch in (('res50', 64), ('hrnet-w32', 64), ('hrnet-w48', 32)):
        for kind in CODECS:
            for size in ('256x192', '384x288'):
                name = f'{coco}_{model}_udp-{kind}_8xb{batch}-210e_coco-{size}.py'
                assert name in CONFIGS
    for field in ('wholebody', 'hand', 'animal'):
        assert any(name.startswith(f'{field}_2d_keypoint/') for name in CONFIGS)


@each_config
def test_only_the_swap_differs_from_the_zoo_config(name):
    kind = kind_of(name)
    expected = swap_names(
        zoo_config(name.replace(f'udp-{kind}_', '')).to_dict(), CODECS[kind]
    )
    expected['model']['test_cfg']['shift_heatmap'] = False
    expected['custom_imports'] = {
        'imports': ['udp_plugin'],
        'allow_failed_imports': False,
    }
    assert differences(Config.fromfile(FOLDER / name).to_dict(), expected) == {}


@each_config
def test_all_pipelines_and_the_head_are_swapped(name):
    cfg = Config.fromfile(FOLDER / name)
    for stage in ('train', 'val', 'test'):
        pipeline = cfg[f'{stage}_dataloader'].dataset.pipeline
        types = [transform['type'] for transform in pipeline]
        assert types.count('TopDownAffineUDP') == 1, stage
        assert 'TopdownAffine' not in types, stage

    types = [transform['type'] for transform in cfg.train_dataloader.dataset.pipeline]
    target = cfg.train_dataloader.dataset.pipeline[types.index('OffsetTargetGenerator')]
    assert target.encoder.type == CODECS[kind_of(name)]
    assert target.encoder == cfg.model.head.decoder == cfg.codec
    assert cfg.model.head.type == 'UDPHeatmapHead'


@each_config
def test_model_takes_a_step_and_predicts_with_flip_test(name):
    register_all_modules()
    np.random.seed(0)
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
    model.eval()
    batch = pseudo_collate([sample_of_noise(cfg.test_dataloader.dataset)])
    (sample,) = model.test_step(batch)
    keypoints = sample.pred_instances.keypoints
    assert keypoints.shape == (1, cfg.model.head.out_channels, 2)
    from_center = np.abs(keypoints - sample.metainfo['input_center'])
    assert (from_center <= sample.metainfo['input_scale'] / 2 + 1e-3).all()
