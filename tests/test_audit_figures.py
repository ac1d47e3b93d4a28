"""The audit's figures: made of any config, whatever failed, without a warning."""

import warnings

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from udp_plugin.audit import figures, measures
from udp_plugin.audit.measures import Flip
from udp_plugin.audit.parts import Parts
from udp_plugin.audit.people import annotated_people, random_people
from udp_plugin.audit.result import Audit
from udp_plugin.audit.warps import measure_transform
from udp_plugin.convert.zoo import find_config
from udp_plugin.ui import quiet

BIASED = 'td-hm_hrnet-w32_8xb64-210e_coco-256x192'
SIZES = dict(input_size=(192, 256), heatmap_size=(48, 64))
CODECS = {
    'biased': dict(type='MSRAHeatmap', sigma=2, **SIZES),
    'cells': dict(type='MegviiHeatmap', kernel_size=11, **SIZES),
    'udp': dict(type='UDPHeatmap', sigma=2, **SIZES),
    'offset': dict(type='UDPOffsetHeatmap', **SIZES),
    'tiny': dict(
        type='UDPGaussianHeatmap', sigma=1, input_size=(32, 32), heatmap_size=(8, 8)
    ),
    'large': dict(
        type='MSRAHeatmap', sigma=6, input_size=(192, 256), heatmap_size=(192, 256)
    ),
}


def build(codec, keypoints, flip_test=True):
    """A config's parts, with another codec and other keypoints."""
    cfg = Config.fromfile(find_config(BIASED))
    cfg.custom_imports = dict(imports=['udp_plugin'], allow_failed_imports=False)
    head = cfg.model.head
    head.out_channels, head.decoder = keypoints, codec
    if codec['type'] == 'UDPOffsetHeatmap':
        head.type = 'UDPHeatmapHead'
    cfg.model.test_cfg.flip_test = flip_test
    names = [f'k{k}' for k in range(keypoints)]
    points = {
        k: dict(name=names[k], id=k, swap=''.join(names[k ^ 1 :][:1]))
        for k in range(keypoints)
    }
    metainfo = dict(dataset_name='some', keypoint_info=points, skeleton_info={})
    metainfo.update(joint_weights=[1.0] * keypoints, sigmas=[0.05] * keypoints)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].dataset.metainfo = metainfo
        for step in cfg[key].dataset.pipeline:
            if 'input_size' in step:
                step.input_size = codec['input_size']
            if 'encoder' in step:
                step.encoder = codec
    return Parts(cfg)


def measure(parts, people=None):
    """An audit of few people."""
    with quiet():
        coding = measures.measure_coding(parts)
        transform = measure_transform(parts, parts.test)
        people = people or random_people(parts, 2)
        end = measures.measure_end_to_end(parts, coding, transform, None, people)
        flip = measures.measure_flip(parts, coding)
    return Audit('a config', parts=parts, coding=coding, flip=flip, end_to_end=end)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(measures, 'POINTS', 256)
    monkeypatch.setattr('udp_plugin.audit.warps.PERSONS', 2)


def check(folder, *audits):
    """Draw without a warning PNGs of a sensible size, in which something is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # Of matplotlib's own dependencies.
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        files = figures.draw(audits, folder)
    crops = [f'{name}{n}' for n in ('', '_1', '_2') for name in ('crop', 'targets')]
    crops = crops[:2] if len(audits) == 1 else crops[2:]
    assert [file.stem for file in files] == ['subpixel', 'flip', 'errors', *crops]
    for file in files:
        image = cv2.imread(str(file))
        height, width = image.shape[:2]
        assert 400 < height < 2000
        assert 700 < width < 2600
        assert image.std() > 5


@pytest.mark.parametrize(
    ('codec', 'keypoints'), zip(CODECS, [1, 4, 17, 1, 3, 12]), ids=CODECS
)
def test_figures_are_made(codec, keypoints, tmp_path):
    check(tmp_path, measure(build(CODECS[codec], keypoints)))


def test_two_configs_and_a_photograph(coco_mini, tmp_path):
    audits = []
    for name in ('biased', 'offset'):
        parts = build(CODECS[name], 17)
        people = annotated_people(parts, coco_mini / 'test_coco.json', coco_mini)
        audits.append(measure(parts, people[:2]))
    check(tmp_path, *audits)


def test_what_failed_is_drawn_too(tmp_path):
    """Without a flip test, nothing read, nobody labelled, and an odd name."""
    found = measure(build(CODECS['biased'], 2, flip_test=False))
    coding, flip, end = found.coding, found.flip, found.end_to_end
    assert flip.configured is None
    nothing = np.full((8, 2), np.nan)
    found.coding = coding._replace(errors=np.full_like(coding.errors, np.nan))
    found.flip = Flip(nothing, nothing, flip.averaged, nothing[:0], None)
    nobody = end.persons[0]._replace(labelled=np.zeros(2, bool))
    found.end_to_end = end._replace(input_px=nothing[:0], persons=[nobody])
    found.name = '_a$b$' + '名' * 99
    check(tmp_path, found)
