"""What the bench found: tables, plots, ``bench.json`` and the page ``bench.md``."""

import json
from argparse import Namespace
from datetime import date
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import matplotlib
import mmpose
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console

from udp_plugin.ui import STYLE, Table, processor, versions

from .cases import BUILTIN, OPENCV, OTHERS, OURS, PLAIN_MSE
from .data import ABOUT, NOISES
from .run import Measured, Result

#: Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#999999')
NAMES = dict(gaussian='Gaussian', offset='offset')

#: The keys of bench.json, which stay.
KEYS = {
    'command': 'what was called',
    'date': 'of the day, ISO 8601',
    'seconds': 'that it took',
    'machine': '`processor`, `cores`, `threads`, `gpu`, `device` and versions',
    'copy_bytes_per_second': 'read and written by a copy: of the `device`, and in '
    '`one thread` of the CPU',
    'maps_compared': 'maps whose answers were compared before they were timed',
    'left_out': 'what was not measured, and why',
    'results': 'a list, an object for each comparison, with these keys:',
    'operation': '`decode`, `decode in a graph`, `encode`, `encode a batch`, `loss`, '
    '`flip`; of the whole pipeline `load`, `train`, `validate`',
    'codec': '`gaussian` or `offset`',
    'keypoints': 'of a sample',
    'heatmap_size': 'width and height of its maps',
    'batch': 'samples a call',
    'maps': '`network`, `noise` or `noise on a plateau`',
    'one_thread': 'whether it ran in one thread, as in a worker of a data loader',
    'axis': 'what is varied, where only one thing is: `batch`, `keypoints` or '
    '`pixels of a map`; else null',
    'rounds': 'in each of which every contender ran once',
    'least_bytes': 'that have to be read or written; 0 for the whole pipeline',
    'contenders': 'by name, an object each, with these keys:',
    'ours': 'whether it is of this package',
    'ms': 'the median of a call',
    'ms_per_sample': 'the same for one person',
    'times_as_fast': "the built-in's median divided by this one",
    'share_of_limit': 'the time in which a copy moves `least_bytes`, divided by the '
    'median; null for the whole pipeline',
    'peak_bytes': 'of memory beyond the inputs; null where the system does not tell',
    'file_bytes': 'that it adds to the file of an exported model; null elsewhere',
    'operators': "of ours in `decode` and `loss`: torch's operators by "
    'name, each with its `calls` and its `share` of the time of all of them',
}
#: Times as fast: where the time goes is shown of what is not.
MUCH_FASTER = 10

#: In the order of what a reader wants to know.
OPERATIONS = (
    'decode',
    'decode in a graph',
    'encode',
    'encode a batch',
    'loss',
    'flip',
    'load',
    'train',
    'validate',
)


class Row(NamedTuple):
    """A contender of ours beside the others of its comparison."""

    result: Result
    name: str
    #: Of the memory's limit; None where there is none.
    share: Optional[float]

    def ms(self, name: Optional[str] = None) -> float:
        """For one sample; of ours if no other is named."""
        return self.result.ms[name or self.name] / self.result.facts.batch

    def ratio(self, name: str = BUILTIN) -> float:
        """How many times as fast as another."""
        return self.result.ms[name] / self.result.ms[self.name]


def report(args: Namespace, measured: Measured, console: Console) -> None:
    """Tabulate, draw and write what was measured."""
    rows = rows_of(measured)
    tables = [table for table in tables_of(rows, measured) if table.rows]
    content = content_of(args, measured)
    text = json.dumps(content, indent=1) + '\n'
    written = args.out / 'bench.json'
    written.write_text(text)
    drawn = [
        draw_ratios(args.out / 'images', rows),
        draw_scaling(args.out / 'images', measured),
    ]
    page = args.out / 'bench.md'
    page.write_text(write_page(args, rows, tables, measured), encoding='utf-8')
    if args.json == '-':
        print(text, end='')
        return
    if args.json:
        written = Path(args.json)
        written.write_text(text)
    console.print()
    console.print(machine_line(args.device), style='bold', soft_wrap=True)
    for table in tables:
        console.print()
        table.print(console)
    for line in measured.left_out:
        console.print(f'left out: {line}', markup=False, soft_wrap=True)
    console.print(conclusion(rows), style='bold', soft_wrap=True)
    console.print()
    for path in (page, *drawn, written):
        console.print(str(path), soft_wrap=True)
    minutes, rest = divmod(round(measured.seconds), 60)
    console.print(f'took {minutes} min {rest} s')


def rows_of(measured: Measured) -> List[Row]:
    """Each contender of ours, in the order in which it was measured."""
    rows = []
    for result in measured.results:
        for name in result.ms:
            if name not in OTHERS:
                rows.append(Row(result, name, share_of_limit(result, name, measured)))
    return rows


def share_of_limit(result: Result, name: str, measured: Measured) -> Optional[float]:
    """How near a contender comes to what the memory can do."""
    facts = result.facts
    if not facts.touched:
        return None
    bandwidth = measured.bandwidth['one thread' if facts.worker else 'device']
    return facts.touched / bandwidth / (1e-3 * result.ms[name])


# --- tables ---------------------------------------------------------------------------


def _ms(value: float) -> str:
    """Three digits."""
    digits = max(2 - int(np.floor(np.log10(value))), 0) if value > 0 else 0
    return f'{value:.{min(digits, 4)}f}'


def _times(value: float) -> str:
    return f'{value:.{2 if value < 2 else 1 if value < 9.95 else 0}f}×'


def _share(value: Optional[float]) -> str:
    return '–' if value is None else f'{100 * value:.2g} %'


def _megabytes(value: Optional[int]) -> str:
    if value is None:
        return '–'
    return f'{value / 2**20:.0f} MB' if value >= 2**20 else '< 1 MB'


def _bytes(value: int) -> str:
    return f'{value / 1e6:.3g} MB' if value >= 1e6 else f'{value / 1e3:.3g} kB'


def _keypoint_bytes(row: Row) -> int:
    """Of a person's keypoints and scores."""
    return 4 * 3 * row.result.facts.size.keypoints


def _map_bytes(row: Row) -> int:
    """Of a person's maps."""
    facts = row.result.facts
    channels = 1 if facts.codec == 'gaussian' else 3
    return 4 * channels * facts.size.keypoints * facts.size.pixels


def _label(row: Row) -> str:
    facts = row.result.facts
    name = '' if row.name == OURS else f', {row.name}'
    return f'{NAMES[facts.codec]}{name}: {facts.size.label}, batch {facts.batch}'


Column = Callable[[Row], str]

MS: Dict[str, Column] = {
    'ours (ms)': lambda row: _ms(row.ms()),
    'built-in (ms)': lambda row: _ms(row.ms(BUILTIN)),
    'as fast': lambda row: f'**{_times(row.ratio())}**',
}
LIMIT: Dict[str, Column] = {'of the memory limit': lambda row: _share(row.share)}
MEMORY: Dict[str, Column] = {
    'memory': lambda row: _megabytes(row.result.peak_bytes[row.name]),
    'built-in memory': lambda row: _megabytes(row.result.peak_bytes[BUILTIN]),
}


def _against(other: str, name: str) -> Dict[str, Column]:
    def cell(row: Row, form: Callable[[Row], str]) -> str:
        return form(row) if other in row.result.ms else '–'

    return {
        f'{name} (ms)': lambda row: cell(row, lambda row: _ms(row.ms(other))),
        'as fast as it': lambda row: cell(row, lambda row: _times(row.ratio(other))),
    }


def _table(
    title: str, rows: Sequence[Row], columns: Dict[str, Column], text: str
) -> Table:
    cells = [
        [_label(row), *(column(row) for column in columns.values())] for row in rows
    ]
    return Table(title, ['', *columns], cells, text)


def tables_of(rows: Sequence[Row], measured: Measured) -> List[Table]:
    """In the order of what a reader wants to know."""
    found: Dict[str, List[Row]] = {operation: [] for operation in OPERATIONS}
    noise = []
    for row in sorted(rows, key=lambda row: row.result.facts.codec):
        if row.result.facts.maps in NOISES:
            noise.append(row)
        elif row.result.axis is None:
            found[row.result.facts.operation].append(row)
    usual = {
        (row.result.facts._replace(maps=''), row.name): row.ms()
        for row in found['decode']
    }

    def against_usual(row: Row) -> str:
        ms = usual.get((row.result.facts._replace(maps=''), row.name))
        return _times(row.ms() / ms) if ms else '–'

    return [
        _table(
            'Decode a batch',
            found['decode'],
            {**MS, **_against(OPENCV, 'OpenCV'), **LIMIT, **MEMORY},
            'Maps to keypoints in input px, ms a person. *OpenCV* is the authors’ '
            'decoding, one map after another. At the memory limit, the maps in which '
            'peaks are looked for would be read once.',
        ),
        _table(
            'Decode maps without a peak',
            noise,
            {
                'maps': lambda row: row.result.facts.maps,
                **MS,
                'time on usual maps': against_usual,
            },
            'The worst there is: noise of standard deviation 0.03 around 0, or around '
            '0.5 (*on a plateau*); ms a person, and in the last column how many times '
            'that on maps as a network gives them.',
        ),
        _table(
            'Decode in an exported graph',
            found['decode in a graph'],
            {
                **MS,
                'out of the graph': lambda row: _bytes(_keypoint_bytes(row)),
                'maps': lambda row: _bytes(_map_bytes(row)),
                'adds to the file': lambda row: _bytes(row.result.file_bytes[row.name]),
            },
            'Keypoints out of a graph, as `udp-plugin export` writes it, against maps '
            'out of one and the built-in decoding, in NumPy, after it. Both begin with '
            'a multiplication of the maps, in the place of a network. onnxruntime on '
            'the CPU; ms a person, and bytes a person that come out.',
        ),
        _table(
            'Encode a sample',
            found['encode'],
            {**MS, **LIMIT, **MEMORY},
            'Keypoints to a target, as a data loader’s worker does it, in one thread; '
            'ms a person. At the memory limit, the maps would be written once.',
        ),
        _table(
            'Encode a batch at once',
            found['encode a batch'],
            {**MS, **LIMIT, **MEMORY},
            'Keypoints to targets where the network is, as with '
            '`OffsetTargetGenerator(on_device=True)`, against the built-in’s samples, '
            'made one after another and stacked; ms a person.',
        ),
        _table(
            'Loss',
            found['loss'],
            {**MS, **_against(PLAIN_MSE, 'plain MSE'), **LIMIT, **MEMORY},
            'The loss of offset maps and its gradient; the built-in is '
            '`CombinedTargetMSELoss`, whose formula is the *published* one; ms a '
            'person. *Plain MSE* is `KeypointMSELoss` of as many maps. At the memory '
            'limit, maps and target would be read once, and the gradient written.',
        ),
        _table(
            'Flip test',
            found['flip'],
            {**MS, **LIMIT, **MEMORY},
            'The mean of maps and of those of the mirrored input, ms a person. At the '
            'memory limit, both would be read once, and the mean written.',
        ),
        _pipeline_table(
            'A worker of the data loader',
            found['load'],
            lambda facts, ms: f'{1e3 * facts.batch / ms:.0f}',
            'Samples a second of the train pipeline, from a drawn JPEG of 640×480 px, '
            'in one thread.',
        ),
        _pipeline_table(
            'A training iteration',
            found['train'],
            lambda facts, ms: _ms(ms),
            'Forward, loss, backward and step of a slim ResNet-18, ms an iteration. '
            'With `on_device=True`, the targets are made here and not by the workers.',
        ),
        _pipeline_table(
            'A validation pass',
            found['validate'],
            lambda facts, ms: _ms(ms),
            'The same network with the flip test, through the estimator, ms a batch.',
        ),
        scaling_table(measured),
        operators_table(rows),
    ]


def operators_table(rows: Sequence[Row]) -> Table:
    """Where the time goes in what is not much faster than the built-in."""
    cells = []
    for row in rows:
        facts = row.result.facts
        operators = row.result.operators.get(row.name)
        if operators and facts.maps not in NOISES and row.ratio() < MUCH_FASTER:
            calls = sum(calls for _, calls, _ in operators)
            longest = (f'{name} {100 * share:.0f} %' for name, _, share in operators)
            cells.append(
                [
                    f'{facts.operation}, {_label(row)}',
                    _times(row.ratio()),
                    _ms(row.result.ms[row.name]),
                    str(calls),
                    ', '.join(list(longest)[:6]),
                ]
            )
    return Table(
        'Where the time goes',
        ['', 'as fast', 'ms a call', 'operators', 'the longest, of the time in all'],
        cells,
        f'In what is less than {MUCH_FASTER} times as fast as the built-in, by '
        "torch's profiler. Each operator takes some microseconds however small it is, "
        'which is what there is to a call for one person. In larger batches it is '
        'moving memory: reading the maps (`amax`), gathering windows of them (`index`) '
        'and, for a gradient, memory that the system has to make first (`sub`). What '
        'NumPy does is not in it.',
    )


def _pipeline_table(
    title: str, rows: Sequence[Row], shown: Callable[..., str], text: str
) -> Table:
    cells = [
        [
            _label(row),
            *(
                shown(row.result.facts, row.result.ms[name])
                for name in (row.name, BUILTIN)
            ),
            f'**{row.ratio():.2f}×**',
        ]
        for row in rows
    ]
    text += (
        ' Stock `UDPHeatmap`, `HeatmapHead`, `GenerateTarget` and '
        '`TopdownAffine(use_udp=True)` against the same config with swapped names.'
    )
    return Table(title, ['', 'ours', 'stock', 'as fast'], cells, text)


def scaling_table(measured: Measured) -> Table:
    """By which power time and memory grow."""
    rows = []
    for (axis, operation, codec), line in _lines(measured).items():
        sizes, ms, peaks = (np.array(each) for each in zip(*line))
        slopes = []
        for values in (ms, peaks):
            # Of the upper half, where constants count least.
            x, y = np.log(sizes[-3:]), np.log(values[-3:])
            known = np.isfinite(y)
            slope = np.polyfit(x[known], y[known], 1)[0] if known.sum() > 1 else None
            slopes.append('–' if slope is None else f'{slope:.2f}')
        rows.append([f'{operation}, {NAMES[codec]}: {axis}', *slopes])
    return Table(
        'How it scales',
        ['', 'time', 'memory'],
        rows,
        'Powers by which time and peak memory grow with one thing while the others '
        'stay, over the three largest of each: 1 is proportional.',
    )


def _lines(measured: Measured) -> Dict[Tuple[str, str, str], list]:
    """Of ours by (axis, operation, codec): what is varied, ms a call, and bytes."""
    lines: Dict[tuple, list] = {}
    for row in rows_of(measured):
        facts, axis = row.result.facts, row.result.axis
        if axis is None:
            continue
        varied = {
            'batch': facts.batch,
            'keypoints': facts.size.keypoints,
            'pixels of a map': facts.size.pixels,
        }[axis]
        peak = row.result.peak_bytes[row.name]
        # Less is noise.
        peak = peak if peak and peak >= 2**20 else float('nan')
        line = lines.setdefault((axis, facts.operation, facts.codec), [])
        line.append((varied, row.result.ms[row.name], peak))
    return lines


def conclusion(rows: Sequence[Row]) -> str:
    """What the figures say, in a few sentences."""
    names = {
        'decode': 'Decoding',
        'decode in a graph': 'decoding in an exported graph',
        'encode': 'encoding a sample',
        'encode a batch': 'encoding a batch',
        'loss': 'the loss',
        'flip': 'joining the flip test’s maps',
    }
    parts = []
    for operation, name in names.items():
        ratios = [
            row.ratio()
            for row in rows
            if row.result.facts.operation == operation and row.result.axis is None
        ]
        if ratios:
            parts.append(f'{name} {_times(min(ratios))} to {_times(max(ratios))}')
    compared = [row for row in rows if row.result.axis is None]
    slower = sum(row.ratio() < 0.97 for row in compared)
    return (
        'Times as fast as the built-ins, from the least to the most: '
        f'{", ".join(parts)}. Of {len(compared)} comparisons, the whole pipeline '
        f'included, {slower} are slower than stock by more than 3 %.'
    )


# --- files ----------------------------------------------------------------------------


def machine_of(device: str) -> dict:
    """What it ran on."""
    name, cores = processor()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    machine = dict(processor=name, cores=cores, threads=threads, gpu=gpu)
    return dict(machine, device=device, **versions())


def machine_line(device: str) -> str:
    """The same in a line, for people."""
    machine = machine_of(device)
    gpu = f'{machine["gpu"]}, ' if device == 'cuda' else ''
    return (
        f'{gpu}{machine["processor"]}, {machine["threads"]} of '
        f'{machine["cores"] or "?"} cores used; torch {torch.__version__}, NumPy '
        f'{np.__version__}, OpenCV {cv2.__version__}, MMPose {mmpose.__version__}; '
        f'{date.today().isoformat()}'
    )


def content_of(args: Namespace, measured: Measured) -> dict:
    """What ``bench.json`` has, see :data:`KEYS`."""

    def contender(result: Result, name: str) -> dict:
        return dict(
            ours=name not in OTHERS,
            ms=result.ms[name],
            ms_per_sample=result.ms[name] / result.facts.batch,
            times_as_fast=result.ms[BUILTIN] / result.ms[name],
            share_of_limit=share_of_limit(result, name, measured),
            peak_bytes=result.peak_bytes[name],
            file_bytes=result.file_bytes.get(name),
            operators={
                operator: dict(calls=calls, share=round(share, 4))
                for operator, calls, share in result.operators.get(name, ())
            },
        )

    return dict(
        command=args.command,
        date=date.today().isoformat(),
        seconds=round(measured.seconds, 1),
        machine=machine_of(args.device),
        copy_bytes_per_second=measured.bandwidth,
        maps_compared=measured.compared,
        left_out=measured.left_out,
        results=[
            dict(
                operation=result.facts.operation,
                codec=result.facts.codec,
                keypoints=result.facts.size.keypoints,
                heatmap_size=result.facts.size.heatmap_size,
                batch=result.facts.batch,
                maps=result.facts.maps,
                one_thread=result.facts.worker,
                axis=result.axis,
                rounds=result.rounds,
                least_bytes=result.facts.touched,
                contenders={name: contender(result, name) for name in result.ms},
            )
            for result in measured.results
        ],
    )


PAGE = """\
# The bench: how fast, and how much memory

<!-- Written by `udp-plugin bench`; `make bench` puts it here. -->

{machine}

{conclusion}

`udp-plugin bench` ({minutes:.0f} minutes) makes this page. Ours is measured beside the
built-ins of MMPose and the authors' decoding, in one run and on the same data: each
round runs each contender once, in turn, and figures are medians over the rounds. Before
each is timed, its answers are compared, in all those of {compared} maps: with the
built-ins and OpenCV where these are well-defined, and with a plain statement of the
same in float64, to 1e-4 heatmap px (but where rounding alone decides which pixel is the
highest, and to what rounding makes of DARK's step from a nearly flat top). A wrong
answer ends the command, without figures.

{about}

*As fast* is the built-in's time divided by ours. *Of the memory limit* is the time in
which a plain copy moves as many bytes as have to be read or written at least, divided
by ours; a copy of 256 MB reads and writes {bandwidth:.1f} GB/s here, {one_thread:.1f}
in one thread, but maps that fit into a cache can be faster than that. *Memory* is the
peak beyond the inputs, the answer included.

![Times as fast as the built-ins](images/bench_ratios.png)

{tables}
![Time and memory against batch, keypoints and pixels](images/bench_scaling.png)

{left_out}## bench.json

The same figures for programs are in `bench.json`, or on the standard output with
`--json`. Its keys:

{keys}
"""


def write_page(
    args: Namespace, rows: Sequence[Row], tables: Sequence[Table], measured: Measured
) -> str:
    """The result page in Markdown."""
    left_out = ''.join(f'- {line}\n' for line in measured.left_out)
    return PAGE.format(
        machine=machine_line(args.device),
        conclusion=conclusion(rows),
        minutes=measured.seconds / 60,
        compared=measured.compared,
        about=ABOUT,
        bandwidth=measured.bandwidth['device'] / 1e9,
        one_thread=measured.bandwidth['one thread'] / 1e9,
        tables='\n'.join(table.markdown() for table in tables),
        left_out=f'Left out:\n\n{left_out}\n' if left_out else '',
        keys='\n'.join(f'- `{key}`: {text}' for key, text in KEYS.items()),
    )


# --- plots ----------------------------------------------------------------------------


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, facecolor='white')
    return path


def draw_ratios(folder: Path, rows: Sequence[Row]) -> Path:
    """How many times as fast as the built-in, a dot for each size and batch."""

    def place(row: Row) -> Tuple[int, str, str, str]:
        facts = row.result.facts
        noise = facts.maps if facts.maps in NOISES else ''
        return OPERATIONS.index(facts.operation), facts.codec, noise, row.name

    rows = [row for row in rows if row.result.axis is None]
    # Readings stay in their order.
    rows.sort(key=lambda row: place(row)[:3])
    places = list(dict.fromkeys(map(place, rows)))
    sizes = sorted({row.result.facts.size for row in rows})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.19 * len(places)), layout='constrained')
        ax = figure.subplots()
        ax.axvline(1, color='0.3', linewidth=1)
        ax.axvline(10, color='0.3', linewidth=1, linestyle=':')
        for i, (size, color) in enumerate(zip(sizes, COLORS)):
            shown = [row for row in rows if row.result.facts.size == size]
            batches = sorted({row.result.facts.batch for row in shown})
            ax.scatter(
                [row.ratio() for row in shown],
                [places.index(place(row)) + 0.25 * (i - 1) for row in shown],
                s=[10 + 10 * batches.index(row.result.facts.batch) for row in shown],
                color=color,
                linewidths=0,
                label=size.label,
            )
        labels = [
            ', '.join(
                filter(
                    None,
                    (
                        OPERATIONS[operation],
                        NAMES[codec],
                        noise,
                        '' if name == OURS else name,
                    ),
                )
            )
            for operation, codec, noise, name in places
        ]
        ax.set_yticks(range(len(places)), labels)
        ax.set_ylim(len(places) - 0.4, -0.6)
        ax.set(xscale='log', xlabel='times as fast as the built-in')
        ax.xaxis.set_major_formatter('{x:g}×')
        ax.grid(axis='y', color='0.93')
        ax.set_axisbelow(True)
        figure.legend(
            frameon=False,
            ncols=3,
            loc='outside upper center',
            title='the larger the dot, the larger the batch',
        )
        return _save(figure, folder / 'bench_ratios.png')


def draw_scaling(folder: Path, measured: Measured) -> Path:
    """Time and peak memory against batch, keypoints and map size."""
    lines = _lines(measured)
    axes_of = list(dict.fromkeys(axis for axis, _, _ in lines))
    kinds = list(dict.fromkeys((operation, codec) for _, operation, codec in lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.4), layout='constrained')
        panels = figure.subplots(2, len(axes_of), squeeze=False, sharey='row')
        for column, axis in enumerate(axes_of):
            for kind, color in zip(kinds, COLORS):
                x, ms, peaks = zip(*lines[(axis, *kind)])
                label = f'{kind[0]}, {NAMES[kind[1]]}'
                for row, values in enumerate((ms, np.array(peaks) / 2**20)):
                    panels[row, column].plot(
                        x, values, 'o-', color=color, markersize=4, label=label
                    )
            for ax in panels[:, column]:
                drawn = np.concatenate([line.get_ydata() for line in ax.lines])
                # Memory is too little to tell in a quick look.
                ax.set(
                    xscale='log',
                    yscale='log' if np.nanmax(drawn, initial=0) else 'linear',
                )
                ax.set_xticks(x, list(map(str, x)))
                ax.tick_params(axis='x', which='minor', bottom=False, labelbottom=False)
                ax.grid(color='0.93')
                _draw_slope(ax, x)
            panels[0, column].set_title(f'against {axis}')
            panels[1, column].set_xlabel(axis)
        panels[0, 0].set_ylabel('ms a call')
        panels[1, 0].set_ylabel('peak memory (MB)')
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, frameon=False, ncols=5, loc='outside lower center'
        )
        return _save(figure, folder / 'bench_scaling.png')


def _draw_slope(ax, x: Sequence[float]) -> None:
    """A line of slope 1 through the panel's middle."""
    values = [line.get_ydata() for line in ax.lines]
    values = np.concatenate(values) if values else np.array([])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    middle = np.exp(np.log(values).mean()) / np.exp(np.log(x).mean())
    ends = np.array([min(x), max(x)])
    ax.plot(ends, middle * ends, '--', color='0.6', linewidth=1, label='slope 1')
