"""``udp-plugin convert`` and ``list``: what is swapped, written, said and refused."""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import PURE, RUNTIME
from mmengine.config import Config
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.utils import register_all_modules

from udp_plugin.cli import main
from udp_plugin.convert.check import check
from udp_plugin.convert.run import Converted, convert, read
from udp_plugin.convert.swaps import kind_of, nodes, swap
from udp_plugin.convert.writer import without_scope
from udp_plugin.convert.zoo import convertible, find_config, zoo_folder
from udp_plugin.errors import UserError
from udp_plugin.names import CODECS, HEADS, STOCK_CODECS, TRANSFORMS

PROJECT = Path(__file__).resolve().parents[1]
GOLDEN = PROJECT / 'tests' / 'golden'
COCO = 'body_2d_keypoint/topdown_heatmap/coco'
MSPN = 'td-hm_mspn50_8xb32-210e_coco-256x192'
CPM = 'td-hm_cpm_8xb64-210e_mpii-368x368'
VIPNAS = 'td-hm_vipnas-mbv3_8xb64-210e_coco-256x192'
REGRESS = 'td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192'
CSPNEXT = 'cspnext-m_udp_8xb256-210e_aic-coco-256x192'
AWING = 'td-hm_hrnetv2-w18_awing-8xb64-60e_wflw-256x256'
MERGE = 'td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge'
HRNET_UDP = 'td-hm_hrnet-w32_udp-gaussian_8xb64-210e_coco-256x192'
#: The zoo configs whose names a conversion changes otherwise than by its tag.
RENAMED = {
    'cspnext-m_8xb256-210e_aic-coco-256x192': CSPNEXT,
    'td-hm_hrnet-w32_8xb64-210e_coco-256x192': REGRESS,
    'td-hm_hrnetv2-w18_awing_8xb64-60e_wflw-256x256': AWING,
}
#: The names that a converted config must not have; CombinedTargetMSELoss is allowed
#: with offsets.
STOCK = {*STOCK_CODECS, *HEADS, *TRANSFORMS, 'AdaptiveWingLoss'}

# It says at length that it found the file that was meant.
pytestmark = pytest.mark.filterwarnings('ignore:The metainfo config file')


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '160')


def run(*args):
    """The exit status of the command."""
    try:
        return main([str(arg) for arg in args])
    except SystemExit as end:
        return end.code


def zoo(name):
    return read(find_config(name))


def kind_in(name):
    return re.search(r'_udp-(gaussian|offset|kept)_', name)[1]


def types(node):
    """The bare names of all types in a config, with how often they occur."""
    if isinstance(node, dict):
        found = sum(map(types, node.values()), Counter())
        if 'type' in node:
            found[str(node['type']).rpartition('.')[-1]] += 1
        return found
    if isinstance(node, (list, tuple)):
        return sum(map(types, node), Counter())
    return Counter()


# --- the zoo --------------------------------------------------------------------------


@pytest.mark.parametrize(
    'path',
    [*sorted(GOLDEN.glob('*-*.py')), *sorted((PROJECT / 'configs').rglob('*.py'))],
    ids=lambda path: path.stem,
)
def test_golden_and_shipped_configs(path):
    kind = kind_in(path.stem)
    name = re.sub(f'(?<=_)udp-{kind}_', '', path.stem)
    if path.parent != GOLDEN:
        name = (path.parent.relative_to(PROJECT / 'configs') / name).as_posix()
    kept = kind == 'kept'
    kind = None if kept else kind
    found = convert(RENAMED.get(name, name), kind, path.parent, kept)
    assert found.text == path.read_text(encoding='utf-8')
    assert found.name == path.name


def test_golden_files_cover_the_heads():
    found = sum((types(read(p)) for p in GOLDEN.glob('*-*.py')), Counter())
    assert {*HEADS.values()} <= {*found}


@pytest.mark.parametrize('step', [12, pytest.param(1, marks=pytest.mark.slow)])
def test_zoo_configs_convert_to_both_codecs(step, monkeypatch):
    """It is loaded and compared with the swap in ``convert`` itself."""
    names = convertible()
    assert len(names) == 278
    memory = Path('/dev/shm')
    if memory.is_dir():
        # mmengine copies each config to a temporary file, which is slow on a disk.
        monkeypatch.setattr(tempfile, 'tempdir', str(memory))
    for name in names[::step]:
        path = zoo_folder() / name
        base = read(path)
        stock = types(base)
        for kind, codec in CODECS.items():
            found = convert(str(path), kind)
            assert found.swaps
            assert found.text.startswith('_base_ = [')
            assert all(len(line) <= 88 for line in found.text.splitlines())
            target, _ = swap(base, kind)
            swapped = types(target)
            assert not STOCK - {'AdaptiveWingLoss'} & {*swapped}, name
            assert stock['TopdownAffine'] == swapped['TopDownAffineUDP'] > 0
            assert stock['GenerateTarget'] == swapped['OffsetTargetGenerator'] > 0
            assert swapped[codec] == sum(stock[n] for n in STOCK_CODECS)
            losses = {'gaussian': 'CombinedTargetMSELoss', 'offset': 'AdaptiveWingLoss'}
            assert losses[kind] not in swapped, name
            assert 'shift_heatmap=True' not in str(target)
            assert target['model']['test_cfg'].get('shift_heatmap') is not True
            assert 'use_udp' not in str(target)
            assert 'udp_plugin' in target['custom_imports']['imports']


def test_loaded_by_its_name_it_is_the_swapped_config(tmp_path):
    """As the user has it: with ``mmpose::`` in ``_base_``."""
    name = 'td-hm_res50_8xb64-210e_coco-256x192'
    assert run('convert', find_config(name), '-o', tmp_path) == 0
    (written,) = tmp_path.iterdir()
    assert 'mmpose::' in written.read_text()
    expected, _ = swap(zoo(name), 'gaussian')
    found = Config.fromfile(written).to_dict()
    assert without_scope(found) == without_scope(expected)


def test_each_swap_is_told_once():
    """Not again in data loaders, but in each pipeline, alike as they may be."""
    _, swaps = swap(zoo(MSPN), 'offset')
    assert [row.place for row in swaps] == [
        'custom_imports',
        *(f'codec[{level}]' for level in range(4)),
        'model.head',
        'train_pipeline[5]',
        'train_pipeline[6]',
        'val_pipeline[2]',
    ]
    assert all(row.why for row in swaps)


def test_combined_targets_of_the_toolbox():
    stock = zoo(REGRESS)
    assert kind_of(stock) == 'offset'
    offset = swap(stock, 'offset')[0]['model']['head']
    assert offset['out_channels'] == 51
    assert offset['loss']['type'] == 'CombinedTargetMSELoss'
    assert offset['decoder']['heatmap_type'] == 'combined'
    gaussian = swap(stock, 'gaussian')[0]['model']['head']
    assert gaussian['out_channels'] == 17
    assert gaussian['loss'] == {'type': 'KeypointMSELoss', 'use_target_weight': True}
    assert gaussian['decoder']['heatmap_type'] == 'gaussian'
    assert stock['model']['head']['out_channels'] == 51


def test_adaptive_wing_loss():
    stock = zoo(AWING)
    cfg, swaps = swap(stock, 'offset')
    loss = {'type': 'UDPOffsetLoss', 'use_target_weight': True}
    assert cfg['model']['head']['loss'] == loss
    (row,) = (row for row in swaps if row.place == 'model.head.loss')
    assert 'slope of a Gaussian' in row.why
    kept = swap(stock, 'gaussian')[0]['model']['head']['loss']
    assert kept == stock['model']['head']['loss']


# --- names ----------------------------------------------------------------------------


def test_names_of_the_zoo():
    expected = zoo_folder() / f'{COCO}/{VIPNAS}.py'
    for words in (
        VIPNAS,
        f'{VIPNAS}.py',
        VIPNAS[:-4],
        f'{COCO}/{VIPNAS}.py',
        f'mmpose::{COCO}/{VIPNAS}.py',
        f'mmpose::{VIPNAS}',
        f'coco/{VIPNAS}',
        str(expected),
    ):
        assert find_config(words) == expected, words


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        ('td-hm_vipnas', r'could be 6 configs; give more of the name'),
        ('td-hm_rss50_8xb64-210e_coco-256x192', r'Did you mean td-hm_res50_8xb64-'),
        ('hourglass', r'Did you mean td-hm_hourglass52_8xb32-210e_coco-256x256 or '),
        ('td-hm_vis-res', r'Did you mean td-hm-vis_res50_8xb64-'),
        ('not/there.py', r'neither a file nor in the zoo'),
        ('mmdet::yolox', r'a config of mmdet'),
        ('', r'CONFIG is empty'),
        ('tests', r'is a folder; name a file in it'),
        ('x' * 300, r'There is no config'),
        ('rtmpose-m_8xb', r'no top-down heatmap configs'),
    ],
)
def test_names_that_name_none(words, sentence, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(UserError, match=sentence):
        find_config(words)


@pytest.mark.parametrize(
    ('stem', 'expected'),
    [
        ('td-hm_res50_8xb64-210e_coco', 'td-hm_res50_{}_8xb64-210e_coco'),
        ('td-hm_res50_dark-8xb64-210e_coco', 'td-hm_res50_dark_{}_8xb64-210e_coco'),
        ('cspnext-m_udp_8xb64-210e_mpii', 'cspnext-m_{}_8xb64-210e_mpii'),
        ('td-hm_hrnet-w32_udp-regress-8xb64-210e', 'td-hm_hrnet-w32_{}_8xb64-210e'),
        ('mine', 'mine_{}'),
    ],
)
def test_names_of_files(stem, expected):
    found = Converted(Path(f'{stem}.py'), 'offset', Path(), [])
    assert found.name == expected.format('udp-offset') + '.py'


def test_files_of_kept_weights_are_of_one_config_each():
    """A stock UDP config's weights are not those of its biased twin."""
    stems = [Path(name).stem for name in convertible()]
    named = [Converted(Path(f'{s}.py'), 'kept', Path(), []).name for s in stems]
    assert len({*named}) == len({*stems})
    assert all('udp-kept' in name for name in named)


# --- users' configs -------------------------------------------------------------------

MODEL = """
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(type='PoseDataPreprocessor', bgr_to_rgb=True),
    backbone=dict(type='ResNet', depth=18),
    head=dict(
        type='HeatmapHead', in_channels=512, out_channels=17,
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder=CODEC),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True))
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5e-4))
"""
CODEC = (
    "dict(type='MSRAHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)"
)
TRAIN = f"""[
    dict(type='LoadImage'), dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='TopdownAffine', input_size=(192, 256)),
    dict(type='GenerateTarget', encoder={CODEC}),
    dict(type='PackPoseInputs')]"""
VAL = """[
    dict(type='LoadImage'), dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=(192, 256)), dict(type='PackPoseInputs')]"""
MY_VAL = VAL.replace('TopdownAffine', 'MyAffine')
INLINE = MODEL.replace('CODEC', CODEC) + (
    f"train_dataloader = dict(batch_size=4, dataset=dict(type='CocoDataset', "
    f"ann_file='a.json', pipeline={TRAIN}))\n"
    f"val_dataloader = dict(dataset=dict(type='MyDataset', pipeline={VAL}))\n"
    'test_dataloader = val_dataloader\n'
)


TRAIN_SET = f"dict(type='CocoDataset', ann_file='a.json', pipeline={TRAIN})"
VAL_SET = f"dict(type='MyDataset', pipeline={VAL})"


def write(folder, text, name='mine.py'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def converted(tmp_path):
    """What the command makes of a text or file, and also compares with the swap."""

    def convert_and_format(source, *options, left=frozenset()):
        path = source if isinstance(source, Path) else write(tmp_path, source)
        out = tmp_path / 'out.py'
        assert run('convert', path, '-o', out, *options) == 0
        ruff = [sys.executable, '-m', 'ruff']
        settings = ['--config', PROJECT / 'pyproject.toml', out]
        for command in (['check', '--ignore', 'I001'], ['format', '--check']):
            done = subprocess.run([*ruff, *command, *settings], capture_output=True)
            assert done.returncode == 0, done.stdout.decode() + out.read_text()
        cfg = read(out)
        assert STOCK & {*types(cfg)} == left
        return cfg

    return convert_and_format


@pytest.mark.parametrize('kind', ['gaussian', 'offset'])
def test_inline_pipelines(tmp_path, converted, kind):
    cfg = converted(INLINE, '--codec', kind)
    text = (tmp_path / 'out.py').read_text()
    assert text.startswith("_base_ = ['mine.py']\n")
    assert text.count('TopDownAffineUDP') == 2
    assert cfg['auto_scale_lr'] == {'base_batch_size': 512}
    assert cfg['val_dataloader']['dataset']['type'] == 'MyDataset'
    assert cfg['train_dataloader']['batch_size'] == 4
    encoder = cfg['train_dataloader']['dataset']['pipeline'][4]['encoder']
    assert encoder == cfg['model']['head']['decoder'] == cfg['codec']
    assert cfg['model']['test_cfg']['shift_heatmap'] is False


@pytest.mark.parametrize(
    'dataset',
    [
        "dict(type='RepeatDataset', times=3, dataset=ONE)",
        "dict(type='ConcatDataset', datasets=[ONE, TWO])",
        "dict(type='CombinedDataset', metainfo=dict(from_file='coco.py'), "
        'datasets=[PLAIN, PLAIN], pipeline=PIPELINE)',
        "dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, "
        'dataset=TWO), ONE, PLAIN])',
        # Places too deep for a line.
        "dict(type='ConcatDataset', datasets=[" * 4 + 'ONE' + '])' * 4,
    ],
    ids=['repeat', 'concat', 'combined', 'nested', 'deep'],
)
def test_dataset_wrappers(tmp_path, converted, dataset):
    other = TRAIN.replace("'RandomFlip'", "'RandomHalfBody'")
    dataset = dataset.replace('ONE', "dict(type='CocoDataset', pipeline=PIPELINE)")
    dataset = dataset.replace('TWO', f"dict(type='MyDataset', pipeline={other})")
    dataset = dataset.replace('PLAIN', "dict(type='CocoDataset', pipeline=[])")
    text = INLINE.replace(TRAIN_SET, dataset).replace('PIPELINE', TRAIN)
    found = types(converted(text))
    before = types(read(tmp_path / 'mine.py'))
    # One more of each where a pipeline got a name.
    assert found['TopDownAffineUDP'] >= before['TopdownAffine']
    assert found['RandomHalfBody'] >= before['RandomHalfBody']
    for name in ('RepeatDataset', 'ConcatDataset'):
        assert found[name] == before[name]


def one(pipeline):
    return f"dict(type='M', pipeline={pipeline})"


HOOK = f"dict(type='mmdet.PipelineSwitchHook', switch_pipeline={MY_VAL})"
LATER = 'custom_hooks[0].switch_pipeline'


@pytest.mark.parametrize(
    ('dataset', 'place'),
    [
        (one(MY_VAL), 'val_dataloader.dataset.pipeline'),
        (
            f"dict(type='RepeatDataset', dataset={one(MY_VAL)})",
            'val_dataloader.dataset.dataset.pipeline',
        ),
        (
            f"dict(type='ConcatDataset', datasets=[{one(VAL)}, {one(MY_VAL)}])",
            'val_dataloader.dataset.datasets[1].pipeline',
        ),
        (
            f"dict(type='CombinedDataset', datasets=[{one([])}, dict(type='M')], "
            f'pipeline={MY_VAL})',
            'val_dataloader.dataset.pipeline',
        ),
        # The bracket that closes the data loader closes the list of hooks.
        (f'{one(VAL)})\ncustom_hooks = ([{HOOK}]', LATER),
    ],
    ids=['plain', 'repeat', 'concat', 'combined', 'later stage'],
)
def test_a_warp_of_another_name(tmp_path, capsys, dataset, place):
    path = write(tmp_path, INLINE.replace(VAL_SET, dataset))
    assert run('convert', path, '-o', tmp_path / 'o.py') == 2
    assert f'error: {place} has no TopdownAffine' in capsys.readouterr().err
    assert not (tmp_path / 'o.py').exists()


def test_where_there_is_no_warp_to_ask_for(tmp_path, converted):
    """Without data loaders, or with the warp in the data sets or their wrapper."""
    converted(MODEL.replace('CODEC', CODEC) + 'val_dataloader = None\n')
    (tmp_path / 'out.py').unlink()
    half = one(VAL.rpartition(' dict(')[0] + ']')
    dataset = (
        f"dict(type='CombinedDataset', datasets=[{half}], "
        "pipeline=[dict(type='PackPoseInputs')])"
    )
    converted(INLINE.replace(VAL_SET, dataset))


def test_several_codecs(converted):
    codecs = f'[{CODEC}, dict({CODEC}, sigma=3)]'
    text = INLINE.replace(f'encoder={CODEC}', f'encoder={codecs}, multilevel=True')
    cfg = converted(text, '--codec', 'offset')
    encoder = cfg['train_dataloader']['dataset']['pipeline'][4]['encoder']
    assert [(e['type'], e['sigma']) for e in encoder] == [
        ('UDPOffsetHeatmap', 2),
        ('UDPOffsetHeatmap', 3),
    ]
    assert cfg['model']['head']['decoder'] == encoder[0]


def test_half_swapped(tmp_path, converted, capsys):
    text = INLINE.replace("'HeatmapHead'", "'UDPHeatmapHead'").replace(
        "'MSRAHeatmap'", "'UDPOffsetHeatmap'"
    )
    text += "custom_imports = dict(imports=['udp_plugin', 'mine'])\n"
    cfg = converted(text)
    assert types(cfg)['UDPOffsetHeatmap']
    assert cfg['custom_imports'] == {'imports': ['udp_plugin', 'mine']}
    assert 'HeatmapHead' not in capsys.readouterr().out
    # And then there is nothing left.
    assert run('convert', tmp_path / 'out.py', '-o', tmp_path) == 2
    assert 'throughout already' in capsys.readouterr().err


def test_swapped_by_hand_without_the_import(tmp_path, converted):
    """It could not be built; a config of the other style needs no import."""
    swapped = converted(INLINE)
    del swapped['custom_imports']
    Config(swapped).dump(tmp_path / 'hand.py')
    (tmp_path / 'out.py').unlink()
    cfg = converted(tmp_path / 'hand.py')
    assert cfg['custom_imports']['imports'] == ['udp_plugin']
    text = (tmp_path / 'out.py').read_text()
    assert text.partition('\n')[2].strip().startswith('custom_imports = ')
    assert len(text.splitlines()) == 3


def test_from_offset_to_gaussian(converted):
    text = INLINE.replace('MSRAHeatmap', 'UDPOffsetHeatmap').replace(
        'sigma=2', "radius=3.0, reading='voting'"
    )
    text = text.replace(
        "type='KeypointMSELoss'", "type='UDPOffsetLoss', loss_weight=2, topk=8"
    )
    head = converted(text, '--codec', 'gaussian')['model']['head']
    sizes = dict(input_size=(192, 256), heatmap_size=(48, 64))
    assert head['decoder'] == dict(type='UDPGaussianHeatmap', sigma=1.7143, **sizes)
    weights = dict(use_target_weight=True, loss_weight=2)
    assert head['loss'] == dict(type='KeypointOHKMMSELoss', topk=8, **weights)


@pytest.mark.parametrize(
    ('codec', 'sigma'),
    [
        ("type='UDPOffsetHeatmap', heatmap_size=(48, 64)", None),
        ("type='UDPOffsetHeatmap', heatmap_size=(72, 96)", 3),
        ("type='UDPOffsetHeatmap', heatmap_size=(72, 96), radius=3.5", None),
        ("type='UDPOffsetHeatmap', heatmap_size=(72, 96), radius=7", 4),
        ("type='UDPOffsetHeatmap', heatmap_size=(48, 64), radius_factor=0.0875", 3.2),
        ("type='UDPOffsetHeatmap', heatmap_size=(72, 96), sigma=2.5", 2.5),
        ("type='UDPOffsetHeatmap', heatmap_size=(72, 96), kernel_size=9", None),
        ("type='UDPHeatmap', heatmap_type='combined', heatmap_size=(72, 96)", 3),
        ("type='UDPHeatmap', heatmap_size=(72, 96)", None),
        ("type='MSRAHeatmap', heatmap_size=(72, 96), sigma=3", 3),
    ],
)
def test_the_gaussian_is_as_wide_as_the_disc(codec, sigma):
    decoder = eval(f'dict({codec}, input_size=(192, 256))')
    head = {'type': 'HeatmapHead', 'decoder': decoder, 'out_channels': 51}
    cfg, swaps = swap({'model': {'head': head}}, 'gaussian')
    swapped = cfg['model']['head']['decoder']
    assert swapped.get('sigma') == sigma
    told = [row.udp for row in swaps if row.place == 'model.head.decoder']
    if sigma and 'sigma' not in decoder:
        assert f'sigma={float(sigma)}' in told[0]
    offset = KEYPOINT_CODECS.build(swap(cfg, 'offset')[0]['model']['head']['decoder'])
    if kind_of({'codec': decoder}) == 'offset':
        before = swap({'model': {'head': head}}, 'offset')[0]['model']['head']
        radius = KEYPOINT_CODECS.build(before['decoder']).radius
        # Where nothing is written, the Gaussian's own default of 2 is meant.
        expected = KEYPOINT_CODECS.build(swapped).sigma * 1.75
        assert radius == pytest.approx(expected, abs=1e-3)
    assert offset.radius > 0


@pytest.mark.parametrize('loss', ['KeypointMSELoss', 'CombinedTargetMSELoss'])
def test_maps_that_the_backbone_makes_there_and_back(loss):
    stock = zoo(CPM)
    if loss == 'CombinedTargetMSELoss':
        model = stock['model']
        model['backbone']['out_channels'] = model['head']['in_channels'] = 48
        model['head'].update(out_channels=48, loss={'type': loss})
        model['head']['decoder'].update(type='UDPHeatmap', heatmap_type='combined')
    there, _ = swap(stock, 'offset')
    model = there['model']
    assert model['backbone']['out_channels'] == model['head']['in_channels'] == 48
    back, swaps = swap(there, 'gaussian')
    model = back['model']
    assert model['backbone']['out_channels'] == model['head']['in_channels'] == 16
    assert model['head']['out_channels'] == 16
    places = {row.place for row in swaps}
    assert {'model.backbone.out_channels', 'model.head.in_channels'} <= places
    again, _ = swap(back, 'offset')
    assert again['model']['backbone'] == there['model']['backbone']
    assert again['model']['head']['in_channels'] == 48


@pytest.mark.parametrize('text', ["_base_ = ['mine.py']\n\na = (\n", 'a = 3\n'])
def test_a_mistake_of_the_writer_is_said(tmp_path, capsys, monkeypatch, text):
    monkeypatch.setattr('udp_plugin.convert.run.write', lambda *_: (text, {}))
    path = write(tmp_path, INLINE)
    assert run('convert', path, '-o', tmp_path / 'o.py') == 2
    assert 'please report it with the config' in capsys.readouterr().err
    assert not (tmp_path / 'o.py').exists()


def test_what_the_codecs_would_refuse(converted, capsys):
    """And tuples of one stay tuples."""
    text = f'{INLINE}codecs = ({CODEC},)\n'
    for stock, refused in (
        ('sigma=2', 'sigma=2, unbiased=False'),
        ('use_target_weight=True', 'use_target_weight=True, skip_empty_channel=True'),
        ("'TopdownAffine',", "'TopdownAffine', use_udp=False,"),
    ):
        text = text.replace(stock, refused)
    cfg = converted(text, '--codec', 'offset')
    said = capsys.readouterr().out
    assert 'without' in said and 'skip_empty_channel' in said
    assert cfg['model']['head']['decoder']['unbiased'] is True
    assert 'skip_empty_channel' not in cfg['model']['head']['loss']
    assert 'use_udp' not in str(cfg)
    assert isinstance(cfg['codecs'], tuple)
    assert cfg['codecs'][0]['type'] == 'UDPOffsetHeatmap'


def test_types_with_scopes_and_of_others(converted):
    text = INLINE.replace("'HeatmapHead'", "'mmpose.HeatmapHead'").replace(
        "dict(type='LoadImage')", "dict(type='mmdet.TopdownAffine')"
    )
    text = text.replace('KeypointMSELoss', 'MyLoss')
    cfg = converted(text, left={'TopdownAffine'})
    # Which Gaussian maps keep.
    assert cfg['model']['head']['loss']['type'] == 'MyLoss'
    assert cfg['model']['head']['type'] == 'mmpose.UDPHeatmapHead'
    pipeline = cfg['val_dataloader']['dataset']['pipeline']
    assert pipeline[0] == {'type': 'mmdet.TopdownAffine'}
    assert pipeline[2]['type'] == 'TopDownAffineUDP'


def test_types_given_as_classes():
    from mmpose.models import HeatmapHead

    head = {'type': HeatmapHead, 'decoder': {'type': 'MSRAHeatmap'}}
    cfg = {'model': {'type': 'TopdownPoseEstimator', 'head': head}}
    swapped = swap(cfg, 'gaussian')[0]['model']['head']
    assert swapped['type'] == 'udp_plugin.models.heads.UDPHeatmapHead'
    assert head['type'] is HeatmapHead


def test_hooks_and_other_keys_stay(converted):
    hook = HOOK.replace(MY_VAL, f'{VAL}, switch_epoch=3')
    cfg = converted(f"""{INLINE}
custom_hooks = [dict(type='EMAHook', priority=49), {hook}]
custom_imports = dict(imports='mine', allow_failed_imports=True)
""")
    first, second = cfg['custom_hooks']
    assert first == {'type': 'EMAHook', 'priority': 49}
    assert second['switch_epoch'] == 3
    assert second['switch_pipeline'][2]['type'] == 'TopDownAffineUDP'
    imports = {'imports': ['mine', 'udp_plugin'], 'allow_failed_imports': True}
    assert cfg['custom_imports'] == imports


def test_on_top_of_a_zoo_config(tmp_path, converted):
    """What comes from there has marks of its scope."""
    base = f'mmpose::{COCO}/td-hm_res50_8xb64-210e_coco-256x192.py'
    cfg = converted(f"_base_ = ['{base}']\ntrain_dataloader = dict(batch_size=8)\n")
    out = (tmp_path / 'out.py').read_text()
    assert out.count('UDPGaussianHeatmap') == 1
    assert '_scope_' not in out
    assert cfg['train_dataloader']['batch_size'] == 8


@pytest.mark.parametrize('suffix', ['json', 'yaml'])
def test_other_formats(tmp_path, converted, suffix):
    path = tmp_path / f'mine.{suffix}'
    Config.fromfile(write(tmp_path, INLINE)).dump(path)
    converted(path)


def test_an_inline_stage_of_a_hook_and_no_imports(converted):
    other = VAL.replace('GetBBoxCenterScale', 'RandomBBoxTransform')
    hook = HOOK.replace(MY_VAL, other)
    cfg = converted(f'{INLINE}custom_imports = None\ncustom_hooks = [{hook}]\n')
    assert cfg['switch_pipeline'] == cfg['custom_hooks'][0]['switch_pipeline']
    assert cfg['switch_pipeline'][1]['type'] == 'RandomBBoxTransform'
    assert cfg['custom_imports']['imports'] == ['udp_plugin']


def test_base_is_relative_to_out(tmp_path):
    path = write(tmp_path / 'a' / 'b', INLINE)
    out = tmp_path / 'c' / 'd'
    assert run('convert', path, '-o', f'{out}/') == 0
    written = out / 'mine_udp-gaussian.py'
    assert written.read_text().startswith("_base_ = ['../../a/b/mine.py']\n")
    assert 'UDPHeatmapHead' in types(read(written))


def test_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, INLINE)
    assert run('convert', 'mine.py') == 0
    said = capsys.readouterr().out
    assert (tmp_path / 'mine_udp-gaussian.py').is_file()
    assert 'mine_udp-gaussian.py is written' in said
    assert 'train_dataloader.dataset.pipeline[3]' in said
    assert 'mirrored maps coincide' in said
    assert said.splitlines()[-1] == (
        "next: python tools/train.py mine_udp-gaussian.py   (MMPose's script; or: mim "
        'train mmpose mine_udp-gaussian.py)'
    )
    for arguments, sentence in (
        (['mine.py'], 'exists; remove it'),
        (['mine.py', '-o', 'x.json'], 'must end in .py'),
        (['nowhere.py'], 'There is no config'),
    ):
        assert run('convert', *arguments) == 2
        assert sentence in capsys.readouterr().err

    assert run('convert', path, '-o', '-') == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / 'mine_udp-gaussian.py').read_text()
    assert 'UDPHeatmapHead' in printed.err


# --- weights kept ---------------------------------------------------------------------

#: What of the stock names is left.
BIASED = {'MSRAHeatmap', 'TopdownAffine', 'GenerateTarget'}


def test_kept_weights_are_the_stock_ones(tmp_path, converted):
    """They load, and make the same maps and the same loss."""
    cfg = converted(INLINE, '--keep-weights', left=BIASED)
    assert cfg['model']['type'] == 'UDPTopdownPoseEstimator'
    for key in ('backbone', 'test_cfg', 'data_preprocessor'):
        assert cfg['model'][key] == read(tmp_path / 'mine.py')['model'][key]
    register_all_modules()
    configs = (Config.fromfile(tmp_path / name) for name in ('mine.py', 'out.py'))
    stock, kept = (MODELS.build(config.model).eval() for config in configs)
    kept.load_state_dict(stock.state_dict(), strict=True)
    inputs = torch.rand(2, 3, 256, 192)
    with torch.no_grad():
        maps = [model(inputs, None, mode='tensor') for model in (stock, kept)]
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=0)


def test_kept_weights_in_the_pure_python_style(tmp_path, converted):
    write(tmp_path, RUNTIME, 'runtime.py')
    cfg = converted(PURE, '--keep-weights', left=BIASED)
    package = 'udp_plugin.models.pose_estimators'
    assert cfg['model']['type'] == f'{package}.UDPTopdownPoseEstimator'
    assert check(Config.fromfile(tmp_path / 'out.py')).maps == [(2, 17, 64, 48)]


@pytest.mark.parametrize(
    'name',
    [
        VIPNAS,
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (MSPN, REGRESS, CSPNEXT)
        ),
        pytest.param(MERGE, marks=pytest.mark.slow),
    ],
)
def test_kept_weights_pass_the_check(name, tmp_path, capsys):
    out = tmp_path / 'out.py'
    assert run('convert', name, '--keep-weights', '--check', '-o', out) == 0
    said = capsys.readouterr().out
    # As the stock config has it: of more maps than keypoints there can be none.
    assert f'keypoints, {"without" if name == CSPNEXT else "with"} flip test' in said
    assert said.splitlines()[-1] == (
        f"next: python tools/test.py {out} CHECKPOINT   (MMPose's script)"
    )
    # Once more, there is nothing to do.
    assert run('convert', out, '--keep-weights', '-o', tmp_path / 'again.py') == 2
    assert 'keeps its weights already' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('config', 'options', 'sentence'),
    [
        (GOLDEN / f'{HRNET_UDP}.py', [], 'its weights are those of UDP already'),
        (VIPNAS, ['--codec', 'offset'], '--codec is for a new training'),
        ('rtmpose-m_8xb256-420e_coco-256x192.py', [], 'It is a SimCC (RTMPose) config'),
    ],
)
def test_weights_that_are_not_kept(config, options, sentence, tmp_path, capsys):
    if str(config).startswith('rtmpose'):
        (config,) = zoo_folder().glob(f'body_2d_keypoint/rtmpose/coco/{config}')
    out = tmp_path / 'o.py'
    assert run('convert', config, '--keep-weights', '-o', out, *options) == 2
    assert sentence in ' '.join(capsys.readouterr().err.split())
    assert not out.exists()


# --- pure Python configs --------------------------------------------------------------


def test_pure_python(tmp_path, converted):
    write(tmp_path, RUNTIME, 'runtime.py')
    cfg = converted(PURE, '--codec', 'offset')
    text = (tmp_path / 'out.py').read_text()
    assert '    from .mine import *' in text
    assert 'from udp_plugin.models.heads import UDPHeatmapHead' in text
    assert cfg['model']['head']['type'] == 'udp_plugin.models.heads.UDPHeatmapHead'
    assert cfg['model']['head']['decoder']['sigma'] == 2
    assert cfg['train_dataloader']['batch_size'] == 4
    assert cfg['default_scope'] == 'mmpose'
    assert 'custom_imports' not in cfg
    assert {p.name for p in tmp_path.iterdir()} == {'runtime.py', 'mine.py', 'out.py'}
    assert run('convert', tmp_path / 'out.py', '-o', '-') == 2

    checked = check(Config.fromfile(tmp_path / 'out.py'))
    assert checked.maps == [(2, 51, 64, 48)]


def test_pure_python_elsewhere(tmp_path, capsys):
    """Below the base, above it, and where no import can name it."""
    write(tmp_path, RUNTIME, 'runtime.py')
    path = write(tmp_path, PURE)
    assert run('convert', path, '-o', tmp_path / 'sub' / 'x.py') == 0
    assert 'from ..mine import *' in (tmp_path / 'sub' / 'x.py').read_text()
    path = write(tmp_path / 'not-a-name', PURE.replace('.runtime', '..runtime'))
    assert run('convert', path, '-o', tmp_path / 'y.py') == 2
    path = write(tmp_path, PURE, 'td-hm_mine.py')
    assert run('convert', path, '-o', tmp_path / 'out.py') == 2
    assert 'letters, digits and underscores' in capsys.readouterr().err
    assert not (tmp_path / 'out.py').exists()


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('pattern', 'sentence'),
    [
        ('body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb*.py', 'It is a SimCC'),
        ('body_2d_keypoint/simcc/*/simcc_res50*.py', 'It is a SimCC'),
        ('body_2d_keypoint/topdown_regression/*/*res50_rle*.py', 'It is a regression'),
        ('body_2d_keypoint/integral_regression/*/*dsnt*.py', 'integral regression'),
        ('body_2d_keypoint/associative_embedding/*/*.py', 'It is a bottom-up'),
        ('body_2d_keypoint/dekr/*/*.py', 'It is a bottom-up'),
        ('body_2d_keypoint/rtmo/*/*.py', 'It is a bottom-up'),
        ('body_3d_keypoint/*/h36m/*.py', 'It is a 3-D lifting'),
        ('hand_3d_keypoint/*/*/*.py', 'It is a 3-D hand'),
        ('_base_/default_runtime.py', 'It has no model'),
    ],
)
def test_other_kinds_of_the_zoo(pattern, sentence):
    with pytest.raises(UserError, match=f'{sentence}.*udp-plugin list'):
        convert(str(next(zoo_folder().glob(pattern))))


OTHER_ENCODER = INLINE.replace(f'encoder={CODEC}', "encoder=dict(type='SPR', sigma=4)")
OTHER_LEVEL = INLINE.replace(f'encoder={CODEC}', f"encoder=[{CODEC}, dict(type='X')]")
ENCODER = 'train_dataloader.dataset.pipeline[4] (GenerateTarget)'


@pytest.mark.parametrize(
    ('text', 'options', 'sentence'),
    [
        (INLINE.replace("'HeatmapHead'", "'MyHead'"), [], 'Its head is MyHead'),
        (INLINE.replace('MSRAHeatmap', 'MyCodec'), [], 'model.head is MyCodec'),
        (INLINE.replace(f'decoder={CODEC}', 'decoder=None'), [], 'is none'),
        (OTHER_ENCODER, [], f'{ENCODER} is SPR'),
        (OTHER_LEVEL, [], f'{ENCODER} is X'),
        (
            INLINE.replace('KeypointMSELoss', 'MyLoss'),
            ['--codec', 'offset'],
            'use --codec gaussian',
        ),
        (
            INLINE.replace("'KeypointMSE", "'mylib.KeypointMSE"),
            ['--codec', 'offset'],
            'mylib.KeypointMSELoss',
        ),
        (f"{INLINE}custom_imports = ['mine']", [], "got ['mine']"),
        (f'{INLINE}custom_imports = dict(imports=[3])', [], 'custom_imports must be'),
        ('model = dict(', [], 'cannot be read as a config: SyntaxError'),
        ("_base_ = ['not_there.py']", [], 'cannot be read as a config'),
        ('model = 3 / 0', [], 'ZeroDivisionError'),
        ('raise AssertionError', [], 'AssertionError: it says no more'),
        ("model = dict(type='FasterRCNN')", [], 'Its head is none'),
    ],
)
def test_refusals(tmp_path, capsys, text, options, sentence):
    path = write(tmp_path, text)
    assert run('convert', path, '-o', tmp_path / 'o.py', *options) == 2
    out, err = capsys.readouterr()
    assert not out
    assert sentence in err
    assert 'Traceback' not in err
    assert not (tmp_path / 'o.py').exists()


def test_without_the_toolbox(monkeypatch, capsys):
    monkeypatch.setattr('udp_plugin.cli.find_spec', lambda name: None)
    assert run('list') == run('convert', 'x') == 2
    assert 'MMPose is not installed' in capsys.readouterr().err


# --- check and list -------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'levels', 'channels'),
    [
        ('td-hm_vipnas-mbv3_udp-gaussian_8xb64-210e_coco-256x192', 1, 17),
        ('td-hm-vis_res50_udp-offset_8xb64-210e_coco-aic-256x192-merge', 1, 51),
        ('td-hm_mspn50_udp-offset_8xb32-210e_coco-256x192', 4, 51),
    ],
)
def test_check(name, levels, channels):
    checked = check(Config.fromfile(GOLDEN / f'{name}.py'))
    assert checked.inputs == (2, 3, 256, 192)
    assert checked.maps == checked.targets == [(2, channels, 64, 48)] * levels
    assert checked.keypoints == (1, 17, 2)
    assert checked.flip_test
    assert 0 < checked.losses['loss_kpt'] < float('inf')


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        (
            # It halves as long as it can, and joins what is left.
            dict(input_size=(346, 260), heatmap_size=(86, 65)),
            r'HRNet\) .* 346x260 .*input_size=\(352, 288\).*heatmap_size=\(88, 72\)',
        ),
        (dict(heatmap_size=(64, 48)), r'swapped\).*set heatmap_size=\(48, 64\)'),
    ],
)
def test_check_names_the_setting_that_the_network_does_not_fit(sizes, message):
    name = 'td-hm_hrnet-w32_udp-gaussian_8xb64-210e_coco-256x192'
    cfg = Config.fromfile(GOLDEN / f'{name}.py')
    for _, node in nodes(cfg._cfg_dict):
        node.update({key: size for key, size in sizes.items() if key in node})
    with pytest.raises(ValueError, match=message):
        check(cfg)


CHECKED = INLINE.replace("'MyDataset'", "'CocoDataset'")


def test_check_on_the_command_line(tmp_path, capsys):
    command = ['convert', write(tmp_path, CHECKED), '--check', '-o']
    assert run(*command, tmp_path / 'a.py') == 0
    said = capsys.readouterr().out
    assert '2 x 3 x 256 x 192' in said and '1 x 17 x 2' in said and 'loss_kpt' in said

    # What is converted already is only checked.
    command[1] = tmp_path / 'a.py'
    assert run(*command, tmp_path / 'new.py') == 0
    said = capsys.readouterr().out
    assert 'nothing to convert' in said and 'loss_kpt' in said
    write(tmp_path, INLINE)
    assert run(*command, tmp_path / 'new.py') == 1
    assert 'data set MyDataset is not registered' in capsys.readouterr().err
    assert not (tmp_path / 'new.py').exists()

    command[1] = tmp_path / 'mine.py'
    assert run(*command, tmp_path / 'b.py') == 1
    err = capsys.readouterr().err
    assert 'data set MyDataset is not registered' in err and 'b.py was kept' in err
    assert (tmp_path / 'b.py').is_file()


def test_check_of_parts(tmp_path, capsys):
    """A config to test with only, and one without any data."""
    path = write(tmp_path, CHECKED.replace('train_dataloader =', 'other ='))
    assert run('convert', path, '--check', '-o', tmp_path / 'a.py') == 0
    said = capsys.readouterr().out
    assert '1 x 17 x 2' in said and 'loss_kpt' not in said and 'next:' not in said
    assert 'the config has no train_dataloader' in said

    for text, sentence in (
        (CHECKED.replace('optim_wrapper', 'wrapper'), 'no optim_wrapper'),
        (
            MODEL.replace('CODEC', CODEC),
            'no train_dataloader, val_dataloader or test_dataloader',
        ),
    ):
        path = write(tmp_path, text)
        assert run('convert', path, '--check', '-o', '-') == 1
        assert sentence in capsys.readouterr().err


def test_errors_of_reading_are_not_of_out(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise PermissionError(13, 'Permission denied', 'elsewhere')

    command = ['convert', write(tmp_path, INLINE), '-o']
    (tmp_path / 'file').write_text('')
    assert run(*command, tmp_path / 'file' / 'o.py') == 2
    assert 'o.py cannot be written: ' in capsys.readouterr().err
    monkeypatch.setattr('udp_plugin.convert.run.swap', fail)
    assert run(*command, tmp_path / 'o.py') == 2
    err = capsys.readouterr().err
    assert "Permission denied: 'elsewhere'" in err and 'o.py' not in err


def test_check_sees_what_is_not_finite(monkeypatch):
    from udp_plugin.models.heads import UDPViPNASHead

    loss = UDPViPNASHead.loss

    def not_finite(*args, **kwargs):
        losses = loss(*args, **kwargs)
        return {**losses, 'loss_kpt': losses['loss_kpt'] * float('nan')}

    monkeypatch.setattr(UDPViPNASHead, 'loss', not_finite)
    name = 'td-hm_vipnas-mbv3_udp-gaussian_8xb64-210e_coco-256x192'
    with pytest.raises(ValueError, match='not every loss is finite'):
        check(Config.fromfile(GOLDEN / f'{name}.py'))


def test_list(capsys):
    for pattern, count in (('', 278), ('ViPNAS', 6)):
        assert run('list', pattern) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith('  ') for line in lines) == count
        assert COCO in lines
    assert run('list', 'nothing-like-it') == 2
    assert 'nothing-like-it' in capsys.readouterr().err
