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

import numpy as np
import torch
from mmpose.utils import register_all_modules
from rich.console import Console
from rich.progress import track

from udp_plugin.audit.run import audit
from udp_plugin.convert.zoo import convertible, zoo_folder


def audit_one(name):
    """Audit a config: its findings, seconds, mean errors in input px, if measured.

    The errors are those of the flip test on x as configured, and of coding.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    found = audit(zoo_folder() / name)
    flip = None if found.flip is None else found.flip.configured
    return (
        [f'{f.severity} `{f.name}`' for f in found.findings],
        time.monotonic() - started,
        0.0 if flip is None else np.abs(flip).mean(0)[0],
        np.nan if found.coding is None else np.abs(found.coding.errors).mean(),
        None not in (found.flip, found.coding, found.end_to_end, found.ap),
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--only', default='', help='a part of the names to audit')
    args = parser.parse_args()
    register_all_modules()
    names = [name for name in convertible() if args.only in name]
    console = Console(stderr=True)
    # Data sets of the toolbox write into their classes.
    fork = multiprocessing.get_context('fork')
    with fork.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        audits = pool.imap(audit_one, names)
        audited = dict(zip(names, track(audits, total=len(names), console=console)))
    kinds = defaultdict(list)
    for findings, _, *errors, _ in audited.values():
        kinds[', '.join(findings) or 'none'].append(errors)
    print(f'| findings | of {len(audited)} configs | flip, px | coding, px |')
    print('|---|--:|--:|--:|')
    for kind, errors in sorted(kinds.items(), key=lambda item: -len(item[1])):
        flip, coding = np.mean(errors, 0)
        print(f'| {kind} | {len(errors)} | {flip:.2f} | {coding:.2f} |')
    print()
    for name, (findings, *_) in audited.items():
        if any(finding.startswith('error') for finding in findings):
            print(f'- {name}: {", ".join(findings)}')
    print(f'\nslowest: {max(one[1] for one in audited.values()):.1f} s')
    print('not measured:', [name for name in names if not audited[name][-1]])
