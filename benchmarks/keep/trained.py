"""What the audit tells of a trained network.

``python -m benchmarks.keep.trained CONFIG CHECKPOINT OUT ANN IMG`` writes the part
``trained`` of ``audit.json``, and the audit's pictures, into a folder.
"""

import json
import sys
from pathlib import Path

from udp_plugin.audit.figures import draw
from udp_plugin.audit.run import audit
from udp_plugin.files import write_text

if __name__ == '__main__':
    config, checkpoint, out, *people = map(Path, sys.argv[1:])
    found = audit(config, *people, checkpoint=checkpoint)
    named = [each.name for each in found.findings]
    told = dict(found.as_dict()['trained'], findings=named)
    write_text(out / 'audit.json', json.dumps(told, indent=1) + '\n')
    draw([found], out)
