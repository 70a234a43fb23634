"""The command line of the page, without Gradio."""

import importlib.util

import pytest

pytest.importorskip('mmseg')

from mmslak.web import web_command

NANO = 'configs/upernet_slak_nano_camvid.py'


def test_without_arguments_it_is_the_model_of_the_package():
    assert web_command.split_models([]) == [['slak_nano_camvid']]


def test_models_are_separated():
    arguments = [NANO, 'a.pth', 'slak_nano_camvid', 'mmslak::slak_t_in1k', 'b.pth', 'c.safetensors']
    assert web_command.split_models(arguments) == [
        [NANO, 'a.pth'],
        ['slak_nano_camvid'],
        ['mmslak::slak_t_in1k', 'b.pth'],
        ['c.safetensors'],
    ]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['photo.png'], 'photo.png is neither a config nor an exported model'),
        ([NANO], f'config {NANO} needs a checkpoint'),
        ([NANO, 'a.pth', NANO], f'config {NANO} needs a checkpoint'),
    ],
)
def test_incomplete_models_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        web_command.split_models(arguments)


@pytest.mark.parametrize(
    ('models', 'names'),
    [
        ([[NANO, 'a.pth'], ['mmslak::slak_t_in1k', 'a.pth']],
         ['upernet_slak_nano_camvid', 'slak_t_in1k']),
        ([[NANO, 'x/a.pth'], [NANO, 'x/b.pth']],
         ['upernet_slak_nano_camvid a', 'upernet_slak_nano_camvid b']),
        ([[NANO, 'x/a.pth'], [NANO, 'y/a.pth']],
         ['upernet_slak_nano_camvid a (1)', 'upernet_slak_nano_camvid a (2)']),
    ],
)  # fmt: skip
def test_titles(models, names):
    assert web_command.names_of(models) == names


def refused(monkeypatch, capsys, *arguments):
    """Return the message with which the command refuses arguments."""
    monkeypatch.setattr('sys.argv', ['web.py', *arguments])
    with pytest.raises(SystemExit) as stopped:
        web_command.main()
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[0]


def test_missing_gradio_is_named_before_the_models_are_loaded(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(web_command, 'Predictor', None)
    assert refused(monkeypatch, capsys) == (
        'error: the page needs gradio, which is not installed; install it with: '
        "pip install 'mmslak[web]'"
    )


def test_ports_are_checked(monkeypatch, capsys):
    assert '--port must be from 1 to 65535, got 0' in refused(monkeypatch, capsys, '--port', '0')


def test_only_this_machine_by_default():
    assert web_command.parser().parse_args([]).host == '127.0.0.1'
