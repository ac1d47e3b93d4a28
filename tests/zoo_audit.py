"""What the audit finds in MMPose's zoo.

Each top-down heatmap config of the zoo is audited in a process of its own, and what
was found is printed as the Markdown that docs/audit.md has. Run it by::

    make zoo-audit                        # all, some ten minutes on two cores
    make zoo-audit ARGS="--only cspnext"  # those whose name has this
"""

import argparse
import multiprocessing
import os
import time
from collections import defaultdict
from typing import Dict, List, NamedTuple

import numpy as np
import torch
from mmpose.utils import register_all_modules
from rich.console import Console
from rich.progress import track

from udp_plugin.audit.run import audit
from udp_plugin.convert.zoo import convertible, zoo_folder


class Audited(NamedTuple):
    """What was found of a config: its findings, or why there are none."""

    name: str
    seconds: float
    findings: List[str]
    #: Mean error in input px as configured: of the flip test on x, and of coding.
    flip_px: float
    coding_px: float
    measured: bool


def audit_one(name: str) -> Audited:
    """Audit a config of the zoo."""
    torch.set_num_threads(1)
    started = time.monotonic()
    found = audit(zoo_folder() / name)
    flip = None if found.flip is None else found.flip.configured
    coding = None if found.coding is None else found.coding.errors
    return Audited(
        name=name,
        seconds=time.monotonic() - started,
        findings=[f'{f.severity} `{f.name}`' for f in found.findings],
        flip_px=0.0 if flip is None else float(np.abs(flip).mean(0)[0]),
        coding_px=float('nan') if coding is None else float(np.abs(coding).mean()),
        measured=None not in (found.flip, found.coding, found.end_to_end, found.ap),
    )


def main() -> None:
    """Audit, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', default='', help='a part of the names to audit')
    args = parser.parse_args()
    register_all_modules()
    names = [name for name in convertible() if args.only in name]
    # Data sets of the toolbox write into their classes.
    with multiprocessing.get_context('fork').Pool(
        os.cpu_count(), maxtasksperchild=1
    ) as pool:
        audited = list(
            track(
                pool.imap(audit_one, names),
                total=len(names),
                console=Console(stderr=True),
            )
        )
    kinds: Dict[str, List[Audited]] = defaultdict(list)
    for one in audited:
        kinds[', '.join(one.findings) or 'none'].append(one)
    print(f'| findings | of {len(audited)} configs | flip, px | coding, px |')
    print('|---|--:|--:|--:|')
    for kind, ones in sorted(kinds.items(), key=lambda item: -len(item[1])):
        flip = np.mean([one.flip_px for one in ones])
        coding = np.mean([one.coding_px for one in ones])
        print(f'| {kind} | {len(ones)} | {flip:.2f} | {coding:.2f} |')
    print()
    for one in audited:
        if any(finding.startswith('error') for finding in one.findings):
            print(f'- {one.name}: {", ".join(one.findings)}')
    print(f'\nslowest: {max(one.seconds for one in audited):.1f} s')
    print('not measured:', [one.name for one in audited if not one.measured])


if __name__ == '__main__':
    main()
