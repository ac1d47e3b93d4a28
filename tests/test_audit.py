"""The audit against theory, planted faults, and components broken on purpose."""

import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import cv2
import mmpose.datasets.transforms as stock_transforms
import numpy as np
import pytest
import torch
from helpers import PROJECT, PURE, RUNTIME
from mmengine.config import Config
from mmpose.models.heads.heatmap_heads import heatmap_head
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.models.utils.tta import flip_heatmaps

from udp_plugin.audit import measures, run
from udp_plugin.audit.lines import Lines
from udp_plugin.audit.people import oks
from udp_plugin.audit.result import TEXTS
from udp_plugin.audit.run import audit
from udp_plugin.cli import main
from udp_plugin.codecs import UDPOffsetHeatmap
from udp_plugin.convert.run import convert
from udp_plugin.convert.zoo import find_config
from udp_plugin.errors import UserError

BIASED = 'td-hm_hrnet-w32_8xb64-210e_coco-256x192'
UDP = 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192'
COMBINED = 'td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192'
MEGVII = 'td-hm_mspn50_8xb32-210e_coco-256x192'
DARK = 'td-hm_hrnet-w32_dark-8xb64-210e_coco-256x192'
CSPNEXT = 'cspnext-m_udp_8xb256-210e_coco-256x192'
OURS = PROJECT / 'configs' / 'body_2d_keypoint' / 'topdown_heatmap' / 'coco'
GAUSSIAN = OURS / 'td-hm_hrnet-w32_udp-gaussian_8xb64-210e_coco-256x192.py'
OFFSET = OURS / 'td-hm_hrnet-w32_udp-offset_8xb64-210e_coco-256x192.py'
COCO_KEYPOINTS = find_config(UDP).parents[3] / '_base_' / 'datasets' / 'coco.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module', autouse=True)
def few():
    """Fewer keypoints and people, which show as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, 'POINTS', 512)
        patch.setattr(run, 'RANDOM_PEOPLE', 20)
        yield


@lru_cache(maxsize=None)
def audited(config):
    """The audit of a config as it is, which several tests look at."""
    return audit(config)


def read(config=UDP):
    return Config.fromfile(config if isinstance(config, Path) else find_config(config))


def steps(cfg, key, loaders=LOADERS):
    """The steps that have a key, of pipelines."""
    pipelines = [cfg[loader].dataset.pipeline for loader in loaders]
    return [step for pipeline in pipelines for step in pipeline if key in step]


class Resize(torch.nn.Module):
    """A network that makes features of a size."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, inputs):
        return (torch.nn.functional.interpolate(inputs, self.size),)


def resize(cfg, **sizes):
    """Give a config's codecs and warps other sizes, and a network that has them."""
    cfg.model.backbone = dict(type=Resize, size=sizes['heatmap_size'][::-1])
    cfg.model.head.in_channels = 3
    cfg.model.head.decoder.update(sizes)
    for step in steps(cfg, 'input_size'):
        step.input_size = sizes['input_size']
    for step in steps(cfg, 'encoder'):
        step.encoder.update(sizes)
    return cfg


def kept(config):
    """A config that keeps its weights, as ``udp-plugin convert`` makes it."""
    with convert(config, keep_weights=True).file() as file:
        return Config.fromfile(file)


def mean_x(errors):
    return np.abs(errors).mean(0)[0]


def names_of(found, severity=''):
    return {f.name for f in found.findings if severity in f.severity}


def planted(folder, config, *changes):
    """A config as a file of its own, with something changed, after a mark or at all."""
    path = find_config(config) if isinstance(config, str) else config
    text = path.read_text(encoding='utf-8')
    text = text.replace(
        "'../../../_base_/default_runtime.py'", "'mmpose::_base_/default_runtime.py'"
    )
    for *after, old, new in changes:
        start = text.index(after[0]) if after else 0
        assert old in text[start:], old
        text = text[:start] + text[start:].replace(old, new, 1)
    file = folder / 'planted.py'
    file.write_text(text, encoding='utf-8')
    return file


# --- theory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('config', 'kind', 'flips', 'coding'),
    [
        (BIASED, 'pixels', (3.0, 1.0, 1.5, 0.5, 0.5), 1.0),
        # Its keypoints are in the middle of cells: it is right not to shift.
        (MEGVII, 'cells', (1.0, 5.0, 0.5, 2.5, 0.5), 1.0),
        *(
            (config, 'unit length', (0.0, 4.06, 0.0, 2.03, 0.0), 0.0)
            for config in (UDP, COMBINED, GAUSSIAN, OFFSET)
        ),
    ],
    ids=['biased', 'megvii', 'udp', 'combined', 'our gaussian', 'our offset'],
)
def test_the_papers_figures_are_measured(config, kind, flips, coding):
    found = audited(config)
    assert found.coding.kind == kind
    measured = [mean_x(errors) for errors in found.flip]
    np.testing.assert_allclose(measured, flips, rtol=0.01, atol=0.001)
    np.testing.assert_allclose(
        np.abs(found.coding.errors).mean(0), coding, rtol=0.01, atol=0.001
    )
    assert np.abs(found.end_to_end.round_trip).mean() < 0.02
    for transform in found.transforms:
        assert np.abs(transform.misfit).mean() < 0.01
        assert np.abs(transform.deviation).max() < 0.001
    if coding == 0:
        assert found.findings == []
        assert np.abs(found.end_to_end.input_px).mean() < 0.001
        assert found.end_to_end.oks.min() > 0.9999
        assert found.ap == pytest.approx(100)
    else:
        assert [f.name for f in found.findings] == ['biased']
        assert not found.has_errors


@pytest.mark.parametrize(
    'config', [BIASED, UDP, COMBINED], ids=['biased', 'udp', 'combined']
)
@pytest.mark.parametrize(
    ('input_size', 'heatmap_size'),
    [
        ((96, 128), (48, 64)),
        ((288, 384), (36, 48)),
        ((320, 320), (20, 20)),
        ((200, 240), (50, 60)),
        ((48, 64), (48, 64)),
    ],
    ids=['stride 2', 'stride 8', 'stride 16', 'stride 4', 'stride 1'],
)
def test_other_strides_and_sizes(config, input_size, heatmap_size):
    sizes = dict(input_size=input_size, heatmap_size=heatmap_size)
    if heatmap_size[0] < 30:
        # The kernel that goes with it, 6 sigma - 1.
        sizes.update(sigma=1, blur_kernel_size=5)
    cfg = resize(read(config), **sizes)
    if heatmap_size == input_size:
        # The two measures of the map are one.
        cfg.model.test_cfg.shift_heatmap = False
    found = audit(cfg)
    # By hand: Eq. 36, 39 and 46 in input px.
    s = input_size[0] / heatmap_size[0]
    t = (input_size[0] - 1) / (heatmap_size[0] - 1)
    theory = (s - 1, 1, (s - 1) / 2, 0.5) if config == BIASED else (0, t, 0, t / 2)
    measured = [mean_x(errors) for errors in found.flip[:4]]
    np.testing.assert_allclose(measured, theory, rtol=0.01, atol=0.002)
    coding = s / 4 if config == BIASED else 0
    measured = np.abs(found.coding.errors).mean(0)
    # A thousandth of a heatmap pixel, by which DARK is off at sigma 1.
    np.testing.assert_allclose(measured, coding, rtol=0.01, atol=0.001 * s)
    assert not found.has_errors, found.findings


# --- planted faults -------------------------------------------------------------------

WARP = "dict(type='TopdownAffine', input_size=codec['input_size'], use_udp=True),"
BIASED_WARP = "dict(type='TopdownAffine', input_size=codec['input_size']),"
TARGET = "dict(type='GenerateTarget', encoder=codec)"
#: The same, in validation and in training.
VAL, TRAIN = "\n    dict(type='PackPoseInputs')", "\n    dict(type='GenerateTarget'"
VAL_START = "val_pipeline = [\n    dict(type='LoadImage'),\n    "
BOX = "dict(type='GetBBoxCenterScale')"
TIGHT_BOX = "dict(type='GetBBoxCenterScale', padding=1.0)"
LARGE_WARP = WARP.replace("codec['input_size']", '(288, 384)')
TURN = "dict(type='RandomBBoxTransform')"
MIRROR = "dict(type='RandomFlip', direction='horizontal')"
STOCK_CODEC = "dict(_base_.codec, type='UDPHeatmap')"
TESTED_ELSEWHERE = (
    "test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], "
    "pipeline=[*val_pipeline[:2], dict(type='TopdownAffine', input_size=(192, 256)), "
    'val_pipeline[3]]))'
)


def target(*changes):
    """The step with another codec."""
    return TARGET.replace('codec', f'dict(codec, {", ".join(changes)})')


MAPS, OTHER_MAPS = 'heatmap_size=(48, 64)', ((64, 48), (24, 32), (48, 60))
SIZES = f'input_size=(192, 256), {MAPS}'
PACK = "\n    dict(type='PackPoseInputs')"
KEYS = "meta_keys=('id', 'img_id', 'input_size', 'input_center', 'input_scale')"

#: The config, what is changed in it, the finding's name (a warning's after a ~), and a
#: part of the line that it names: what was planted if left out, and none if empty.
FAULTS = [
    (UDP, 'shift_heatmap=False', 'shift_heatmap=True', 'flip-shift'),
    (BIASED, 'shift_heatmap=True', 'shift_heatmap=False', 'flip-shift'),
    (UDP, WARP + VAL, BIASED_WARP + VAL, 'warp-differs', BIASED_WARP),
    (UDP, WARP + TRAIN, BIASED_WARP + TRAIN, '~warp-differs', BIASED_WARP),
    (UDP, 'test_dataloader = val_dataloader', TESTED_ELSEWHERE, 'warp-differs'),
    (BIASED, BIASED_WARP + VAL, WARP + VAL, 'warp-differs', WARP),
    (UDP, "type='UDPHeatmap'", "type='MSRAHeatmap'", 'half-enabled'),
    (BIASED, "type='MSRAHeatmap'", "type='UDPHeatmap'", 'half-enabled', BIASED_WARP),
    (COMBINED, "flip_mode='udp_combined'", "flip_mode='heatmap'", 'flip-mode'),
    (UDP, "flip_mode='heatmap'", "flip_mode='udp_combined'", 'flip-mode'),
    (COMBINED, 'out_channels=3 * 17', 'out_channels=17', 'channels'),
    (COMBINED, "type='CombinedTargetMSELoss'", "type='KeypointMSELoss'", 'loss'),
    (UDP, "type='KeypointMSELoss'", "type='CombinedTargetMSELoss'", 'loss'),
    (COMBINED, 'compute_acc=False', 'compute_acc=True', 'training-accuracy'),
    (COMBINED, TARGET, target('radius_factor=0.0625'), 'codec-differs'),
    (UDP, TARGET, target('sigma=3'), '~codec-differs'),
    (UDP, TARGET, target("type='MSRAHeatmap'"), 'codec-differs'),
    (UDP, 'sigma=2)', 'sigma=2, blur_kernel_size=3)', '~kernel'),
    (UDP, 'sigma=2)', 'sigma=2, blur_kernel_size=31)', '~kernel'),
    (UDP, WARP + VAL, LARGE_WARP + VAL, 'input-size', '(288, 384)'),
    (UDP, VAL_START + BOX, VAL_START + TIGHT_BOX, '~padding', 'padding=1.0'),
    (UDP, WARP + VAL, f'{TURN},\n    {WARP}{VAL}', 'random-test', TURN),
    (UDP, WARP + VAL, f'{MIRROR},\n    {WARP}{VAL}', 'random-test', MIRROR),
    # The target before the warp.
    (UDP, f'{WARP}\n    {TARGET}', f'{TARGET},\n    {WARP[:-1]}', 'order', TARGET),
    # Decoders of UDP's head.
    (OFFSET, 'decoder=codec', 'decoder=dict(codec, radius=5)', 'codec-differs'),
    (OFFSET, 'decoder=codec', f'decoder={STOCK_CODEC}', 'build', ''),
    # What the network makes, and what it takes.
    *((UDP, MAPS, f'heatmap_size={size}', 'heatmap-size') for size in OTHER_MAPS),
    (BIASED, MAPS, 'heatmap_size=(64, 48)', 'heatmap-size'),
    (UDP, SIZES, 'input_size=(346, 260), heatmap_size=(86, 65)', 'network-input'),
    # Of testing alone.
    (UDP, WARP + VAL, f'{WARP}\n    {TARGET},{VAL}', 'pipeline', TARGET),
    (UDP, f'{WARP}{PACK}', f'{WARP}{PACK[:-1]}, {KEYS})', 'pipeline', KEYS),
    # The second stage, which comes after the first.
    (CSPNEXT, WARP, BIASED_WARP, '~warp-differs'),
]


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: f'{fault[3]}')
def test_planted_faults_are_found_and_named(fault, tmp_path):
    config, old, new, name, *line = fault
    severity = 'warning' if name.startswith('~') else 'error'
    name = name.strip('~')
    after = ['train_pipeline_stage2 = ['] if config == CSPNEXT else []
    file = planted(tmp_path, config, (*after, old, new))
    found = audit(file)
    named = {f.name: f for f in found.findings}
    assert name in named, found.findings
    finding = named[name]
    assert finding.severity == severity
    assert finding.what and finding.fix and finding.where
    # Nothing else is wrong, so nothing else is an error; but a biased config's shift
    # is not for a UDP codec.
    others = names_of(found, 'error') - {name}
    assert others == ({'flip-shift'} if new == "type='UDPHeatmap'" else set())
    (line,) = line or [new]
    if 'radius_factor' in new:
        # Offsets of half a heatmap px and less, read with R = 3.5 where it was 4.
        expected = 0.25 * (1 - 3.5 / 4) * 191 / 47
        assert mean_x(found.coding.errors) == pytest.approx(expected, rel=0.05)
    if line:
        place, text = re.match(r'.*planted\.py:(\d+): (.*)', finding.line).groups()
        assert line in text
        lines = file.read_text(encoding='utf-8').splitlines()
        assert lines[int(place) - 1].strip() == text
    assert found.has_errors == (severity == 'error')


@pytest.mark.parametrize(
    ('config', 'left'),
    # What a rounded target leaves after a dithered flip test: half a quarter pixel.
    [(BIASED, 0.5), (MEGVII, 0.5), (DARK, 0.0), (UDP, 0.0), (COMBINED, 0.0)],
)
def test_kept_weights_go_together(config, left):
    found, stock = audit(kept(config)), audited(config)
    rounded = {'biased'} if left else set()
    assert names_of(found) == rounded and not found.has_errors
    assert not [f for f in found.findings if 'flip test' in f.what]
    # Without a flip test's bias; what it is without weights kept, the lines above tell.
    assert np.abs(found.flip.configured).mean(0).max() < 0.01
    for one, other in zip(found.flip[:4], stock.flip[:4]):
        # Offset maps are read in another way, here of maps that do not go together.
        np.testing.assert_allclose(one, other, atol=0.1 if config == COMBINED else 1e-6)
    errors = np.abs(found.end_to_end.input_px).mean(0)
    np.testing.assert_allclose(errors, left, rtol=0.15, atol=0.02)
    assert np.abs(found.end_to_end.round_trip).mean() < 0.02


@pytest.mark.parametrize(
    ('loaders', 'name', 'fix'),
    [
        (
            LOADERS,
            'half-enabled',
            'TopdownAffine without use_udp=True in every pipeline',
        ),
        (LOADERS[1:], 'warp-differs', 'without use_udp=True (TopdownAffine)'),
    ],
)
def test_kept_weights_behind_the_other_warp(loaders, name, fix):
    cfg = kept(BIASED)
    for step in steps(cfg, 'input_size', loaders):
        step.type = 'TopDownAffineUDP'
    found = audit(cfg)
    (error,) = (f for f in found.findings if f.severity == 'error')
    assert error.name == name and error.fix.startswith(fix)


#: A stock head does what UDP's does with heatmaps.
STOCK_HEAD = ("dict(type='UDPHeatmapHead', decoder=codec)", 'dict(decoder=codec)')


@pytest.mark.parametrize(
    ('config', 'changes'),
    [(UDP, ()), (COMBINED, ()), (CSPNEXT, ()), (GAUSSIAN, (STOCK_HEAD,))],
)
def test_a_config_without_the_fault_has_no_finding(config, changes, tmp_path):
    """So that the findings above are of the faults, not of copying the file."""
    assert audit(planted(tmp_path, config, *changes)).findings == []


def few_keypoints(cfg, count):
    """Give data of so many keypoints, each its own mirror image, to a config."""
    info = {k: dict(name=f'k{k}', id=k, swap='') for k in range(count)}
    metainfo = dict(dataset_name='few', keypoint_info=info, skeleton_info={})
    metainfo.update(joint_weights=[1.0] * count, sigmas=[0.05] * count)
    for dataset in (cfg[loader].dataset for loader in LOADERS):
        dataset.metainfo = metainfo
        # It needs an upper and a lower body.
        dataset.pipeline = [s for s in dataset.pipeline if s.type != 'RandomHalfBody']
    return cfg


@pytest.mark.parametrize(
    ('config', 'count', 'right'),
    [(GAUSSIAN, 5, 5), (OFFSET, 5, 5), (OFFSET, 1, 1), (UDP, 5, 5), (COMBINED, 5, 15)],
)
def test_data_of_other_keypoints_than_the_head(config, count, right):
    (finding,) = audit(few_keypoints(read(config), count)).findings
    assert (finding.name, finding.severity) == ('channels', 'error')
    assert finding.fix == f'out_channels={right}'
    assert 'out_channels=' in finding.line


def test_swapped_sizes_show_without_the_network():
    cfg = resize(read(GAUSSIAN), input_size=(192, 256), heatmap_size=(64, 48))
    # Of a package that is not there.
    cfg.model.backbone.type = 'elsewhere.HRNet'
    (finding,) = audit(cfg).findings
    assert (finding.name, finding.severity) == ('heatmap-size', 'error')
    assert finding.fix == 'heatmap_size=(48, 64)' and '64×48' in finding.what
    cfg = resize(cfg, input_size=(192, 256), heatmap_size=(48, 64))
    cfg.model.backbone.type = 'elsewhere.HRNet'
    assert audit(cfg).findings == []


@pytest.mark.parametrize('loader', LOADERS[1:])
@pytest.mark.parametrize('config', [UDP, OFFSET], ids=['stock', 'ours'])
@pytest.mark.parametrize('missing', ['flip_indices', 'input_center', 'img_id'])
def test_meta_keys_that_testing_needs(config, loader, missing):
    cfg = read(config)
    cfg[loader] = Config(dict(one=cfg[loader].to_dict())).one
    keys = 'id', 'img_id', 'flip_indices', 'input_size', 'input_center', 'input_scale'
    packer = cfg[loader].dataset.pipeline[-1]
    packer.meta_keys = keys
    if missing == 'flip_indices':
        assert audit(cfg).findings == []
    packer.meta_keys = [key for key in keys if key != missing]
    (finding,) = audit(cfg).findings
    assert (finding.name, finding.severity) == ('pipeline', 'error')
    assert finding.where == f'{loader}.dataset.pipeline[3].meta_keys'
    assert missing in finding.what and 'PackPoseInputs' in finding.what
    # Where nothing needs it, nothing is said.
    if missing == 'flip_indices':
        cfg.model.test_cfg.flip_test = False
    elif missing == 'img_id':
        cfg.val_evaluator = cfg.test_evaluator = dict(type='PCKAccuracy')
    assert bool(audit(cfg).findings) == (missing == 'input_center')


def test_keypoints_with_wrong_mirror_images(tmp_path):
    text = COCO_KEYPOINTS.read_text(encoding='utf-8')
    file = tmp_path / 'coco.py'
    file.write_text(
        text.replace("swap='right_shoulder'", "swap='left_hip'"), encoding='utf-8'
    )
    metainfo = f"test_mode=True, metainfo=dict(from_file='{file}'),"
    change = ('val_dataloader =', 'test_mode=True,', metainfo)
    (finding,) = audit(planted(tmp_path, UDP, change)).findings
    assert (finding.name, finding.severity) == ('flip-indices', 'error')
    assert '[5, 6]' in finding.what
    assert 'coco.py' in finding.line


def test_other_mirror_images_in_training():
    cfg = read()
    metainfo = Config.fromfile(COCO_KEYPOINTS).dataset_info.to_dict()
    for k in (5, 6):
        metainfo['keypoint_info'][k]['swap'] = ''
    cfg.train_dataloader.dataset.metainfo = metainfo
    (finding,) = audit(cfg).findings
    assert finding.name == 'flip-indices'
    assert '[5, 6]' in finding.what and 'train' in finding.what


WAYS = 'RepeatDataset', 'ConcatDataset', 'device', 'codec', 'flip_test', 'keypoint'


@pytest.mark.parametrize('way', [*WAYS, *LOADERS[:2]])
def test_other_ways_have_no_finding(way):
    """To say the same, or not to say what need not be there."""
    cfg = read(GAUSSIAN if way in ('codec', 'keypoint') else OFFSET)
    dataset, (target,) = cfg.train_dataloader.dataset.to_dict(), steps(cfg, 'encoder')
    if way == 'RepeatDataset':
        cfg.train_dataloader.dataset = dict(type=way, times=2, dataset=dataset)
    elif way == 'ConcatDataset':
        cfg.train_dataloader.dataset = dict(type=way, datasets=[dataset] * 2)
    elif way == 'device':
        target.on_device = True
    elif way == 'codec':
        # The stock Gaussian, read by ours: measured, and found to go together.
        target.encoder = dict(target.encoder, type='UDPHeatmap')
    elif way == 'flip_test':
        cfg.model.test_cfg.flip_test = False
    elif way == 'keypoint':
        few_keypoints(cfg, 1).model.head.out_channels = 1
    else:
        cfg.pop(way)
    found = audit(cfg)
    assert found.findings == []
    assert np.abs(found.end_to_end.input_px).mean() < 0.01
    assert (found.flip.configured is None) == (way == 'flip_test')


@pytest.mark.parametrize(
    ('name', 'where'),
    [('warp-differs', 'pipeline[5]'), ('codec-differs', 'pipeline[6].encoder')],
)
def test_one_of_several_data_sets(name, where):
    cfg = read()
    dataset = cfg.train_dataloader.dataset.to_dict()
    other = Config(dict(dataset)).to_dict()
    if name == 'warp-differs':
        del other['pipeline'][5]['use_udp']
    else:
        other['pipeline'][6]['encoder']['type'] = 'MSRAHeatmap'
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, other])
    (finding,) = audit(cfg).findings
    assert finding.name == name
    assert finding.where == f'train_dataloader.dataset.datasets[1].{where}'


@pytest.mark.parametrize(
    ('loader', 'step', 'message'),
    [
        ('train_dataloader', 'PackPoseInputs', 'no data_samples'),
        ('train_dataloader', 'GenerateTarget', 'no target maps'),
        ('val_dataloader', 'PackPoseInputs', 'no data_samples'),
        ('val_dataloader', 'GetBBoxCenterScale', 'bbox_scale'),
        ('test_dataloader', 'TopdownAffine', 'no step of the test pipeline warps'),
    ],
)
def test_pipelines_that_lack_a_step(loader, step, message):
    cfg = read()
    dataset = cfg[loader].dataset
    dataset.pipeline = [one for one in dataset.pipeline if one.type != step]
    (finding,) = audit(cfg).findings
    assert (finding.name, finding.severity) == ('pipeline', 'error')
    assert finding.where == f'{loader}.dataset.pipeline'
    assert message in finding.what


# --- the zoo --------------------------------------------------------------------------


BIASED_ALONE = [
    'td-hm_cpm_8xb64-210e_coco-256x192',
    'td-hm_vipnas-mbv3_8xb64-210e_coco-256x192',
    'td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge',
    'td-hm_hrnet-w32_8xb64-210e_coco-aic-256x192-combine',
    'td-hm_hrnetv2-w18_dark-8xb64-60e_wflw-256x256',
    'td-hm_res50_8xb64-210e_locust-160x160',
]
IN_THE_ZOO = {
    **dict.fromkeys(BIASED_ALONE, 'biased'),
    'td-hm_hrnet-w48_udp-8xb32-210e_coco-384x288': '',
    'cspnext-m_udp_8xb256-210e_aic-coco-256x192': '',
    'cspnext-m_udp_8xb64-210e_ap10k-256x256': '',
    'td-hm_ViTPose-small_8xb64-210e_coco-256x192': '',
    'td-hm_hrnetv2-w18_udp-8xb64-210e_onehand10k-256x256': 'half-enabled',
    'td-hm_hrnet-w32_udp_8xb64-210e_deepfashion_full-256x192': 'flip-shift biased',
}


@pytest.mark.parametrize('config', IN_THE_ZOO)
def test_other_heads_codecs_and_data_of_the_zoo(config):
    found = audit(config)
    assert ' '.join(f.name for f in found.findings) == IN_THE_ZOO[config]
    assert None not in (found.flip, found.end_to_end, found.ap)


# --- components broken on purpose -----------------------------------------------------


def shift_image(results):
    """The image of a warped sample, moved to the right by an eighth of a pixel."""
    # Interpolation twice takes whole fractions best: OpenCV has 32 of a pixel.
    matrix = np.array([[1, 0, 0.125], [0, 1, 0]])
    height, width = results['img'].shape[:2]
    results['img'] = cv2.warpAffine(results['img'], matrix, (width, height))
    return results


def audit_broken(monkeypatch, how):
    """Audit UDP with a stock warp that does something to what it returns."""
    affine = stock_transforms.TopdownAffine
    transform = affine.transform
    monkeypatch.setattr(affine, 'transform', lambda self, r: how(transform(self, r)))
    return audit(UDP)


def test_a_warp_that_moves_the_image(monkeypatch):
    found = audit_broken(monkeypatch, shift_image)
    for transform in found.transforms:
        x, y = transform.misfit.mean(0)
        assert x == pytest.approx(0.125, abs=0.01)
        assert y == pytest.approx(0, abs=0.01)
    assert names_of(found) == {'image-and-keypoints'}
    # The network was trained with the same error, and takes it off again.
    assert np.abs(found.end_to_end.input_px).mean() < 0.01


def test_a_warp_that_moves_the_image_in_testing_alone(monkeypatch):
    training = lambda r: 'bbox_rotation' in r  # noqa: E731
    found = audit_broken(monkeypatch, lambda r: r if training(r) else shift_image(r))
    assert found.end_to_end.input_px.mean(0)[0] == pytest.approx(0.125, abs=0.01)


def test_a_warp_that_moves_image_and_keypoints(monkeypatch):
    def move(results):
        results['transformed_keypoints'] = results['transformed_keypoints'] + [0.125, 0]
        return shift_image(results)

    found = audit_broken(monkeypatch, move)
    for transform in found.transforms:
        np.testing.assert_allclose(transform.deviation.mean(0), [0.125, 0], atol=1e-3)
        np.testing.assert_allclose(transform.misfit.mean(0), [0, 0], atol=0.01)
    # Nothing takes it off on the way back.
    assert found.end_to_end.round_trip.mean(0)[0] == pytest.approx(0.125, abs=0.001)
    assert names_of(found) == {'warp-equation'}


def swapped(maps, flip_indices, **settings):
    wrong = list(flip_indices)
    wrong[5], wrong[6] = 5, 6
    return flip_heatmaps(maps, flip_indices=wrong, **settings)


def unsigned(maps, **settings):
    """Offsets that keep their sign."""
    maps = flip_heatmaps(maps, **settings)
    maps[:, 1::3] *= -1
    return maps


@pytest.mark.parametrize(
    ('config', 'flip', 'least'), [(UDP, swapped, 1), (COMBINED, unsigned, 0.5)]
)
def test_what_is_wrong_in_the_flip_test(config, flip, least, monkeypatch):
    assert mean_x(audited(config).flip.configured) < 0.001
    monkeypatch.setattr(heatmap_head, 'flip_heatmaps', flip)
    found = audit(config)
    assert mean_x(found.flip.configured) > least
    assert names_of(found) == {'flip-maps'}
    # What a plain flip test would give stays.
    assert mean_x(found.flip.alone) < 0.001


def test_an_estimator_that_maps_back_wrongly(monkeypatch):
    add = TopdownPoseEstimator.add_pred_to_datasample

    def moved(self, *args):
        samples = add(self, *args)
        for sample in samples:
            pixel = sample.metainfo['input_scale'][0] / 191
            sample.pred_instances.keypoints[..., 0] += 0.1 * pixel
        return samples

    monkeypatch.setattr(TopdownPoseEstimator, 'add_pred_to_datasample', moved)
    found = audit(UDP)
    assert np.median(found.end_to_end.round_trip[:, 0]) == pytest.approx(0.1, rel=0.01)
    assert found.end_to_end.input_px.mean(0)[0] == pytest.approx(0.1, rel=0.01)
    assert names_of(found) == {'mapping-back'}


def test_broken_parts_of_ours_show(monkeypatch):
    read_maps = UDPOffsetHeatmap.read

    def moved(self, maps):
        keypoints, scores = read_maps(self, maps)
        return keypoints + keypoints.new_tensor([0.1, 0]), scores

    monkeypatch.setattr(UDPOffsetHeatmap, 'read', moved)
    found = audit(OFFSET)
    expected = 0.1 * 191 / 47
    assert found.coding.errors.mean(0)[0] == pytest.approx(expected, rel=0.01)
    assert [(f.name, f.severity) for f in found.findings] == [('coding', 'error')]


# --- what it shows --------------------------------------------------------------------


def test_the_json_has_its_keys(tmp_path, capsys):
    assert main(['audit', BIASED, '--json', '-o', str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / 'audit.json').read_text(encoding='utf-8'))
    assert printed == written
    assert ' '.join(written) == (
        'config data version input_size heatmap_size keypoints maps_per_keypoint '
        'transform_px encode_decode_px flip_alignment_px end_to_end_px oks ap_ceiling '
        'findings'
    )
    alone = written['flip_alignment_px']['alone']
    assert alone['x']['mean'] == pytest.approx(3, rel=0.01)
    assert alone['theory'] == dict(x=3.0, y=0.0, equation='Eq. 36')
    for axis in 'xy':
        assert set(alone[axis]) == {'mean', 'median', 'p95', 'max', 'signed_mean'}
    assert written['ap_ceiling']['theory'] == 100
    assert written['findings'][0]['name'] == 'biased'
    assert len(list(tmp_path.glob('*.png'))) == 5


def test_the_exit_status_is_for_ci(tmp_path, capsys):
    # Nor does an audit touch the caller's random numbers.
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    assert main(['audit', UDP]) == 0
    assert np.random.rand() == expected
    assert 'no findings' in capsys.readouterr().out
    file = planted(tmp_path, UDP, ('shift_heatmap=False', 'shift_heatmap=True'))
    assert main(['audit', str(file)]) == 1
    out = capsys.readouterr().out
    assert 'flip-shift' in out and 'shift_heatmap=False' in out
    # A flip test that fails leaves a table without it.
    change = ("flip_mode='udp_combined'", "flip_mode='heatmap'")
    assert main(['audit', str(planted(tmp_path, COMBINED, change))]) == 1
    out = capsys.readouterr().out
    assert 'flip-mode' in out and 'encode, decode' in out and 'end to end' not in out


def test_two_configs_side_by_side(tmp_path, capsys):
    assert main(['audit', BIASED, '--compare', UDP, '-o', str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if 'mirrored alone' in line)
    assert '3.00' in line and '0.0000' in line
    both = json.loads((tmp_path / 'audit.json').read_text(encoding='utf-8'))
    assert [one['config'] for one in both] == [BIASED, UDP]
    assert BIASED in shown and UDP in shown


def test_on_annotations(coco_mini, tmp_path):
    ann = coco_mini / 'test_coco.json'
    args = ['audit', UDP, '--ann', ann, '--img', coco_mini, '-o', tmp_path]
    assert main(list(map(str, args))) == 0
    written = json.loads((tmp_path / 'audit.json').read_text(encoding='utf-8'))
    annotated = json.loads(ann.read_text(encoding='utf-8'))['annotations']
    people = [a for a in annotated if a['num_keypoints'] and not a['iscrowd']]
    assert written['data'] == 'test_coco.json'
    assert written['end_to_end_px']['people'] == len(people)
    assert written['ap_ceiling']['value'] == pytest.approx(100)
    assert written['end_to_end_px']['source']['x']['mean'] < 0.01


def test_the_ceiling_comes_from_cocos_evaluation(coco_mini):
    """A pipeline that is far off reaches less, and its OKS says by how much."""
    cfg = resize(read(BIASED), input_size=(48, 64), heatmap_size=(12, 16), sigma=1)
    found = audit(cfg, coco_mini / 'test_coco.json', coco_mini)
    assert 20 < found.ap < 99
    # COCO's AP is the mean share of people above 0.5, 0.55, ... 0.95; with all scores
    # alike, precision is about that share, too.
    shares = [(found.end_to_end.oks >= t).mean() for t in np.arange(0.5, 1, 0.05)]
    assert found.ap == pytest.approx(100 * np.mean(shares), abs=12)


def test_oks_is_cocos():
    found = audited(BIASED)
    person = found.end_to_end.persons[0]
    sigmas = np.array(found.parts.metainfo['sigmas'])
    # As pycocotools writes it.
    dx, dy = (person.predicted - person.annotated).T
    e = (dx**2 + dy**2) / (sigmas * 2) ** 2 / person.area / 2
    assert oks(person, sigmas) == pytest.approx(np.exp(-e).mean())


def test_every_finding_is_documented():
    page = (PROJECT / 'docs' / 'audit.md').read_text(encoding='utf-8')
    page = page[page.index('## Findings') : page.index('Not looked at')]
    documented, there_are = defaultdict(set), defaultdict(set)
    for names, severities in re.findall(r'^\| (`[a-z`, -]+) \| ([^|]+)', page, re.M):
        for name in re.findall('[a-z-]{3,}', names):
            documented[name].update(re.findall('error|warning', severities))
    for name, text in TEXTS.items():
        there_are[name.partition('/')[0]].add(text['severity'])
    assert documented == there_are


# --- what cannot be audited -----------------------------------------------------------


def simcc():
    cfg = read()
    cfg.model.head = dict(
        type='SimCCHead',
        in_channels=32,
        out_channels=17,
        input_size=(192, 256),
        in_featuremap_size=(6, 8),
        decoder=dict(type='SimCCLabel', input_size=(192, 256), sigma=6.0),
    )
    return cfg


def untested():
    cfg = read()
    for key in ('val_dataloader', 'test_dataloader'):
        cfg.pop(key)
    return cfg


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (lambda: 'rtmpose-s_8xb256-420e_coco-256x192', 'no heatmaps|no config'),
        (lambda: 'no/such/config.py', 'no config'),
        (lambda: 'configs', 'folder'),
        (simcc, 'SimCCLabel, which has no heatmaps'),
        (untested, 'no val_dataloader'),
    ],
)
def test_other_configs_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        audit(config())


@pytest.mark.parametrize(
    ('ann', 'img', 'message'),
    [
        ('one.json', '.', 'of 1 keypoints, .* have 17'),
        ('broken.json', '.', 'not a JSON file'),
        ('list.json', '.', 'not in COCO format'),
        ('none.json', '.', 'no such file'),
        ('list.json', 'none', 'no such folder'),
        ('coco.json', '.', 'lacks 4 of 4 images'),
    ],
)
def test_unfit_annotations_are_refused(ann, img, message, tmp_path, coco_mini):
    one = dict(images=[], annotations=[dict(keypoints=[1, 2, 2])])
    coco = (coco_mini / 'test_coco.json').read_text(encoding='utf-8')
    texts = dict(one=json.dumps(one), broken='{', list='[]', coco=coco)
    for name, text in texts.items():
        (tmp_path / f'{name}.json').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match=message):
        audit(UDP, tmp_path / ann, tmp_path / img)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'either CONFIG or --maps'),
        ([UDP, '--ann', 'x.json'], 'go together'),
        ([UDP, '--input-size', '192', '256'], 'are for --maps'),
        ([UDP, '--codec', 'offset'], 'are for --maps'),
        ([UDP, '--maps', 'x.npy'], 'either CONFIG or --maps'),
        (['no-such-config'], 'no config'),
        ([UDP, '-o', __file__], 'name a folder'),
        (['--maps', 'none.npy'], 'none.npy'),
        (['--maps', 'flat.npy'], '(2, N, C, H, W)'),
    ],
)
def test_errors_end_with_status_2(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save('flat.npy', np.zeros((2, 3, 4, 5)))
    with pytest.raises(SystemExit) as stopped:
        main(['audit', *args])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# --- lines ----------------------------------------------------------------------------


def test_lines_are_those_of_the_file_that_says_it_last(tmp_path):
    base = tmp_path / 'base.py'
    base.write_text(
        "train_pipeline = [\n    dict(type='A', size=(1, 2)),\n]\n"
        "val_pipeline = [dict(type='A')]\nother = {'key': 3}\n",
        encoding='utf-8',
    )
    child = tmp_path / 'child.py'
    child.write_text("_base_ = 'base.py'\nother = dict(key=4)\n", encoding='utf-8')
    lines = Lines(Config.fromfile(child))
    assert lines.find('key') == 'child.py:2: other = dict(key=4)'
    assert lines.find('key', 3).startswith('base.py:5:')
    assert lines.find('size', (1, 2)).startswith('base.py:2:')
    assert lines.find('type', 'A', ['val']).startswith('base.py:4:')
    assert lines.find('type', 'A', ['train']).startswith('base.py:2:')
    assert lines.find('none') == ''
    assert Lines(Config(dict(a=1))).find('a') == ''


def test_configs_in_pythons_own_style(tmp_path):
    (tmp_path / 'runtime.py').write_text(RUNTIME, encoding='utf-8')
    line = 'dict(type=TopdownAffine, input_size=(192, 256), use_udp=True),'
    # A UDP warp after a config that is biased.
    text = f"""{PURE}
val_pipeline = [
    dict(type=LoadImage),
    dict(type=GetBBoxCenterScale),
    {line}
    dict(type=PackPoseInputs)]
val_dataloader = dict(dataset=dict(type=CocoDataset, pipeline=val_pipeline))
"""
    (tmp_path / 'mine.py').write_text(text, encoding='utf-8')
    found = audit(tmp_path / 'mine.py')
    (finding,) = (f for f in found.findings if f.severity == 'error')
    assert finding.name == 'warp-differs'
    number = text.splitlines().index(f'    {line}') + 1
    assert finding.line == f'mine.py:{number}: {line}'
