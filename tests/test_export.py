"""Exported models against MMPose's own inference: real networks, scripts and files."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers import run_tool
from mmengine.config import Config
from mmpose.apis import inference_topdown
from mmpose.registry import MODELS
from torch import nn
from xtcocotools.coco import COCO

from udp_plugin import UDPGaussianHeatmap, UDPOffsetHeatmap
from udp_plugin import functional as F
from udp_plugin.cli import main
from udp_plugin.demo import configs, figures, measures
from udp_plugin.export import OPSET, graph, trained, verify, writing
from udp_plugin.runtime import PoseModel
from udp_plugin.ui import UserError

ITERS = 40
#: Of the codec, and how offset maps are read.
CODECS = ['gaussian', 'voting', 'authors', 'toolbox']
pytestmark = [
    pytest.mark.filterwarnings('ignore:The metainfo config file'),
    pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning'),
]


class Runs:
    """Networks trained and tested by MMPose's scripts on drawn figures.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        list(figures.write_dataset(folder, dict(train=64, test=12), seed=0))
        data = configs.Data(
            title='drawn figures',
            train_ann=folder / 'train.json',
            train_img=folder / 'train',
            test_ann=folder / 'test.json',
            test_img=folder / 'test',
            train_count=64,
            test_count=12,
        )
        names = ['gaussian', 'offset']
        self.configs = configs.write_configs(folder, data, names, ITERS, seed=0)
        self.checkpoints = {}
        for name in names:
            work_dir, config = folder / name, self.configs[f'udp_{name}']
            args = ['--work-dir', work_dir]
            run_tool('train.py', config, *args, options={'train_cfg.max_iters': ITERS})
            checkpoint = work_dir / f'iter_{ITERS}.pth'
            args += [f'--dump={work_dir / "predictions.pkl"}']
            run_tool(
                'test.py', config, checkpoint, *args, options={'work_dir': work_dir}
            )
            self.checkpoints[name] = checkpoint

    def config(self, codec: str) -> Path:
        """The config of a codec or reading."""
        if codec in ('gaussian', 'offset'):
            return self.configs[f'udp_{codec}']
        path = self.folder / f'{codec}.py'
        text = self.configs['udp_offset'].read_text()
        path.write_text(text.replace('sigma=1)', f'sigma=1, reading={codec!r})'))
        return path

    def checkpoint(self, codec: str) -> Path:
        return self.checkpoints['gaussian' if codec == 'gaussian' else 'offset']

    def load(self, codec: str) -> trained.Trained:
        return trained.load(self.config(codec), self.checkpoint(codec))

    def boxes(self) -> list:
        """Each test image with its box, as the data set has it."""
        coco = COCO(str(self.folder / 'test.json'))
        found = []
        for ann in coco.anns.values():
            info = coco.loadImgs(ann['image_id'])[0]
            x, y, w, h = ann['bbox']
            path = self.folder / 'test' / info['file_name']
            found.append((cv2.imread(str(path)), np.array([[x, y, x + w, y + h]])))
        return found


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('runs'))


def exported(model: trained.Trained, path: Path, **settings) -> PoseModel:
    graph.write_model(path, model, **{'dynamic_batch': True, **settings})
    return PoseModel(path)


def jittered(image: np.ndarray, box: np.ndarray, count: int, seed: int) -> tuple:
    """An image and boxes around one."""
    rng = np.random.default_rng(seed)
    boxes = np.tile(box, (count, 1))
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return image, boxes + rng.uniform(-0.1, 0.1, boxes.shape) * size


def drawn_crops(runs: Runs) -> list:
    """Batches of 1, 2 and 17 crops, of test images: 120 in all."""
    counts = [1, 2, 17] * 2
    samples = runs.boxes()[: 2 * len(counts)]
    return [
        jittered(image, box, count, seed)
        for seed, ((image, box), count) in enumerate(zip(samples, counts * 2))
    ] + [jittered(*samples[k], 20, seed=k + 100) for k in range(2)]


def photographed(coco_mini: Path) -> list:
    """Batches of 1, 2 and 17 crops of people in photographs: 80 in all."""
    coco = COCO(str(coco_mini / 'test_coco.json'))
    counts, samples = [1, 2, 17, 17, 17, 1, 2, 17, 2, 1, 2, 1], []
    for seed, ((_, ann), count) in enumerate(zip(sorted(coco.anns.items()), counts)):
        image = cv2.imread(
            str(coco_mini / coco.loadImgs(ann['image_id'])[0]['file_name'])
        )
        x, y, w, h = ann['bbox']
        samples.append(jittered(image, np.array([x, y, x + w, y + h]), count, seed))
    return samples


@torch.no_grad()
def tied(model: trained.Trained, exported: PoseModel, samples: list) -> np.ndarray:
    """Where pixels of PyTorch's own maps are so equally high that rounding decides.

    There, noise of some units in the last place moves the keypoint; which networks
    trained for so short a time have now and then. Shape (N, K).
    """
    flip_indices = model.flip_indices if exported.flip_test else None
    network = graph.CropsToKeypoints(model.model, flip_indices).eval()
    generator = torch.Generator().manual_seed(0)
    found = []
    for image, boxes in samples:
        crops = torch.from_numpy(exported.crop(image, exported.regions(boxes)))
        maps = network._maps(network._normalize(crops))
        keypoints, _ = network.decoding(maps)
        moved = torch.zeros(keypoints.shape[:2], dtype=torch.bool)
        for _ in range(8):
            noise = torch.randn(maps.shape, generator=generator)
            near, _ = network.decoding(maps + 3e-7 * maps.abs().amax() * noise)
            moved |= (near - keypoints).norm(dim=-1) > 1e-3
        found.append(moved)
    return torch.cat(found).numpy()


# --- the model against MMPose ---------------------------------------------------------


@pytest.mark.parametrize('flip_test', [False, True], ids=['plain', 'flip'])
@pytest.mark.parametrize('codec', CODECS)
def test_one_file_gives_mmpose_s_keypoints_at_every_batch_size(
    runs, coco_mini, tmp_path, codec, flip_test
):
    model = runs.load(codec)
    path = tmp_path / 'model.onnx'
    exported(model, path, flip_test=flip_test)
    samples = drawn_crops(runs) + photographed(coco_mini)
    assert {len(boxes) for _, boxes in samples} >= {1, 2, 17}
    difference = verify.compare(path, model, samples)
    assert len(difference.px) >= 200
    decided = ~tied(model, PoseModel(path), samples)
    assert decided.mean() > 0.99
    assert difference.px[decided].max() <= 1e-3
    assert difference.score[decided].max() <= 1e-5
    assert difference.good


@pytest.mark.parametrize('codec', ['gaussian', 'offset'])
def test_as_far_from_the_annotation_as_the_toolbox_s_test_says(runs, tmp_path, codec):
    """What deployment is about: to get what tools/test.py has reported."""
    model = exported(runs.load(codec), tmp_path / 'model.onnx', flip_test=True)
    tested = measures.read_predictions(runs.folder / codec / 'predictions.pkl')
    annotated = COCO(str(runs.folder / 'test.json')).anns
    assert len(tested) == len(annotated) == 12
    by_image = {Path(p.img_path).stem: p for p in tested}
    found = []
    for path in sorted((runs.folder / 'test').iterdir()):
        person = by_image[path.stem]
        (ann,) = (a for a in annotated.values() if a['image_id'] == int(path.stem))
        x, y, w, h = ann['bbox']
        keypoints, scores = model(cv2.imread(str(path)), [[x, y, x + w, y + h]])
        np.testing.assert_allclose(keypoints[0], person.predicted, atol=1e-2)
        # Of the same crops, they are the same to 1e-5, see above. MMPose's boxes are in
        # single precision, which OpenCV 5 shows in a few pixels, by one level.
        atol = 1e-5 if cv2.__version__ < '5' else 5e-4
        np.testing.assert_allclose(scores[0], person.scores, atol=atol)
        found.append(person._replace(predicted=keypoints[0]))
    ours, theirs = measures.errors_of(found), measures.errors_of(tested)
    np.testing.assert_allclose(np.median(ours), np.median(theirs), atol=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


def test_photographs_in_source_px_with_the_same_crops(runs, coco_mini, tmp_path):
    """The runtime's resampling is the pipeline's, so nothing but rounding is left."""
    model = runs.load('voting')
    ours = exported(model, tmp_path / 'model.onnx', flip_test=True)
    model.model.test_cfg['flip_test'] = True
    seen = []
    preprocess = model.model.data_preprocessor
    preprocess.register_forward_pre_hook(
        lambda module, args: seen.append(torch.stack(args[0]['inputs']).numpy())
    )
    for image, boxes in photographed(coco_mini):
        results = inference_topdown(model.model, image, boxes)
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
@pytest.mark.parametrize('codec', ['gaussian', 'offset'])
def test_other_inputs_give_the_same(runs, tmp_path, settings, codec):
    model, path = runs.load(codec), tmp_path / 'model.onnx'
    session = exported(model, path, **settings).session
    shape = session.get_inputs()[0].shape
    assert shape[0] == 1 if 'dynamic_batch' in settings else isinstance(shape[0], str)
    assert len(session.get_inputs()) == (4 if 'source_keypoints' in settings else 1)
    difference = verify.compare(path, model, verify.drawn())
    assert difference.px.max() <= 1e-3
    assert difference.score.max() <= 1e-5


def test_source_keypoints_of_rotated_boxes(runs, tmp_path):
    model = exported(runs.load('offset'), tmp_path / 'a.onnx', source_keypoints=True)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 3, 128, 96), dtype=np.uint8)
    center, scale = rng.uniform(0, 4000, (5, 2)), rng.uniform(20, 2000, (5, 2))
    rotation = rng.uniform(-180, 180, 5)
    box = dict(centers=center, scales=scale, rotations=rotation)
    box = {name: value.astype(np.float32) for name, value in box.items()}
    keypoints, _, in_source = model.session.run(None, dict(crops=crops, **box))
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
    layer = model.model.head.final_layer
    nn.init.constant_(layer.weight, 0.0)
    nn.init.constant_(layer.bias, value)
    ours = exported(model, tmp_path / 'model.onnx', flip_test=True)
    crops = np.zeros((2, 3, 128, 96), np.uint8)
    keypoints, scores = ours.session.run(None, {'crops': crops})
    middle = np.array([12 * 95 / 23, 16 * 127 / 31])
    np.testing.assert_allclose(keypoints, np.broadcast_to(middle, (2, 17, 2)), 1e-5)
    assert (scores == 0).all()


# --- the decoding alone ---------------------------------------------------------------


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
    # Degenerate maps among them.
    difference = verify.compare_decoding(path, codec, keypoints=5)
    if suffix == '.onnx':
        operators = {node.op_type for node in onnx.load(str(path)).graph.node}
        assert not operators & {'If', 'Loop', 'NonZero', 'Scan'}
    assert difference.px.max() <= 1e-3
    assert difference.score.max() <= 1e-5


@pytest.mark.parametrize('codec', CODECS)
def test_recorded_and_computed_decoding_agree_on_every_kind_of_map(codec):
    codec = codec_of(codec)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(40, codec.channels_per_keypoint, 64, 48, generator=generator)
    maps[1], maps[2], maps[3] = 0, float('nan'), float('inf')
    maps[4], maps[5] = -float('inf'), 3.0
    maps[6, :, 10, 10] = float('nan')
    maps[7, :, 0, 0], maps[8, :, -1, -1] = 50.0, float('inf')
    maps[9], maps[10] = maps[9] * 1e30, maps[10] * 1e-30
    maps[11] = 0.0
    maps[11, :, 20, 20] = 1.0
    traced = torch.jit.trace(graph.Decoding(codec), (maps[:2],))
    keypoints, scores = codec.decode_tensors(maps)
    found, found_scores = traced(maps)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, keypoints, atol=1e-3, rtol=0)
    torch.testing.assert_close(found_scores, scores, atol=1e-5, rtol=1e-5)


# --- the file -------------------------------------------------------------------------


def test_the_file_says_what_it_is(runs, tmp_path):
    model = exported(runs.load('authors'), tmp_path / 'model.onnx', flip_test=True)
    assert model.input_size == (96, 128)
    assert model.heatmap_size == (24, 32)
    assert model.codec['type'] == 'UDPOffsetHeatmap'
    assert model.codec['reading'] == 'authors'
    assert list(model.keypoint_names) == figures.KEYPOINTS
    assert list(model.flip_pairs) == [(k, k + 1) for k in range(1, 17, 2)]
    assert sorted(map(sorted, model.skeleton)) == sorted(
        sorted(k - 1 for k in link) for link in figures.SKELETON
    )
    assert model.padding == 1.25
    assert model.flip_test
    # In the order of the crops: the network's is RGB.
    assert model.color == 'BGR'
    assert model.mean == pytest.approx((103.53, 116.28, 123.675))
    normalized = exported(runs.load('authors'), tmp_path / 'n.onnx', normalized=True)
    assert normalized.color == 'RGB'
    assert normalized.mean == pytest.approx((123.675, 116.28, 103.53))


def test_nothing_else_in_the_folder_is_touched(runs, tmp_path):
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes.txt').write_text('mine')
    exported(runs.load('gaussian'), tmp_path / 'model.onnx')
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['model.onnx', 'notes', 'notes.txt']


def test_weights_too_large_for_one_file_are_beside_it(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'LARGEST', 100_000)
    out = tmp_path / 'model.onnx'
    arguments = ['export', runs.config('offset'), runs.checkpoint('offset'), '-o', out]
    assert main(list(map(str, arguments))) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, f'{out.name}.data']
    assert out.stat().st_size < 300_000
    image, box = runs.boxes()[0]
    assert np.isfinite(PoseModel(out)(image, box).keypoints).all()
    # And gone with the file that they belonged to.
    monkeypatch.undo()
    assert main(list(map(str, arguments))) == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


# --- the command ----------------------------------------------------------------------


def test_the_command(runs, coco_mini, tmp_path, capsys):
    out = tmp_path / 'new' / 'model.onnx'
    arguments = ['export', runs.config('offset'), runs.checkpoint('offset'), '-o', out]
    arguments += ['--flip-test', '--dynamic-batch', '--verify', coco_mini]
    assert main(list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    for text in (
        'B × 3 × 128 × 96',
        'UDPOffsetHeatmap',
        '272 keypoints of 16 samples',
        'udp-plugin infer',
    ):
        assert text in printed
    assert [path.name for path in out.parent.iterdir()] == ['model.onnx']
    onnx.checker.check_model(str(out))
    # And from there on without the toolbox.
    image = coco_mini / '000000000785.jpg'
    picture = tmp_path / 'out.png'
    boxes = ['--boxes', '280,44,499,388']
    assert main(['infer', str(out), str(image), *boxes, '-o', str(picture)]) == 0
    assert 'left_ankle' in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape == cv2.imread(str(image)).shape


def test_the_command_for_the_decoding_alone(runs, tmp_path, capsys):
    out = tmp_path / 'decoding.pt'
    arguments = ['export', str(runs.config('offset')), '--decoding-only', '-o']
    assert main([*arguments, str(out)]) == 0
    assert 'TorchScript' in capsys.readouterr().out
    said = {'made_by': '', 'codec': ''}
    script = torch.jit.load(str(out), _extra_files=said)
    assert json.loads(said['codec'])['type'] == 'UDPOffsetHeatmap'
    keypoints, scores = script(torch.rand(3, 51, 32, 24))
    assert keypoints.shape == (3, 17, 2)
    assert scores.shape == (3, 17)


def test_a_file_that_is_wrong_is_not_put_in_place(runs, tmp_path, monkeypatch, capsys):
    def forgets_the_mean(module, crops):
        return crops.float().flip(1) / module.model.data_preprocessor.std

    monkeypatch.setattr(graph.CropsToKeypoints, '_normalize', forgets_the_mean)
    out = tmp_path / 'model.onnx'
    out.write_text('what was there')
    arguments = ['export', runs.config('offset'), runs.checkpoint('offset'), '-o', out]
    assert main(list(map(str, arguments))) == 1
    assert 'does not compute what PyTorch does' in capsys.readouterr().err
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


def test_a_network_that_fixes_its_batch(runs, tmp_path, capsys):
    cfg = Config.fromfile(runs.config('offset'))
    cfg.model.backbone = dict(type='FixesItsBatch', backbone=cfg.model.backbone)
    cfg.dump(tmp_path / 'config.py')
    weights = torch.load(runs.checkpoint('offset'), weights_only=False)['state_dict']
    weights = {
        name.replace('backbone.', 'backbone.backbone.'): weight
        for name, weight in weights.items()
    }
    torch.save(weights, tmp_path / 'weights.pth')
    arguments = ['export', tmp_path / 'config.py', tmp_path / 'weights.pth', '-o']
    arguments = [*map(str, arguments), str(tmp_path / 'model.onnx')]
    assert main(arguments) == 0
    assert main([*arguments, '--dynamic-batch']) == 2
    assert 'without --dynamic-batch' in capsys.readouterr().err


def changed(runs, tmp_path, **paths) -> Path:
    cfg = Config.fromfile(runs.config('offset'))
    cfg.merge_from_dict(paths)
    path = tmp_path / 'changed.py'
    cfg.dump(path)
    return path


def test_the_validation_s_pipeline_stands_in_for_that_of_the_test(runs, tmp_path):
    cfg = Config.fromfile(runs.config('offset'))
    cfg.val_dataloader, cfg.test_dataloader = cfg.test_dataloader, None
    cfg.dump(tmp_path / 'config.py')
    model = trained.load(tmp_path / 'config.py', runs.checkpoint('offset'))
    path = tmp_path / 'model.onnx'
    exported(model, path)
    assert verify.compare(path, model, verify.drawn()).good


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model.backbone.type': 'NoSuchNet'}, 'NoSuchNet.*custom_imports'),
        ({'model.head.type': 'HeatmapHead'}, 'udp-plugin convert'),
        ({'model.head.decoder.type': 'MSRAHeatmap'}, 'cannot be built.*UDPOffset'),
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
        ({'model.data_preprocessor.type': 'BaseDataPreprocessor'}, '--decoding-only'),
        ({'model': None}, 'has no model'),
        ({'model.head.out_channels': 15}, 'is of another model'),
    ],
)
def test_configs_that_cannot_be_exported(runs, tmp_path, change, message):
    if 'BaseDataPreprocessor' in change.values():
        change['model.data_preprocessor'] = dict(
            _delete_=True, type='BaseDataPreprocessor', _scope_='mmengine'
        )
        del change['model.data_preprocessor.type']
    path = changed(runs, tmp_path, **change)
    with pytest.raises(UserError, match=f'(?s){message}'):
        trained.load(path, runs.checkpoint('offset'))


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
        (['OFFSET', '--verify', 'LONG'], 'long/a.png: image must have sides'),
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
def test_what_the_command_cannot_do(runs, tmp_path, capsys, options, message):
    state = torch.load(runs.checkpoint('offset'), weights_only=False)['state_dict']
    first, last = 'backbone.conv1.weight', 'head.final_layer'
    deeper = {'backbone.layer1.2.conv1.weight': state['backbone.layer1.1.conv1.weight']}
    nothing = {f'{last}.{n}': 0 * state[f'{last}.{n}'] for n in ('weight', 'bias')}
    for name, content in dict(
        empty={'state_dict': {}},
        deeper={**state, **deeper},
        broken_down={**state, first: state[first] * float('nan')},
        list=[1],
        untrained={**state, **nothing},
    ).items():
        torch.save(content, tmp_path / f'{name}.pth')
    for name in ('broken', 'long'):
        (tmp_path / name).mkdir()
    (tmp_path / 'broken/a.png').write_text('no image')
    cv2.imwrite(str(tmp_path / 'long/a.png'), np.zeros((4, 33000, 3), np.uint8))
    names = dict(
        OFFSET=runs.checkpoint('offset'),
        GAUSSIAN=runs.checkpoint('gaussian'),
        BROKEN=tmp_path / 'broken',
        LONG=tmp_path / 'long',
        **{path.stem.upper(): path for path in tmp_path.iterdir() if path.suffix},
    )
    options = [str(names.get(option, option)) for option in options]
    out = tmp_path / 'model.onnx'
    arguments = ['export', '-o', str(out), str(runs.config('offset')), *options]
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    said = capsys.readouterr().err
    assert message in ' '.join(said.split())
    assert 'Traceback' not in said
    assert not out.exists()


def test_a_stock_config_is_to_be_converted(runs, tmp_path, capsys):
    arguments = [runs.configs['stock'], runs.checkpoint('gaussian'), '-o']
    arguments = list(map(str, [*arguments, tmp_path / 'model.onnx']))
    assert main(['export', *arguments]) == 2
    assert 'udp-plugin convert' in capsys.readouterr().err


def test_flip_average_in_a_graph():
    """Which is written otherwise there."""

    class Join(nn.Module):
        def forward(self, maps, mirrored):
            return F.flip_average(maps, mirrored, [1, 0], 3)

    generator = torch.Generator().manual_seed(0)
    pair = torch.rand(2, 2, 6, 5, 4, generator=generator)
    traced = torch.jit.trace(Join(), (pair[0], pair[1]))
    other = torch.rand(2, 3, 6, 5, 4, generator=generator)
    torch.testing.assert_close(
        traced(other[0], other[1]), F.flip_average(other[0], other[1], [1, 0], 3)
    )


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
