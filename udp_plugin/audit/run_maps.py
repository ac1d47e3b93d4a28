"""The command ``udp-plugin audit --maps``: predictions of any framework.

It needs nothing of a toolbox.
"""

import argparse
import json
import sys

from rich.console import Console

from udp_plugin.ui import UserError

from .maps import as_dict, measure_maps, read_maps, tables

CHANNELS = {'gaussian': 1, 'offset': 3}


def run_maps(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status.

    It is 1 if a shift that does not belong there, or nothing, explains where mirrored
    maps lie.
    """
    console = Console(stderr=args.json, highlight=False)
    channels = CHANNELS[args.codec or 'gaussian']
    try:
        if args.out and args.out.exists() and not args.out.is_dir():
            raise UserError(f'--out {args.out} is a file; name a folder')
        with console.status('measuring'):
            maps, mirrored = read_maps(args.maps, channels)
            found = measure_maps(maps, mirrored, channels, args.flip_indices)
            content = as_dict(found, args.input_size)
            shown = tables(found, args.input_size)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for table in shown:
        table.print(console)
    console.print(content['verdict']['text'])
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.out / 'audit.json'
        file.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        console.print(f'  {file}')
    if args.json:
        print(json.dumps(content, indent=1))
    return int(content['verdict']['kind'] in ('unbiased_shifted', 'other'))
