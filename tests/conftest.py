import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite('helpers')

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def seeded() -> None:
    """The same random numbers in each test, whichever ran before."""
    import numpy as np
    import torch

    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def coco_mini() -> Path:
    """The folder of four COCO photographs and their annotations."""
    candidates = [
        os.environ.get('UDP_PLUGIN_COCO'),
        PROJECT.parent / 'shared' / 'data' / 'coco-mini',
    ]
    for folder in candidates:
        if folder and (Path(folder) / 'test_coco.json').is_file():
            return Path(folder)
    pytest.skip(
        'no COCO sample data: neither UDP_PLUGIN_COCO names its folder nor is it at '
        '../shared/data/coco-mini beside the project'
    )
