"""The audit of trained weights: hand-made ones, of which it is known what they do.

The network sees where dots are, red ones at the left and at the right and a green one,
and answers with Gaussians where its weights say: by which measure, rounded or not, and
how far off.
"""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpose.registry import MODELS
from torch import nn

from udp_plugin.audit import measures, run
from udp_plugin.audit import trained as audit_trained
from udp_plugin.audit.measures import measure_coding
from udp_plugin.audit.parts import Parts
from udp_plugin.audit.people import drawn_people
from udp_plugin.audit.trained import measure_trained, networks, people_of
from udp_plugin.cli import main
from udp_plugin.convert.zoo import find_config

pytestmark = pytest.mark.filterwarnings('ignore')
#: Input and heatmap size by stride.
SIZES = {4: ((96, 128), (24, 32)), 8: ((192, 256), (24, 32))}
#: Of a person's box in source px; padded by 1.25, it is the crop.
BOX = np.array([84.0, 112.0])
PEOPLE = 64
CODECS = {
    'MSRAHeatmap': dict(type='MSRAHeatmap', sigma=2),
    'DARK': dict(type='MSRAHeatmap', sigma=2, unbiased=True),
    'MegviiHeatmap': dict(type='MegviiHeatmap', kernel_size=11),
    'UDPHeatmap': dict(type='UDPHeatmap', sigma=2),
    'UDPGaussianHeatmap': dict(type='UDPGaussianHeatmap', sigma=2),
}
CONFIG = """
custom_imports = dict(imports=['udp_plugin', 'test_audit_trained'])
default_scope = 'mmpose'
codec = dict(input_size={size}, heatmap_size={maps}, **{codec})
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255]
    ),
    backbone=dict(type='SeesDots', heatmap_size={maps}),
    head=dict(
        type={head!r}, in_channels=3, out_channels=3, deconv_out_channels=None,
        final_layer=None, decoder=codec,
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
    ),
    test_cfg=dict(flip_test=True, shift_heatmap={shift}),
)
steps = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size={size}, use_udp={udp}),
]
pack = [dict(type='PackPoseInputs')]
target = [dict(type='GenerateTarget', encoder=codec)]
data = dict(
    type='BaseCocoStyleDataset',
    ann_file='dots.json',
    metainfo=dict(
        dataset_name='dots',
        paper_info=dict(),
        keypoint_info={{
            0: dict(name='left', id=0, color=[0, 0, 0], type='', swap='right'),
            1: dict(name='right', id=1, color=[0, 0, 0], type='', swap='left'),
            2: dict(name='top', id=2, color=[0, 0, 0], type='', swap=''),
        }},
        skeleton_info=dict(),
        joint_weights=[1.0] * 3,
        sigmas=[0.05] * 3,
    ),
)
train_dataloader = dict(dataset=dict(data, pipeline=steps + target + pack))
test_dataloader = val_dataloader = dict(dataset=dict(data, pipeline=steps + pack))
"""


@MODELS.register_module(force=True)
class SeesDots(nn.Module):
    """Gaussians at the centroids of dots, by weights that are made by hand."""

    def __init__(self, heatmap_size):
        super().__init__()
        self.heatmap_size = heatmap_size
        self.stride = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.corner = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.rounded = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.off = nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))

    def forward(self, inputs):
        inputs = inputs.double()
        x, y = (torch.arange(float(n)) for n in inputs.shape[:1:-1])
        red, green = inputs[:, 2], inputs[:, 1]
        middle = (red.sum(1) @ x.double() / red.sum((1, 2)))[:, None, None]
        # Facing the viewer, the left one is at the right.
        dots = red * (x > middle), red * (x <= middle), green
        seen = []
        for dot in dots:
            mass = dot.sum((1, 2))
            place = dot.sum(1) @ x.double() / mass, dot.sum(2) @ y.double() / mass
            seen.append(torch.stack(place, -1))
        place = (torch.stack(seen, 1) + self.off) / self.stride - self.corner
        place = torch.where(self.rounded > 0, (place + 0.5).floor(), place)
        width, height = (torch.arange(float(n)) for n in self.heatmap_size)
        away = ((width - place[..., :1])[:, :, None] ** 2) + (
            (height - place[..., 1:])[..., None] ** 2
        )
        return (torch.exp(-away / 8).float(),)


@pytest.fixture(scope='module')
def dots(tmp_path_factory):
    """A folder of photographs of dots, and their annotations, exact."""
    folder, rng = tmp_path_factory.mktemp('dots'), np.random.default_rng(0)
    images, people, (width, height) = [], [], (140, 180)
    x, y = np.arange(width), np.arange(height)
    for index in range(1, PEOPLE + 1):
        corner = rng.uniform(0, [width, height] - BOX)
        # Left, right, top; apart from each other and from the border.
        places = np.array([[0.75, 0.6], [0.25, 0.6], [0.5, 0.3]]) * BOX + corner
        places += rng.uniform(-8, 8, (3, 2))
        image = np.zeros((height, width, 3))
        for (u, v), channel in zip(places, (2, 2, 1)):
            across, down = (np.exp(-((a - b) ** 2) / 18) for a, b in ((x, u), (y, v)))
            image[..., channel] += 255 * down[:, None] * across
        cv2.imwrite(str(folder / f'{index}.png'), image.round().astype(np.uint8))
        name = dict(file_name=f'{index}.png', width=width, height=height)
        images.append(dict(id=index, **name))
        keypoints = np.c_[places, [2, 2, 2]].ravel().tolist()
        ids = dict(id=index, image_id=index, category_id=1, iscrowd=0)
        box = [*corner, *BOX]
        people.append(dict(ids, bbox=box, area=9e3, keypoints=keypoints))
    category = dict(id=1, name='dots', keypoints=['left', 'right', 'top'])
    content = dict(images=images, annotations=people, categories=[category])
    (folder / 'dots.json').write_text(json.dumps(content))
    return folder


def changed(dots, tmp_path, change):
    """The annotations with something done to each of them, as another file."""
    content = json.loads((dots / 'dots.json').read_text())
    for number, person in enumerate(content['annotations']):
        change(person, number)
    path = tmp_path / 'changed.json'
    path.write_text(json.dumps(content))
    return path


def write_config(folder, codec, stride=4):
    (size, maps), settings = SIZES[stride], CODECS[codec]
    ours, udp = 'Gaussian' in codec, codec.startswith('UDP')
    text = CONFIG.format(
        size=size,
        maps=maps,
        codec=settings,
        head='UDPHeatmapHead' if ours else 'HeatmapHead',
        shift=not udp,
        udp=udp,
    )
    path = folder / 'config.py'
    path.write_text(text)
    return path


def write_weights(folder, measure, stride=4, rounded=False, off=0.0):
    """A checkpoint of the network by one of the measures."""
    size, maps = (np.array(each, float) for each in SIZES[stride])
    unit = measure == 'unit length'
    weights = {
        'backbone.stride': (size - 1) / (maps - 1) if unit else size / maps,
        'backbone.corner': [0.5 * (measure == 'cells')],
        'backbone.rounded': [float(rounded)],
        'backbone.off': np.broadcast_to(np.asarray(off, float), (3, 2)).copy(),
    }
    state = {name: torch.tensor(each).double() for name, each in weights.items()}
    torch.save(dict(state_dict=state, meta={}), folder / 'weights.pth')
    return folder / 'weights.pth'


def trained(config, weights, ann, img):
    """What is measured of weights, without an audit of the config itself."""
    cfg = Config.fromfile(config)
    parts = Parts(cfg)
    people = people_of(parts, ann, img)
    own = measure_coding(parts).kind
    return measure_trained(*networks(cfg, parts, weights), weights, *people, own)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer keypoints and people for what is audited of the config."""
    monkeypatch.setattr(measures, 'POINTS', 512)
    monkeypatch.setattr(run, 'RANDOM_PEOPLE', 20)
    monkeypatch.setattr(audit_trained, 'MOVED', 4)


@pytest.mark.parametrize(
    'codec, stride, measure, rounded, right',
    [
        ('MSRAHeatmap', 4, 'pixels', True, True),
        ('DARK', 8, 'pixels', False, True),
        ('MegviiHeatmap', 4, 'cells', True, True),
        ('UDPHeatmap', 8, 'unit length', False, True),
        ('UDPGaussianHeatmap', 4, 'unit length', False, True),
        ('UDPHeatmap', 4, 'pixels', True, False),
        ('UDPGaussianHeatmap', 8, 'pixels', False, False),
        ('MSRAHeatmap', 4, 'unit length', False, False),
        ('MSRAHeatmap', 8, 'cells', True, False),
    ],
)
def test_the_measure_is_told(dots, tmp_path, codec, stride, measure, rounded, right):
    config = write_config(tmp_path, codec, stride)
    weights = write_weights(tmp_path, measure, stride, rounded)
    found = trained(config, weights, dots / 'dots.json', dots)
    assert (found.measure, found.wrong_measure) == (measure, not right)
    # Eq. 36 and 46 in input px; rounding averages out.
    expected = {'pixels': -(stride - 1), 'cells': 1, 'unit length': 0}[measure]
    assert found.flip_px == pytest.approx(
        expected, abs=0.12 * stride if rounded else 0.02
    )
    assert (found.kept is None) == (not right or codec == 'UDPGaussianHeatmap')


def test_more_maps_than_keypoints(dots, tmp_path):
    """Test data that choose of the model's keypoints know how their own mirror."""
    config = write_config(tmp_path, 'DARK')
    text = config.read_text().replace('[0.05] * 3', '[0.05] * 2')
    top = next(line for line in text.splitlines() if "name='top'" in line)
    text = text.replace(top, '').replace('[1.0] * 3', '[1.0] * 2')
    # Of the third nobody knows how it mirrors, so that such configs test without.
    text = text.replace(
        'flip_test=True', 'flip_test=False, output_keypoint_indices=[0, 1]'
    )
    config.write_text(text)

    def without_top(person, number):
        person['keypoints'] = person['keypoints'][:6]

    ann = changed(dots, tmp_path, without_top)
    found = trained(config, write_weights(tmp_path, 'pixels'), ann, dots)
    assert found.measure == 'pixels' and not found.failure
    assert found.flip_px == pytest.approx(-3, abs=0.02)


def test_jitter_and_errors(dots, tmp_path):
    """Of rounding, which the kept reading halves; sub-pixel maps do not tremble."""
    config = write_config(tmp_path, 'MSRAHeatmap')
    weights = write_weights(tmp_path, 'pixels', rounded=True)
    found = trained(config, weights, dots / 'dots.json', dots)
    # What is rounded to 4 px is even between -2 and 2; dithered, between -1 and 1. In x
    # a mirrored input is rounded elsewhere, anyway.
    np.testing.assert_allclose(found.configured.jitter[1], 4 / 12**0.5, rtol=0.1)
    np.testing.assert_allclose(found.kept.jitter, 2 / 12**0.5, rtol=0.1)
    errors = found.configured.errors(), found.kept.errors()
    assert errors[0]['x']['signed'] == pytest.approx(0.5, abs=0.25)
    assert errors[1]['x']['signed'] == pytest.approx(0, abs=0.15)
    assert errors[1]['y']['mean'] < 0.6 * errors[0]['y']['mean']
    for places in found.stairs().values():
        # Where it is, give or take half a heatmap pixel.
        assert np.abs(places - np.linspace(-1, 1, places.shape[1])).max() < 0.9
    # On the stairs it stays where it is, and then makes a step.
    assert np.median(np.abs(np.diff(found.stairs()['configured'][1]))) < 0.01

    weights = write_weights(tmp_path, 'unit length')
    found = trained(
        write_config(tmp_path, 'UDPHeatmap'), weights, dots / 'dots.json', dots
    )
    for one in found.readings.values():
        assert one.jitter.max() < 0.02
        assert max(e['mean'] for e in one.errors().values()) < 0.03


def moved(x, y):
    def change(person, number):
        person['keypoints'][0::3] = [each + x for each in person['keypoints'][0::3]]
        person['keypoints'][1::3] = [each + y for each in person['keypoints'][1::3]]

    return change


def one_sided(person, number):
    person['keypoints'][3:6] = [0, 0, 0] if number % 2 else person['keypoints'][3:6]


#: Input px per source px.
RATIO = SIZES[4][0][0] / (1.25 * BOX[0])


@pytest.mark.parametrize(
    'change, off, expected, found_off',
    [
        # Flips have taught the network both signs in x, and what there is in y.
        (moved(1, 1), [0, RATIO], 1, True),
        (moved(-1, -1), [0, -RATIO], -1, True),
        (moved(0, 0), 0, 0, False),
        # Without flips it has learnt x, too, and nothing can be told.
        (moved(0, 1), [0, RATIO], 0, False),
        # Neither has it learnt the labels where y errs as well.
        (moved(1, 1), 0, 1, False),
        # Left and right err in opposite directions, also where one is not labelled.
        (one_sided, [[2 * RATIO, 0], [-2 * RATIO, 0], [0, 0]], 0, False),
    ],
)
@pytest.mark.parametrize('codec', ['DARK', 'UDPHeatmap'])
def test_labels_off_by_the_same_everywhere(
    dots, tmp_path, codec, change, off, expected, found_off
):
    measure = 'pixels' if codec == 'DARK' else 'unit length'
    weights = write_weights(tmp_path, measure, off=off)
    ann = changed(dots, tmp_path, change)
    found = trained(write_config(tmp_path, codec), weights, ann, dots)
    assert found.measure == measure
    assert found.label_offset.mean == pytest.approx(expected, abs=0.05)
    assert found.labels_are_off == found_off


def test_predictions_without_meaning(dots, tmp_path):
    """They tell no measure, and it is said why."""
    config, ann = write_config(tmp_path, 'MSRAHeatmap'), dots / 'dots.json'
    # Of one that makes the same maps whatever it sees, and of one that errs in x.
    constant = write_weights(tmp_path, 'pixels').rename(tmp_path / 'constant.pth')
    state = torch.load(constant)['state_dict']
    state['backbone.stride'] *= 1e3
    state['backbone.corner'] -= 11.5
    torch.save(state, constant)
    for path, said in (
        (constant, 'follow a crop that is moved for 0% of the keypoints'),
        (write_weights(tmp_path, 'pixels', off=[20, 0]), 'agree for 0% of'),
    ):
        found = trained(config, path, ann, dots)
        assert found.measure is found.flip is found.configured is None
        assert said in found.failure and 'untrained' in found.failure
        assert said in found.text()


@pytest.mark.parametrize('count', [1, 2])
def test_too_few_people(dots, tmp_path, count):
    content = json.loads((dots / 'dots.json').read_text())
    content['annotations'] = content['annotations'][:count]
    ann = tmp_path / 'few.json'
    ann.write_text(json.dumps(content))
    weights = write_weights(tmp_path, 'pixels', rounded=True)
    found = trained(write_config(tmp_path, 'MSRAHeatmap'), weights, ann, dots)
    assert found.measure is None and 'too few' in found.failure
    # Strict JSON, without NaN.
    json.dumps(found.as_dict(), allow_nan=False)


def test_bad_input(dots, tmp_path, capsys):
    """Each says what is wrong and what to do, with exit status 2."""
    config = str(write_config(tmp_path, 'MSRAHeatmap'))
    weights = write_weights(tmp_path, 'pixels')
    state = torch.load(weights)['state_dict']
    others = {
        'keypoints.pth': {**state, 'backbone.off': torch.zeros(5, 2)},
        'network.pth': {'backbone.conv1.weight': torch.zeros(2)},
    }
    for name, other in others.items():
        torch.save(other, tmp_path / name)
    own = ['--ann', str(dots / 'dots.json'), '--img', str(dots)]
    for arguments, said in (
        ([str(tmp_path / 'none.pth'), *own], 'is no file'),
        ([str(tmp_path / 'keypoints.pth'), *own], 'size mismatch for backbone.off'),
        ([str(tmp_path / 'network.pth'), *own], 'has no weights for backbone.stride'),
        ([str(weights)], 'needs photographs here (--ann FILE --img DIR'),
        ([str(weights), '--compare', config], 'not of --compare'),
    ):
        try:
            status = main(['audit', config, '--checkpoint', *arguments])
        except SystemExit as stopped:
            status = stopped.code
        assert status == 2
        assert said in ' '.join(capsys.readouterr().err.split())


def test_figures_stand_in_for_photographs():
    """Of COCO's keypoints, which are in their boxes."""
    cfg = Config.fromfile(find_config('td-hm_res50_8xb64-210e_coco-256x192'))
    parts = Parts(cfg)
    people, data, labels = people_of(parts, None, None)
    assert (data, labels, len(people)) == ('drawn figures', True, 100)
    for person in drawn_people(parts, 3):
        points, (box,) = person['keypoints'][0], person['bbox']
        assert (points > box[:2]).all() and (points < box[2:]).all()
        warped = parts.test.warp(dict(person))
        assert warped.visible.all() and warped.size == (192, 256)


def test_the_command_with_boxes_alone(dots, tmp_path, capsys):
    """Without labels, weights of the other measure: the error, table, JSON, figure."""
    ann = changed(dots, tmp_path, lambda person, number: person.pop('keypoints'))
    config = write_config(tmp_path, 'UDPHeatmap')
    weights = write_weights(tmp_path, 'pixels', rounded=True)
    arguments = ['--ann', str(ann), '--img', str(dots), '--checkpoint', str(weights)]
    out = tmp_path / 'out'
    assert main(['audit', str(config), *arguments, '-o', str(out), '--json']) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    (error,) = (one for one in found['findings'] if one['severity'] == 'error')
    assert error['name'] == 'weights-measure'
    assert 'measured by their pixels' in error['what']
    assert '--keep-weights' in error['fix'] and 'config.py:4' in error['line']
    told = found['trained']
    assert (told['measure'], told['measure_of_codec']) == ('pixels', 'unit length')
    assert told['flip_px'] == pytest.approx(-3, abs=0.5)
    assert f'{told["flip_px"]:+.2f} input px' in error['what']
    assert told['label_offset_px'] is None
    assert told['errors_px']['configured']['x']['signed'] is None
    assert told['jitter_px']['configured']['x'] > 0.5
    assert 'jitter of a moving crop' in shown.err
    assert cv2.imread(str(out / 'jitter.png')).shape[1] > 1000


def test_the_command_with_labels(dots, tmp_path, capsys):
    ann = changed(dots, tmp_path, moved(1, 1))
    config = write_config(tmp_path, 'MSRAHeatmap')
    weights = write_weights(tmp_path, 'pixels', rounded=True, off=[0, RATIO])
    arguments = ['--ann', str(ann), '--img', str(dots), '--checkpoint', str(weights)]
    assert main(['audit', str(config), *arguments, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one['name'] for one in found['findings']] == ['biased', 'label-offset']
    assert 'too far to the right' in found['findings'][1]['what']
    assert found['trained']['label_offset_px'] == pytest.approx(1, abs=0.3)
    told = found['trained']['errors_px']
    assert told['kept']['x']['signed'] == pytest.approx(-RATIO, abs=0.2)


@pytest.mark.slow
def test_networks_that_the_demo_trains(tmp_path, capsys, monkeypatch):
    """A real training of both kinds, on drawn figures; and with configs swapped."""
    monkeypatch.setattr(audit_trained, 'MOVED', 16)
    out = tmp_path / 'demo'
    given = ['--codec', 'gaussian', '--iters', '150', '--images', '240', '--out']
    assert main(['demo', *given, str(out)]) == 0
    for weights, config, status in (
        ('stock', 'stock', 0),
        ('udp_gaussian', 'udp_gaussian', 0),
        ('stock', 'udp_gaussian', 1),
        ('udp_gaussian', 'stock', 1),
    ):
        capsys.readouterr()
        checkpoint = str(out / weights / 'iter_150.pth')
        arguments = [str(out / f'{config}.py'), '--checkpoint', checkpoint, '--json']
        assert main(['audit', *arguments]) == status
        found = json.loads(capsys.readouterr().out)
        told, stock = found['trained'], weights == 'stock'
        assert told['measure'] == ('pixels' if stock else 'unit length')
        assert told['flip_px'] == pytest.approx(-3 if stock else 0, abs=0.3)
        if stock and config == 'stock':
            jitter = told['jitter_px']
            assert jitter['kept']['x'] < 0.5 * jitter['configured']['x']
