"""Files that commands write, whole or not at all, and how commands end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from test_runtime import centroid_model

from udp_plugin import files
from udp_plugin.errors import UserError, ends_in_words

CONFIG = 'td-hm_res50_8xb64-210e_coco-256x192'
PROJECT = str(Path(__file__).resolve().parents[1])
#: Runs a command after a limit on the size of files, which is what a full disk is.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from udp_plugin.cli import main
sys.argv[:2] = ['command']
sys.exit(main())
"""
pytestmark = pytest.mark.skipif(os.name != 'posix', reason='files and signals of POSIX')


def start(folder: Path, *command: str, **options) -> subprocess.Popen:
    """Start Python in a folder, with another for what is temporary."""
    (folder / 'tmp').mkdir(exist_ok=True)
    env = dict(os.environ, PYTHONPATH=PROJECT, TMPDIR=str(folder / 'tmp'))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    given = [sys.executable, '-W', 'ignore', *command]
    options = dict(pipes, preexec_fn=hear, **options)
    return subprocess.Popen(given, cwd=folder, env=env, **options)


def hear() -> None:
    """Heed signals that a shell has its background jobs ignore, and nohup its own."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(found, seconds: float = 60):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def convert(folder: Path) -> None:
    process = start(folder, '-m', 'udp_plugin', 'convert', CONFIG, '-o', 'c.py')
    assert process.communicate() and process.returncode == 0


def write_scene(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    cv2.imwrite(str(folder / 'photo.bmp'), image)
    centroid_model(folder / 'model.onnx')
    peaks = np.zeros((2, 20, 2, 16, 12), np.float32)
    peaks[:, :, :, 5, 5] = 1
    np.save(folder / 'maps.npy', peaks)


# --- one file -------------------------------------------------------------------------


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / 'new' / 'page.md'
    files.write_text(path, 'first')
    path.chmod(0o640)
    link = tmp_path / 'link.md'
    link.symlink_to(path)
    files.write_bytes(link, b'second')
    assert link.is_symlink() and path.read_text() == 'second'
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ZeroDivisionError), files.written(path) as made:
        made.write_text('half')
        raise ZeroDivisionError
    with files.written(path):
        pass
    # What belongs to it comes along.
    with files.written(path) as made:
        made.write_text('third')
        made.with_name('page.md.data').write_text('more')
    assert path.read_text() == 'third'
    assert {p.name for p in path.parent.iterdir()} == {'page.md', 'page.md.data'}
    # Nothing takes the place of a device.
    files.write_text(Path('/dev/null'), 'text')
    assert Path('/dev/null').is_char_device()
    with pytest.raises(UserError, match='new is a folder'):
        files.write_text(path.parent, '')
    with pytest.raises(UserError, match=r'page.md.x cannot be written: '):
        files.write_text(path / 'x', '')


@pytest.mark.parametrize(
    ('command', 'limit', 'file'),
    [
        ('infer model.onnx photo.bmp -o out.png', 4000, 'out.png'),
        ('infer model.onnx photo.bmp --json o.json', 40, 'o.json'),
        ('audit --maps maps.npy -o out', 100, 'out/audit.json'),
        ('demo --out out', 10, 'out/.in-use'),
        pytest.param(
            *('export c.py --decoding-only -o d.pt', 4000, 'd.pt'),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *('export c.py --decoding-only -o d.onnx', 4000, 'd.onnx'),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_full_disk(tmp_path, command, limit, file):
    write_scene(tmp_path)
    if command.startswith('export'):
        convert(tmp_path)
    old = tmp_path / file
    # A folder of results is begun.
    new = command.split()[0] in ('demo', 'study')
    if not new:
        old.parent.mkdir(exist_ok=True)
        old.write_text('old')
    process = start(tmp_path, '-c', LIMITED, str(limit), *command.split())
    _, error = process.communicate()
    assert process.returncode == 2, error
    assert error.count('\n') == 1 and error.startswith(f'error: {file} cannot'), error
    assert 'File too large' in error
    assert not old.exists() if new else old.read_text() == 'old'
    assert not list(old.parent.glob('.writing-*'))


@pytest.mark.parametrize(
    ('command', 'file'),
    [
        (f'udp_plugin convert {CONFIG} -o disk/c.py', 'disk/c.py'),
        ('benchmarks study -o disk/out', 'disk/out/.in-use'),
    ],
)
def test_a_disk_without_room(tmp_path, command, file):
    """Where libraries write files of their own to another disk."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = 'mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(disk)
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip('needs to mount a small disk')
    try:
        with pytest.raises(OSError), open(disk / 'full', 'wb', buffering=0) as full:
            while full.write(bytes(4096)):
                pass
        process = start(tmp_path, '-m', *command.split())
        _, error = process.communicate()
        assert error == f'error: {file} cannot be written: No space left on device\n'
        assert process.returncode == 2
        assert not [path for path in disk.glob('**/*') if path.is_file()][1:]
        # As if nothing had been begun.
        (disk / 'full').unlink()
        with files.alone_in(disk / 'out'):
            assert files.is_empty(disk / 'out')
    finally:
        subprocess.run(('umount', str(disk)), check=True)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('--json photo.bmp', '--json photo.bmp is IMAGE, too'),
        ('-o photo.bmp', '--out photo.bmp is IMAGE, too'),
        ('--json model.onnx', '--json model.onnx is MODEL, too'),
        ('--json model.onnx.data', "is MODEL's weights, too"),
        ('-o x.png --json ./x.png', '--json x.png is --out, too'),
        ('-o link.png', '--out link.png is IMAGE, too'),
        ('--json hard.json', '--json hard.json is IMAGE, too'),
        ('-o new.png --json to_new.json', 'to_new.json is --out, too'),
    ],
)
def test_what_is_read_is_not_written(tmp_path, capsys, monkeypatch, options, message):
    from udp_plugin.cli import main

    write_scene(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path('link.png').symlink_to('photo.bmp')
    Path('to_new.json').symlink_to('new.png')
    os.link('photo.bmp', 'hard.json')
    before = {path: path.read_bytes() for path in Path().iterdir() if path.exists()}
    with pytest.raises(SystemExit) as ended:
        main(['infer', 'model.onnx', 'photo.bmp', *options.split()])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert before == {
        path: path.read_bytes() for path in Path().iterdir() if path.exists()
    }


@pytest.mark.parametrize('out', ['/proc/udp', 'photo.bmp', 'photo.bmp/in/it'])
def test_an_audit_that_cannot_be_written_has_found_nothing(tmp_path, out):
    write_scene(tmp_path)
    command = '-m', 'udp_plugin', 'audit', '--maps', 'maps.npy', '-o', out
    process = start(tmp_path, *command)
    _, error = process.communicate()
    assert process.returncode == 2 and error.count('\n') == 1 and out in error, error


# --- endings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('error', 'status', 'said'),
    [
        (UserError('name it'), 2, 'error: name it\n'),
        (PermissionError(13, 'no', 'x.png'), 2, "error: [Errno 13] no: 'x.png'\n"),
        (MemoryError(), 2, 'error: there is not enough memory\n'),
        (KeyboardInterrupt(), 130, 'stopped\n'),
        (KeyError('x'), 2, "KeyError: 'x'\nerror: KeyError was not foreseen"),
    ],
)
def test_every_failure_has_its_status(capsys, error, status, said):
    with pytest.raises(SystemExit) as ended, ends_in_words():
        raise error
    assert ended.value.code == status
    printed = capsys.readouterr().err
    assert said in printed and (printed == said or isinstance(error, KeyError))


def test_a_reader_that_goes_away(tmp_path):
    process = start(tmp_path, '-m', 'udp_plugin', 'list')
    process.stdout.close()
    error = process.stderr.read()
    assert (process.wait(), error) == (
        141,
        'error: nobody reads the output any more\n',
    )


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGINT'])
@pytest.mark.parametrize(
    ('command', 'working'),
    [
        (f'convert {CONFIG} -o out --check', 'out/*.py'),
        pytest.param(
            'export c.py --decoding-only -o out/d.onnx',
            'out/.writing-*',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_signals_leave_nothing_half_done(tmp_path, name, command, working):
    (tmp_path / 'out').mkdir()
    if command.startswith('export'):
        convert(tmp_path)
    process = start(tmp_path, '-m', 'udp_plugin', *command.split())
    wait_for(lambda: list(tmp_path.glob(working)))
    process.send_signal(getattr(signal, name))
    _, error = process.communicate()
    assert process.returncode == 130 and error.count('\n') == 1, error
    assert error.startswith('stopped')
    assert not list((tmp_path / 'tmp').iterdir())
    assert not [path for path in (tmp_path / 'out').iterdir() if path.suffix != '.py']


def test_a_folder_is_of_one_demo_and_ends_with_it(tmp_path):
    demo = '-m', 'udp_plugin', 'demo', '--out', 'out', '--images', '6'
    first = start(tmp_path, *demo, '--iters', '100000')
    log = tmp_path / 'out' / 'stock' / 'train.log'
    try:
        wait_for(lambda: log.exists() and log.read_text())
        before = sorted(tmp_path.glob('out/**/*'))
        second = start(tmp_path, *demo)
        error = second.communicate()[1]
        assert second.returncode == 2
        assert f'out is in use by process {first.pid}; wait' in error
        assert set(before) <= set(tmp_path.glob('out/**/*'))
        scripts = psutil.Process(first.pid).children(recursive=True)
        assert scripts
    finally:
        first.kill()
        first.communicate()
    # Nobody could end them but they themselves.
    assert not psutil.wait_procs(scripts, timeout=10)[1]
    with files.alone_in(tmp_path / 'out'):
        assert (tmp_path / 'out' / files.OWNER).read_text() == f'process {os.getpid()}'
    assert not (tmp_path / 'out' / files.OWNER).exists()
