"""The paper, measured: figures agree with theory, and the page has them."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.figures import FLIPS, flip_distance
from udp_plugin.audit import measures, paper, paper_page
from udp_plugin.ui import UserError

SIZE = (192, 256)
STRIDES = (4, 8)
PLAN = paper.Plan(strides=STRIDES, others=(), ends=(SIZE, (48, 64)))


def arguments(out, ann=None, img=None):
    return Namespace(ann=ann, img=img, out=out, command='udp-plugin paper')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """What a small run measured, and the folder that it wrote."""
    out = tmp_path_factory.mktemp('paper')
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, 'FULL', PLAN)
        patch.setattr(paper, 'RANDOM_PEOPLE', 12)
        patch.setattr(measures, 'PERSONS', 3)
        # As many in each quarter of a pixel of the larger maps.
        patch.setattr(measures, 'POINTS', 2040)
        measure = paper.measure

        def remember(*args):
            found.append(measure(*args))
            return found[0]

        patch.setattr(paper, 'measure', remember)
        assert paper.run_paper(arguments(out)) == 0
    return found[0], out


# --- against theory -------------------------------------------------------------------


@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('name', FLIPS)
def test_mirrored_maps_are_as_far_as_theory_says(run, stride, name):
    """Eq. 36, 39 and 46, stated anew."""
    measured, _ = run
    shifted, part = 'shifted' in name, 0.5 if 'averaged' in name else 1
    biased = 1 if shifted else stride - 1
    unbiased = (SIZE[0] - 1) / (SIZE[0] // stride - 1) if shifted else 0
    for pipeline, theory in ((paper.MSRA, biased), (paper.OUR_GAUSSIAN, unbiased)):
        flip, expected = measured.flips[pipeline, SIZE, stride]
        assert expected[name].x == pytest.approx(part * theory)
        distance = flip_distance(flip, name)
        assert distance == pytest.approx(part * theory, rel=0.01, abs=1e-3)


@pytest.mark.parametrize('stride', STRIDES)
def test_rounding_costs_a_quarter_of_a_pixel(run, stride):
    measured, _ = run
    for pipeline in (paper.MSRA, paper.MEGVII):
        coding, expected = measured.codings[pipeline, stride]
        assert expected.x == stride / 4
        assert np.abs(coding.errors).mean() == pytest.approx(stride / 4, rel=0.01)


@pytest.mark.parametrize('stride', STRIDES)
def test_sub_pixel_codecs_lose_nothing(run, stride):
    """A hundredth of a heatmap pixel is what DARK leaves of a sigma of 1."""
    measured, _ = run
    for pipeline in paper.CODED[2:]:
        coding, expected = measured.codings[pipeline, stride]
        assert expected.x == 0
        assert np.abs(coding.errors).mean() < 0.01 * stride


def test_only_a_mixed_transform_does_not_lead_back(run):
    measured, _ = run
    for pipeline, (_, _, end) in measured.warps.items():
        trip = np.abs(end.round_trip).mean()
        theory = 0.5 if pipeline is paper.HALF else 0.0
        assert trip == pytest.approx(theory, rel=0.05, abs=0.02)


def test_end_to_end_is_what_theory_leaves(run):
    measured, _ = run
    for pipeline in paper.ENDED:
        end, ap = measured.ends[pipeline, SIZE]
        errors = np.abs(end.input_px).mean(0)
        for error, theory in zip(errors, paper_page.expected_end(pipeline, SIZE)):
            # Rounding is of few keypoints here.
            few = 0.15 if theory == 1 else 0.02
            if theory is not None:
                assert error == pytest.approx(theory, rel=0.02, abs=few)
        assert 0 < ap <= 100
        smaller = measured.ends[pipeline, (48, 64)]
        assert smaller.end.oks.mean() < end.oks.mean() + 1e-4


# --- configs --------------------------------------------------------------------------


def test_configs_get_the_size_everywhere():
    for pipeline in paper.ENDED + paper.CODED:
        cfg = paper.configure(pipeline, (96, 128), 8)
        text = str(cfg.to_dict())
        assert '(96, 128)' in text and '(12, 16)' in text
        assert '(192, 256)' not in text and '(48, 64)' not in text


def test_sigma_is_the_zoo_s_but_at_least_one():
    sigmas = [paper.sigma_of(size) for size in ((48, 64), (72, 96), (12, 16))]
    assert sigmas == [2, 3, 1]


def test_zoo_has_biased_configs_that_name_udp(run):
    zoo = run[0].zoo
    assert len(zoo.whole) > len(zoo.half) > 0
    assert any('onehand10k' in name for name in zoo.half)
    assert not set(zoo.half) & set(zoo.whole)


# --- the page -------------------------------------------------------------------------


def test_page_has_all_sections_and_images(run):
    measured, out = run
    page = (out / 'paper.md').read_text(encoding='utf-8')
    sections = re.findall('^## (.*)', page, re.MULTILINE)
    assert [section[:2] for section in sections] == ['1.', '2.', '3.', '4.']
    for table in paper_page.tables(measured):
        assert table.title in page
    images = re.findall(r'\((images/paper_\w+\.png)\)', page)
    assert len(images) == 4
    for image in images:
        assert (out / image).read_bytes()[1:4] == b'PNG'
    assert 'nan' not in page and str(out) not in page


def test_page_names_files_and_no_folders(run, tmp_path):
    ann, img = tmp_path / 'people.json', tmp_path / 'photos'
    page = paper_page.write_page(arguments(run[1], ann, img), run[0])
    assert 'udp-plugin paper --ann people.json --img photos/' in page
    assert str(tmp_path) not in page


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize('content', [None, 'no JSON', '{}', '{"images": []}'])
def test_wrong_annotations_end_the_command(tmp_path, capsys, content):
    ann = tmp_path / 'people.json'
    if content is not None:
        ann.write_text(content)
    with pytest.raises(UserError):
        paper.measure(ann, tmp_path)
    assert paper.run_paper(arguments(tmp_path / 'out', ann, tmp_path)) == 2
    assert capsys.readouterr().err.startswith('error: --ann')


def test_out_that_is_a_file_ends_the_command(tmp_path, capsys):
    out = Path(tmp_path / 'out')
    out.write_text('')
    assert paper.run_paper(arguments(out)) == 2
    assert 'error' in capsys.readouterr().err
