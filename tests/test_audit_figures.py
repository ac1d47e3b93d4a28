"""The audit's figures: made of any config, whatever failed, without a warning."""

import warnings
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from udp_plugin.audit import figures, measures
from udp_plugin.audit.measures import Flip
from udp_plugin.audit.parts import Parts
from udp_plugin.audit.people import annotated_people
from udp_plugin.audit.theory import expected_flip
from udp_plugin.convert.zoo import find_config

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
    cfg.merge_from_dict(
        {
            'custom_imports': dict(imports=['udp_plugin'], allow_failed_imports=False),
            'model.head.out_channels': keypoints,
            'model.test_cfg.flip_test': flip_test,
        }
    )
    if codec['type'] == 'UDPOffsetHeatmap':
        cfg.model.head.type = 'UDPHeatmapHead'
    cfg.model.head.decoder = codec
    names = [f'k{k}' for k in range(keypoints)]
    swaps = [names[k ^ 1] if k ^ 1 < keypoints else '' for k in range(keypoints)]
    metainfo = dict(
        dataset_name='some',
        paper_info={},
        keypoint_info={
            k: dict(name=names[k], id=k, color=[0, 0, 0], type='', swap=swaps[k])
            for k in range(keypoints)
        },
        skeleton_info={},
        joint_weights=[1.0] * keypoints,
        sigmas=[0.05] * keypoints,
    )
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[key].dataset
        dataset.metainfo = metainfo
        for step in dataset.pipeline:
            if 'input_size' in step:
                step.input_size = codec['input_size']
            if 'encoder' in step:
                step.encoder = codec
    return Parts(cfg)


def measure(parts, people=None):
    """Coding, flip, and end to end, of few keypoints and people."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        coding = measures.measure_coding(parts)
        transform = measures.measure_transform(parts, parts.test)
        people = people or measures.random_people(parts, 2)
        return (
            coding,
            measures.measure_flip(parts, coding),
            measures.measure_end_to_end(parts, coding, transform, None, people),
        )


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(measures, 'POINTS', 256)
    monkeypatch.setattr(measures, 'PERSONS', 2)


def theory_of(parts, coding):
    return {name: one.x for name, one in expected_flip(parts, coding).items()}


def check(path):
    """A PNG of a sensible size, in which something is drawn."""
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    assert 400 < height < 2000
    assert 700 < width < 2600
    assert image.std() > 5


@contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # Of matplotlib's own dependencies.
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        yield


def draw_all(folder, parts, coding, flip, end, name='a config'):
    files = [folder / f'{index}.png' for index in range(5)]
    with no_warnings():
        figures.draw_subpixel(files[0], {name: (parts, coding)})
        figures.draw_flip(files[1], parts, coding, end.persons[0])
        figures.draw_histograms(files[2], {name: (coding, end)})
        figures.draw_targets(files[3], parts, coding, end.persons[0])
        figures.draw_flip_bars(files[4], {name: (flip, theory_of(parts, coding))})
    for file in files:
        check(file)


@pytest.mark.parametrize(
    ('codec', 'keypoints'),
    [
        ('biased', 1),
        ('cells', 4),
        ('udp', 17),
        ('offset', 1),
        ('tiny', 3),
        ('large', 12),
    ],
)
def test_figures_are_made(codec, keypoints, tmp_path):
    parts = build(CODECS[codec], keypoints)
    coding, flip, end = measure(parts)
    draw_all(tmp_path, parts, coding, flip, end)


def test_two_configs_and_a_photograph(coco_mini, tmp_path):
    found = {}
    for name in ('biased', 'offset'):
        parts = build(CODECS[name], 17)
        people = annotated_people(parts, coco_mini / 'test_coco.json', coco_mini)
        found[name] = (parts, *measure(parts, people[:2]))
    files = {name: tmp_path / f'{name}.png' for name in ('s', 'h', 'b', *found)}
    with no_warnings():
        for name, (parts, coding, _, end) in found.items():
            figures.draw_flip(files[name], parts, coding, end.persons[0])
        codings = {name: (one[0], one[1]) for name, one in found.items()}
        figures.draw_subpixel(files['s'], codings)
        errors = {name: (one[1], one[3]) for name, one in found.items()}
        figures.draw_histograms(files['h'], errors)
        flips = {name: (one[2], theory_of(*one[:2])) for name, one in found.items()}
        figures.draw_flip_bars(files['b'], flips)
    for file in files.values():
        check(file)


def test_what_failed_is_drawn_too(tmp_path):
    """Without a flip test, nothing read, nobody labelled, and an odd name."""
    parts = build(CODECS['biased'], 2, flip_test=False)
    coding, flip, end = measure(parts)
    assert flip.configured is None
    nothing = np.full((8, 2), np.nan)
    coding = coding._replace(errors=np.full_like(coding.errors, np.nan))
    flip = Flip(nothing, nothing, flip.averaged, nothing[:0], None)
    person = end.persons[0]
    nobody = person._replace(labelled=np.zeros_like(person.labelled))
    end = end._replace(input_px=nothing[:0], persons=[nobody])
    draw_all(tmp_path, parts, coding, flip, end, name='_a$b$' + '名' * 99)
