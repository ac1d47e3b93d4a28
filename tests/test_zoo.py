"""A spread of the zoo's configs; ``zoo_sweep.py`` is about all of them."""

import re
from pathlib import Path

import pytest
from helpers import zoo_config
from mmpose.utils import register_all_modules
from zoo_sweep import COLUMNS, KEPT, has_fewer_test_keypoints, try_out

from udp_plugin.convert.zoo import convertible, zoo_folder

REGRESS = 'td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192'
AWING = 'td-hm_hrnetv2-w18_awing-8xb64-60e_wflw-256x256'
#: Every head, codec, loss and family of data sets, with networks as small as there are.
SPREAD = [
    ('td-hm_vipnas-mbv3_8xb64-210e_coco-256x192', 'names, offset'),
    ('td-hm_mspn50_8xb32-210e_coco-256x192', 'names, offset'),
    ('td-hm_rsn18_8xb32-210e_coco-256x192', 'convert, gaussian'),
    ('td-hm_cpm_8xb64-210e_coco-256x192', 'convert, offset'),
    ('td-hm_ViTPose-small-simple_8xb64-210e_coco-256x192', 'convert, offset'),
    ('cspnext-tiny_udp_8xb256-210e_aic-coco-256x192', 'convert, offset'),
    (REGRESS, 'names, offset'),
    (AWING, 'convert, offset'),
    ('td-hm_vipnas-mbv3_dark-8xb64-210e_coco-wholebody-256x192', 'convert, offset'),
    ('td-hm_mobilenetv2_8xb64-210e_onehand10k-256x256', 'names, offset'),
    ('td-hm_res50_8xb64-210e_deepfashion_full-256x192', 'convert, offset'),
]
KEPT_SPREAD = [
    'td-hm_hrnet-w32_8xb64-210e_coco-256x192',
    'td-hm_hrnet-w32_dark-8xb64-210e_coco-256x192',
    'td-hm_vipnas-mbv3_8xb64-210e_coco-256x192',
    'td-hm_mspn50_8xb32-210e_coco-256x192',
    'td-hm_rsn18_8xb32-210e_coco-256x192',
    'td-hm_cpm_8xb64-210e_coco-256x192',
    'td-hm_hourglass52_8xb32-210e_coco-256x256',
    'td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge',
    'cspnext-tiny_udp_8xb256-210e_aic-coco-256x192',
    REGRESS,
]
#: With large networks, whose heads and codecs others have, too.
SLOW_SPREAD = [
    (REGRESS, 'convert, gaussian'),
    (AWING, 'names, gaussian'),
    ('td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge', 'names, offset'),
    ('td-hm_res50_8xb64-20e_jhmdb-sub1-256x256', 'names, gaussian'),
    ('td-hm_res50_8xb64-210e_locust-160x160', 'names, offset'),
]
#: The names with their folders, by which the toolbox knows them.
FULL = {Path(name).stem: name for name in convertible()}
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(autouse=True, scope='module')
def registered():
    register_all_modules()


@pytest.mark.parametrize(
    ('name', 'column'),
    SPREAD
    + [(name, KEPT) for name in KEPT_SPREAD]
    + [pytest.param(*one, marks=pytest.mark.slow) for one in SLOW_SPREAD],
    ids=str,
)
def test_it_trains_and_predicts(name, column):
    checked = try_out(FULL[name], column)
    config = zoo_config(FULL[name])
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

    assert len(FULL) == 278
    assert kinds([FULL[name] for name in dict(SPREAD + SLOW_SPREAD)]) == kinds(
        FULL.values()
    )
    assert {KEPT, *(column for _, column in SPREAD + SLOW_SPREAD)} == set(COLUMNS)


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
        try_out(FULL[name], column)
