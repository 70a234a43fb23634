"""Configs that try to run code, with and without ``--no-exec-config``."""

import json
import pickle
import sys
from contextlib import nullcontext

import mmengine
import pytest
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import FUNCTIONS

from mmslak.cli.config import load_config
from mmslak.cli.data_config import CodeInConfigError, check_data, configs_as_data

RUNS = 'open({trace!r}, "w")\n'
#: Names and contents of config files that create the file TRACE. The first one is loaded.
HOSTILE = {
    'a Python file': {'c.py': RUNS},
    'a Python file with imports': {
        'c.py': f'from mmengine.config import read_base\nfrom torch import nn\n{RUNS}'
    },
    'a YAML file with a Python base': {'c.yaml': '_base_: b.py', 'b.py': RUNS},
    'a base of a base': {
        'c.yml': '_base_: [b.json]',
        'b.json': '{{"_base_": "a.py"}}',
        'a.py': RUNS,
    },
    'a base named by a variable': {'c.yaml': '_base_: "{{{{$NOT_SET:b.py}}}}"', 'b.py': RUNS},
    'a YAML tag': {'c.yaml': "x: !!python/object/apply:os.makedirs ['{trace}', 511, true]"},
    'a YAML tag in a base': {
        'c.json': '{{"_base_": "b.yaml"}}',
        'b.yaml': "x: !!python/object/apply:os.makedirs ['{trace}', 511, true]",
    },
    'a module next to it': {
        'c.yaml': 'custom_imports: {{imports: [hostile_module]}}',
        'hostile_module.py': RUNS,
    },
}


@pytest.mark.parametrize('as_data', [False, True])
@pytest.mark.parametrize('files', HOSTILE.values(), ids=HOSTILE)
def test_configs_with_code(tmp_path, monkeypatch, files, as_data):
    trace = tmp_path / 'trace'
    for name, text in files.items():
        (tmp_path / name).write_text(text.format(trace=str(trace)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'hostile_module', raising=False)
    expected = (
        pytest.raises(CodeInConfigError, match='--no-exec-config') if as_data else nullcontext()
    )
    with configs_as_data() if as_data else nullcontext(), expected:
        load_config(tmp_path / next(iter(files)))
    # Without the option the files do run code, so the test would notice it.
    assert trace.exists() is not as_data


def test_configs_of_the_toolboxes_are_python():
    pytest.importorskip('mmpretrain')
    with configs_as_data(), pytest.raises(CodeInConfigError, match='resnet50'):
        load_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')


def test_names_of_functions_are_not_looked_up(tmp_path):
    trace = tmp_path / 'trace'
    call = dict(type='builtins.open', file=str(trace), mode='w')
    FUNCTIONS.build(call).close()
    assert trace.exists()
    trace.unlink()
    with configs_as_data(), pytest.raises(KeyError, match=r'builtins\.open'):
        FUNCTIONS.build(call)
    assert not trace.exists()


def test_modules_of_other_packages_are_not_imported_as_a_scope(tmp_path, monkeypatch):
    package = tmp_path / 'hostile_package'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'registry.py').write_text(f'open({str(tmp_path / "trace")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    with configs_as_data(), pytest.raises(KeyError):
        FUNCTIONS.build(dict(type='hostile_package.Name'))
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (dict(model=dict(nms=dict(type='__import__("os").abort()'))), 'model.nms.type must not'),
        (dict(steps=[dict(dtype='os.abort()')]), 'steps.0.dtype must not contain a parenthesis'),
        (dict(default_scope='hostile'), "default_scope must be one of .*, got 'hostile'"),
        (dict(model=[dict(_scope_='hostile')]), "model.0._scope_ must be one of .*, got 'hostile'"),
    ],
)
def test_texts_that_would_be_code(content, words):
    with pytest.raises(CodeInConfigError, match=words):
        check_data(content)


def test_texts_that_are_data():
    metainfo = dict(classes=('person (sitting)',))
    check_data(
        dict(default_scope='mmseg', metainfo=metainfo, x=[1, None, 'a.b', dict(_scope_=None)])
    )


def test_pickle_files_are_written_but_not_read(tmp_path):
    file = tmp_path / 'annotations.pkl'
    with configs_as_data():
        mmengine.dump([1], file)
        with pytest.raises(CodeInConfigError, match='in pickle format is not read'):
            mmengine.load(file)
    assert pickle.loads(file.read_bytes()) == mmengine.load(file) == [1]


@pytest.mark.parametrize('suffix', ['yaml', 'json'])
def test_dumped_configs_are_accepted(tmp_path, suffix):
    pytest.importorskip('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/sample/upernet_slak_nano_ade20k.py')
    file = tmp_path / f'c.{suffix}'
    cfg.dump(file)
    child = json.dumps(dict(_base_=file.name, resume=True))
    (tmp_path / f'd.{suffix}').write_text(child)
    with configs_as_data():
        loaded = load_config(tmp_path / f'd.{suffix}')
        check_data(loaded.to_dict())
    assert loaded.resume is True
    assert loaded.train_dataloader.batch_size == cfg.train_dataloader.batch_size
    if suffix == 'yaml':
        # JSON has no tuples.
        assert loaded.to_dict() == dict(cfg.to_dict(), resume=True)
