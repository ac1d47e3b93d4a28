"""The command ``udp-plugin paper``: the paper's claims, measured beside its theory.

Configs of the zoo, and what ``convert`` makes of them, get other input sizes and
strides, and the audit's functions measure them around a perfect network.
"""

import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from udp_plugin import functional as F
from udp_plugin.audit.measures import (
    Coding,
    EndToEnd,
    Flip,
    Transform,
    measure_coding,
    measure_end_to_end,
    measure_flip,
    measure_transform,
    random_people,
)
from udp_plugin.audit.parts import LOADERS, Parts
from udp_plugin.audit.people import annotated_people, average_precision
from udp_plugin.audit.run import RANDOM_PEOPLE
from udp_plugin.audit.theory import Expected, expected_coding, expected_flip
from udp_plugin.convert.run import read
from udp_plugin.convert.swaps import nodes, swap
from udp_plugin.convert.zoo import convertible, find_config, zoo_folder
from udp_plugin.ui import UserError, quiet, signals_interrupt

Size = Tuple[int, int]

#: Of the tables where nothing says how wide they may be.
PLAIN_WIDTH = 150


class Pipeline(NamedTuple):
    """A config of the zoo, and what is changed in it.

    Attributes:
        label: For people.
        config: Its name in the zoo.
        codec: In the place of its codec's type.
        swapped: The codec with which ``convert`` swaps names, if it does.
        shift: ``shift_heatmap`` of its flip test; None leaves it.
        biased_warp: Whether its warps lose ``use_udp``.
        resized: Whether it gets another size.
    """

    label: str
    config: str
    codec: str = ''
    swapped: str = ''
    shift: Optional[bool] = None
    biased_warp: bool = False
    resized: bool = True


_NAME = 'td-hm_hrnet-w32_{}8xb64-210e_coco-256x192'
STOCK, STOCK_DARK = _NAME.format(''), _NAME.format('dark-')
STOCK_UDP, STOCK_COMBINED = _NAME.format('udp-'), _NAME.format('udp-regress-')

MSRA = Pipeline('MSRAHeatmap', STOCK)
MEGVII = Pipeline('MegviiHeatmap', STOCK, codec='MegviiHeatmap')
DARK = Pipeline('MSRAHeatmap (DARK)', STOCK_DARK)
GAUSSIAN = Pipeline('UDPHeatmap', STOCK_UDP)
COMBINED = Pipeline('UDPHeatmap (combined)', STOCK_COMBINED)
OUR_GAUSSIAN = Pipeline('UDPGaussianHeatmap', STOCK_UDP, swapped='gaussian')
OUR_OFFSET = Pipeline('UDPOffsetHeatmap', STOCK_COMBINED, swapped='offset')
UNSHIFTED = MSRA._replace(label='MSRAHeatmap (no shift)', shift=False)
DARK_UNSHIFTED = DARK._replace(label='MSRAHeatmap (DARK, no shift)', shift=False)
HALF = GAUSSIAN._replace(label='UDPHeatmap (biased warp)', biased_warp=True)

#: What is measured in each section.
FLIPPED = (MSRA, OUR_GAUSSIAN)
CODED = (MSRA, MEGVII, DARK, GAUSSIAN, COMBINED, OUR_GAUSSIAN, OUR_OFFSET)
WARPED = (MSRA, DARK_UNSHIFTED, GAUSSIAN, OUR_GAUSSIAN, HALF)
ENDED = (
    UNSHIFTED,
    MSRA,
    DARK_UNSHIFTED,
    DARK,
    HALF,
    GAUSSIAN,
    COMBINED,
    OUR_GAUSSIAN,
    OUR_OFFSET,
)


class Plan(NamedTuple):
    """How much is measured; sizes are ``(width, height)`` of the input in pixels."""

    input_size: Size = (192, 256)
    strides: Tuple[int, ...] = (2, 4, 8, 16)
    #: Of the flip test, besides: input size and stride.
    others: Tuple[Tuple[Size, int], ...] = (((96, 128), 4), ((96, 128), 8))
    #: End to end, at stride :data:`STRIDE`.
    ends: Tuple[Size, ...] = ((192, 256), (144, 192), (96, 128), (72, 96), (48, 64))


#: The stride of the zoo.
STRIDE = 4
FULL = Plan()


class Zoo(NamedTuple):
    """What became of ``UDPHeatmap`` in the zoo's configs.

    Attributes:
        whole: Configs with it, and with unbiased warps.
        half: Configs with it, and with a biased warp.
        none: Configs that name it, and whose model has another codec.
    """

    whole: List[str]
    half: List[str]
    none: List[str]


class Ended(NamedTuple):
    """A pipeline from end to end."""

    end: EndToEnd
    #: COCO's, 0 to 100.
    ap: float


class Measured(NamedTuple):
    """All that was measured, by pipeline, input size and stride."""

    plan: Plan
    sigmas: Dict[Tuple[Size, int], float]
    flips: Dict[Tuple[Pipeline, Size, int], Tuple[Flip, Dict[str, Expected]]]
    codings: Dict[Tuple[Pipeline, int], Tuple[Coding, Expected]]
    #: With random people; the warp of the test pipeline.
    warps: Dict[Pipeline, Tuple[Transform, Coding, EndToEnd]]
    ends: Dict[Tuple[Pipeline, Size], Ended]
    zoo: Zoo
    #: Whose keypoints ``ends`` has: how many people in how many images.
    people: int
    images: int
    seconds: float


# --- configs --------------------------------------------------------------------------


def sigma_of(heatmap_size: Size) -> float:
    """Of the Gaussians, heatmap px: as in the zoo, but at least 1.

    A 32nd of the map's longer side, which is 2 at 48x64 and 3 at 72x96.
    """
    return max(max(heatmap_size) / 32, 1.0)


def configure(pipeline: Pipeline, input_size: Size, stride: int) -> Config:
    """The config of a pipeline at another size.

    Args:
        pipeline: What to take, and what to change in it.
        input_size: ``(width, height)`` in pixels.
        stride: The input's size by the map's.

    Raises:
        UserError: The zoo has no such config.
    """
    cfg = read(find_config(pipeline.config))
    for _, node in list(nodes(cfg)):
        if pipeline.biased_warp:
            node.pop('use_udp', None)
        if not pipeline.resized or 'input_size' not in node:
            continue
        node['input_size'] = input_size
        if 'heatmap_size' in node:
            node['heatmap_size'] = tuple(n // stride for n in input_size)
            node['type'] = pipeline.codec or node['type']
            _fit(node)
    if pipeline.shift is not None:
        cfg['model']['test_cfg']['shift_heatmap'] = pipeline.shift
    if pipeline.swapped:
        cfg, _ = swap(cfg, pipeline.swapped)
    return Config(cfg)


def _fit(codec: dict) -> None:
    """Fit a codec's sigma, or its disc, and DARK's blur to its map."""
    sigma = sigma_of(codec['heatmap_size'])
    codec.pop('sigma', None)
    if codec['type'] == 'MegviiHeatmap':
        # The size of OpenCV's Gaussian of this sigma.
        codec['kernel_size'] = 2 * round((sigma - 0.8) / 0.3 + 1) + 1
    elif codec.get('heatmap_type') == 'combined':
        radius = F.RADIUS_PER_SIGMA * sigma
        codec['radius_factor'] = radius / max(codec['heatmap_size'])
    else:
        codec['sigma'] = sigma
        if codec['type'] != 'MSRAHeatmap' or codec.get('unbiased'):
            codec['blur_kernel_size'] = F.dark_kernel_size(sigma)


def look_into_zoo() -> Zoo:
    """Which of the zoo's configs that name ``UDPHeatmap`` are biased all the same."""
    folder, zoo = zoo_folder(), Zoo([], [], [])
    for name in convertible():
        # Reading all of them as configs would take long.
        if 'UDPHeatmap' not in (folder / name).read_text(encoding='utf-8'):
            continue
        cfg = read(folder / name)
        codecs = [node.get('type') for _, node in nodes(cfg['model'])]
        loaders = {key: cfg.get(key) for key in LOADERS.values()}
        warps = [
            bool(node.get('use_udp'))
            for _, node in nodes(loaders)
            if node.get('type') == 'TopdownAffine'
        ]
        kind = zoo.whole if all(warps) else zoo.half
        (kind if 'UDPHeatmap' in codecs else zoo.none).append(Path(name).stem)
    return zoo


# --- the course -----------------------------------------------------------------------


class _Workshop:
    """Builds and measures each thing once."""

    def __init__(self, ann: Optional[Path] = None, img: Optional[Path] = None) -> None:
        self.ann, self.img = ann, img
        self._known: Dict[tuple, Any] = {}

    def _once(self, make: Callable[..., Any], *of: Any) -> Any:
        key = (make.__name__, repr(of))
        if key not in self._known:
            self._known[key] = make(*of)
        return self._known[key]

    def parts(self, pipeline: Pipeline, size: Size, stride: int = STRIDE) -> Parts:
        """Its components."""

        def built(*of: Any) -> Parts:
            return Parts(configure(*of))

        return self._once(built, pipeline, size, stride)

    def coding(self, pipeline: Pipeline, size: Size, stride: int = STRIDE) -> Coding:
        """Its coding."""

        def coded(*of: Any) -> Coding:
            return measure_coding(self.parts(*of))

        # Neither its warp nor its flip test matters.
        plain = pipeline._replace(shift=None, biased_warp=False, label='')
        return self._once(coded, plain, size, stride)

    def warps(self, parts: Parts) -> Dict[str, Transform]:
        """How its pipelines warp, by name."""
        found = {}
        for flow in parts.flows:
            # Targets are no part of it.
            steps = [step for step in flow.steps if 'encoder' not in step]

            def warped(*_: Any, flow: Any = flow) -> Transform:
                return measure_transform(parts, flow)

            found[flow.name] = self._once(warped, steps)
        return found

    def ended(self, pipeline: Pipeline, size: Size, people: List[dict]) -> EndToEnd:
        """People from end to end."""
        parts = self.parts(pipeline, size)
        warps = self.warps(parts)
        return measure_end_to_end(
            parts,
            self.coding(pipeline, size),
            warps[parts.test.name],
            warps.get('train'),
            people,
        )

    def people(self, pipeline: Pipeline, size: Size) -> List[dict]:
        """Those of the annotations, or random ones."""
        parts = self.parts(pipeline, size)
        if self.ann is None or self.img is None:
            return random_people(parts, RANDOM_PEOPLE)
        return annotated_people(parts, self.ann, self.img)


def measure(
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    plan: Plan = FULL,
    advance: Callable[[str, int], None] = lambda title, total: None,
) -> Measured:
    """Measure all that the page has.

    Args:
        ann: Annotations in COCO format to take people from; random people without.
        img: The images that they name.
        plan: How much.
        advance: Is told what is done next, and of how many things.

    Raises:
        UserError: ``ann`` and ``img`` do not fit.
        UserError: The toolbox's zoo is missing.
    """
    started = time.monotonic()
    shop = _Workshop(ann, img)
    size = plan.input_size
    with quiet():
        # What is wrong with them is said before the work.
        people = shop.people(MSRA, size)
    known = Measured(
        plan=plan,
        sigmas={},
        flips={},
        codings={},
        warps={},
        ends={},
        zoo=look_into_zoo(),
        people=len(people),
        images=len({person['img_id'] for person in people}),
        seconds=0.0,
    )
    jobs = list(_jobs(shop, plan, known))
    with quiet():
        for title, job in jobs:
            advance(title, len(jobs))
            job()
    return known._replace(seconds=time.monotonic() - started)


def _jobs(
    shop: _Workshop, plan: Plan, known: Measured
) -> Iterator[Tuple[str, Callable[[], None]]]:
    """What is to be done, with titles; each writes to ``known``."""
    size = plan.input_size

    def code(pipeline: Pipeline, stride: int) -> None:
        coding = shop.coding(pipeline, size, stride)
        expected = expected_coding(shop.parts(pipeline, size, stride))
        known.codings[pipeline, stride] = coding, expected

    def flip(pipeline: Pipeline, size: Size, stride: int) -> None:
        parts = shop.parts(pipeline, size, stride)
        coding = shop.coding(pipeline, size, stride)
        found = measure_flip(parts, coding), expected_flip(parts, coding)
        known.flips[pipeline, size, stride] = found
        known.sigmas[size, stride] = sigma_of(parts.heatmap_size)

    def warp(pipeline: Pipeline) -> None:
        parts = shop.parts(pipeline, size)
        end = shop.ended(pipeline, size, random_people(parts, RANDOM_PEOPLE))
        transform = shop.warps(parts)[parts.test.name]
        known.warps[pipeline] = transform, shop.coding(pipeline, size), end

    def end(pipeline: Pipeline, size: Size) -> None:
        found = shop.ended(pipeline, size, shop.people(pipeline, size))
        ap = average_precision(shop.parts(pipeline, size), found.persons)
        known.ends[pipeline, size] = Ended(found, float(ap or 0.0))

    def text(size: Size) -> str:
        return '{}×{}'.format(*size)

    flips = [(size, stride) for stride in plan.strides] + list(plan.others)
    for of in flips:
        for pipeline in FLIPPED:
            title = f'flip, {text(of[0])}, stride {of[1]}: {pipeline.label}'
            yield title, partial(flip, pipeline, *of)
    for stride in plan.strides:
        for pipeline in CODED:
            title = f'coding, stride {stride}: {pipeline.label}'
            yield title, partial(code, pipeline, stride)
    for pipeline in WARPED:
        yield f'transform: {pipeline.label}', partial(warp, pipeline)
    for of in plan.ends:
        for pipeline in ENDED:
            title = f'end to end, {text(of)}: {pipeline.label}'
            yield title, partial(end, pipeline, of)


def run_paper(args: Namespace) -> int:
    """Run the command; returns its exit status.

    Args:
        args: Of ``udp-plugin paper``: ``ann``, ``img``, ``out`` and the ``command``
            itself.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    # What it lacks is said before the work.
    from . import page as paper_page

    columns = (TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn())
    try:
        (args.out / 'images').mkdir(parents=True, exist_ok=True)
        with signals_interrupt():
            with Progress(*columns, console=console, transient=True) as progress:
                task = progress.add_task('people', total=None)
                done = iter(range(10**6))

                def advance(title: str, total: int) -> None:
                    progress.update(
                        task, description=title, total=total, completed=next(done)
                    )

                measured = measure(args.ann, args.img, FULL, advance)
            paper_page.report(args, measured, console)
    except (UserError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print('stopped')
        return 130
    return 0
