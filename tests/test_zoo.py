"""A spread of the zoo's configs; ``zoo_sweep.py`` is about all of them."""

import re

import pytest
from helpers import zoo_config
from mmpose.utils import register_all_modules
from zoo_sweep import COLUMNS, has_fewer_test_keypoints, try_out

from udp_plugin.convert.zoo import convertible, zoo_folder

COCO = 'body_2d_keypoint/topdown_heatmap/coco'
WHOLEBODY = 'wholebody_2d_keypoint/topdown_heatmap/coco-wholebody'
JHMDB = 'body_2d_keypoint/topdown_heatmap/jhmdb'
WFLW = 'face_2d_keypoint/topdown_heatmap/wflw'
HAND = 'hand_2d_keypoint/topdown_heatmap/onehand10k'
FASHION = 'fashion_2d_keypoint/topdown_heatmap/deepfashion'
ANIMAL = 'animal_2d_keypoint/topdown_heatmap/locust'
REGRESS = f'{COCO}/td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192.py'
AWING = f'{WFLW}/td-hm_hrnetv2-w18_awing-8xb64-60e_wflw-256x256.py'
#: Every head, codec, loss and family of data sets, with networks as small as there are.
SPREAD = [
    (f'{COCO}/td-hm_vipnas-mbv3_8xb64-210e_coco-256x192.py', 'names, offset'),
    (f'{COCO}/td-hm_mspn50_8xb32-210e_coco-256x192.py', 'names, offset'),
    (f'{COCO}/td-hm_rsn18_8xb32-210e_coco-256x192.py', 'convert, gaussian'),
    (f'{COCO}/td-hm_cpm_8xb64-210e_coco-256x192.py', 'convert, offset'),
    (
        f'{COCO}/td-hm_ViTPose-small-simple_8xb64-210e_coco-256x192.py',
        'convert, offset',
    ),
    (f'{COCO}/cspnext-tiny_udp_8xb256-210e_aic-coco-256x192.py', 'convert, offset'),
    (REGRESS, 'names, offset'),
    (AWING, 'convert, offset'),
    (
        f'{WHOLEBODY}/td-hm_vipnas-mbv3_dark-8xb64-210e_coco-wholebody-256x192.py',
        'convert, offset',
    ),
    (f'{HAND}/td-hm_mobilenetv2_8xb64-210e_onehand10k-256x256.py', 'names, offset'),
    (
        f'{FASHION}/td-hm_res50_8xb64-210e_deepfashion_full-256x192.py',
        'convert, offset',
    ),
]
#: With large networks, whose heads and codecs others have, too.
SLOW_SPREAD = [
    (REGRESS, 'convert, gaussian'),
    (AWING, 'names, gaussian'),
    (f'{COCO}/td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge.py', 'names, offset'),
    (f'{JHMDB}/td-hm_res50_8xb64-20e_jhmdb-sub1-256x256.py', 'names, gaussian'),
    (f'{ANIMAL}/td-hm_res50_8xb64-210e_locust-160x160.py', 'names, offset'),
]
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(autouse=True, scope='module')
def registered():
    register_all_modules()


@pytest.mark.parametrize(
    ('name', 'column'),
    SPREAD + [pytest.param(*one, marks=pytest.mark.slow) for one in SLOW_SPREAD],
    ids=lambda given: given.rpartition('/')[-1],
)
def test_it_trains_and_predicts(name, column):
    checked = try_out(name, column)
    config = zoo_config(name)
    fewer = has_fewer_test_keypoints(config)
    assert checked.flip_test or fewer
    decoder = config.model.head.get('pose_cfg', config.model.head).decoder
    channels = 3 if column.endswith('offset') else 1
    for batch, maps, height, width in checked.maps:
        assert batch == 2
        assert [width, height] == list(decoder.heatmap_size)
        assert fewer or maps == channels * checked.keypoints[1]


def test_the_spread_has_every_kind_that_the_zoo_has():
    def kinds(names):
        # Of their texts: to read 278 configs with all that they inherit takes long.
        texts = [(zoo_folder() / name).read_text(encoding='utf-8') for name in names]
        types = re.findall(r"type='(\w+(?:Head|Heatmap|Loss))'", ' '.join(texts))
        return {*types, *(name.partition('/')[0] for name in names)}

    zoo = convertible()
    assert len(zoo) == 278
    assert kinds(dict(SPREAD + SLOW_SPREAD)) == kinds(zoo)
    assert {column for _, column in SPREAD + SLOW_SPREAD} == set(COLUMNS)


@pytest.mark.parametrize(
    ('name', 'column', 'message'),
    [
        (
            AWING,
            'names, offset',
            'AdaptiveWingLoss .* is not defined on offset maps; use UDPOffsetLoss',
        ),
        (REGRESS, 'names, gaussian', 'use UDPOffsetHeatmap'),
    ],
)
def test_names_alone_say_what_they_cannot_do(name, column, message):
    with pytest.raises(ValueError, match=message):
        try_out(name, column)
