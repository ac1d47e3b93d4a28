"""Left and right: in names, in files, and in what pipelines mirror and convert."""

import json
import re

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.registry import TRANSFORMS

from udp_plugin.audit import measures, run
from udp_plugin.audit.run import audit
from udp_plugin.convert.zoo import find_config
from udp_plugin.demo import own_data
from udp_plugin.errors import UserError
from udp_plugin.keypoint_names import mirror_images, side_of

UDP = 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192'
DATA = find_config(UDP).parents[3] / '_base_' / 'datasets'
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module', autouse=True)
def few():
    """Fewer keypoints and people, which show as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, 'POINTS', 512)
        patch.setattr(run, 'RANDOM_PEOPLE', 20)
        yield


# --- names ----------------------------------------------------------------------------

#: Names that are pairs, two by two, and after a bar names that have no mirror image.
NAMES = [
    'left_eye right_eye l_ear r_ear leftHip rightHip | nose',
    'eye_left eye_right ear_l ear_r hipL hipR KneeLeft KneeRight | chin',
    'L_Eye R_Eye LEar REar LEFT_HIP RIGHT_HIP EYE_L EYE_R RBigToe LBigToe | TOP',
    'lefteye righteye LEFTEAR RIGHTEAR lhip rhip Lshoulder Rshoulder | tail',
    'hand.L hand.R foot-l foot-r forelegL1 forelegR1 forelegL2 forelegR2 | abdomen1',
    'wheel_FL wheel_FR wheel_RL wheel_RR | roof',
    'UL UR LL LR | middle',
    'LF_paw RF_paw LR_paw RR_paw | tail',
    'L R | nose',
    'left_hand_left_finger right_hand_right_finger left_hand right_hand | palm',
    'left_eye_left_corner right_eye_right_corner '
    'left_eye_right_corner right_eye_left_corner | nose',
    'left_upright right_upright lateral_left_knee lateral_right_knee | bright cleft',
    'left_L1 right_L1 left_L2 right_L2 | hip',
    '| lip rip ball barr lock rock lead read flap frap upper_lip upper_rip',
    '| j k l m q r s',
    '| point_k point_l point_q point_r',
    '| left_eye left_ear right_hip r_knee',
]


def category_file(folder, names, **changes):
    """A COCO-format file of two images and persons with keypoints of these names."""
    ids, size = range(2), dict(width=64, height=48)
    person = dict(category_id=1, bbox=[2, 3, 20, 30], keypoints=[9, 9, 2] * len(names))
    for i in ids:
        cv2.imwrite(str(folder / f'{i}.png'), np.zeros((48, 64, 3), np.uint8))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', **size) for i in ids],
        annotations=[dict(id=i, image_id=i, **person) for i in ids],
        categories=[dict(id=1, name='thing', keypoints=names)],
    )
    path = folder / 'ann.json'
    path.write_text(json.dumps(dict(content, **changes)))
    return path


@pytest.mark.parametrize('line', NAMES)
def test_left_and_right_in_every_usual_form(line, tmp_path):
    paired, single = (part.split() for part in line.split('|'))
    names = [*paired, *single]
    data, files = own_data.read_own_data(
        category_file(tmp_path, names), tmp_path, tmp_path
    )
    data.metainfo.write_text(files[data.metainfo])
    info = parse_pose_metainfo(dict(from_file=str(data.metainfo)))
    expected = [k ^ 1 for k in range(len(paired))]
    assert info['flip_indices'] == [*expected, *range(len(paired), len(names))]


def test_keypoints_of_one_name_are_refused(tmp_path):
    ann = category_file(tmp_path, ['beak', 'wing', 'tail', 'wing'])
    with pytest.raises(UserError, match=r"ann\.json .*: keypoints 1 and 3 .*'wing'"):
        own_data.read_own_data(ann, tmp_path, tmp_path)


def metainfo_files():
    return [path for path in sorted(DATA.glob('*.py')) if path.stem != '__init__']


def test_names_say_what_the_zoos_metainfo_says():
    """Wherever there are sides in names, as people have written them."""
    sided = 0
    for path in metainfo_files():
        info = parse_pose_metainfo(dict(from_file=str(path)))
        names = list(info['keypoint_id2name'].values())
        mirrored = mirror_images(names)
        pairs = [k for k, twin in enumerate(mirrored) if twin != k]
        assert [mirrored[k] for k in pairs] == [info['flip_indices'][k] for k in pairs]
        written = [
            k
            for k, twin in enumerate(info['flip_indices'])
            if twin != k and side_of(names[k])
        ]
        assert set(written) <= set(pairs), path.name
        sided += bool(pairs)
    assert sided > 30


# --- what pipelines mirror and convert ------------------------------------------------

FLIP = dict(type='RandomFlip', direction='horizontal')
LOAD, BOX = dict(type='LoadImage'), dict(type='GetBBoxCenterScale')
COCO, AIC = (dict(from_file=str(DATA / f'{name}.py')) for name in ('coco', 'aic'))
#: The zoo's own, of AIC's keypoints that COCO has.
AIC_TO_COCO = dict(
    type='KeypointConverter',
    num_keypoints=17,
    mapping=list(zip(range(12), (6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15))),
)
#: To COCO's keypoints from the same in the opposite order, in two ways.
TURNED = dict(
    type='KeypointConverter', num_keypoints=17, mapping=[(k, 16 - k) for k in range(17)]
)
MEANS = dict(TURNED, mapping=[((k, k), 16 - k) for k in range(17)])
#: The nose between the eyes; the toolbox's converter writes on flip_indices.
NOSE = dict(TURNED, mapping=[((1, 2), 0), *((k, k) for k in range(16, 0, -1))])
#: As TURNED, but for the shoulders.
CROSSED = dict(TURNED, mapping=[*TURNED['mapping'][:-7], (10, 5), (11, 6)])
CROSSED['mapping'] += TURNED['mapping'][-5:]


def coco_info(**swaps):
    info = Config.fromfile(DATA / 'coco.py').dataset_info.to_dict()
    for name, swap in swaps.items():
        (point,) = (p for p in info['keypoint_info'].values() if p['name'] == name)
        point['swap'] = swap
    return info


def turned_info():
    info = coco_info()
    points = info['keypoint_info']
    info['keypoint_info'] = {k: dict(points[16 - k], id=k) for k in range(17)}
    return info


def of_coco(*steps):
    return dict(type='CocoDataset', pipeline=list(steps))


def of_aic(*steps):
    return dict(type='AicDataset', pipeline=list(steps))


def turned(*steps):
    return dict(type='CocoDataset', metainfo=turned_info(), pipeline=list(steps))


def combined(*datasets, steps=(), metainfo=COCO):
    return dict(
        type='CombinedDataset',
        metainfo=metainfo,
        datasets=list(datasets),
        pipeline=list(steps),
    )


def repeated(dataset):
    return dict(type='RepeatDataset', times=2, dataset=dataset)


@TRANSFORMS.register_module()
class MirrorWithoutSwap(BaseTransform):
    """Image and keypoints are mirrored now and then, and each keeps its name."""

    def transform(self, results):
        if np.random.rand() < 0.5:
            width = results['img_shape'][1]
            results['img'] = results['img'][:, ::-1]
            for key in ('keypoints', 'bbox_center'):
                results[key] = results[key].copy()
                results[key][..., 0] = width - 1 - results[key][..., 0]
        return results


def trained_on(make):
    """UDP's config with other training data, made of its warp and what follows."""
    cfg = Config.fromfile(find_config(UDP))
    warp = [step.to_dict() for step in cfg.train_dataloader.dataset.pipeline[5:]]
    cfg.train_dataloader.dataset = make(warp)
    return cfg


RIGHT = {
    'converted, mirrored': lambda warp: combined(
        of_coco(), of_aic(AIC_TO_COCO), steps=[LOAD, BOX, FLIP, *warp]
    ),
    'mirrored, converted': lambda warp: combined(
        of_aic(LOAD, BOX, FLIP, AIC_TO_COCO, *warp), of_coco(LOAD, BOX, FLIP, *warp)
    ),
    'mirrored, converted outside': lambda warp: combined(
        turned(LOAD, BOX, FLIP), steps=[TURNED, *warp]
    ),
    'means': lambda warp: combined(turned(MEANS), steps=[LOAD, BOX, FLIP, *warp]),
    'mirrored, means': lambda warp: of_coco(LOAD, BOX, FLIP, NOSE, *warp),
    'repeated': lambda warp: repeated(
        combined(repeated(turned(TURNED)), of_coco(), steps=[LOAD, BOX, FLIP, *warp])
    ),
    'always': lambda warp: of_coco(LOAD, BOX, dict(FLIP, prob=1.0), *warp),
    'upside down': lambda warp: of_coco(
        LOAD, BOX, dict(FLIP, direction=['vertical', 'horizontal']), *warp
    ),
    'never': lambda warp: of_aic(LOAD, BOX, AIC_TO_COCO, *warp),
    'half of a body': lambda warp: of_coco(
        LOAD, BOX, FLIP, dict(type='RandomHalfBody', prob=1.0), *warp
    ),
}


@pytest.mark.parametrize('way', RIGHT)
def test_what_is_mirrored_rightly_has_no_finding(way):
    assert audit(trained_on(RIGHT[way])).findings == []


#: The training data, the finding, where, and what it says or how it is to be mended.
WRONG = {
    'mirrored by the indices of what is converted later': (
        lambda warp: combined(
            of_coco(), turned(), steps=[LOAD, BOX, FLIP, TURNED, *warp]
        ),
        'flip-indices',
        '.dataset.pipeline[2]',
        'KeypointConverter before RandomFlip',
    ),
    'mirrored by the indices of what was converted before': (
        lambda warp: combined(
            of_coco(LOAD, BOX, FLIP, *warp), turned(LOAD, BOX, TURNED, FLIP, *warp)
        ),
        'flip-indices',
        '.datasets[1].pipeline[3]',
        'CombinedDataset',
    ),
    'mirrored by indices that the converter has changed': (
        lambda warp: turned(LOAD, BOX, MEANS, FLIP, *warp),
        'flip-indices',
        '.dataset.pipeline[3]',
        'CombinedDataset',
    ),
    'fewer indices than keypoints': (
        lambda warp: of_aic(LOAD, BOX, AIC_TO_COCO, FLIP, *warp),
        'flip-indices',
        '.dataset.pipeline[3]',
        '14 keypoints',
    ),
    'more indices than keypoints': (
        lambda warp: combined(
            of_coco(), of_aic(), steps=[LOAD, BOX, FLIP, AIC_TO_COCO, *warp]
        ),
        'flip-indices',
        '.dataset.pipeline[2]',
        'IndexError',
    ),
    'no swap in the metainfo of those combined': (
        lambda warp: combined(
            of_coco(),
            of_aic(AIC_TO_COCO),
            steps=[LOAD, BOX, FLIP, *warp],
            metainfo=coco_info(left_hip='', right_hip=''),
        ),
        'flip-indices',
        '.pipeline[2]',
        '[11, 12]',
    ),
    'mirrored without a swap': (
        lambda warp: of_coco(LOAD, BOX, dict(type='MirrorWithoutSwap'), *warp),
        'flip-indices',
        '.dataset',
        '[1, 2, 3,',
    ),
    'mirrored after the warp': (
        lambda warp: of_coco(LOAD, BOX, warp[0], FLIP, *warp[1:]),
        'image-and-keypoints',
        '.pipeline[3]',
        'before the warp',
    ),
    'left converted to right': (
        lambda warp: combined(
            of_coco(), turned(CROSSED), steps=[LOAD, BOX, FLIP, *warp]
        ),
        'sides',
        '.datasets[1].pipeline[0]',
        'right_shoulder',
    ),
}


@pytest.mark.parametrize('way', WRONG)
def test_what_is_mirrored_wrongly_is_found_and_named(way):
    make, name, where, said = WRONG[way]
    found = audit(trained_on(make))
    (finding,) = found.findings
    assert finding.name == name
    assert finding.severity == ('warning' if name == 'sides' else 'error')
    assert finding.where.startswith('train_dataloader.dataset')
    assert finding.where.endswith(where)
    assert said in f'{finding.what} {finding.fix}'


def test_names_that_are_pairs_without_a_swap():
    """In training and in testing alike, so that nothing contradicts them."""
    cfg = Config.fromfile(find_config(UDP))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.metainfo = coco_info(left_hip='', right_hip='')
    (finding,) = audit(cfg).findings
    assert (finding.name, finding.severity) == ('sides', 'warning')
    assert 'left_hip' in finding.what and 'right_hip' in finding.what
    assert 'swap' in finding.fix


def with_test_data(make):
    cfg = Config.fromfile(find_config(UDP))
    steps = [step.to_dict() for step in cfg.val_dataloader.dataset.pipeline]
    for loader in ('val_dataloader', 'test_dataloader'):
        cfg[loader].dataset = make(steps)
    return cfg


@pytest.mark.parametrize('convert', [TURNED, AIC_TO_COCO], ids=['all', 'some'])
def test_converted_test_data_have_the_combined_metainfo(convert):
    inner = turned if convert is TURNED else of_aic
    cfg = with_test_data(lambda steps: combined(inner(convert), steps=steps))
    found = audit(cfg)
    assert found.findings == []
    assert np.abs(found.end_to_end.input_px).mean() < 0.001
    assert found.ap == pytest.approx(100)


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        (lambda steps: turned(TURNED, *steps), '[0, 1, 2, 3,'),
        (lambda steps: of_aic(AIC_TO_COCO, *steps), '14'),
    ],
)
def test_converted_test_data_without_their_flip_indices(data, said):
    (finding,) = audit(with_test_data(data)).findings
    assert finding.severity == 'error'
    assert said in finding.what
    assert 'CombinedDataset' in f'{finding.what} {finding.fix}'
    assert finding.where.startswith('val_dataloader.dataset.pipeline')


def renamed(**changes):
    info = coco_info()
    for k, change in changes.items():
        info['keypoint_info'][int(k[1:])].update(change)
    return info


def renumbered():
    info = coco_info()
    info['keypoint_info'] = {k + 1: p for k, p in info['keypoint_info'].items()}
    return info


@pytest.mark.parametrize(
    ('info', 'said'),
    [
        (renamed(k3=dict(name='nose')), "keypoints 0 and 3 .* 'nose'"),
        (renamed(k3=dict(swap='left_rae')), "'left_rae'"),
        (renumbered(), 'from 0 on'),
    ],
    ids=['twice', 'unknown', 'from 1 on'],
)
def test_metainfo_whose_names_do_not_go_together(info, said):
    cfg = Config.fromfile(find_config(UDP))
    cfg.train_dataloader.dataset.metainfo = info
    (finding,) = audit(cfg).findings
    assert (finding.name, finding.severity) == ('build', 'error')
    assert re.search(said, finding.what)
    assert 'CocoDataset' in finding.what
