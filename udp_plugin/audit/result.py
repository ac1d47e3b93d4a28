"""What an audit saw, and what of it ``audit.json`` has."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import yaml

from udp_plugin.version import __version__

from .errors import by_axis, statistics
from .measures import Coding, EndToEnd, Flip
from .mirroring import Mirroring
from .parts import Parts
from .theory import Expected, expected_coding, expected_flip
from .trained import Trained
from .warps import UNIT_LENGTH, Transform


class Finding(NamedTuple):
    """A mismatch in a config.

    An error is a contradiction that costs accuracy or fails; with a warning it works,
    but not as well as it might.
    """

    severity: str  #: ``'error'`` or ``'warning'``.
    name: str  #: Stable, e.g. ``'flip-shift'``.
    where: str  #: Dotted place in the config.
    line: str  #: ``file:line: text``, or empty if it stands in no file.
    what: str  #: What is wrong, with the figure that was measured.
    fix: str  #: What to do.


#: The texts of findings, by name.
TEXTS = yaml.safe_load(
    Path(__file__).with_name('findings.yaml').read_text(encoding='utf-8')
)


def finding(key: str, where: str, line: str = '', **values: Any) -> Finding:
    """A finding with one of :data:`TEXTS`, its place, its line, and the values."""
    severity, what, fix = (TEXTS[key][part] for part in ('severity', 'what', 'fix'))
    texts = what.format(**values), fix.format(**values)
    return Finding(severity, key.partition('/')[0], where, line, *texts)


@dataclass
class Audit:
    """What an audit of a config saw.

    What was measured is None, or empty, where the config does not let it.
    """

    name: str  #: The config's.
    data: str = 'random people'  #: Of whom: those, or an annotation file.
    findings: List[Finding] = field(default_factory=list)  #: Errors first.
    parts: Optional[Parts] = None
    transforms: List[Transform] = field(default_factory=list)
    mirrorings: List[Mirroring] = field(default_factory=list)  #: Of each data set.
    coding: Optional[Coding] = None
    flip: Optional[Flip] = None
    flip_failure: str = ''  #: Why the flip test fails.
    end_to_end: Optional[EndToEnd] = None
    ap: Optional[float] = None
    failure: str = ''  #: Why predicting fails.
    trained: Optional[Trained] = None  #: Of a checkpoint's weights.

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return any(finding.severity == 'error' for finding in self.findings)

    @property
    def unbiased(self) -> bool:
        """Whether its targets measure the map by its unit length."""
        return self.coding is not None and self.coding.kind == UNIT_LENGTH

    def as_dict(self) -> Dict[str, Any]:
        """For ``audit.json``; docs/audit.md says what the keys mean."""
        parts, coding, end = self.parts, self.coding, self.end_to_end
        found: Dict[str, Any] = dict(
            config=self.name, data=self.data, version=__version__
        )
        if parts is not None:
            found.update(
                input_size=parts.input_size,
                heatmap_size=parts.heatmap_size,
                keypoints=parts.num_keypoints,
                maps_per_keypoint=parts.channels,
            )
        found['transform_px'] = {
            one.flow.name: dict(
                measure=one.kind,
                image_to_keypoints=by_axis(*one.misfit.T),
                keypoints_to_equation=by_axis(*one.deviation.T),
                theory=Expected(0.0, 0.0, 'Eq. 41 or Eq. 30')._asdict(),
            )
            for one in self.transforms
        }
        flips = {} if self.flip is None else self.flip._asdict()
        theory: Dict[str, Expected] = {}
        if coding is not None:
            expected = expected_coding(parts)._asdict()
            found['encode_decode_px'] = dict(
                measure_of_target=coding.kind,
                measure_of_reading=coding.answer,
                interior=dict(by_axis(*coding.errors.T), theory=expected),
                border=by_axis(*coding.border),
                noise=by_axis(*coding.noisy.T),
            )
            theory = expected_flip(parts, coding)
        found['flip_alignment_px'] = {
            name: dict(
                by_axis(*errors.T), theory=theory.get(name, Expected())._asdict()
            )
            for name, errors in flips.items()
            if errors is not None
        }
        if end is not None:
            found['end_to_end_px'] = dict(
                input=by_axis(*end.input_px.T),
                source=by_axis(*end.source_px.T),
                forward_to_backward=dict(
                    by_axis(*end.round_trip.T),
                    theory=Expected(0.0, 0.0, 'Eq. 47')._asdict(),
                ),
                people=len(end.persons),
                keypoints_outside=end.outside,
            )
            found['oks'] = statistics(end.oks)
        found['ap_ceiling'] = dict(value=self.ap, theory=100.0)
        if self.trained is not None:
            found['trained'] = self.trained.as_dict()
        found['findings'] = [finding._asdict() for finding in self.findings]
        return found
