"""Checkpoints of the original repositories, turned into MMPose's.

The networks here have the names and the shapes of those repositories' files.
"""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import nn

from udp_plugin.audit.parts import network_of
from udp_plugin.cli import main

# --- networks with the repositories' names --------------------------------------------


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def step(*args, relu=True):
    layers = [conv(*args), nn.BatchNorm2d(args[1])]
    return nn.Sequential(*layers, *[nn.ReLU()] * relu)


class Block(nn.Module):
    """A basic block of two convolutions, or a bottleneck of three."""

    def __init__(self, inputs, width, stride=1, bottleneck=False):
        super().__init__()
        outputs = width
        shapes = (inputs, width, 3, stride), (width, width, 3, 1)
        if bottleneck:
            outputs = 4 * width
            shapes = (inputs, width, 1), (width, width, 3, stride), (width, outputs, 1)
        self.count = len(shapes)
        for i, shape in enumerate(shapes, 1):
            setattr(self, f'conv{i}', conv(*shape))
            setattr(self, f'bn{i}', nn.BatchNorm2d(shape[1]))
        if inputs != outputs or stride > 1:
            self.downsample = step(inputs, outputs, 1, stride, relu=False)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
            y = y if i == self.count else y.relu()
        return (y + getattr(self, 'downsample', nn.Identity())(x)).relu()


def bottlenecks(inputs, width, count, stride=1):
    first = Block(inputs, width, stride, bottleneck=True)
    rest = [Block(4 * width, width, bottleneck=True) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class Stage(nn.Module):
    """Branches of each resolution, fused into so many, the last ``factor`` as wide."""

    def __init__(self, widths, fused, factor=1):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*[Block(width, width) for _ in range(4)]) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(widths, j, i, factor) for j in range(len(widths)))
            for i in range(fused)
        )

    @staticmethod
    def path(widths, start, end, factor):
        here, there = widths[start], widths[end] * factor
        if start == end:
            return nn.Sequential(*[conv(here, there, 1)] * (factor > 1))
        if start > end:
            scale = nn.Upsample(scale_factor=2 ** (start - end), mode='nearest')
            return nn.Sequential(*step(here, there, 1, relu=False), scale)
        halved = [step(here, here, 3, 2) for _ in range(end - start - 1)]
        return nn.Sequential(*halved, step(here, there, 3, 2, relu=False))

    def forward(self, xs):
        ys = [branch(x) for branch, x in zip(self.branches, xs)]
        every = self.fuse_layers
        return [sum(p(y) for p, y in zip(paths, ys)).relu() for paths in every]


class HRNet(nn.Module):
    """As HRNet's repository names it, also DARK's; UDP-Pose's is wider in the end."""

    def __init__(self, width, maps, factor=1):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 3, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3, 2), nn.BatchNorm2d(64)
        self.layer1 = bottlenecks(64, 64, 4)
        widths = [width * 2**i for i in range(4)]
        self.transition1 = nn.ModuleList(
            [step(256, width), nn.Sequential(step(256, 2 * width, 3, 2))]
        )
        for i in (2, 3):
            new = nn.Sequential(step(widths[i - 1], widths[i], 3, 2))
            setattr(self, f'transition{i}', nn.ModuleList([None] * i + [new]))
        for number, modules in ((2, 1), (3, 4), (4, 3)):
            made = [Stage(widths[:number], number) for _ in range(modules)]
            if number == 4:
                made[-1] = Stage(widths, 1, factor)
            setattr(self, f'stage{number}', nn.Sequential(*made))
        self.final_layer = nn.Conv2d(width * factor, maps, 1)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer1(self.bn2(self.conv2(x)).relu())
        xs = self.stage2([move(x) for move in self.transition1])
        xs = self.stage3([*xs, self.transition2[-1](xs[-1])])
        return self.final_layer(self.stage4([*xs, self.transition3[-1](xs[-1])])[0])


class SimpleBaseline(nn.Module):
    """As the repository of SimpleBaseline names it, and all the others."""

    def __init__(self, depths, maps):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        inputs = [64, 256, 512, 1024]
        for i, (count, width) in enumerate(zip(depths, inputs), 1):
            layer = bottlenecks(width, 64 * 2 ** (i - 1), count, 1 + (i > 1))
            setattr(self, f'layer{i}', layer)
        layers = []
        for width in (2048, 256, 256):
            layers += [nn.ConvTranspose2d(width, 256, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, maps, 1)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self, f'layer{i}')(x)
        return self.final_layer(self.deconv_layers(x))


def randomised(network, seed=0):
    """With numbers that keep the maps' size, as if after a training.

    Args:
        network: On the device ``meta``, since making up numbers twice takes long.
        seed: Of the numbers.
    """
    network = network.to_empty(device='cpu')
    generator = torch.Generator().manual_seed(seed)
    for name, each in network.state_dict().items():
        if each.ndim > 1:
            each.normal_(0, each[0].numel() ** -0.5, generator=generator)
        elif each.ndim == 1:
            low, high = (-0.1, 0.1) if name.endswith(('bias', 'mean')) else (0.5, 1.5)
            each.uniform_(low, high, generator=generator)
        else:
            each.fill_(7)
    return network.eval()


def in_old_toolbox(state):
    """The same weights as MMPose 0.x names them."""
    heads = ('final_layer', 'deconv_layers')
    return {
        f'keypoint_head.{name}' if name.startswith(heads) else f'backbone.{name}': each
        for name, each in state.items()
    }


CASES = {
    'hrnet': (
        lambda: HRNet(32, 17),
        lambda state: state,
        'td-hm_hrnet-w32_8xb64-210e_coco-256x192',
        '--keep-weights',
    ),
    'offsets of MMPose 0.x': (
        lambda: HRNet(32, 51),
        lambda state: dict(state_dict=in_old_toolbox(state), meta={}),
        'td-hm_hrnet-w32_8xb64-210e_coco-256x192',
        '--codec offset',
    ),
    'offsets of UDP-Pose': (
        lambda: HRNet(32, 51, factor=4),
        lambda state: state,
        'td-hm_hrnet-w32_8xb64-210e_coco-256x192',
        'model.backbone.type=UDPPoseHRNet model.head.in_channels=128',
    ),
    'gaussian of UDP-Pose': (
        lambda: HRNet(48, 16, factor=4),
        lambda state: state,
        'td-hm_hrnet-w48_8xb64-210e_mpii-256x256',
        '--codec gaussian',
    ),
    'simple baseline': (
        lambda: SimpleBaseline((3, 4, 6, 3), 16),
        # Of a torch that did not count batches, in a training.
        lambda state: dict(
            epoch=140,
            state_dict={
                f'module.{name}': each for name, each in state.items() if each.ndim
            },
        ),
        'td-hm_res50_8xb64-210e_mpii-256x256',
        'bgr_to_rgb=False',
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_the_network_computes_the_same(case, tmp_path, capsys):
    build, saved, config, told = CASES[case]
    with torch.device('meta'):
        network = randomised(build())
    torch.save(saved(network.state_dict()), tmp_path / 'a.pth')
    files = str(tmp_path / 'a.pth'), '-o', str(tmp_path / 'b.pth')
    assert main(['import-weights', *files]) == 0
    printed = capsys.readouterr().out
    assert f'\n  {config}\n' in printed
    assert told in printed

    # What it says next, as it says it.
    _, *command = re.search('udp-plugin convert .*', printed)[0].split()
    assert main([*command, '-o', str(tmp_path / 'c.py')]) == 0
    cfg = Config.fromfile(tmp_path / 'c.py')
    options = re.findall(r'(model\.[\w.]+)=(\w+)', printed)
    values = {'False': False, '128': 128, '192': 192}
    cfg.merge_from_dict({name: values.get(value, value) for name, value in options})
    model = network_of(cfg).to_empty(device='cpu')
    load_checkpoint(model, str(tmp_path / 'b.pth'), 'cpu', strict=True)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = network(image), model.head(model.backbone(image))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def baseline():
    """Weights of a ResNet-50 that take no place in a file."""
    with torch.device('meta'):
        state = SimpleBaseline((3, 4, 6, 3), 17).state_dict()
    return {name: torch.tensor(0.0).expand(each.shape) for name, each in state.items()}


def renamed(state):
    state = in_old_toolbox(state).items()
    return {name.replace('keypoint_', ''): each for name, each in state}


REFUSED = {
    'no weights': (lambda state: {}, 'its keys begin with no weights'),
    'another network': (
        lambda state: {'stem.conv.weight': torch.zeros(1)},
        'is none of HRNet-W32 and W48 and ResNet-50, 101 and 152',
    ),
    'another depth': (
        lambda state: {n: each for n, each in state.items() if 'layer3.5' not in n},
        'its keys begin with conv1.weight, bn1.weight',
    ),
    'another width': (
        lambda state: {'transition1.0.0.weight': torch.zeros(18, 256, 3, 3)},
        'its keys begin with transition1.0.0.weight',
    ),
    'pretrained': (
        lambda state: {n: each for n, each in state.items() if 'final' not in n},
        'has no final_layer.weight',
    ),
    'other keypoints': (
        lambda state: {**state, 'final_layer.weight': torch.zeros(21, 256, 1, 1)},
        'makes 21 maps (final_layer.weight)',
    ),
    'missing': (
        lambda state: {n: each for n, each in state.items() if '3.2.bn1' not in n},
        'keys are missing (as MMPose calls them): backbone.layer3.2.bn1.weight, '
        'backbone.layer3.2.bn1.bias',
    ),
    'unexpected': (
        lambda state: {**state, 'layer4.2.se.fc.weight': torch.zeros(1)},
        'keys are unexpected: layer4.2.se.fc.weight',
    ),
    'shapes': (
        lambda state: {**state, 'layer1.0.conv2.weight': torch.zeros(64, 64, 1, 1)},
        'keys are of another shape: layer1.0.conv2.weight (64, 64, 1, 1) instead of '
        '(64, 64, 3, 3)',
    ),
    'broken': (
        lambda state: {**state, 'final_layer.bias': torch.full((17,), torch.nan)},
        'keys are NaN or infinite: final_layer.bias',
    ),
    'of MMPose 1.x': (renamed, 'use it as it is'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_refused_by_its_keys(case, tmp_path, capsys):
    spoil, message = REFUSED[case]
    torch.save(spoil(baseline()), tmp_path / 'a.pth')
    assert message in said(capsys, tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_files_that_are_no_checkpoints(tmp_path, capsys):
    file, out = tmp_path / 'a.pth', tmp_path / 'b.pth'
    assert 'cannot be read' in said(capsys, file, out)
    file.write_text('no checkpoint')
    assert 'cannot be read as a checkpoint of PyTorch' in said(capsys, file, out)
    assert 'name another file' in said(capsys, file, file)
    assert file.read_text() == 'no checkpoint'


def said(capsys, file, out):
    """What the command says when it fails."""
    with pytest.raises(SystemExit) as end:
        main(['import-weights', str(file), '-o', str(out)])
    assert end.value.code == 2
    return capsys.readouterr().err
