"""What ``udp-plugin paper`` shows: tables, figures and the page ``paper.md``."""

from argparse import Namespace
from datetime import date
from typing import List, Optional, Sequence, Tuple

import numpy as np
from rich.console import Console

from udp_plugin import functional as F
from udp_plugin.audit.measures import BORDER, NOISE, UNIT_LENGTH, EndToEnd
from udp_plugin.ui import Table, processor, versions

from . import run as paper
from .figures import (
    FLIPS,
    NEAR,
    along,
    draw_ceiling,
    draw_coding,
    draw_flip,
    draw_transform,
    flip_distance,
    near,
    text_of,
)
from .run import Measured, Pipeline, Size

#: An AP below this shows a loss when written with one digit.
FULL_AP = 99.95
#: What OKS people have to reach.
STRICT = (0.95, 0.99)

#: COCO AP of trained networks, from the paper: without UDP, and with it.
PAPERS = {
    'val2017, ResNet-50 256×192': ('71.3', '72.9'),
    'val2017, HRNet-W32 256×192': ('75.6', '76.8 (R 4.0), 77.2 (R 3.5)'),
    'val2017, HRNet-W48 384×288': ('77.1', '77.8'),
    'test-dev, ResNet-50 256×192': ('70.2', '71.7'),
    'test-dev, HRNet-W32 256×192': ('73.5', '75.2'),
}


def report(args: Namespace, measured: Measured, console: Console) -> None:
    """Tabulate, draw and write what was measured."""
    pictures = args.out / 'images'
    drawn = [
        draw_flip(pictures, measured),
        draw_coding(pictures, measured),
        draw_transform(pictures, measured),
        draw_ceiling(pictures, measured),
    ]
    page = args.out / 'paper.md'
    page.write_text(write_page(args, measured), encoding='utf-8')
    for table in tables(measured):
        console.print()
        table.print(console)
    console.print()
    for path in (page, *drawn):
        console.print(str(path), soft_wrap=True)
    console.print(f'took {measured.seconds / 60:.1f} min')


# --- tables ---------------------------------------------------------------------------


def tables(measured: Measured) -> List[Table]:
    """All of them, in their order."""
    return [
        flip_table(measured),
        coding_table(measured),
        strides_table(measured),
        transform_table(measured),
        *(end_table(measured, size) for size in _shown(measured)),
    ]


def _shown(measured: Measured) -> List[Size]:
    """The sizes that have a table: the first, the middle and the last."""
    sizes = measured.plan.ends
    places = sorted({0, len(sizes) // 2, len(sizes) - 1})
    return [sizes[place] for place in places]


def _px(value: float) -> str:
    return f'{value:.2f}' if value >= 0.005 or value == 0 else '< 0.005'


def _pair(value: float, theory: Optional[float]) -> str:
    return f'{value:.2f} / {"–" if theory is None else f"{theory:.2f}"}'


def _label(pipeline: Pipeline) -> str:
    """With the codec's name as code."""
    name, bracket, rest = pipeline.label.partition(' (')
    return f'`{name}`{bracket}{rest}'


def flip_table(measured: Measured) -> Table:
    """Distances of mirrored maps, for strides and sizes."""
    rows, worst = [], 0.0
    for (_, size, stride), (flip, expected) in measured.flips.items():
        cells = []
        for name in FLIPS:
            found, theory = flip_distance(flip, name), expected[name].x
            worst = max(worst, abs(found - theory) if theory is not None else 0.0)
            cells.append(_pair(found, theory))
        unbiased = expected['alone'].equation == 'Eq. 46'
        measure = 'unbiased' if unbiased else 'biased'
        rows.append([f'{measure}, {text_of(size)}, stride {stride}', *cells])
    # Biased ones first.
    rows.sort(key=lambda row: row[0].startswith('unbiased'))
    return Table(
        'Distance of the mirrored maps from the direct ones',
        ['', *FLIPS.values()],
        rows,
        f'Measured / theory, mean along x in input px. Of `{paper.MSRA.label}` '
        f'(biased; Eq. 36, and 39 where shifted) and `{paper.OUR_GAUSSIAN.label}` '
        f'(unbiased; Eq. 46): the centroids of what the targets of keypoints and of '
        'their mirror images give, averaged as the flip test does. No figure is '
        f'farther from theory than {worst:.3f} px.',
    )


def coding_table(measured: Measured) -> Table:
    """Errors of encoding and decoding at the zoo's stride."""
    rows = []
    for (pipeline, stride), (coding, expected) in measured.codings.items():
        if stride != paper.STRIDE:
            continue
        errors = np.abs(coding.errors)
        border = np.abs(np.concatenate(coding.border))
        rows.append(
            [
                _label(pipeline),
                _px(errors.mean()),
                '–' if expected.x is None else f'{expected.x:.2f}',
                expected.equation,
                _px(np.percentile(errors, 95)),
                _px(errors.max()),
                _px(border.mean()),
                _px(border.max()),
                _px(np.abs(coding.noisy).mean()),
                _px(np.percentile(np.abs(coding.noisy), 95)),
            ]
        )
    sizes = f'{text_of(measured.plan.input_size)}, stride {paper.STRIDE}'
    return Table(
        f'Encoding and decoding, {sizes}',
        [
            'codec',
            'mean',
            'theory',
            'by',
            '95 %',
            'max',
            'border, mean',
            'border, max',
            'noise, mean',
            'noise, 95 %',
        ],
        rows,
        'Absolute errors an axis, input px, of keypoints at all sub-pixel positions. '
        f'*Border*: across the nearest edge, of keypoints within {BORDER:g} heatmap px '
        f'of it. *Noise*: with white noise on all maps, {NOISE:.0%} of the peak.',
    )


def strides_table(measured: Measured) -> Table:
    """Errors of encoding and decoding at all strides."""
    strides = measured.plan.strides
    rows = []
    for pipeline in paper.CODED:
        pairs, noise = [], []
        for stride in strides:
            coding, expected = measured.codings[pipeline, stride]
            pairs.append(_pair(float(np.abs(coding.errors).mean()), expected.x))
            noise.append(_px(np.abs(coding.noisy).mean()))
        rows.append([_label(pipeline), *pairs, *noise])
    return Table(
        f'Encoding and decoding, {text_of(measured.plan.input_size)}, other strides',
        [
            'codec',
            *(f'stride {stride}' for stride in strides),
            *(f'stride {stride}, noise' for stride in strides),
        ],
        rows,
        'Mean absolute errors an axis, input px: measured / theory, then with noise. '
        + _sigmas(measured),
    )


def _sigmas(measured: Measured) -> str:
    size = measured.plan.input_size
    chosen = ', '.join(
        f'{measured.sigmas[size, stride]:g} at stride {stride}'
        for stride in measured.plan.strides
    )
    return (
        "Sigma is a 32nd of the maps' longer side, as in the zoo, but at least 1 "
        f'heatmap px: {chosen}; DARK blurs by 6 sigma − 1 px, and discs have '
        f'R = {F.RADIUS_PER_SIGMA:g} sigma. `UDPHeatmap` blurs discs by 23 px at any '
        'stride, its default.'
    )


def transform_table(measured: Measured) -> Table:
    """Forward against backward, and what half of UDP costs."""
    size = measured.plan.input_size
    rows = []
    for pipeline, (warp, coding, end) in measured.warps.items():
        unbiased = warp.kind == UNIT_LENGTH
        # What a reading in unit lengths makes of a place in pixels, and half of it.
        theory = 0.0 if warp.kind == coding.kind else F.unit_length(size)[1] / size[1]
        far = round(_at_far_edge(end, size), 2)
        rows.append(
            [
                _label(pipeline),
                f'{warp.kind} (Eq. {41 if unbiased else 30})',
                f'{coding.kind} (Eq. {43 if coding.kind == UNIT_LENGTH else 32})',
                f'{np.abs(warp.deviation).mean():.4f}',
                f'{np.nanmean(np.abs(warp.misfit)):.4f}',
                _pair(float(np.abs(end.round_trip).mean()), theory / 2),
                *map(_px, np.abs(end.input_px).mean(0)),
                _pair(far or 0.0, theory),
            ]
        )
    return Table(
        f'Transforms, {text_of(size)}, stride {paper.STRIDE}',
        [
            'pipeline',
            'warp',
            'target',
            'to its equation',
            'image to keypoints',
            'there and back',
            'end to end, x',
            'end to end, y',
            'at the bottom',
        ],
        rows,
        'Mean absolute distances in input px. *To its equation*: of warped keypoints '
        'from what the equation of the warp says. *Image to keypoints*: of blobs that '
        'are drawn at keypoints from those, in the warped image. *There and back*: of '
        'keypoints after the forward warp, a perfect network without the flip test and '
        'the backward mapping; measured / theory. *End to end*: of '
        f'{len(end.persons)} random people, flip test included. *At the bottom*: the '
        'signed error along y at the lower edge of the input, by a straight line '
        'through theirs; measured / theory.',
    )


def _at_far_edge(end: EndToEnd, size: Size) -> float:
    y, errors = along(end, 1)
    slope, start = np.polyfit(y, errors, 1)
    (last,) = F.unit_length(size[1:])
    return float(slope * last + start)


def expected_end(pipeline: Pipeline, size: Size) -> Tuple[Optional[float], ...]:
    """The mean error of a perfect network on each axis, input px, if theory has it."""
    if pipeline is paper.HALF:
        return None, None
    maps = size[0] // paper.STRIDE
    biased = pipeline.config in (paper.STOCK, paper.STOCK_DARK)
    if not biased:
        return 0.0, 0.0
    if pipeline.config == paper.STOCK:
        # Along x, maps that are rounded at two places are averaged.
        return None, paper.STRIDE / 4
    shifted = pipeline.shift is not False
    distance = F.flip_misalignment(size[0], maps, unbiased=False, shifted=shifted)
    return abs(distance) * paper.STRIDE / 2, 0.0


def end_table(measured: Measured, size: Size) -> Table:
    """From end to end at an input size."""
    rows = []
    for pipeline in paper.ENDED:
        end, ap = measured.ends[pipeline, size]
        errors = np.abs(end.input_px).mean(0)
        shares = [
            *(np.mean(end.oks >= least) for least in STRICT),
            *(near(end, most) for most in NEAR),
        ]
        rows.append(
            [
                _label(pipeline),
                *map(_pair, errors, expected_end(pipeline, size)),
                f'{end.oks.mean():.4f}',
                f'{ap:.1f}',
                *(f'{100 * share:.0f}' for share in shares),
            ]
        )
    return Table(
        f'End to end, {text_of(size)}, stride {paper.STRIDE}',
        [
            'pipeline',
            'error x',
            'error y',
            'mean OKS',
            'COCO AP',
            *(f'OKS ≥ {least:g}' for least in STRICT),
            *(f'within {most:g} px' for most in NEAR),
        ],
        rows,
        'Mean absolute errors in input px, measured / theory; per cent of people with '
        'such an OKS, and of keypoints within such a distance in input px.',
    )


# --- sentences ------------------------------------------------------------------------


def coding_notes(measured: Measured) -> str:
    """What is not as theory has it, in sentences that the figures are asked for."""
    notes = []
    for (pipeline, stride), (coding, expected) in measured.codings.items():
        found = float(np.abs(coding.errors).mean())
        if expected.x and abs(found / expected.x - 1) > 0.01:
            notes.append(
                f'{_label(pipeline)} at stride {stride} is off by {found:.2f} px '
                f'instead of {expected.x:.2f}: a rounded target is symmetric, so that '
                'rounding errors alone decide where the quarter step goes; where that '
                'is one way always, 5/16 of a heatmap pixel an axis are left.'
            )
    wide, narrow = (
        {
            stride: float(np.abs(measured.codings[codec, stride][0].noisy).mean())
            for stride in measured.plan.strides
        }
        for codec in (paper.OUR_GAUSSIAN, paper.GAUSSIAN)
    )
    worse = [stride for stride in wide if wide[stride] > 1.2 * narrow[stride]]
    if worse:
        text = ' and '.join(map(str, worse))
        notes.append(
            f'With noise at stride {text}, `{paper.OUR_GAUSSIAN.label}` is worse than '
            f'`{paper.GAUSSIAN.label}`: it steps no farther than a heatmap pixel from '
            'the argmax, which noise moves farther on so wide a Gaussian.'
        )
    far = {
        codec: float(np.abs(np.concatenate(coding.border)).max())
        for (codec, stride), (coding, _) in measured.codings.items()
        if stride == paper.STRIDE
    }
    notes.append(
        f'At the border `{paper.GAUSSIAN.label}` is off by up to '
        f'{_px(far[paper.GAUSSIAN])} px on perfect maps, and '
        f'`{paper.OUR_GAUSSIAN.label}` by {_px(far[paper.OUR_GAUSSIAN])}: its window '
        'moves inwards there.'
    )
    return ' '.join(notes)


def zoo_note(measured: Measured) -> str:
    """What became of ``UDPHeatmap`` in the zoo."""
    zoo = measured.zoo

    def listed(names: Sequence[str]) -> List[str]:
        return ['', *(f'- `{name}`' for name in names), '']

    lines = [
        f'Of the {sum(map(len, zoo))} configs of the zoo that name `UDPHeatmap`, '
        f'{len(zoo.half)} have it in the model, and a biased warp in their pipelines:',
        *listed(zoo.half),
    ]
    if zoo.none:
        lines += [
            f'{len(zoo.none)} name it to no effect: they set the variables `codec` and '
            '`train_pipeline`, but inherit model and data sets that were made of '
            "their base's. These train and test as biased configs do, and without the "
            'shift of the flip test where they switch it off:',
            *listed(zoo.none),
        ]
    return '\n'.join(lines)


def ceiling_note(measured: Measured) -> str:
    """From which input size on the AP of a perfect network falls."""
    sizes = sorted(measured.plan.ends, reverse=True)

    def falls(pipeline: Pipeline) -> Optional[Size]:
        for size in sizes:
            if measured.ends[pipeline, size].ap < FULL_AP:
                return size
        return None

    first = {size: [p for p in paper.ENDED if falls(p) == size] for size in sizes}
    largest = sizes[0]
    full = len(paper.ENDED) - len(first[largest])
    lines = [
        f'At {text_of(largest)} a perfect network has a COCO AP of 100.0 in {full} of '
        f'{len(paper.ENDED)} pipelines. The largest input here at which it has less:',
        '',
    ]
    for size, found in first.items():
        aps = (f'{_label(p)} ({measured.ends[p, size].ap:.1f})' for p in found)
        if found:
            lines.append(f'- {text_of(size)}: {", ".join(aps)};')
    never = [p for p in paper.ENDED if falls(p) is None]
    if never:
        lines.append(f'- none: {", ".join(map(_label, never))}.')
    return '\n'.join(lines)


# --- the page -------------------------------------------------------------------------

PAGE = """\
# The paper, measured

<!-- Written by `udp-plugin paper`. -->

{machine}

*The Devil is in the Details* (Huang et al., [arXiv:1911.07524v2]\
(https://arxiv.org/abs/1911.07524v2)) derives what the usual processing costs. This page
walks through its claims and puts measured figures beside the theory. What is measured
are the components of MMPose and of this package, built as the zoo's configs have them
or as `udp-plugin convert` swaps their names, at the sizes that are said. In the
network's place stand perfect maps: the target of the keypoints in the image, and of
those in its mirror image. Pixels are those of the network's input where nothing else is
said. The configs are

{configs}

All figures but the paper's own results at the end are of this run:

```bash
{command}
```

It takes {minutes:.1f} minutes. From end to end, keypoints are those of {people}.

## 1. The flip test

Where sizes are counted in pixels, the maps of the mirrored input lie
−(s − 1)/s heatmap pixels beside the direct ones, at stride s (Eq. 36). The shift by one
heatmap pixel that the usual code makes leaves 1/s (Eq. 39), and half of that after
averaging. Measured by unit lengths they coincide (Eq. 46), and the shift brings a whole
heatmap pixel back.

{flip}
![Measured and theoretical distances against the stride](images/paper_flip.png)

## 2. Encoding and decoding

A keypoint that is rounded to a heatmap pixel (Eq. 17, 18) is off by a quarter of that
pixel an axis on the average. A Gaussian that keeps its centre, read by DARK's step, and
the paper's disc and offsets (Eq. 24-26, 29) lose nothing.

{coding}
{strides}
{coding_notes}

![Errors against the sub-pixel position, and with noise](images/paper_coding.png)

## 3. The transform

From source to input and back, the biased pipeline (Eq. 30, 32, 33) and the unbiased one
(Eq. 41, 43, 47) are each consistent: without the flip test, what goes in comes out.
They must not be mixed. Behind a biased warp, an unbiased codec errs by an amount that
grows over the input from 0 to (p − 1)/p pixels, p being its number of pixels: half a
pixel on the average.

{transform}
{zoo}
![Errors along the input](images/paper_transform.png)

## 4. From end to end

What all of it costs a network that makes no errors: from the source image through warp,
maps, flip test and reading back to the source image. Half of Eq. 39 is left to DARK
with the shift, half of Eq. 36 without it, and nothing to the unbiased pipelines (Eq.
41-47). Rounding adds its quarter of a heatmap pixel; along x, the flip test averages
maps that are rounded at different places, for which the paper has no figure. The zoo's
biased configs shift; *no shift* is the same with `shift_heatmap=False`.

{ends}
{ceiling}

![AP, OKS and precision of a perfect network against the input size]\
(images/paper_ceiling.png)

A ceiling is not a gain. COCO's AP is lenient: its strictest threshold is an OKS of
0.95, which a perfect network passes with errors of a pixel or so at 192×256. A trained
network has errors of its own; these add to them, and thresholds are missed that would
be passed without. What trained networks gain is not measured here. The paper reports,
in COCO AP:

{papers}
What networks gain that are trained alike on drawn figures is in [the study](study.md).
"""


def machine_line() -> str:
    """What it ran on, in a line."""
    name, cores = processor()
    found = versions()
    return (
        f'{name}, {cores or "?"} cores; torch {found["torch"]}, NumPy '
        f'{found["numpy"]}, OpenCV {found["opencv-python"]}, MMPose '
        f'{found["mmpose"]}; {date.today().isoformat()}'
    )


def command_of(args: Namespace) -> str:
    """The command, without folders of the machine."""
    command = 'udp-plugin paper'
    if args.ann is not None:
        command += f' --ann {args.ann.name} --img {args.img.resolve().name}/'
    return command


def people_of(args: Namespace, measured: Measured) -> str:
    """Whose keypoints it has."""
    if args.ann is None:
        return f'{measured.people} random people'
    return (
        f'the {measured.people} people with keypoints in the {measured.images} photos '
        f'of `{args.ann.name}`'
    )


def write_page(args: Namespace, measured: Measured) -> str:
    """The page in Markdown."""
    flip, coding, strides, transform, *ends = (
        table.markdown() for table in tables(measured)
    )
    rows = [[what, *aps] for what, aps in PAPERS.items()]
    header = ['', 'without UDP', 'with UDP']
    configs = (paper.STOCK, paper.STOCK_DARK, paper.STOCK_UDP, paper.STOCK_COMBINED)
    return PAGE.format(
        machine=machine_line(),
        command=command_of(args),
        configs='\n'.join(f'- `{name}`' for name in configs),
        minutes=measured.seconds / 60,
        people=people_of(args, measured),
        flip=flip,
        coding=coding,
        strides=strides,
        coding_notes=coding_notes(measured),
        transform=transform,
        zoo=zoo_note(measured),
        ends='\n'.join(ends),
        ceiling=ceiling_note(measured),
        papers=Table("The authors' numbers", header, rows).markdown(),
    )
