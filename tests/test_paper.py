"""The paper, measured: figures agree with theory, and the page has them."""

import itertools
import re

import numpy as np
import pytest

from benchmarks.paper import measure as paper
from benchmarks.paper.run import run_paper
from udp_plugin.audit import measures, run, warps
from udp_plugin.audit.theory import expected_coding, expected_flip
from udp_plugin.errors import UserError

SIZE = (192, 256)
STRIDES = (4, 8)
PLAN = paper.Plan(SIZE, STRIDES, others=(), ends=(SIZE, (48, 64)))


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """What a small run measured, and its page."""
    out = tmp_path_factory.mktemp('paper')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'RANDOM_PEOPLE', 12)
        patch.setattr(warps, 'PERSONS', 3)

        def audit(cfg, *people):
            # As many in each quarter of a pixel where coding is looked at.
            points = 2040 if cfg.codec.input_size == SIZE else 64
            patch.setattr(measures, 'POINTS', points)
            return run.audit(cfg, *people)

        patch.setattr(paper, 'audit', audit)
        return run_paper(out, plan=PLAN), out / 'paper.md'


@pytest.mark.parametrize('stride', STRIDES)
def test_mirrored_maps_are_as_far_as_theory_says(measured, stride):
    """Eq. 36, 39 and 46, stated anew."""
    for name, pipeline in itertools.product(paper.FLIPS, paper.FLIPPED):
        shifted, part = 'shifted' in name, 0.5 if 'averaged' in name else 1
        theory = 1 if shifted else stride - 1
        if pipeline is paper.OUR_GAUSSIAN:
            theory = (SIZE[0] - 1) / (SIZE[0] // stride - 1) if shifted else 0
        audit = measured[0](pipeline, SIZE, stride)
        expected = expected_flip(audit.parts, audit.coding)[name].x
        assert expected == pytest.approx(part * theory)
        distance = paper.flip_distance(audit, name)
        assert distance == pytest.approx(part * theory, rel=0.01, abs=1e-3)


@pytest.mark.parametrize('stride', STRIDES)
def test_rounding_costs_a_quarter_of_a_pixel_and_nothing_else(measured, stride):
    """A hundredth of a heatmap pixel is what DARK leaves of a sigma of 1."""
    for pipeline in paper.CODED:
        audit = measured[0](pipeline, SIZE, stride)
        rounded = pipeline in (paper.MSRA, paper.MEGVII)
        theory = stride / 4 if rounded else 0
        assert expected_coding(audit.parts).x == theory
        limits = dict(rel=0.01) if rounded else dict(abs=0.01 * stride)
        assert np.abs(audit.coding.errors).mean() == pytest.approx(theory, **limits)


def test_only_a_mixed_transform_does_not_lead_back(measured):
    for pipeline in paper.WARPED:
        trip = np.abs(measured[0].random(pipeline).end_to_end.round_trip).mean()
        theory = 0.5 if pipeline is paper.HALF else 0.0
        assert trip == pytest.approx(theory, rel=0.05, abs=0.02)


def test_end_to_end_is_what_theory_leaves(measured):
    for pipeline in paper.ENDED:
        audit, smaller = (measured[0](pipeline, size) for size in PLAN.ends)
        errors = np.abs(audit.end_to_end.input_px).mean(0)
        for error, theory in zip(errors, paper.expected_end(pipeline, SIZE)):
            # Rounding is of few keypoints here.
            few = 0.15 if theory == 1 else 0.02
            if theory is not None:
                assert error == pytest.approx(theory, rel=0.02, abs=few)
        assert 0 < audit.ap <= 100
        assert smaller.end_to_end.oks.mean() < audit.end_to_end.oks.mean() + 1e-4


def test_configs_get_the_size_everywhere():
    for pipeline in paper.ENDED + paper.CODED:
        text = str(paper.configure(pipeline, (96, 128), 8).to_dict())
        assert '(96, 128)' in text and '(12, 16)' in text
        assert '(192, 256)' not in text and '(48, 64)' not in text
    sizes = (48, 64), (72, 96), (12, 16)
    assert [paper.sigma_of(size) for size in sizes] == [2, 3, 1]


def test_page_has_all_sections_tables_and_images(measured):
    path = measured[1]
    page = path.read_text(encoding='utf-8')
    assert re.findall('^## (..)', page, re.MULTILINE) == ['1.', '2.', '3.', '4.']
    lines = itertools.groupby(page.splitlines(), key=lambda line: line.startswith('|'))
    tables = [list(rows) for is_row, rows in lines if is_row]
    # Flip test, twice coding, transform, two sizes, AP, the authors' numbers.
    assert [len(rows) - 2 for rows in tables] == [4, 7, 7, 5, 9, 9, 9, 5]
    assert all(len({row.count('|') for row in rows}) == 1 for rows in tables)
    assert '| `MSRAHeatmap` | 1.00 / 1.00 | 2.00 / 2.00 |' in page
    images = re.findall(r'\((images/paper_\w+\.png)\)', page)
    assert len(images) == 4
    assert all((path.parent / one).read_bytes()[1:4] == b'PNG' for one in images)
    assert 'nan' not in page and str(path.parent) not in page


def test_page_names_files_and_no_folders(coco_mini, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, 'POINTS', 64)
    for name in ('FLIPPED', 'CODED', 'WARPED', 'ENDED'):
        monkeypatch.setattr(paper, name, (paper.MSRA,))
    plan = paper.Plan((48, 64), (4,), (), ((48, 64),))
    run_paper(tmp_path, '', coco_mini / 'test_coco.json', coco_mini, plan)
    page = (tmp_path / 'paper.md').read_text(encoding='utf-8')
    assert f'--ann test_coco.json --img {coco_mini.name}/' in page
    assert 'the 12 people with keypoints in the 4 photos of `test_coco.json`' in page
    assert str(tmp_path) not in page and str(coco_mini) not in page


@pytest.mark.parametrize('content', [None, 'no JSON', '{}', '{"images": []}'])
def test_wrong_annotations_end_the_command(tmp_path, content):
    ann = tmp_path / 'people.json'
    if content is not None:
        ann.write_text(content)
    with pytest.raises(UserError, match='^--ann'):
        run_paper(tmp_path / 'out', '', ann, tmp_path)


def test_out_that_is_a_file_ends_the_command(tmp_path):
    (tmp_path / 'out').touch()
    with pytest.raises(UserError, match='/out cannot be written: Not a directory'):
        run_paper(tmp_path / 'out')
