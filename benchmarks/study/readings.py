"""The maps of one trained network, read in several ways, of good and bad images.

``python -m benchmarks.study.readings CONFIG CHECKPOINT OUT`` for a config with
``UDPOffsetHeatmap`` writes a JSON file; the flip test is the config's.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Dict

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpose.apis import init_model
from mmpose.registry import METRICS

from udp_plugin import functional as F
from udp_plugin.demo.measures import as_predictions, measure
from udp_plugin.files import write_text

from .components import Degrade

CONDITIONS = ('clean', *Degrade.KINDS)


@torch.no_grad()
def read(config: Path, checkpoint: Path) -> Dict[str, Dict[str, float]]:
    """The figures of :func:`~.measures.measure`, by ``condition/reading``."""
    cfg = Config.fromfile(config)
    # Left as it is for the data: init_model changes the one it is given.
    model = init_model(copy.deepcopy(cfg), str(checkpoint), device=get_device())
    figures = {}
    for condition in CONDITIONS:
        data = copy.deepcopy(cfg.test_dataloader)
        if condition != 'clean':
            # Just before it is packed.
            data.dataset.pipeline.insert(-1, dict(type='Degrade', kind=condition))
        loader = Runner.build_dataloader(data)
        for reading in F.READINGS:
            model.head.decoder.reading = reading
            metric = METRICS.build(cfg.test_evaluator)
            metric.dataset_meta = loader.dataset.metainfo
            samples = []
            for batch in loader:
                outputs = [sample.to_dict() for sample in model.test_step(batch)]
                metric.process(batch, outputs)
                samples += outputs
            ap = metric.evaluate(len(loader.dataset))['coco/AP']
            figures[f'{condition}/{reading}'] = measure(as_predictions(samples), ap)
    return figures


if __name__ == '__main__':
    config_path, checkpoint_path, out = map(Path, sys.argv[1:])
    write_text(out, json.dumps(read(config_path, checkpoint_path), indent=1))
