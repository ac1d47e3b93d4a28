"""Left and right: in names, in files, and in what pipelines mirror and convert."""

import json
from pathlib import Path

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
from udp_plugin.ui import UserError

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
        (folder / f'{i}.png').write_bytes(b'')
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
    with pytest.raises(UserError, match=r"ann\.json: keypoints 1 and 3 .*'wing'"):
        own_data.read_own_data(ann, tmp_path, tmp_path)
