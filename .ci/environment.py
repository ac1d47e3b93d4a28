"""Finds, or else builds, the environment for `make demo`, `make test` and `make lint`.

The path of its Python goes to standard output, all else to standard error. Standard
library only, and nothing that Python 3.6 lacks, so that a Python too old for MMPose can
at least say so.
"""

import argparse
import ast
import collections
import contextlib
import fcntl
import glob
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A file of pins, the oldest and the newest Python they are for, and the size of the
# environment in GB, measured on Linux x86-64.
Stack = collections.namedtuple('Stack', 'pins oldest newest size')
STACKS = {
    'classic': Stack('requirements.txt', (3, 8), (3, 11), 5.8),
    'modern': Stack('requirements-modern.txt', (3, 11), (3, 11), 7.6),
}

# Likewise: what pip unpacks PyTorch from; and the downloads, of which pip may keep a
# copy.
TEMPORARY_SIZE, CACHE_SIZE = 3.0, 3.0

# What the torch pinned in requirements.txt is built for on Linux x86-64.
CUDA = 'cu121'

# How long a Python may take to say its version, seconds.
PATIENCE = 10

# How pip installs the sections of a file of pins.
OPTIONS = {
    'step 1': [],
    'step 2': ['--no-build-isolation'],
    # xtcocotools' wheel is built for numpy 1.
    'step 3': ['--no-build-isolation', '--no-deps', '--no-binary', 'xtcocotools'],
}

# The packages of modules given to --needs, where they have other names.
PACKAGES = {'xdist': 'pytest-xdist'}

# What has to be importable for a name given to --needs; others stand for themselves.
MODULES = {'mmpose': ['torch', 'mmcv.ops', 'mmdet', 'mmpose.models']}

# What pip's log says when it failed, and what to do about it.
HINTS = {
    'Failed to establish a new connection|ConnectTimeout|name resolution|ProxyError': (
        'pip could not reach its package index. Check the network, the proxy and\n'
        "pip's own settings (pip config list), and run the same command again."
    ),
    'No space left on device': (
        'A disk is full. UDP_PLUGIN_ENVS, TMPDIR and PIP_CACHE_DIR say where the\n'
        "environment, pip's temporary files and its cache go."
    ),
    'Killed signal|[Cc]annot allocate memory|MemoryError': (
        'The memory ran out. With MAX_JOBS=1 in front of the same command, one file\n'
        'is compiled at a time.'
    ),
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def stop(text):
    say(f'error: {text}')
    sys.exit(1)


def read_pins(stack):
    """Returns the requirements of a stack by the section of its file."""
    sections = {}
    with open(os.path.join(ROOT, STACKS[stack].pins), encoding='utf-8') as lines:
        for line in map(str.strip, lines):
            if line.startswith('# ---'):
                title = line.strip('# -').split(':')[0]
                section = sections[title] = []
            elif line and not line.startswith('#'):
                section.append(line)
    return sections


def pin_of(name, sections):
    """Returns the requirement of `name`, or of its fork, such as 'mmcv==2.1.0'."""
    pins = [pin for section in sections.values() for pin in section]
    starts = (name + '==', f'onedl-{name}==')
    return next((pin for pin in pins if pin.startswith(starts)), name)


def output_of(command, timeout=60, late=''):
    """Returns what `command` prints, or None if it fails; says `late` if it hangs."""
    try:
        # A group of its own, so that what it starts can be stopped along with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        if late:
            say(late)
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return None if process.returncode else output.decode(errors='replace')


# --- a Python to work with ------------------------------------------------------------


def interpreters(oldest, newest):
    """Yields (path, version) of this Python, then of those in PATH by their names."""
    yield sys.executable, sys.version_info[:2]
    for minor in range(newest[1], oldest[1] - 1, -1):
        path = shutil.which(f'python3.{minor}')
        # Asked, not trusted: a version manager puts names there that do not run.
        command = [path, '-c', 'import sys; print(sys.version)']
        late = f'{path} gave no answer within {PATIENCE} s, and is passed over'
        if path and output_of(command, PATIENCE, late):
            yield path, (3, minor)


def import_problem(python, modules):
    """Returns why `python` cannot import `modules`, or None if it can."""
    done = subprocess.run(
        [python, '-W', 'ignore', '-c', 'import ' + ', '.join(modules)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors='replace').strip().splitlines()
    return lines[-1] if lines else f'it ended with status {done.returncode}'


def check_given(python, needs, pins):
    """Returns the path of the user's own `python`, once it is known to do."""
    path = shutil.which(os.path.expanduser(python))
    if path is None:
        stop(f'PYTHON={python}: no such program')
    path = os.path.abspath(path)
    for need in needs:
        problem = import_problem(path, MODULES.get(need, [need]))
        if problem and need in MODULES:
            stop(
                f'{path} has no working MMPose: {problem}\n'
                'What does not fit there, and the commands that mend it:\n'
                f'    {path} -m udp_plugin doctor\n'
                'Or leave PYTHON out, and an environment is built.'
            )
        if problem:
            stop(
                f'{path} lacks {need}: {problem}\nInstall it with\n'
                f"    {path} -m pip install '{pin_of(PACKAGES.get(need, need), pins)}'"
            )
    return path


# --- what cannot work is said before anything is installed ----------------------------


def check_disk(folder, size):
    """Stops if a disk has less room than building `folder`, of that size, takes."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    places = [
        (size, folder, 'the environment (UDP_PLUGIN_ENVS)'),
        (TEMPORARY_SIZE, tempfile.gettempdir(), "pip's temporary files (TMPDIR)"),
        (
            CACHE_SIZE,
            os.environ.get('PIP_CACHE_DIR') or os.path.join(cache, 'pip'),
            "pip's cache (PIP_CACHE_DIR)",
        ),
    ]
    disks = {}
    for place in places:
        existing = place[1]
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        disk = disks.setdefault(os.stat(existing).st_dev, (existing, []))
        disk[1].append(place)
    for existing, uses in disks.values():
        free = shutil.disk_usage(existing).free / 1e9
        needed = sum(size for size, _, _ in uses)
        if free < needed:
            rows = [f'    {size} GB in {path} for {what}' for size, path, what in uses]
            stop(
                f'too little disk: {free:.1f} GB free where {needed:.1f} GB are '
                'needed,\n' + '\n'.join(rows) + '\nMake room, or set the variable in '
                'brackets to a folder on a larger disk.'
            )


def check_compiler(python):
    """Stops if mmcv cannot be compiled; returns what its build must be told."""
    given = os.environ.get('CXX')
    names = [given] if given else ['c++', 'g++', 'clang++']
    compiler = next((name for name in names if shutil.which(name.split()[0])), None)
    if compiler is None:
        stop(
            f'no C++ compiler ({", ".join(names)}) to compile mmcv with.\n'
            'Install one: apt install g++, or dnf install gcc-c++, or\n'
            'xcode-select --install.'
        )
    include = output_of(
        [python, '-c', 'import sysconfig; print(sysconfig.get_path("include"))']
    )
    header = os.path.join((include or '').strip(), 'Python.h')
    if not os.path.exists(header):
        stop(
            f'{header} is missing, without which mmcv cannot be compiled.\n'
            "Install this Python's headers: apt install python3-dev, or dnf install\n"
            'python3-devel.'
        )
    return {'CXX': compiler}


def choose_base(found, oldest, newest):
    """Returns the first of the interpreters `found` that can make environments."""
    lacking = []
    for path, version in found:
        if oldest <= version <= newest:
            if output_of([path, '-c', 'import venv, ensurepip']) is not None:
                return path, version
            lacking.append(path)
    if lacking:
        stop(
            f'{", ".join(lacking)} cannot make environments: the modules venv and\n'
            'ensurepip are missing. Install them: apt install python3-venv.'
        )
    names = ', '.join('{1[0]}.{1[1]} ({0})'.format(*each) for each in found)
    wanted = [f'3.{minor}' for minor in range(oldest[1], newest[1] + 1)]
    stop(
        f'what is pinned here needs Python {" or ".join(wanted)}.\n'
        f'Found here: {names}.\n'
        'Install one of those, so that it can be called as python3.11, for instance,\n'
        'or pass PYTHON=/path/to/python of an environment with MMPose.'
    )


# --- building -------------------------------------------------------------------------


class Builder:
    """Builds the environment in `folder` on top of the Python `base`."""

    def __init__(self, folder, base, version, pins, size, lock):
        self.folder, self.base, self.size, self.lock = folder, base, size, lock
        self.tag = 'cp{}{}'.format(*version)
        self.pins = pins
        self.mmcv = pin_of('mmcv', pins)
        self.mmcv_wheel = self.mmcv.replace('-', '_').replace('==', '-')
        self.python = python_of(folder)
        self.pip = [self.python, '-m', 'pip', '--disable-pip-version-check']
        self.pip_install = [*self.pip, 'install', '--progress-bar', 'off']
        self.log = folder + '.log'
        self.wheels = os.path.join(folder, 'wheels')

    def build(self):
        # Torch is large: where compiling mmcv fails or is interrupted, the first step
        # is kept. Later there is no mark, and the next run starts anew, since pip may
        # have been stopped halfway through a package.
        first_step_done = os.path.join(self.folder, 'first-step-done')
        if not os.path.exists(first_step_done):
            check_disk(self.folder, self.size)
            shutil.rmtree(self.folder, ignore_errors=True)
            open(self.log, 'w').close()
            say(f'Building an environment with MMPose, once, in {self.folder}')
            say(f'(about {self.size} GB; the log is {self.log})')
            self.run('Creating it', [self.base, '-m', 'venv', self.folder])

        cached = self.mmcv_is_cached()
        compiling = not cached and not self.download_mmcv()
        settings = check_compiler(self.base) if compiling else {}

        if not os.path.exists(first_step_done):
            self.run(
                'Installing PyTorch and build tools',
                [*self.pip_install, *self.pins['step 1']],
            )
            open(first_step_done, 'w').close()

        if compiling:
            say(
                'Compiling mmcv takes 10 to 20 minutes on two cores, once per\n'
                'machine: pip then keeps the wheel in its cache.'
            )
        if compiling or cached:
            # Verbose, for the compiler's own progress.
            make_wheel = [*self.pip, 'wheel', '--verbose', '--no-deps']
            make_wheel += OPTIONS['step 2']
            self.run(
                'Compiling mmcv' if compiling else "Taking mmcv from pip's cache",
                [*make_wheel, '--wheel-dir', self.wheels, self.mmcv],
                settings,
            )

        os.remove(first_step_done)
        for step in ('step 2', 'step 3'):
            if step in self.pins:
                options = [*OPTIONS[step], '--find-links', self.wheels]
                self.run(
                    f'Installing MMPose and test tools, {step}',
                    [*self.pip_install, *options, *self.pins[step]],
                )
        problem = import_problem(self.python, MODULES['mmpose'])
        if problem:
            stop(
                f'the new environment does not work: {problem}\nIf that names mmcv, '
                "the wheel in pip's cache was compiled for another torch:\n"
                f'    {self.python} -m pip cache remove {self.mmcv_wheel}\n'
                'and the same command again compile it anew.'
            )
        shutil.rmtree(self.wheels)
        say(f'The environment is ready: {self.folder}')

    def mmcv_is_cached(self):
        wheel = self.mmcv_wheel
        name = wheel.split('-')[0]
        listed = output_of([*self.pip, 'cache', 'list', '--format', 'abspath', name])
        return f'{wheel}-{self.tag}-' in (listed or '')

    def download_mmcv(self):
        """Fetches a prebuilt mmcv if OpenMMLab's index can be reached and has one.

        openmim knows where that index is. Only its table of addresses is read, since
        its own dependencies contradict the versions pinned here.
        """
        if 'look-up' not in self.pins:
            return False
        fetch = [*self.pip, 'download', '--no-deps']
        with tempfile.TemporaryDirectory() as folder:
            briefly = ['--timeout', '3', '--retries', '0']
            output_of([*fetch, *briefly, '--dest', folder, *self.pins['look-up']])
            archives = glob.glob(os.path.join(folder, '*.whl'))
            if not archives:
                return False
            with zipfile.ZipFile(archives[0]) as archive:
                source = archive.read('mim/utils/default.py').decode()
        addresses = next(
            ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and node.targets[0].id == 'WHEEL_URL'
        )
        linux = sys.platform == 'linux' and platform.machine() == 'x86_64'
        torch = pin_of('torch', self.pins).split('==')[1].split('.')
        address = addresses['mmcv-full'].format(
            cuda_version=CUDA if linux else 'cpu',
            torch_version='torch{}.{}.0'.format(*torch),
        )
        probe = 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=3)'
        if output_of([self.python, '-c', probe, address], timeout=4) is None:
            return False
        prebuilt = ['--only-binary', ':all:', '--no-index', '--find-links', address]
        return self.run(
            'Downloading mmcv',
            [*fetch, *prebuilt, '--dest', self.wheels, self.mmcv],
            may_fail=True,
        )

    def run(self, title, command, settings=(), may_fail=False):
        """Runs `command` into the log, with one line that tells how far it is."""
        environ = dict(os.environ, PYTHONNOUSERSITE='1', **dict(settings))
        for name in ('PYTHONPATH', 'PYTHONHOME', 'PIP_USER', 'PIP_TARGET'):
            environ.pop(name, None)
        live = sys.stderr.isatty()
        start = shown = time.time()
        if not live:
            say(f'{title} ...')
        with open(self.log, 'ab') as log:
            # A group of its own, so that compilers can be stopped along with pip; and
            # the lock, so that it lasts as long as pip does, if only this is killed.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
                pass_fds=[self.lock.fileno()],
            )
        try:
            sign(self.lock, f'{process.pid} ({title})')
            while process.poll() is None:
                elapsed = '{}:{:02}'.format(*divmod(int(time.time() - start), 60))
                if live:
                    line = f'{title} {elapsed}  {self.progress()}'
                    width = shutil.get_terminal_size().columns - 1
                    sys.stderr.write('\r\033[K' + line[:width])
                    sys.stderr.flush()
                elif time.time() - shown > 60:
                    shown = time.time()
                    say(f'{title} {elapsed}  {self.progress()}'[:87])
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
        finally:
            if process.poll() is None:
                # Gently, so that pip removes its temporary files.
                os.killpg(process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            if live:
                sys.stderr.write('\r\033[K')
        seconds = int(time.time() - start)
        if process.returncode and not may_fail:
            self.report_failure(title)
        if live and process.returncode == 0:
            say('{} {}:{:02}'.format(title, *divmod(seconds, 60)))
        return process.returncode == 0

    def log_tail(self, lines):
        with open(self.log, 'rb') as log:
            log.seek(max(0, os.path.getsize(self.log) - 20000))
            text = log.read().decode(errors='replace')
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def progress(self):
        """Returns the latest of pip's own lines in the log, or a compiler's count."""
        telling = re.compile(r'(Collecting|Downloading|Installing) .*|\[\d+/\d+\]')
        found = (telling.match(line.strip()) for line in self.log_tail(50)[::-1])
        return next((match.group() for match in found if match), '')

    def report_failure(self, title):
        tail = '\n'.join(self.log_tail(20))
        say(f'{tail}\n\nerror: {title} failed; the lines above end the log {self.log}')
        for pattern, hint in HINTS.items():
            if re.search(pattern, tail):
                say(hint)
        sys.exit(1)


def python_of(folder):
    return os.path.join(folder, 'bin', 'python')


def is_ready(folder):
    return os.path.exists(os.path.join(folder, 'ready')) and os.path.exists(
        python_of(folder)
    )


def environment_folder(version, pins):
    """Returns the folder that belongs to these pins and this Python."""
    home = os.environ.get('UDP_PLUGIN_ENVS')
    if not home:
        cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        home = os.path.join(cache, 'udp_plugin')
    identity = repr((sorted(pins.items()), version, sys.platform, platform.machine()))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return os.path.join(os.path.abspath(os.path.expanduser(home)), f'env-{digest}')


def sign(lock, holder):
    """Writes into the file of a lock which process has it."""
    lock.truncate(0)
    lock.write(holder)
    lock.flush()


def find_or_build(stack):
    """Returns the Python of the environment, which is built if there is none yet."""
    pins = read_pins(stack)
    _, oldest, newest, size = STACKS[stack]
    found = []
    for path, version in interpreters(oldest, newest):
        found.append((path, version))
        if oldest <= version <= newest:
            folder = environment_folder(version, pins)
            if is_ready(folder):
                return python_of(folder)
    base, version = choose_base(found, oldest, newest)
    folder = environment_folder(version, pins)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(folder + '.lock', 'a+') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f'Waiting for process {lock.read()}, which builds {folder}')
            fcntl.flock(lock, fcntl.LOCK_EX)
        sign(lock, str(os.getpid()))
        if not is_ready(folder):
            Builder(folder, base, version, pins, size, lock).build()
            open(os.path.join(folder, 'ready'), 'w').close()
    return python_of(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--python', help='use this Python, and build nothing')
    parser.add_argument(
        '--needs', nargs='+', default=[], help='modules which that Python must have'
    )
    parser.add_argument(
        '--stack', default='classic', help='which set of versions (default: classic)'
    )
    args = parser.parse_args()
    if args.stack not in STACKS:
        stop(f'STACK={args.stack}: there are {" and ".join(STACKS)}')
    # Ends what runs, compilers included, before this process ends. Under nohup, one of
    # them is ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda *_: sys.exit('stopped'))
    if args.python:
        print(check_given(args.python, args.needs, read_pins(args.stack)))
        return
    try:
        print(find_or_build(args.stack))
    except KeyboardInterrupt:
        sys.exit('\nInterrupted; the same command goes on where it can.')
    except OSError as error:
        stop(
            f'{error.filename or "the environment"}: {error.strerror or error}; '
            'UDP_PLUGIN_ENVS may name another folder for environments'
        )


if __name__ == '__main__':
    main()
