"""What makes this project's pages: ``python -m benchmarks study``, for one.

``make`` calls them, and copies what they write to ``docs/``.
"""

import argparse
import shlex
import sys
from importlib import import_module
from pathlib import Path

from udp_plugin.cli import positive
from udp_plugin.errors import ends_in_words


def _study(add) -> None:
    add(
        '--full',
        action='store_true',
        help='larger inputs, longer training and more seeds, for a GPU',
    )
    for name, what in (
        ('seeds', 'how often everything is drawn and trained anew (default: 3)'),
        ('images', 'figures drawn for training, a third as many for testing'),
        ('iters', 'training iterations of each network'),
    ):
        add(f'--{name}', type=positive, metavar='N', help=what)


def _bench(add) -> None:
    add(
        '--device',
        choices=['cpu', 'cuda'],
        default='cpu',
        help='where maps and networks are (default: %(default)s)',
    )
    add(
        '--json',
        nargs='?',
        const='-',
        metavar='FILE',
        help='write the figures to FILE, too; without FILE, print them alone',
    )
    add(
        '--quick',
        action='store_true',
        help='a look in seconds: the smallest sizes and few rounds, for rough figures',
    )


def _paper(add) -> None:
    add('--ann', type=Path, metavar='FILE', help="annotations of COCO's keypoints")
    add('--img', type=Path, metavar='DIR', help='the images they name')


def _keep(add) -> None:
    add('--train-ann', type=Path, metavar='FILE', help='photographs, too: annotations')
    add(
        '--test-ann', type=Path, metavar='FILE', help='annotations of those for testing'
    )
    add('--img', type=Path, metavar='DIR', help='the images that both name')
    add('--seeds', type=positive, metavar='N', help='how often (default: 3)')


#: By name: the options, and what it does.
COMMANDS = {
    'study': (_study, 'train stock configs and their UDP twins over seeds and sizes'),
    'bench': (_bench, 'measure speed and memory beside the built-ins'),
    'keep': (_keep, 'test weights of the stock toolbox with names swapped'),
    'paper': (_paper, "measure the claims of UDP's paper, with the real components"),
}


def main() -> int:
    """Run a benchmark; returns its exit status."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    commands = parser.add_subparsers(dest='name', metavar='name', required=True)
    for name, (add_options, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        out = Path('work_dirs', name)
        where = 'where everything goes (default: %(default)s)'
        command.add_argument(
            '-o', '--out', type=Path, default=out, metavar='DIR', help=where
        )
        add_options(command.add_argument)
    args = parser.parse_args()
    if args.name == 'paper' and (args.ann is None) != (args.img is None):
        parser.error('--ann and --img go together')
    if args.name == 'keep' and len(
        {args.train_ann, args.test_ann, args.img} - {None}
    ) in (1, 2):
        parser.error('--train-ann, --test-ann and --img go together')
    options = dict(vars(args))
    name = options.pop('name')
    options['command'] = shlex.join(['python', '-m', 'benchmarks', *sys.argv[1:]])
    with ends_in_words():
        run = import_module(f'benchmarks.{name}.run')
        getattr(run, f'run_{name}')(**options)
    return 0


if __name__ == '__main__':
    sys.exit(main())
