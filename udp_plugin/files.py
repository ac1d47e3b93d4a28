"""Files that commands write: each is whole, or what was there stays as it was."""

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, Iterator, Optional

from .errors import UserError

#: In a folder that a command has for itself: who that is.
OWNER = '.in-use'


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file to be made, which takes the place of ``path`` when the block ends.

    It has the same name, in a folder of its own on the same disk; what else the block
    leaves in that folder comes along, before it. If the block fails or leaves nothing,
    what was there stays. A link stays one, and what it names is replaced.

    Raises:
        UserError: It cannot be written; says why.

    Example:
        >>> with written(Path('page.md')) as made:
        ...     _ = made.write_text('whole')
    """
    target = Path(os.path.realpath(path))
    with naming(path):
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise UserError(f'{path} is a folder; name a file in it')
            # /dev/stdout, a pipe: nothing can take its place.
            yield path
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, 'it is read-only')
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix='.writing-', dir=target.parent) as folder:
            made = Path(folder, target.name)
            yield made
            if made.exists() and target.exists():
                shutil.copymode(target, made)
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == made):
                os.replace(file, target.with_name(file.name))


def write_text(path: Path, text: str) -> Path:
    """Write a file as a whole; returns its path. See :func:`written`."""
    with written(path) as made:
        made.write_text(text, encoding='utf-8')
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file as a whole; returns its path. See :func:`written`."""
    with written(path) as made:
        made.write_bytes(content)
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have what the system says while a file is written name the file.

    Raises:
        UserError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f'{path} cannot be written: {reason}; what was there is as it was'
            if path.exists()
            else f'{path} cannot be written: {reason}'
        ) from error


def keep_apart(
    outputs: Dict[str, Optional[Path]], inputs: Dict[str, Optional[Path]]
) -> None:
    """Refuse to write what is read, or two things into one file.

    Args:
        outputs: Files to write, by the names of their arguments; None is none.
        inputs: Files and folders to read.

    Raises:
        UserError: One of the outputs is one of the inputs or another output, by another
            name or a link, too.
    """
    given = [item for files in (inputs, outputs) for item in files.items()]
    given = [(name, path) for name, path in given if path is not None]
    for i, (name, path) in enumerate(given):
        for other, taken in given[:i]:
            if name in outputs and _same(path, taken):
                raise UserError(f'{name} {path} is {other}, too; name another file')


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


# --- folders --------------------------------------------------------------------------


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone, and make it.

    Raises:
        UserError: It cannot be made, or another process has it; says which.
    """
    owner = folder / OWNER
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as is_free:
        if not is_free:
            found = owner.exists() and owner.read_text(encoding='utf-8')
            raise UserError(
                f'{folder} is in use by {found or "another process"}; wait until it '
                'ends, or choose another folder'
            )
        try:
            write_text(owner, f'process {os.getpid()}')
            yield
        finally:
            owner.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder if nobody has; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:
        # Windows has no such locks.
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder but who has it."""
    return {path.name for path in folder.iterdir()} <= {OWNER}
