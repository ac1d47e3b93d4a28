"""What `pip install .` installs, and what the set-up says before it installs."""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUP_SCRIPT = ROOT / '.ci' / 'environment.py'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

#: It prints the paths of the configs that it could read.
READ_EVERY_SHIPPED_CONFIG = """
from pathlib import Path
from mmengine.config import Config
import udp_plugin

for path in sorted(Path(udp_plugin.__file__).parent.glob('.mim/configs/**/*.py')):
    if '_base_' not in path.parts:
        codec = Config.fromfile(path).codec
        assert codec.type in ('UDPOffsetHeatmap', 'UDPGaussianHeatmap'), path
        print(path)
"""


def run(*command, status=0, importable='', cwd=None):
    """What Python prints."""
    environ = {**os.environ, 'PIP_NO_INDEX': '1', 'PYTHONPATH': str(importable)}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    pytest.importorskip('pip')
    pytest.importorskip('wheel')
    clone, target = tmp_path_factory.mktemp('clone'), tmp_path_factory.mktemp('wheel')
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('udp_plugin', 'configs'):
        shutil.copytree(ROOT / name, clone / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md'):
        shutil.copy(ROOT / name, clone)
    offline = ('--no-deps', '--no-build-isolation', '--wheel-dir')
    run('-m', 'pip', 'wheel', *offline, target, clone)
    return next(target.glob('*.whl'))


def test_wheel_holds_the_package_and_the_configs(wheel, tmp_path):
    folders = {'': ROOT / 'udp_plugin', 'udp_plugin/.mim/': ROOT / 'configs'}
    expected = {
        place + path.relative_to(ROOT).as_posix()
        for place, folder in folders.items()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert shipped == expected

    # And it works away from the clone.
    target = tmp_path / 'site'
    run('-m', 'pip', 'install', '--no-deps', '--target', target, wheel)
    read = run('-c', READ_EVERY_SHIPPED_CONFIG, cwd=tmp_path, importable=target)
    configs = [name for name in shipped if '/.mim/configs/' in name]
    assert set() != {str(target / name) for name in configs} <= {*read.splitlines()}


@pytest.mark.parametrize('extras', ['', '[export,tests]'])
def test_installing_changes_no_other_package(extras, wheel):
    # Whatever pip wants besides, it cannot find, and fails.
    found = ('--no-index', '--find-links', wheel.parent, f'udp-plugin{extras}')
    tried = run('-m', 'pip', 'install', '--dry-run', '--upgrade', *found)
    would = [line for line in tried.splitlines() if line.startswith('Would install')]
    assert would == ['Would install udp-plugin-' + wheel.name.split('-')[1]]


@pytest.fixture
def setup_script(monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    return SimpleNamespace(**runpy.run_path(str(SETUP_SCRIPT)))


def test_set_up_says_what_it_wants(setup_script, capsys, monkeypatch, tmp_path):
    def said_by(check, *args):
        with pytest.raises(SystemExit):
            check(*args)
        return capsys.readouterr().err

    found = [('/opt/python3', (3, 12)), ('/usr/python3', (3, 7))]
    said = said_by(setup_script.choose_base, found, (3, 8), (3, 11))
    assert '3.12 (/opt/python3), 3.7 (/usr/python3)' in said
    assert '3.8 or 3.9 or 3.10 or 3.11' in said

    monkeypatch.setenv('PATH', os.devnull)
    said = said_by(setup_script.check_compiler, sys.executable)
    assert 'no C++ compiler' in said

    sizes = iter([SimpleNamespace(free=100e9), SimpleNamespace(free=0.5e9)])
    monkeypatch.setattr(setup_script.shutil, 'disk_usage', lambda folder: next(sizes))
    setup_script.check_disk(str(tmp_path / 'envs/env-1'), 5.8)
    said = said_by(setup_script.check_disk, str(tmp_path / 'envs/env-1'), 5.8)
    assert '0.5 GB free' in said and f'GB in {tmp_path}/envs/env-1' in said

    said = run(SETUP_SCRIPT, '--stack', 'newest', status=1)
    assert 'STACK=newest: there are classic and modern' in said


class SetUp:
    """The set-up script as a process, whose pip waits for an index in vain."""

    def __init__(self, folder, **added):
        self.folder, self.log = folder, folder / f'said-{time.monotonic_ns()}'
        self.environ = {**os.environ, 'UDP_PLUGIN_ENVS': str(folder / 'envs'), **added}

    def __enter__(self):
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, SETUP_SCRIPT],
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # These tests may run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def said(self):
        return self.log.read_text()

    def wait_for(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)


@pytest.fixture
def silent_index(tmp_path):
    """Settings of pip, of an index that accepts connections and says nothing."""
    if not shutil.which('c++') or shutil.disk_usage(tmp_path).free < 15e9:
        pytest.skip('before pip, the set-up asks for a compiler and for 12 GB')
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = f'http://127.0.0.1:{server.getsockname()[1]}/'
        cache = dict.fromkeys(('XDG_CACHE_HOME', 'PIP_CACHE_DIR'), str(tmp_path / 'c'))
        yield dict(cache, PIP_INDEX_URL=address, PIP_DEFAULT_TIMEOUT='600')


def pips_in(folder):
    """The processes of the environment that is built in a folder."""
    found = []
    for place in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = place.read_bytes().decode(errors='replace').split('\0')
        except OSError:
            continue
        if words[0].startswith(f'{folder}/envs/') and 'install' in words:
            found.append(int(place.parent.name))
    return found


@pytest.mark.parametrize('number', ['SIGHUP', 'SIGTERM', 'SIGKILL'])
def test_no_set_up_works_in_a_folder_where_another_s_pip_does(
    number, silent_index, tmp_path
):
    with SetUp(tmp_path, **silent_index) as first:
        first.wait_for('Installing PyTorch')
        while not pips_in(tmp_path):
            time.sleep(0.1)
        first.process.send_signal(getattr(signal, number))
        assert first.process.wait(20) != 0
        assert 'Traceback' not in first.said()
    left = pips_in(tmp_path)
    if number != 'SIGKILL':
        assert not left
        return
    # Nobody could end pip, so that the next one waits for it.
    assert len(left) == 1
    mark = next(tmp_path.glob('envs/env-*/')) / 'made-before'
    mark.touch()
    try:
        with SetUp(tmp_path, **silent_index) as second:
            second.wait_for(f'Waiting for process {left[0]} (Installing PyTorch')
            time.sleep(1)
            assert mark.exists() and 'Building' not in second.said()
            os.kill(left[0], signal.SIGKILL)
            second.wait_for('Installing PyTorch and build tools ...')
            assert not mark.exists()
            second.process.terminate()
            assert second.process.wait(20) != 0
    finally:
        for process in pips_in(tmp_path):
            os.kill(process, signal.SIGKILL)


def test_a_python_that_hangs_is_passed_over(tmp_path):
    """As a version manager's may that waits for a network."""
    hanging = tmp_path / 'python3.10'
    hanging.write_text('#!/bin/sh\nsleep 987\n')
    hanging.chmod(0o755)
    said = subprocess.run(
        [
            *(sys.executable, '-c'),
            'import runpy, sys; script = runpy.run_path(sys.argv[1]);'
            'print(*script["interpreters"]((3, 10), (3, 10)))',
            str(SETUP_SCRIPT),
        ],
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        text=True,
    ).stdout
    assert f'{hanging} gave no answer within 10 s, and is passed over' in said
    assert 'python3.10' not in said.splitlines()[-1]
    assert sys.executable in said.splitlines()[-1]
    running = subprocess.run(['ps', 'ax'], stdout=subprocess.PIPE, text=True).stdout
    assert 'sleep 987' not in running


@pytest.mark.parametrize('place', ['a file/envs', '/proc/envs'])
def test_a_folder_that_cannot_be_made_is_one_line(place, tmp_path):
    (tmp_path / 'a file').touch()
    folder = str(tmp_path / place)
    done = subprocess.run(
        [sys.executable, SETUP_SCRIPT],
        env={**os.environ, 'UDP_PLUGIN_ENVS': folder},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert re.match(f'error: {folder}.*: .*UDP_PLUGIN_ENVS', line), line


@pytest.mark.parametrize(
    ('stack', 'sections', 'mmcv'),
    [
        ('classic', ['step 1', 'step 2', 'look-up'], 'mmcv=='),
        ('modern', ['step 1', 'step 2', 'step 3'], 'onedl-mmcv=='),
    ],
)
def test_every_version_is_pinned(stack, sections, mmcv, setup_script):
    pins = setup_script.read_pins(stack)
    assert list(pins) == sections
    assert all('==' in pin for section in pins.values() for pin in section)
    assert setup_script.pin_of('mmcv', pins).startswith(mmcv)
    assert setup_script.pin_of('rich', pins).startswith('rich==')


@pytest.mark.parametrize('page', PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page):
    def anchors(text):
        titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
        words = [re.sub(r'[^\w\- ]', '', title.lower()) for title in titles]
        return {word.replace(' ', '-') for word in words}

    text = page.read_text(encoding='utf-8')
    links = re.findall(r'\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)', text)
    assert links or page.name == 'zoo.md'
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding='utf-8')), anchor
