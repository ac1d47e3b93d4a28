"""What commands print of a user's names: as they are, and to be copied into a shell."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT, RES50

from udp_plugin import ui
from udp_plugin.cli import main
from udp_plugin.demo import report
from udp_plugin.demo.measures import Demo, Run

#: Rich's markup and its emoji, and what a shell reads otherwise.
ODD = ['d[lr=1]', 'd[/lr]', ":smile: it's $HOME"]
OFFSET = next((PROJECT / 'configs').glob('*/*/coco/*res50_udp-offset*256x192.py'))
each_name = pytest.mark.parametrize('name', ODD)


def commands(printed):
    """The words of each command that is printed."""
    found = []
    for line in ''.join(printed).splitlines():
        for start in ('udp-plugin ', 'python tools/', 'mim '):
            if start in line:
                words = line[line.index(start) :].split('   (')[0]
                found.append(shlex.split(words.partition('; or: ')[0].rstrip(')')))
    return found


@each_name
def test_paths_are_printed_as_they_are(name, tmp_path, capsys):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    config = folder / f'{name.replace("/", "_")}.py'
    config.write_text(f"_base_ = ['mmpose::{RES50}']\n")

    assert main(['convert', str(config), '-o', f'{folder}/udp.py']) == 0
    printed = capsys.readouterr().out
    assert f'{folder}/udp.py is written' in printed
    ((*_, last),) = [c for c in commands(printed) if 'tools/train.py' in c]
    assert last == f'{folder}/udp.py'

    assert main(['audit', str(folder / 'udp.py'), '-o', str(folder)]) == 0
    printed = capsys.readouterr().out
    assert 'no findings: its parts' in printed
    for made in ('audit.json', 'flip.png'):
        assert f'  {folder}/{made}\n' in printed
        assert (folder / made).is_file()

    out = folder / 'decoding.onnx'
    assert main(['export', str(config.with_name('udp.py')), '--decoding-only',
                 '-o', str(out)]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert f'{out}' in printed.replace('\n', '')


@each_name
def test_the_demo_s_words(name, tmp_path, capsys):
    keys = [key for key, *_ in report.COLUMNS]
    runs = {
        each: Run([], np.ones(9), {**dict.fromkeys(keys, 1.0), 'median_px': px})
        for each, px in dict(stock=2.0, kept=1.5, udp_offset=1.0).items()
    }
    data = SimpleNamespace(title=name)
    folder = tmp_path / name
    pictures = [folder / 'errors.png']
    report.show(Demo(folder, data, 5, 0, runs, pictures, dict(all=61.0)))
    printed = capsys.readouterr().out
    assert f'\n{folder}/errors.png\n' in printed
    assert name in ' '.join(printed.split('udp_offset')[0].split())
    ((*_, config, checkpoint, option, _, _),) = commands(printed)
    assert config == f'{folder}/udp_offset.py'
    assert checkpoint == f'{folder}/udp_offset/iter_5.pth'
    assert option == '-o'


@each_name
def test_progress_and_tables(name, capsys):
    with ui.progress() as bars:
        task = bars.add_task(name, total=1, note=f'note {name}')
        bars.advance(task)
    printed = capsys.readouterr().out
    assert f'{name} ' in printed and f'note {name}' in printed
    ui.Table(name, [name, 'b'], [[name, f'**{name}**']], '').print(ui.console())
    printed = capsys.readouterr().out
    assert printed.count(name) == 4 and '*' not in printed


@each_name
def test_commands_in_errors(name, tmp_path, capsys):
    stock = tmp_path / name / 'stock config.py'
    stock.parent.mkdir(parents=True)
    stock.write_text(f"_base_ = ['mmpose::{RES50}']\n")
    with pytest.raises(SystemExit):
        main(['export', str(stock), '--decoding-only', '-o', str(tmp_path / 'a.pt')])
    said = capsys.readouterr().err
    command = said[said.index('udp-plugin') : said.index(' keeps the checkpoint')]
    expected = ['udp-plugin', 'convert', str(stock), '--keep-weights']
    assert shlex.split(command) == expected


def test_annotations_nested_too_deep(tmp_path, capsys):
    """As Python's JSON reader, which is recursive, cannot read them."""
    deep, img = tmp_path / 'deep.json', tmp_path / 'img'
    img.mkdir()
    for text in ('[' * 100_000, '{"annotations": ' + '[' * 100_000):
        deep.write_text(text)
        for command in (
            ['audit', str(OFFSET), '--ann', str(deep), '--img', str(img)],
            ['demo', '--out', f'{tmp_path}/o', '--ann', str(deep), '--img', str(img)],
        ):
            with pytest.raises(SystemExit) as stopped:
                main(command)
            said = capsys.readouterr().err
            assert stopped.value.code == 2
            assert f'--ann {deep} is not a JSON file: ' in said


@pytest.mark.parametrize('command', ['audit', 'convert', 'export'])
def test_configs_in_json_nested_too_deep(command, tmp_path, capsys):
    deep = tmp_path / 'deep.json'
    deep.write_text('{"model": ' + '[' * 100_000)
    out = ['-o', str(tmp_path / 'made')]
    if command == 'export':
        out = ['--decoding-only', '-o', str(tmp_path / 'a.onnx')]
    status = None
    try:
        status = main([command, str(deep), *out])
    except SystemExit as stopped:
        status = stopped.code
    printed = capsys.readouterr()
    assert status == 2 or json.loads((tmp_path / 'made/audit.json').read_text())
    assert 'Traceback' not in printed.err + printed.out
