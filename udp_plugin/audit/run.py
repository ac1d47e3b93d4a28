"""The command ``udp-plugin audit``: measure, find, and show."""

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
from mmengine.config import Config
from rich.console import Console

from udp_plugin.convert.zoo import find_config
from udp_plugin.ui import UserError, quiet
from udp_plugin.version import __version__

from .findings import (
    ERROR,
    Finding,
    Measured,
    broken_pipelines,
    find,
    of_failure,
    short,
)
from .lines import Lines
from .measures import (
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
from .parts import Parts
from .people import annotated_people, average_precision
from .theory import Expected, expected_coding, expected_flip

#: People at random places, without annotations.
RANDOM_PEOPLE = 100


@dataclass
class Audit:
    """What an audit of a config saw.

    Attributes:
        name: The config's.
        data: Of whom: random people, or an annotation file.
        findings: Mismatches, errors first.
        parts, transforms, coding, flip, end_to_end, ap: What was measured; None, or
            empty, where the config does not let it.
    """

    name: str
    data: str = 'random people'
    findings: List[Finding] = field(default_factory=list)
    parts: Optional[Parts] = None
    transforms: List[Transform] = field(default_factory=list)
    coding: Optional[Coding] = None
    flip: Optional[Flip] = None
    end_to_end: Optional[EndToEnd] = None
    ap: Optional[float] = None

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return any(finding.severity == ERROR for finding in self.findings)

    def as_dict(self) -> Dict[str, Any]:
        """For ``audit.json``; docs/audit.md says what the keys mean."""
        found: Dict[str, Any] = dict(
            config=self.name, data=self.data, version=__version__
        )
        if self.parts is not None:
            found.update(
                input_size=self.parts.input_size,
                heatmap_size=self.parts.heatmap_size,
                keypoints=self.parts.num_keypoints,
                maps_per_keypoint=self.parts.channels,
            )
        found['transform_px'] = {
            one.flow.name: dict(
                measure=one.kind,
                image_to_keypoints=spread(one.misfit),
                keypoints_to_equation=spread(one.deviation),
                theory=dict(x=0.0, y=0.0, equation='Eq. 41 or Eq. 30'),
            )
            for one in self.transforms
        }
        if self.coding is not None and self.parts is not None:
            expected = expected_coding(self.parts).as_dict()
            found['encode_decode_px'] = dict(
                measure_of_target=self.coding.kind,
                measure_of_reading=self.coding.answer,
                interior=dict(spread(self.coding.errors), theory=expected),
                border=_axes(*self.coding.border),
                noise=spread(self.coding.noisy),
            )
        found['flip_alignment_px'] = self._flip_as_dict()
        if self.end_to_end is not None:
            found['end_to_end_px'] = dict(
                input=spread(self.end_to_end.input_px),
                source=spread(self.end_to_end.source_px),
                forward_to_backward=dict(
                    spread(self.end_to_end.round_trip),
                    theory=dict(x=0.0, y=0.0, equation='Eq. 47'),
                ),
                people=len(self.end_to_end.persons),
                keypoints_outside=self.end_to_end.outside,
            )
            found['oks'] = _numbers(self.end_to_end.oks)
        found['ap_ceiling'] = dict(value=self.ap, theory=100.0)
        found['findings'] = [finding._asdict() for finding in self.findings]
        return found

    def _flip_as_dict(self) -> Dict[str, Any]:
        if self.flip is None or self.parts is None or self.coding is None:
            return {}
        expected = expected_flip(self.parts, self.coding)
        return {
            name: dict(
                spread(errors),
                theory=expected.get(name, Expected(None, None)).as_dict(),
            )
            for name, errors in self.flip._asdict().items()
            if errors is not None
        }


def spread(errors: np.ndarray) -> Dict[str, Dict[str, Optional[float]]]:
    """Mean, median, 95th percentile and maximum of absolute errors (M, 2), by axis."""
    return _axes(errors[:, 0], errors[:, 1])


def _axes(x: np.ndarray, y: np.ndarray) -> Dict[str, Dict[str, Optional[float]]]:
    return dict(
        x=dict(_numbers(np.abs(x)), signed_mean=_number(np.mean, x)),
        y=dict(_numbers(np.abs(y)), signed_mean=_number(np.mean, y)),
    )


def _numbers(values: np.ndarray) -> Dict[str, Optional[float]]:
    return dict(
        mean=_number(np.mean, values),
        median=_number(np.median, values),
        p95=_number(lambda v: np.percentile(v, 95), values),
        max=_number(np.max, values),
    )


def _number(of: Callable, values: np.ndarray) -> Optional[float]:
    values = values[np.isfinite(values)]
    return float(of(values)) if len(values) else None


def audit(
    config: Union[str, Path, Config],
    ann: Optional[Path] = None,
    img: Optional[Path] = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Audit:
    """Audit a top-down heatmap config.

    Args:
        config: A path, a name in MMPose's zoo, or a config; it is left as it is.
        ann: Annotations in COCO format to take people from; random people without.
        img: The images that they name.
        progress: Is told what is done.

    Raises:
        UserError: There is no such config, it is of another kind, or ``ann`` and
            ``img`` do not fit.

    Example::

        found = audit('td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192')
        assert not found.has_errors, found.findings
    """
    cfg, name = read_config(config)
    found = Audit(name)
    with quiet():
        _measure(found, cfg, ann, img, progress)
    return found


def read_config(config: Union[str, Path, Config]) -> Tuple[Config, str]:
    """A config, and what to call it.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    if isinstance(config, Config):
        return config, Path(config.filename or 'config').stem
    try:
        path = find_config(str(config))
        return Config.fromfile(path), path.stem
    except UserError as error:
        raise UserError(str(error)) from error
    except Exception as error:
        # Whatever runs in a config may fail.
        raise UserError(
            f'CONFIG {config} cannot be read: {type(error).__name__}: {short(error)}'
        ) from error


def _measure(
    found: Audit,
    cfg: Config,
    ann: Optional[Path],
    img: Optional[Path],
    progress: Callable[[str], None],
) -> None:
    progress('building the components')
    try:
        parts = found.parts = Parts(cfg)
    except UserError as error:
        raise UserError(f'{found.name}: {error}.') from error
    except Exception as error:
        found.findings = [of_failure(error)]
        return
    found.findings = broken_pipelines(parts)
    if found.findings:
        return
    people = random_people(parts, RANDOM_PEOPLE)
    if ann is not None and img is not None:
        people = annotated_people(parts, ann, img)
        found.data = ann.name
    try:
        progress('transforms')
        found.transforms = [measure_transform(parts, flow) for flow in parts.flows]
        progress('encoding and decoding')
        found.coding = measure_coding(parts)
    except UserError as error:
        raise UserError(f'{found.name}: {error}.') from error
    except Exception as error:
        found.findings = [of_failure(error)]
        return
    flip_failure = failure = ''
    progress('flip alignment')
    try:
        found.flip = measure_flip(parts, found.coding)
    except Exception as error:
        # As a user's own test would fail.
        flip_failure = f'{type(error).__name__}: {short(error)}'
    by_name = {one.flow.name: one for one in found.transforms}
    try:
        found.end_to_end = measure_end_to_end(
            parts,
            found.coding,
            by_name[parts.test.name],
            by_name.get(parts.train.name) if parts.train else None,
            people,
            lambda done: progress(f'end to end: {done} of {len(people)} people'),
        )
        found.ap = average_precision(parts, found.end_to_end.persons)
    except Exception as error:
        failure = f'predicting fails: {type(error).__name__}: {short(error)}'
    progress('findings')
    found.findings = find(
        Measured(
            cfg=cfg,
            parts=parts,
            transforms=found.transforms,
            coding=found.coding,
            flip=found.flip,
            flip_failure=flip_failure,
            end_to_end=found.end_to_end,
            failure=failure,
            lines=Lines(cfg),
        )
    )


def run_audit(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    # With --json, figures alone go to stdout.
    console = Console(stderr=args.json, highlight=False)
    try:
        if args.out and args.out.exists() and not args.out.is_dir():
            raise UserError(f'--out {args.out} is a file; name a folder')
        audits = _audit_all(args, console)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    from .report import print_audits, write_audits

    print_audits(audits, console)
    written = write_audits(audits, args.out) if args.out else []
    for path in written:
        console.print(f'  {path}')
    if args.json:
        content = [found.as_dict() for found in audits]
        print(json.dumps(content[0] if len(content) == 1 else content, indent=1))
    return int(any(found.has_errors for found in audits))


def _audit_all(args: argparse.Namespace, console: Console) -> List[Audit]:
    configs = [args.config, *([args.compare] if args.compare else [])]
    audits = []
    with console.status('audit') as status:
        for config in configs:
            audits.append(audit(config, args.ann, args.img, status.update))
    return audits
