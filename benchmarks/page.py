"""How a page of ``docs/`` is made: prose by hand, figures filled in.

Each benchmark has a Jinja template beside its code, ``<name>/<name>.md.j2``. All that
the page says is written there by hand; the program passes what it measured::

    render(TEMPLATE, out / 'bench.md', decode=decode, minutes=seconds / 60)

and the template says where that goes::

    {{ machine }}                              the machine in a line, always there
    {{ '%.1f' | format(minutes) }}             a number
    ### Decode a batch                         a heading and prose by hand, and
    {{ decode | grid }}                        the cells of a ``udp_plugin.ui.Table``
    {{ decode.markdown() }}                    or one with its own title and text
    {% if left_out %} ... {% endif %}          what is there only sometimes
    ![Times](images/bench_ratios.png)          pictures are in ``images/``, beside it

A value that the template names and that is not passed is an error. The page goes to the
folder of ``--out``; ``make`` copies it, and its pictures, to ``docs/``.
"""

from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, Dict

import torch
from jinja2 import Environment, StrictUndefined

from udp_plugin.files import write_text
from udp_plugin.ui import Table, processor, versions


def render(template: Path, out: Path, **values: Any) -> Path:
    """Fill in a template, and write the page; returns its path.

    Args:
        template: Of the page, with prose.
        out: The page's file; its folder is made.
        values: What the template names, besides ``machine``.
    """
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['grid'] = grid
    page = environment.from_string(template.read_text(encoding='utf-8'))
    text = page.render(**{'machine': machine_line(), **values})
    return write_text(out, text)


def grid(table: Table) -> str:
    """A table's header and rows in Markdown, without its title and text."""
    return '\n'.join(table._replace(title='', text='').markdown().splitlines()[2:])


def machine() -> Dict[str, Any]:
    """What figures depend on: processor, cores, threads, GPU and versions."""
    name, cores = processor()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return dict(processor=name, cores=cores, threads=threads, gpu=gpu, **versions())


def machine_line() -> str:
    """The same in a line, for people, with the day."""
    found = machine()
    gpu = f'{found["gpu"]}, ' if found['gpu'] else ''
    names = {'torch': 'torch', 'NumPy': 'numpy', 'OpenCV': 'cv2', 'MMPose': 'mmpose'}
    packages = (f'{name} {import_module(m).__version__}' for name, m in names.items())
    return (
        f'{gpu}{found["processor"]}, {found["threads"]} of {found["cores"] or "?"} '
        f'cores used; {", ".join(packages)}; {date.today().isoformat()}'
    )
