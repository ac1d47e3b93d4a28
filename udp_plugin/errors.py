"""How a command ends: what went wrong in words, signals, and the exit status.

It needs no more than Python, since ``udp-plugin infer`` has little more.
"""

import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import Iterator

#: Exit statuses besides 0 and 1, which say what was found: nothing could be done, the
#: user stopped it, and nobody reads its output (as shells count signals).
FAILED, STOPPED, UNREAD = 2, 130, 141


class UserError(Exception):
    """What a command cannot do, in words for the user: what, where, and what to do."""


def say_error(text: object) -> None:
    """Print an error."""
    print(f'error: {text}', file=sys.stderr)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does."""
    names = ('SIGTERM', 'SIGHUP') if current_thread() is main_thread() else ()
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup has one of them ignored.
    signals = [s for s in signals if signal.getsignal(s) == signal.SIG_DFL]

    def interrupt(number, frame) -> None:
        # A closed terminal sends several, and one is enough to clean up after.
        for other in signals:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def ends_in_words(interrupted: str = 'stopped') -> Iterator[None]:
    """End a command that the user has stopped, or that failed, with an exit status.

    Args:
        interrupted: What is said after Ctrl-C: what is left of the work.

    Raises:
        SystemExit: With status 2 after an error, in a line if it is the user's or the
            machine's, with a traceback if it is a fault of this package; 130 after an
            interruption; 141 if nobody reads the output any more.
    """
    try:
        with signals_interrupt():
            yield
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would try once more when it ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say_error('nobody reads the output any more')
        sys.exit(UNREAD)
    except (UserError, OSError) as error:
        say_error(error)
        sys.exit(FAILED)
    except MemoryError as error:
        say_error(f'there is not enough memory; {error}'.rstrip('; '))
        sys.exit(FAILED)
    except KeyboardInterrupt as stop:
        # Whoever closed the terminal reads nothing.
        with suppress(OSError):
            # Who was interrupted may know better.
            print(stop.args[0] if stop.args else interrupted, file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        traceback.print_exc()
        say_error(
            f'{type(error).__name__} was not foreseen; please report it with the lines '
            'above'
        )
        sys.exit(FAILED)
