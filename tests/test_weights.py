"""Checkpoints are read without running what is in them."""

import io
import os
import pickle
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from helpers import PROJECT
from mmengine.logging import HistoryBuffer
from torch import nn

from udp_plugin.cli import main

OFFSET = next((PROJECT / 'configs').glob('*/*/coco/*res50_udp-offset*256x192.py'))


class Runs:
    """Something that runs a command as it is unpickled."""

    def __init__(self, function, *arguments):
        self.run = function, arguments

    def __reduce__(self):
        return self.run


def trained():
    """What mmengine leaves of a training, besides weights of each kind."""
    state = OrderedDict(
        single=torch.rand(2, 3),
        half=torch.rand(3).half(),
        brain=torch.rand(4).bfloat16(),
        double=torch.rand(2).double(),
        count=torch.tensor(7),
        mask=torch.tensor([True, False]),
        part=torch.arange(10)[3:8:2],
        shared=torch.rand(1).expand(4),
        parameter=nn.Parameter(torch.rand(3)),
    )
    state['tagged'] = nn.Parameter(torch.rand(2))
    state['tagged'].note = 'an attribute'
    state._metadata = OrderedDict({'': dict(version=1)})
    losses = HistoryBuffer()
    losses.update(0.5)
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    return state, dict(
        meta=dict(epoch=3, sigmas=np.ones(17, np.float32), seed=np.int64(3)),
        state_dict=state,
        message_hub=dict(log_scalars={'loss': losses}, at={np.float64(1): {2}}),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=np.float64(3), milestones={170: 1})],
    )


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
def test_weights_of_a_training_are_read(new, tmp_path):
    from udp_plugin.weights import read_weights

    state, content = trained()
    options = dict(_use_new_zipfile_serialization=new)
    for saved in (content, state, {f'module.{n}': each for n, each in state.items()}):
        torch.save(saved, tmp_path / 'a.pth', **options)
        found = read_weights(tmp_path / 'a.pth')
        assert list(found) == list(state)
        for name, weight in state.items():
            assert found[name].dtype == weight.dtype, name
            assert torch.equal(found[name], weight), name


def test_a_torch_that_was_told_to_refuse(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    torch.save(trained()[1], tmp_path / 'a.pth')
    with pytest.raises(SystemExit):
        arguments = str(OFFSET), str(tmp_path / 'a.pth'), '-o', str(tmp_path / 'a.onnx')
        main(['export', *arguments])
    assert 'unset TORCH_FORCE_WEIGHTS_ONLY_LOAD' in capsys.readouterr().err


@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('where', ['meta', 'state_dict', 'weight', 'all', 'key'])
def test_nothing_in_a_checkpoint_is_run(where, new, tmp_path, capsys):
    marker = tmp_path / 'marker'
    write = f"open({str(marker)!r}, 'w')"
    for evil in (
        Runs(os.mkdir, str(marker)),
        Runs(eval, write),
        Runs(exec, write),
        Runs(__import__, 'this'),
        Runs(torch.hub.load_state_dict_from_url, 'file:///nowhere'),
        Runs(np.fromfile, '/etc/hostname'),
    ):
        state, content = trained()
        if where == 'weight':
            state['single'] = evil
        elif where == 'key':
            content['message_hub'] = {(1, evil): 3}
        else:
            content[where] = evil
        saved = evil if where == 'all' else content
        path = tmp_path / 'evil.pth'
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        with pytest.raises(SystemExit) as stopped:
            main(['export', str(OFFSET), str(path), '-o', str(tmp_path / 'a.onnx')])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and 'Traceback' not in said
        assert f'CHECKPOINT {path} ' in said
        assert not marker.exists()


@pytest.mark.parametrize('kind', ['script', 'tar', 'network', 'pickle', 'list'])
def test_other_files_are_no_checkpoints(kind, tmp_path, capsys):
    path, marker = tmp_path / 'other.pth', tmp_path / 'marker'
    network = nn.Linear(2, 3)
    if kind == 'script':
        torch.jit.save(torch.jit.script(network), str(path))
    elif kind == 'tar':
        with tarfile.open(path, 'w') as tar:
            evil = pickle.dumps(Runs(os.mkdir, str(marker)))
            for name in ('sys_info', 'pickle', 'storages', 'tensors'):
                info = tarfile.TarInfo(name)
                info.size = len(evil)
                tar.addfile(info, io.BytesIO(evil))
    elif kind == 'network':
        torch.save(network, path)
    elif kind == 'pickle':
        path.write_bytes(pickle.dumps(Runs(os.mkdir, str(marker))))
    else:
        torch.save([1], path)
    with pytest.raises(SystemExit) as stopped:
        main(['export', str(OFFSET), str(path), '-o', str(tmp_path / 'a.onnx')])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and not marker.exists()
    assert 'cannot be read as one of PyTorch' in said and 'Traceback' not in said
    if kind in ('script', 'tar', 'network'):
        assert "torch.save(model.state_dict(), 'weights.pth')" in said
