"""Exported models against MMPose's own inference: real networks, scripts and files."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import helpers
import mmcv
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import K
from mmengine.config import Config
from mmengine.runner import Runner
from mmpose.apis import inference_topdown, init_model
from mmpose.registry import MODELS
from torch import nn
from xtcocotools.coco import COCO

from udp_plugin import UDPGaussianHeatmap, UDPOffsetHeatmap
from udp_plugin.cli import main
from udp_plugin.codecs.kept import KeptReading
from udp_plugin.convert.run import convert
from udp_plugin.demo import configs, figures, measures
from udp_plugin.errors import UserError
from udp_plugin.export import OPSET, graph, trained, verify
from udp_plugin.export.run import export
from udp_plugin.runtime import PoseModel, Regions

ITERS = 40
#: Of the codec, and how offset maps are read.
CODECS = ['gaussian', 'voting', 'authors', 'toolbox']
slow = pytest.mark.slow
pytestmark = [
    pytest.mark.filterwarnings('ignore:The metainfo config file'),
    pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning'),
]


class Runs:
    """Networks trained and tested by MMPose on drawn figures, and their exports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        list(figures.write_dataset(folder, dict(train=64, test=12), seed=0))
        places = {
            f'{part}_{what}': folder / f'{part}{suffix}'
            for part in ('train', 'test')
            for what, suffix in (('ann', '.json'), ('img', ''))
        }
        counts = dict(train_count=64, test_count=12)
        data = configs.Data(title='drawn figures', **places, **counts)
        names = ['gaussian', 'offset']
        self.configs = configs.write_configs(folder, data, names, ITERS, seed=0)
        self.exports = {}
        for name in names:
            cfg = Config.fromfile(self.configs[f'udp_{name}'])
            cfg.work_dir = str(folder / name)
            for loader in (cfg.train_dataloader, cfg.test_dataloader):
                loader.update(num_workers=0, persistent_workers=False)
            dumped = f'{cfg.work_dir}/predictions.pkl'
            dump = dict(type='DumpResults', out_file_path=dumped)
            cfg.test_evaluator = [cfg.test_evaluator, dump]
            runner = Runner.from_cfg(cfg)
            runner.train()
            runner.test()

    def config(self, codec: str) -> Path:
        """The config of a codec or reading."""
        if codec in ('gaussian', 'offset'):
            return self.configs[f'udp_{codec}']
        path = self.folder / f'{codec}.py'
        text = self.configs['udp_offset'].read_text()
        path.write_text(text.replace('sigma=1)', f'sigma=1, reading={codec!r})'))
        return path

    def checkpoint(self, codec: str) -> Path:
        name = 'gaussian' if codec == 'gaussian' else 'offset'
        return self.folder / name / f'iter_{ITERS}.pth'

    def load(self, codec: str) -> trained.Trained:
        return trained.load(self.config(codec), self.checkpoint(codec))

    def changed(self, path: Path, **changes) -> Path:
        """The offset config with changes."""
        cfg = Config.fromfile(self.config('offset'))
        cfg.merge_from_dict(changes)
        cfg.dump(path)
        return path

    def export(self, codec: str, **settings) -> PoseModel:
        """A model of any number of crops, if the settings do not say otherwise."""
        key = codec, *settings.items()
        if key not in self.exports:
            path = self.folder / f'{len(self.exports)}.onnx'
            settings = {'dynamic_batch': True, **settings}
            graph.write_model(path, self.load(codec), **settings)
            self.exports[key] = path
        return PoseModel(self.exports[key])

    def boxes(self) -> list:
        """Each test image with its box, as the data set has it."""
        return photographs(self.folder / 'test.json', self.folder / 'test')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('runs'))


@pytest.fixture
def command(runs, capsys):
    """Runs ``udp-plugin export`` and says its status and what it printed."""

    def run(*arguments, codec='offset'):
        if '--decoding-only' not in arguments:
            arguments = runs.checkpoint(codec), *arguments
        try:
            status = main(['export', str(runs.config(codec)), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr()

    return run


def photographs(annotations: Path, folder: Path) -> list:
    """Each person's photograph and box."""
    coco, found = COCO(str(annotations)), []
    for _, ann in sorted(coco.anns.items()):
        info = coco.loadImgs(ann['image_id'])[0]
        x, y, w, h = ann['bbox']
        image = cv2.imread(str(folder / info['file_name']))
        found.append((image, np.array([[x, y, x + w, y + h]])))
    return found


def jittered(sample: tuple, count: int, seed: int) -> tuple:
    """An image and boxes around one."""
    image, box = sample
    rng = np.random.default_rng(seed)
    boxes = np.tile(box, (count, 1))
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return image, boxes + rng.uniform(-0.1, 0.1, boxes.shape) * size


def drawn_crops(runs: Runs) -> list:
    """Batches of 1, 2, 17 and 57 crops, of test images: 120 in all."""
    counts = [*[1, 2, 17] * 3, 1, 2, 57]
    return [jittered(*batch) for batch in zip(runs.boxes(), counts, range(12))]


def photographed(coco_mini: Path) -> list:
    """Batches of 1, 2 and 17 crops of people in photographs: 80 in all."""
    counts = [1, 2, 17, 17, 17, 1, 2, 17, 2, 1, 2, 1]
    people = photographs(coco_mini / 'test_coco.json', coco_mini)
    return [jittered(*batch) for batch in zip(people, counts, range(len(counts)))]


@torch.no_grad()
def tied(model: trained.Trained, exported: PoseModel, samples: list) -> np.ndarray:
    """Where pixels of PyTorch's own maps are so equally high that rounding decides.

    There, noise of some units in the last place moves the keypoint; which networks
    trained for so short a time have now and then. Shape (N, K).
    """
    network = graph.CropsToKeypoints(model, exported.flip_test).eval()
    generator = torch.Generator().manual_seed(0)
    found = []
    for image, boxes in samples:
        crops = torch.from_numpy(exported.crop(image, exported.regions(boxes)))
        maps = network.maps(crops)
        keypoints, _ = network.decoding(maps)
        moved = torch.zeros(keypoints.shape[:2], dtype=torch.bool)
        for _ in range(8):
            noise = torch.randn(maps.shape, generator=generator)
            near, _ = network.decoding(maps + 3e-7 * maps.abs().amax() * noise)
            moved |= (near - keypoints).norm(dim=-1) > 1e-3
        found.append(moved)
    return torch.cat(found).numpy()


# --- the model against MMPose ---------------------------------------------------------


@pytest.mark.parametrize(
    ('codec', 'flip_test'),
    [
        *[(codec, True) for codec in CODECS],
        ('gaussian', False),
        *[pytest.param(codec, False, marks=slow) for codec in CODECS[1:]],
    ],
)
def test_one_file_gives_mmpose_s_keypoints_at_every_batch_size(
    runs, coco_mini, codec, flip_test
):
    model, exported = runs.load(codec), runs.export(codec, flip_test=flip_test)
    samples = drawn_crops(runs) + photographed(coco_mini)
    assert {len(boxes) for _, boxes in samples} >= {1, 2, 17}
    path = runs.exports[codec, ('flip_test', flip_test)]
    difference = verify.compare(path, model, samples)
    assert len(difference.px) >= 200
    decided = ~tied(model, exported, samples)
    assert decided.mean() > 0.99
    assert difference.px[decided].max() <= 1e-3
    assert difference.score[decided].max() <= 1e-5
    assert difference.good


@pytest.mark.parametrize('codec', ['gaussian', 'voting'])
def test_as_far_from_the_annotation_as_the_toolbox_s_test_says(runs, codec):
    """What deployment is about: to get what the toolbox's test has reported."""
    model = runs.export(codec, flip_test=True)
    dumped = runs.checkpoint(codec).with_name('predictions.pkl')
    tested = measures.read_predictions(dumped)
    people = runs.boxes()
    assert len(tested) == len(people) == 12
    by_image = {Path(p.img_path).stem: p for p in tested}
    found = []
    for path, (image, box) in zip(sorted((runs.folder / 'test').iterdir()), people):
        person = by_image[path.stem]
        keypoints, scores = model(image, box)
        np.testing.assert_allclose(keypoints[0], person.predicted, atol=1e-2)
        # Of the same crops, they are the same to 1e-5, see above. MMPose's boxes are in
        # single precision, which OpenCV 5 shows in a few pixels, by one level.
        atol = 1e-5 if cv2.__version__ < '5' else 5e-4
        np.testing.assert_allclose(scores[0], person.scores, atol=atol)
        found.append(person._replace(predicted=keypoints[0]))
    ours, theirs = measures.errors_of(found), measures.errors_of(tested)
    np.testing.assert_allclose(np.median(ours), np.median(theirs), atol=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


def test_photographs_in_source_px_with_the_same_crops(runs, coco_mini):
    """The runtime's resampling is the pipeline's, so nothing but rounding is left."""
    model, ours = runs.load('voting').model, runs.export('voting', flip_test=True)
    model.test_cfg['flip_test'] = True
    seen = []
    model.data_preprocessor.register_forward_pre_hook(
        lambda module, args: seen.append(torch.stack(args[0]['inputs']).numpy())
    )
    for image, boxes in photographed(coco_mini):
        results = inference_topdown(model, image, boxes)
        crops = ours.crop(image, ours.regions(boxes))
        # Resampling, by itself.
        np.testing.assert_array_equal(crops, seen.pop())
        theirs = np.concatenate([r.pred_instances.keypoints for r in results])
        np.testing.assert_allclose(ours(image, boxes).keypoints, theirs, atol=0.01)


@pytest.mark.parametrize(
    'settings',
    [
        dict(normalized=True),
        dict(source_keypoints=True, flip_test=True),
        dict(dynamic_batch=False),
        dict(opset=12, source_keypoints=True, normalized=True),
    ],
    ids=lambda settings: '-'.join(settings),
)
@pytest.mark.parametrize('codec', [pytest.param('gaussian', marks=slow), 'offset'])
def test_other_inputs_give_the_same(runs, settings, codec):
    inputs = runs.export(codec, **settings).session.get_inputs()
    batch = inputs[0].shape[0]
    assert batch == 1 if 'dynamic_batch' in settings else isinstance(batch, str)
    assert len(inputs) == (4 if 'source_keypoints' in settings else 1)
    path = runs.exports[codec, *settings.items()]
    difference = verify.compare(path, runs.load(codec), verify.drawn())
    assert difference.px.max() <= 1e-3
    assert difference.score.max() <= 1e-5


def test_source_keypoints_of_rotated_boxes(runs):
    model = runs.export('offset', source_keypoints=True, flip_test=True)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 3, 128, 96), dtype=np.uint8)
    center, scale = rng.uniform(0, 4000, (5, 2)), rng.uniform(20, 2000, (5, 2))
    rotation = rng.uniform(-180, 180, 5)
    regions = Regions(center, scale, rotation)
    outputs = 'keypoints', 'source_keypoints'
    keypoints, in_source = model.predict(crops, regions, outputs)
    # Eq. 41, undone in float64, from the paper's own statement of it.
    for i in range(5):
        turn = np.deg2rad(rotation[i])
        away = keypoints[i] / [95, 127] * scale[i] - scale[i] / 2
        back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        np.testing.assert_allclose(in_source[i], away @ back + center[i], atol=0.01)


@pytest.mark.parametrize('value', [0.0, -1.0, float('nan'), float('inf')])
@pytest.mark.parametrize('codec', ['gaussian', 'voting'])
def test_a_network_that_fails_gives_the_defined_answer(runs, tmp_path, codec, value):
    model = runs.load(codec)
    nn.init.constant_(model.head.final_layer.weight, 0.0)
    nn.init.constant_(model.head.final_layer.bias, value)
    path = tmp_path / 'model.onnx'
    graph.write_model(path, model, flip_test=True, dynamic_batch=True)
    crops = np.zeros((2, 3, 128, 96), np.uint8)
    keypoints, scores = PoseModel(path).session.run(None, {'crops': crops})
    middle = np.array([12 * 95 / 23, 16 * 127 / 31])
    np.testing.assert_allclose(keypoints, np.broadcast_to(middle, (2, 17, 2)), 1e-5)
    assert (scores == 0).all()


@MODELS.register_module()
class Strided(nn.Module):
    """A small backbone with the outputs that a head asks for."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head, stride = head, 8 if head == 'ViPNASHead' else 4
        self.conv = nn.Conv2d(3, 8, stride, stride)

    def forward(self, x):
        maps = self.conv(x)
        if self.head == 'MSPNHead':
            maps = nn.functional.avg_pool2d(maps, 4)
            return [[maps, maps]] * 2
        return [maps] * 3 if self.head == 'CPMHead' else (maps,)


@pytest.mark.parametrize('chosen', [None, [3]], ids=['all', 'one'])
@pytest.mark.parametrize('codec', helpers.CODECS)
@pytest.mark.parametrize('head', helpers.HEADS)
def test_only_the_batch_is_free(head, codec, chosen, tmp_path):
    """Runtimes that plan ahead need every other axis in numbers."""
    config = dict(
        type='TopdownPoseEstimator',
        data_preprocessor=dict(type='PoseDataPreprocessor', mean=[1.0], std=[2.0]),
        backbone=dict(type='Strided', head=head),
        head=dict(
            helpers.HEADS[head],
            type=f'UDP{head}',
            out_channels=K,
            decoder=dict(helpers.CODECS[codec], **helpers.SIZES),
        ),
        test_cfg=dict(output_keypoint_indices=chosen),
    )
    (tmp_path / 'config.py').write_text(f'model = {config!r}')
    model = trained.build(tmp_path / 'config.py')
    count = len(chosen or range(K))
    names = {k: f'keypoint {k}' for k in range(count)}
    model.model.dataset_meta = dict(keypoint_id2name=names, skeleton_links=[])
    flips = helpers.FLIP_INDICES if chosen is None else [0]
    model = model._replace(flip_indices=flips)
    given = dict(crops=(3, 256, 192), centers=(2,), scales=(2,), rotations=())
    answers = dict(keypoints=(count, 2), scores=(count,), source_keypoints=(count, 2))
    for dynamic in (False, True):
        for opset in (12, OPSET):
            options = dict(opset=opset, dynamic_batch=dynamic, source_keypoints=True)
            path = tmp_path / 'model.onnx'
            graph.write_model(path, model, flip_test=chosen is None, **options)
            made = onnx.load(str(path)).graph
            batch = 'batch' if dynamic else 1
            expected = {n: (batch, *axes) for n, axes in {**given, **answers}.items()}
            assert shapes_of([*made.input, *made.output]) == expected
    session, rng = PoseModel(path).session, np.random.default_rng(0)
    for size in (1, 3):
        inputs = dict(
            crops=rng.integers(0, 255, (size, 3, 256, 192), dtype=np.uint8),
            centers=np.full((size, 2), 90, np.float32),
            scales=np.full((size, 2), 200, np.float32),
            rotations=np.zeros(size, np.float32),
        )
        for name, answer in zip(answers, session.run(list(answers), inputs)):
            assert answer.shape == (size, *answers[name])


def shapes_of(values) -> dict:
    """Of a graph's inputs and outputs, sizes and the names of those that are free."""
    return {
        value.name: tuple(
            axis.dim_param or axis.dim_value
            for axis in value.type.tensor_type.shape.dim
        )
        for value in values
    }


# --- weights that are kept ------------------------------------------------------------


#: Stock configs by name: their codec's settings, and whether their warp is UDP's.
KEPT = {
    'rounded': (dict(type='MSRAHeatmap', sigma=1), False),
    'unbiased': (dict(type='MSRAHeatmap', sigma=1, unbiased=True), False),
    'cells': (dict(type='MegviiHeatmap', kernel_size=5), False),
    'UDP': (dict(type='UDPHeatmap', sigma=1), True),
}


@MODELS.register_module()
class Smooth(nn.Module):
    """What a photograph has of some random patterns, blurred, so that it has peaks."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns = nn.Conv2d(3, 16, 9, stride=4, padding=4)

    def forward(self, x):
        found = self.patterns(x).relu()
        for _ in range(3):
            found = nn.functional.avg_pool2d(found, 5, stride=1, padding=2)
        return (found,)


def kept(folder: Path, name: str, **changes) -> tuple:
    """A stock config, converted with its weights kept, and weights that give peaks."""
    codec, use_udp = KEPT[name]
    nowhere = dict.fromkeys(('train_ann', 'train_img', 'test_ann', 'test_img'), folder)
    data = configs.Data(title='', **nowhere, train_count=1, test_count=1)
    stock = Config.fromstring(configs.stock_config(data, ITERS, seed=0), '.py')
    sizes = dict(input_size=configs.INPUT_SIZE, heatmap_size=configs.HEATMAP_SIZE)
    stock.model.backbone = dict(type='Smooth')
    layers = dict(in_channels=16, deconv_out_channels=None, deconv_kernel_sizes=None)
    stock.model.head.update(layers)
    stock.model.head.decoder = dict(codec, **sizes)
    stock.test_dataloader.dataset.pipeline[2].use_udp = use_udp
    del stock.train_dataloader.dataset['metainfo']
    stock.dump(folder / 'stock.py')
    torch.manual_seed(0)
    weights, config = folder / 'stock.pth', folder / 'kept.py'
    network = MODELS.build(stock.model)
    nn.init.uniform_(network.head.final_layer.weight)
    torch.save(network.state_dict(), weights)
    config.write_text(convert(str(folder / 'stock.py'), None, folder, True).text)
    if changes:
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(changes)
        cfg.dump(config)
    return config, weights


@pytest.mark.parametrize(
    'name', ['rounded', 'unbiased', pytest.param('cells', marks=slow), 'UDP']
)
def test_kept_weights_give_mmpose_s_keypoints(tmp_path, coco_mini, name):
    config, weights = kept(tmp_path, name)
    model, path = trained.load(config, weights), tmp_path / 'model.onnx'
    assert any(model.dither) == (name in ('rounded', 'cells'))
    options = dict(flip_test=True, dynamic_batch=True, source_keypoints=True)
    graph.write_model(path, model, **options)
    exported, samples = PoseModel(path), [*verify.drawn()]
    difference = verify.compare(path, model, samples)
    assert difference.good and len(difference.px) == 36
    decided = ~tied(model, exported, samples)
    assert decided.mean() > 0.99
    assert difference.px[decided].max() <= 1e-3
    said = exported.measure, exported.warp
    assert said == ('unit length' if name == 'UDP' else 'pixels', 'TopdownAffine')
    # As whoever has the config and the weights tests them, without this package's help.
    network = init_model(str(config), str(weights), device='cpu')
    assert (
        network.test_cfg['flip_test']
        and network.cfg.model.head.decoder.type == (KEPT[name][0]['type'])
    )
    away = []
    for image, boxes in photographed(coco_mini)[:3]:
        regions = exported.regions(boxes)
        theirs = inference_topdown(network, image, boxes)
        theirs = np.concatenate([r.pred_instances.keypoints for r in theirs])
        ours = exported(image, boxes).keypoints
        pixel = regions.scales[:, None] / exported.input_size
        away.append(np.abs((ours - theirs) / pixel).max(-1))
    # Of ties, see above.
    assert (np.concatenate(away) > 2e-3).mean() < 0.01
    assert not operators(path).keys() & SLOW_OR_DYNAMIC


BREAKS = {
    'nothing is broken': [],
    'no dither': [(trained.Trained, 'dither', (0.0, 0.0))],
    'no alignment': [(KeptReading, 'misalignment', lambda self, moved: (0.0, 0.0))],
    'another measure': [(KeptReading, 'measure', 'unit length')],
}


@pytest.mark.parametrize('broken', BREAKS)
def test_the_comparison_sees_what_is_broken(tmp_path, monkeypatch, broken):
    model, path = trained.load(*kept(tmp_path, 'rounded')), tmp_path / 'model.onnx'
    with monkeypatch.context() as patched:
        for change in BREAKS[broken]:
            patched.setattr(*change)
        graph.write_model(path, model, flip_test=True, dynamic_batch=True)
    difference = verify.compare(path, model, list(verify.drawn())[:4])
    assert difference.good == (not BREAKS[broken])
    # Throughout, and not by a tie.
    assert (difference.px > 0.01).mean() > 0.5 or difference.good


def test_the_stock_estimator_dithers_nothing(tmp_path):
    config = kept(tmp_path, 'rounded', **{'model.type': 'TopdownPoseEstimator'})
    model, path = trained.load(*config), tmp_path / 'model.onnx'
    graph.write_model(path, model, flip_test=True, dynamic_batch=True)
    assert verify.compare(path, model, list(verify.drawn())[:4]).good


@pytest.mark.parametrize('suffix', ['.onnx', '.pt'])
@pytest.mark.parametrize('name', [*KEPT])
def test_the_decoding_of_kept_weights_alone(tmp_path, name, suffix):
    config, _ = kept(tmp_path, name)
    done = export(str(config), None, tmp_path / f'decoding{suffix}')
    assert done.difference.px.max() <= 1e-3 and done.difference.good
    assert dict(done.about)['codec'] == f'{KEPT[name][0]["type"]}, weights kept'


def test_the_command_says_that_weights_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verify, 'FIGURES', 2)
    config, weights = kept(tmp_path, 'rounded')
    arguments = [config, weights, '-o', tmp_path / 'model.onnx', '--flip-test']
    assert main(['export', *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert 'MSRAHeatmap, weights kept' in printed
    assert 'yes, the mirrored crop moved by -1, 2 px' in printed


@pytest.mark.parametrize('name', ['rounded', 'UDP'])
def test_of_a_stock_config_it_says_how_to_keep_the_weights(tmp_path, name):
    _, weights = kept(tmp_path, name)
    says = r'HeatmapHead .*: udp-plugin convert \S+stock.py --keep-weights keeps the'
    with pytest.raises(UserError, match=says):
        trained.load(tmp_path / 'stock.py', weights)


WARP = 'test_dataloader.dataset.pipeline.2'


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        (
            'rounded',
            {f'{WARP}.type': 'TopDownAffineUDP', f'{WARP}.use_udp': True},
            'TopdownAffine, once each, since the decoder MSRAHeatmap measures the '
            'input by pixels; .*TopDownAffineUDP measures it by unit length: use that, '
            'by which weights of MSRAHeatmap were trained',
        ),
        ('cells', {f'{WARP}.use_udp': True}, 'MegviiHeatmap .* by pixels; .* by unit'),
        (
            'UDP',
            {f'{WARP}.use_udp': False},
            r'TopdownAffine\(use_udp=True\), once .* by unit length; .* by pixels',
        ),
        (
            'UDP',
            {f'{WARP}.type': 'TopdownAffine3D'},
            'cannot be built.*TopdownAffine3D',
        ),
        (
            'rounded',
            {f'{WARP}.type': 'BottomupResize'},
            'TopdownAffine, once each; its',
        ),
        ('UDP', {f'{WARP}.type': 'TopDownAffineUDP'}, None),
    ],
)
def test_the_warp_must_have_the_weights_measure(tmp_path, name, change, message):
    files = kept(tmp_path, name, **change)
    if message is None:
        assert trained.load(*files).warp == 'TopDownAffineUDP'
        return
    with pytest.raises(UserError, match=f'(?s){message}'):
        trained.load(*files)


# --- the decoding alone ---------------------------------------------------------------


#: What a graph must not have: branches, and what the forms for ONNX are there for.
SLOW_OR_DYNAMIC = {
    *('If', 'Loop', 'NonZero', 'Scan'),
    *('IsNaN', 'IsInf', 'Range', 'ScatterElements', 'ScatterND'),
}


def operators(path: Path) -> Counter:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def codec_of(name: str):
    sizes = dict(input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
    if name == 'gaussian':
        return UDPGaussianHeatmap(**sizes)
    return UDPOffsetHeatmap(**sizes, reading=name)


@pytest.mark.parametrize('suffix', ['.onnx', '.pt', '.pt2'])
@pytest.mark.parametrize('codec', CODECS)
def test_decoding_alone_gives_the_codec_s_answers(tmp_path, codec, suffix):
    if suffix == '.pt2' and not hasattr(torch.compiler, 'is_exporting'):
        pytest.skip('torch.export of this torch is too old')
    path, codec = tmp_path / f'decoding{suffix}', codec_of(codec)
    graph.write_decoding(path, codec, keypoints=5, opset=OPSET)
    if suffix == '.onnx':
        made, channels = onnx.load(str(path)).graph, 5 * codec.channels_per_keypoint
        assert shapes_of([*made.input, *made.output]) == dict(
            maps=('batch', channels, 64, 48),
            keypoints=('batch', 5, 2),
            scores=('batch', 5),
        )
    # Degenerate maps among them.
    difference = verify.compare_decoding(path, codec, keypoints=5)
    if suffix == '.onnx':
        assert not operators(path).keys() & SLOW_OR_DYNAMIC
    assert difference.px.max() <= 1e-3
    assert difference.score.max() <= 1e-5


def test_plain_torch_is_written_in_forms_that_are_fast_in_onnx(tmp_path):
    def decode_tensors(maps):
        height, width = maps.shape[-2:]
        maps = torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
        away = torch.arange(width)[:, None] - torch.arange(width)
        blurred = maps.flatten(0, 1) @ torch.exp(-(away**2) / 2.0)
        score, index = blurred.flatten(-2).max(-1)
        pixel = torch.stack((index % width, index // width + 0 * height), -1)
        return pixel.view(*maps.shape[:2], 2).to(maps), score.view(*maps.shape[:2])

    maps = torch.rand(2, 3, 32, 24)
    maps[0, 1, 4, 5], maps[1, 1, 6, 7], maps[1, 2] = torch.nan, torch.inf, -torch.inf
    module, path = graph.Decoding(SimpleNamespace()), tmp_path / 'maps.onnx'
    module.codec.decode_tensors = decode_tensors
    names = ['maps', *graph.OUTPUTS]
    graph.write_onnx(path, module, {'maps': maps}, names[1:], {}, names, OPSET)
    found = operators(path)
    assert not found.keys() & {*SLOW_OR_DYNAMIC, 'Exp'}
    # Of the bands, and within one.
    assert found['ArgMax'] == 2 and found['ThresholdedRelu'] == 2
    assert sum(found.values()) - found['Constant'] < 60
    cpu = ['CPUExecutionProvider']
    session = onnxruntime.InferenceSession(str(path), providers=cpu)
    for some in (maps, maps[1:], maps.repeat(3, 1, 1, 1)):
        for answer, right in zip(
            session.run(None, {'maps': some.numpy()}), module(some)
        ):
            np.testing.assert_allclose(answer, right, rtol=1e-6)


# --- the file -------------------------------------------------------------------------


def test_the_file_says_what_it_is(runs):
    model = runs.export('authors', flip_test=True)
    assert (model.input_size, model.heatmap_size) == ((96, 128), (24, 32))
    codec = model.codec['type'], model.codec['reading']
    assert codec == ('UDPOffsetHeatmap', 'authors')
    assert list(model.keypoint_names) == figures.KEYPOINTS
    assert list(model.flip_pairs) == [(k, k + 1) for k in range(1, 17, 2)]
    assert sorted(map(sorted, model.skeleton)) == sorted(
        sorted(k - 1 for k in link) for link in figures.SKELETON
    )
    # In the order of the crops: the network's is RGB.
    said = model.padding, model.flip_test, model.color
    assert said == (1.25, True, 'BGR')
    assert model.mean == pytest.approx((103.53, 116.28, 123.675))
    normalized = runs.export('offset', normalized=True)
    assert normalized.color == 'RGB'
    assert normalized.mean == pytest.approx((123.675, 116.28, 103.53))


def test_weights_too_large_for_one_file_are_beside_it(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, 'LARGEST', 100_000)
    monkeypatch.setattr(verify, 'FIGURES', 1)
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes.txt').write_text('mine')
    others, out = ['notes', 'notes.txt'], tmp_path / 'model.onnx'
    given = str(runs.config('offset')), runs.checkpoint('offset'), out
    assert export(*given).difference.good
    both = [out.name, f'{out.name}.data']
    assert sorted(path.name for path in tmp_path.iterdir()) == [*both, *others]
    assert out.stat().st_size < 300_000
    image, box = runs.boxes()[0]
    assert np.isfinite(PoseModel(out)(image, box).keypoints).all()
    # And gone with the file that they belonged to.
    monkeypatch.setattr(graph, 'LARGEST', 2**30)
    export(*given)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, *others]


@pytest.mark.parametrize('normalized', [False, True])
def test_grey_photographs_have_crops_of_one_channel(runs, tmp_path, normalized):
    grey = dict(type='PoseDataPreprocessor', mean=[127.5], std=[60.0])
    config = runs.changed(
        tmp_path / 'grey.py',
        **{
            'model.data_preprocessor': dict(grey, _delete_=True),
            'model.backbone.in_channels': 1,
            'test_dataloader.dataset.pipeline.0.color_type': 'grayscale',
        },
    )
    torch.manual_seed(0)
    made = trained.build(config).model
    checkpoint, out = tmp_path / 'grey.pth', tmp_path / 'grey.onnx'
    torch.save(made.state_dict(), checkpoint)
    settings = dict(flip_test=True, dynamic_batch=True, normalized=normalized)
    done = export(str(config), checkpoint, out, **settings)
    assert done.difference.good
    (crops,) = [text for name, text in done.about if name == 'crops']
    assert 'B × 1 × 128 × 96' in crops and ('grey' in crops) != normalized
    ours = PoseModel(out)
    assert ours.session.get_inputs()[0].shape[1:] == [1, 128, 96]
    assert (ours.color, ours.mean, ours.std) == ('GRAY', (127.5,), (60.0,))
    # MMPose, of the photograph as mmcv makes it grey.
    model = trained.load(config, checkpoint).model
    model.test_cfg['flip_test'] = True
    for image, box in runs.boxes()[:3]:
        (result,) = inference_topdown(model, mmcv.bgr2gray(image), box)
        found = ours(image, box)
        theirs = result.pred_instances
        np.testing.assert_allclose(found.keypoints, theirs.keypoints, atol=0.01)
        np.testing.assert_allclose(found.scores, theirs.keypoint_scores, atol=1e-4)


#: Sends itself a signal after the first of the files is in place.
STOPPED = """
import os, signal, sys
from udp_plugin import cli
from udp_plugin.export import graph, verify

# A shell has what it starts in the background ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
graph.LARGEST, verify.FIGURES = int(sys.argv.pop(1)), 1
replace, stop = os.replace, getattr(signal, sys.argv.pop(1))

def replace_and_stop(*paths):
    replace(*paths)
    os.kill(os.getpid(), stop)

os.replace = replace_and_stop
sys.exit(cli.main())
"""


@pytest.mark.parametrize('stop', ['SIGINT', 'SIGKILL'])
def test_an_interrupted_export_of_two_files_is_noticed(
    runs, tmp_path, monkeypatch, stop
):
    """The old graph with new weights, which are of the same shapes, is no model."""
    monkeypatch.setattr(verify, 'FIGURES', 1)
    given = str(runs.config('offset')), str(runs.checkpoint('offset'))
    out = tmp_path / 'model.onnx'

    def stopped(largest):
        command = [sys.executable, '-c', STOPPED, str(largest), stop]
        command += ['export', *given, '-o', str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    def keypoints():
        return PoseModel(out)(*runs.boxes()[0]).keypoints

    with monkeypatch.context() as small:
        small.setattr(graph, 'LARGEST', 100_000)
        export(given[0], Path(given[1]), out)
    right, graph_before = keypoints(), out.read_bytes()
    done = stopped(100_000)
    assert out.read_bytes() == graph_before
    with pytest.raises(ValueError, match='model.onnx.data .*of another export'):
        keypoints()
    if stop == 'SIGINT':
        assert done.returncode == 130
        says = 'or only its weights (model.onnx.data) are new, which loading it says'
        assert says in done.stderr and 'as it was' not in done.stdout
    # The next puts both in place; one of a single file is whole at any time.
    with monkeypatch.context() as small:
        small.setattr(graph, 'LARGEST', 100_000)
        export(given[0], Path(given[1]), out)
    np.testing.assert_array_equal(keypoints(), right)
    done = stopped(2**30)
    assert out.read_bytes() != graph_before
    np.testing.assert_array_equal(keypoints(), right)
    if stop == 'SIGINT':
        assert f'{out} was put in place: it is the old one or the new' in done.stderr


# --- the command ----------------------------------------------------------------------


def test_the_command(command, coco_mini, tmp_path, capsys):
    out = tmp_path / 'new' / 'model.onnx'
    options = ['--flip-test', '--dynamic-batch', '--verify', coco_mini]
    status, printed = command('-o', out, *options)
    assert status == 0
    texts = 'B × 3 × 128 × 96', '272 keypoints of 16 samples', 'udp-plugin infer'
    for text in (*texts, 'UDPOffsetHeatmap'):
        assert text in printed.out
    assert [path.name for path in out.parent.iterdir()] == ['model.onnx']
    onnx.checker.check_model(str(out))
    # And from there on without the toolbox.
    image = coco_mini / '000000000785.jpg'
    picture = tmp_path / 'out.png'
    boxes = ['--boxes', '280,44,499,388']
    assert main(['infer', str(out), str(image), *boxes, '-o', str(picture)]) == 0
    assert 'left_ankle' in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape == cv2.imread(str(image)).shape


def test_the_command_for_the_decoding_alone(command, tmp_path):
    out = tmp_path / 'decoding.pt'
    status, printed = command('--decoding-only', '-o', out)
    assert status == 0 and 'TorchScript' in printed.out
    said = {'made_by': '', 'codec': ''}
    script = torch.jit.load(str(out), _extra_files=said)
    assert json.loads(said['codec'])['type'] == 'UDPOffsetHeatmap'
    keypoints, scores = script(torch.rand(3, 51, 32, 24))
    assert keypoints.shape == (3, 17, 2) and scores.shape == (3, 17)


def test_a_file_that_is_wrong_is_not_put_in_place(command, tmp_path, monkeypatch):
    right = graph.CropsToKeypoints.maps

    def moved(module, crops):
        return right(module, crops).roll(1, -1)

    monkeypatch.setattr(graph.CropsToKeypoints, 'maps', moved)
    out = tmp_path / 'model.onnx'
    out.write_text('what was there')
    status, printed = command('-o', out)
    assert status == 1
    assert 'does not compute what PyTorch does' in printed.err
    assert out.read_text() == 'what was there'
    assert list(tmp_path.iterdir()) == [out]


def test_one_wrong_keypoint_of_many_is_not_good():
    px, score = np.zeros((50, 300)), np.zeros((50, 300))
    assert verify.Difference(px, score).good
    px[7, 5] = 30.0
    assert verify.Difference(px, score).good
    px[:, 5] = 0.1
    assert not verify.Difference(px, score).good
    px[:, 5], score[0, 0] = 0, float('nan')
    assert verify.Difference(px, score).beyond.sum() == 1


@MODELS.register_module()
class FixesItsBatch(nn.Module):
    """A backbone that counts its batch in Python."""

    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, x):
        return tuple(
            each.view(int(each.shape[0]), *each.shape[1:]) for each in self.backbone(x)
        )


def test_a_network_that_fixes_its_batch(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, 'FIGURES', 2)
    backbone = Config.fromfile(runs.config('offset')).model.backbone
    backbone = dict(_delete_=True, type='FixesItsBatch', backbone=backbone)
    config = runs.changed(tmp_path / 'config.py', **{'model.backbone': backbone})
    weights = torch.load(runs.checkpoint('offset'), weights_only=False)['state_dict']
    weights = {
        name.replace('backbone.', 'backbone.backbone.'): weight
        for name, weight in weights.items()
    }
    torch.save(weights, tmp_path / 'weights.pth')
    given = str(config), tmp_path / 'weights.pth', tmp_path / 'model.onnx'
    assert export(*given).difference.good
    with pytest.raises(UserError, match='without --dynamic-batch'):
        export(*given, dynamic_batch=True)


def test_the_validation_s_pipeline_stands_in_for_that_of_the_test(runs, tmp_path):
    tested = Config.fromfile(runs.config('offset')).test_dataloader
    tested['_delete_'] = True
    loaders = dict(val_dataloader=tested, test_dataloader=None)
    path = runs.changed(tmp_path / 'config.py', **loaders)
    model = trained.load(path, runs.checkpoint('offset'))
    graph.write_model(tmp_path / 'model.onnx', model, dynamic_batch=True)
    assert verify.compare(tmp_path / 'model.onnx', model, verify.drawn()).good


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model.backbone.type': 'NoSuchNet'}, 'NoSuchNet.*custom_imports'),
        (
            {'model.head.type': 'HeatmapHead'},
            r'HeatmapHead .*udp-plugin convert \S+changed.py --keep-weights keeps',
        ),
        (
            {
                'model.head.decoder': dict(
                    _delete_=True, type='RegressionLabel', input_size=(96, 128)
                )
            },
            'cannot be built.*UDPOffset',
        ),
        ({'model.head.decoder.type': 'MSRAHeatmap'}, 'is of another model'),
        ({'model.type': 'TopdownPoseEstimater'}, 'TopdownPoseEstimater is not in'),
        (
            {'test_dataloader.dataset.pipeline.2.type': 'TopdownAffine'},
            'LoadImage, GetBBoxCenterScale, TopdownAffine.*udp-plugin convert',
        ),
        (
            {'test_dataloader.dataset.pipeline.2.input_size': (192, 256)},
            r'input_size \(192, 256\).*\(96, 128\)',
        ),
        ({'test_dataloader': None, 'val_dataloader': None}, 'no test_dataloader'),
        ({'custom_imports.imports': ['no_such_module']}, 'no_such_module'),
        ({'model.data_preprocessor.pad_size_divisor': 64}, 'multiples of 64'),
        (
            {
                'model.data_preprocessor': dict(
                    _delete_=True, type='BaseDataPreprocessor', _scope_='mmengine'
                )
            },
            '--decoding-only',
        ),
        ({'model': None}, 'has no model'),
        ({'model.head.out_channels': 15}, 'is of another model'),
    ],
)
def test_configs_that_cannot_be_exported(runs, tmp_path, change, message):
    path = runs.changed(tmp_path / 'changed.py', **change)
    with pytest.raises(UserError, match=f'(?s){message}'):
        trained.load(path, runs.checkpoint('offset'))


@pytest.fixture(scope='module')
def files(runs):
    """By name, what is no checkpoint of the offset config, and no photograph."""
    folder = runs.folder / 'files'
    state = torch.load(runs.checkpoint('offset'), weights_only=False)['state_dict']
    first, last = 'backbone.conv1.weight', 'head.final_layer'
    deeper = {'backbone.layer1.2.conv1.weight': state['backbone.layer1.1.conv1.weight']}
    nothing = {f'{last}.{n}': 0 * state[f'{last}.{n}'] for n in ('weight', 'bias')}
    for name in ('BROKEN', 'LONG'):
        (folder / name).mkdir(parents=True)
    for name, content in dict(
        EMPTY={'state_dict': {}},
        DEEPER={**state, **deeper},
        BROKEN_DOWN={**state, first: state[first] * float('nan')},
        LIST=[1],
        UNTRAINED={**state, **nothing},
    ).items():
        torch.save(content, folder / name)
    (folder / 'BROKEN/a.png').write_text('no image')
    cv2.imwrite(str(folder / 'LONG/a.png'), np.zeros((4, 33000, 3), np.uint8))
    named = dict(OFFSET=runs.checkpoint('offset'), GAUSSIAN=runs.checkpoint('gaussian'))
    return {**named, **{path.name: path for path in folder.iterdir()}}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'CHECKPOINT is missing'),
        (['no.pth'], 'no.pth is no file'),
        ([__file__], 'cannot be read as one of PyTorch'),
        (['GAUSSIAN'], 'is of another model'),
        (['EMPTY'], 'has no weights for backbone'),
        (['DEEPER'], 'which has no backbone.layer1.2.conv1.weight'),
        (['BROKEN_DOWN'], 'weights that are NaN or infinite: backbone.conv1.weight'),
        (['LIST'], 'holds a list, not weights by name'),
        (['OFFSET', '-o', '/proc/model.onnx'], '/proc/model.onnx'),
        (['OFFSET', '--verify', 'LONG'], 'LONG/a.png: image must have sides'),
        (['UNTRAINED'], 'finds no keypoint in any of the crops'),
        (['OFFSET', '--opset', '9', '--flip-test'], 'lacks the operator aten::flip'),
        (['OFFSET', '--opset', '11', '--dynamic-batch'], 'operator (Clip)'),
        (['OFFSET', '--opset', '3'], '--opset 3 is none that torch'),
        (['OFFSET', '--verify', 'nowhere'], 'nowhere must be a folder with photo'),
        (['OFFSET', '--verify', 'BROKEN'], 'cannot be read as an image'),
        (['OFFSET', '-o', 'model.pb'], 'must be a file that ends with .onnx, got'),
        (['--decoding-only', '-o', 'a.zip'], '.onnx or .pt or .pt2, got a.zip'),
        (['OFFSET', '--decoding-only'], 'goes with --out and --opset alone'),
    ],
)
def test_what_the_command_cannot_do(runs, files, tmp_path, capsys, options, message):
    options = [str(files.get(option, option)) for option in options]
    out = tmp_path / 'model.onnx'
    arguments = ['export', '-o', str(out), str(runs.config('offset')), *options]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in ' '.join(said.split())
    assert 'Traceback' not in said
    assert not out.exists()


def test_the_example_of_another_framework_s_maps():
    """As the page has it."""
    page = (Path(__file__).parents[1] / 'docs/deploy.md').read_text(encoding='utf-8')
    (code,) = [c for c in page.split('```python\n') if 'heatmaps = ' in c]
    names = {}
    exec(code.split('```')[0], names)
    assert names['keypoints'].shape == (17, 2)
    expected = np.array([20.3, 30.8])
    np.testing.assert_allclose(names['keypoints'].numpy()[5], expected, atol=1e-3)
    in_crop = expected * [191 / 47, 255 / 63]
    np.testing.assert_allclose(names['in_crop'].numpy()[5], in_crop, atol=5e-3)
    box = np.array(names['center']), np.array(names['scale'])
    in_photograph = expected / [47, 63] * box[1] - box[1] / 2 + box[0]
    found = names['in_photograph'].numpy()[5]
    np.testing.assert_allclose(found, in_photograph, atol=1e-2)
    # What the wrong measure would cost.
    away = (names['biased'] - names['in_photograph']).abs().amax()
    assert 1 < away < 4
