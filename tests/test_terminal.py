"""What commands print on narrow terminals, and where only ASCII can be written."""

import io
import os
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT, PURE, RUNTIME
from test_runtime import centroid_model, photograph

from udp_plugin import cli, doctor
from udp_plugin.audit import measures, run, warps
from udp_plugin.convert import report as convert_report
from udp_plugin.demo import report
from udp_plugin.runtime import drawing

HRNET = 'td-hm_hrnet-w32_8xb64-210e_coco-256x192'
UDP = 'td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192'
GAUSSIAN = next(PROJECT.glob('configs/**/td-hm_hrnet-w32_udp-gaussian*.py'))
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A small config, maps, a photograph and a model."""
    folder = tmp_path_factory.mktemp('files')
    (folder / 'small.py').write_text(PURE, encoding='utf-8')
    (folder / 'runtime.py').write_text(RUNTIME, encoding='utf-8')
    y, x = np.mgrid[:64, :48]
    points = np.random.default_rng(0).uniform(9, 39, (20, 3, 2, 1, 1))
    maps = np.exp(-((x - points[:, :, 0]) ** 2 + (y - points[:, :, 1]) ** 2) / 8)
    np.save(folder / 'maps.npy', np.stack((maps, maps[..., ::-1])))
    places = np.array([[100.25, 90.5], [300.125, 180.0], [222.0, 300.75]])
    drawing.cv2.imwrite(str(folder / 'photo.png'), photograph(places))
    centroid_model(folder / 'model.onnx')
    return folder


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Little is measured, and that once; what is printed has all its parts."""

    def once(module, name):
        function, answers = getattr(module, name), {}

        def answer(first, *others):
            if str(first) not in answers:
                answers[str(first)] = function(first, *others)
            return answers[str(first)]

        patch.setattr(module, name, answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, 'POINTS', 64)
        patch.setattr(run, 'RANDOM_PEOPLE', 6)
        patch.setattr(warps, 'PERSONS', 2)
        patch.setattr(doctor, 'probe', lambda steps: (dict.fromkeys(steps), []))
        once(run, 'audit')
        once(convert_report, 'check')
        yield


COMMANDS = {
    'audit of maps': 'audit --maps maps.npy --input-size 192 256 --flip-indices 0 1 2',
    'audit': f'audit {HRNET}',
    'audit of two': f'audit {HRNET} --compare {UDP}',
    'convert': 'convert small.py --check -o -',
    'list': 'list coco',
    'export': f'export {GAUSSIAN} --decoding-only -o decoding.pt',
    'infer': 'infer model.onnx photo.png',
    'doctor': 'doctor',
}


def demo(monkeypatch):
    """The demo's table, of figures as they may be."""
    names = [key for key, *_ in report.COLUMNS]
    runs = {
        name: SimpleNamespace(errors=range(900), metrics=dict(zip(names, figures)))
        for name, figures in [
            ('stock', (1.234, 1.567, 4.321, 0.123, 0.456, 78.9)),
            ('kept', (0.987, 1.345, 4.012, 0.187, 0.567, 80.1)),
            ('udp_gaussian', (0.876, 1.234, 3.456, 0.234, 0.678, 89.1)),
            ('udp_offset', (0.765, 1.123, 3.333, 0.345, 0.789, 90.2)),
        ]
    }
    data = SimpleNamespace(title='drawn figures')
    report.table(SimpleNamespace(runs=runs, data=data)).print(report.ui.console())


def figures(text, width):
    """The numbers with a point, on a terminal that breaks lines anywhere."""
    assert '…' not in text
    lines = text.splitlines()
    pieces = [line[i : i + width] for line in lines for i in range(0, len(line), width)]
    return Counter(re.findall(r'\d+\.\d+', '\n'.join(pieces)))


@pytest.mark.parametrize('name', [*COMMANDS, 'demo'])
def test_narrow_terminals_break_no_figure(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    seen = {}
    for width in (250, 60, 30):
        monkeypatch.setenv('COLUMNS', str(width))
        if name == 'demo':
            demo(monkeypatch)
        else:
            assert cli.main(COMMANDS[name].split()) in (0, 1)
        printed = capsys.readouterr()
        seen[width] = figures(printed.out + printed.err, width)
    assert len(seen[250]) > 0 or name in ('list', 'export')
    # Headers may be repeated.
    assert not seen[250] - seen[60]
    assert not seen[250] - seen[30]


@pytest.mark.parametrize('name', COMMANDS)
def test_an_encoding_without_a_character_ends_no_command(name, folder, monkeypatch):
    """Streams as PYTHONIOENCODING=ascii makes them."""
    monkeypatch.chdir(folder)
    streams = [io.BytesIO(), io.BytesIO()]
    for stream, which in zip(streams, ('stdout', 'stderr')):
        wrapper = io.TextIOWrapper(stream, encoding='ascii', write_through=True)
        monkeypatch.setattr(sys, which, wrapper)
    assert cli.main(COMMANDS[name].split()) in (0, 1)
    printed = b''.join(stream.getvalue() for stream in streams)
    assert printed.isascii() and len(printed) > 100
    if name in ('audit', 'export'):
        assert re.search(rb'\dx\d|\d x \d', printed)


def test_a_name_that_is_no_text_ends_no_command(folder):
    """Of a file, with a byte that is not UTF-8."""
    done = subprocess.run(
        [sys.executable, '-m', 'udp_plugin', 'infer', b'caf\xe9.onnx', 'photo.png'],
        env={**os.environ, 'PYTHONIOENCODING': 'utf-8', 'PYTHONPATH': str(PROJECT)},
        cwd=folder,
        capture_output=True,
    )
    assert done.returncode == 2 and b'Traceback' not in done.stderr
    assert b'caf' in done.stderr
