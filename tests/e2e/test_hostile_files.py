"""Files that try to run code, given to every command line that reads a checkpoint."""

import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.config import Config

pytest.importorskip('mmseg')

SEG = 'configs/sample/upernet_slak_nano_ade20k.py'
#: Commands with FILE in place of the checkpoint, and OUT in place of files that they write.
COMMANDS = {
    'load_from': ['tools/train.py', SEG, '--work-dir', 'OUT', 'load_from=FILE'],
    'resume': ['tools/train.py', SEG, '--work-dir', 'OUT', '--resume', 'FILE'],
    'init_cfg': [
        'tools/train.py', SEG, '--work-dir', 'OUT',
        'model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=FILE',
    ],
    'test': ['tools/test.py', SEG, 'FILE', '--work-dir', 'OUT'],
    'predict': ['tools/predict.py', SEG, 'FILE', 'tests/data/camvid/images/test', '--out', 'OUT'],
    'merge': ['tools/deploy/merge.py', SEG, 'FILE', 'OUT/a.pth'],
    'export': ['tools/deploy/export.py', SEG, 'FILE', 'OUT/a.safetensors'],
    'official': ['tools/convert/official.py', 'FILE', 'OUT/a.pth'],
    'to_official': ['tools/convert/to_official.py', 'FILE', 'OUT/a.pth'],
    'erf': [
        'tools/analysis/erf.py', f'{SEG}=FILE', '--images', 'DATA/images/validation',
        '--num', '1', '--size', '64', '--out', 'OUT',
    ],
}  # fmt: skip


class CreatesFile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.fixture(scope='module')
def data(sample_data):
    return f'{sample_data(20, 96)}/ADEChallengeData2016'


def run(name, file, data, out, expect):
    places = {'FILE': str(file), 'OUT': str(out), 'DATA': data}
    words = []
    for word in COMMANDS[name]:
        for place, path in places.items():
            word = word.replace(place, path)
        words.append(word)
    options = [word for word in words if '=' in word and not word.startswith('configs')]
    arguments = [word for word in words if word not in options]
    if 'train.py' in words[0] or 'test.py' in words[0]:
        options += [f'data_root={data}', 'train_cfg.max_iters=1', 'train_dataloader.batch_size=2']
    return run_tool(*arguments, options=options, expect=expect)


@pytest.mark.parametrize(
    'name',
    [name if name in ('resume', 'test') else pytest.param(name, marks=pytest.mark.slow)
     for name in COMMANDS],
)  # fmt: skip
def test_no_command_unpickles_other_objects(name, data, tmp_path):
    file, trace = tmp_path / 'hostile.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=dict(x=CreatesFile(trace)), meta=dict(iter=0, epoch=0)), file)
    out = tmp_path / 'out'
    text = run(name, file, data, out, expect=2)
    assert 'contains objects of type' in text and 'Traceback' not in text
    assert not trace.exists()


def test_text_in_a_resumed_checkpoint_is_not_evaluated(data, tmp_path):
    small = [
        f'data_root={data}', 'train_dataloader.batch_size=2', 'model.decode_head.channels=16',
        'default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=9',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    ]  # fmt: skip
    work_dir, trace = tmp_path / 'work', tmp_path / 'trace'
    arguments = ['tools/train.py', SEG, '--work-dir', work_dir]
    run_tool(*arguments, options=[*small, 'train_cfg.max_iters=1'])
    checkpoint = torch.load(work_dir / 'iter_1.pth', weights_only=True)
    checkpoint['meta']['config'] = f'open({str(trace)!r}, "w")'
    torch.save(checkpoint, tmp_path / 'hostile.pth')
    options = [*small, 'train_cfg.max_iters=2']
    run_tool(*arguments, '--resume', tmp_path / 'hostile.pth', options=options)
    assert (work_dir / 'iter_2.pth').is_file()
    assert not trace.exists()


@pytest.mark.slow
def test_training_and_test_with_a_config_that_is_data(data, tmp_path):
    file, work_dir = tmp_path / 'config.yaml', tmp_path / 'work'
    Config.fromfile(ROOT / SEG).dump(file)
    options = [f'data_root={data}', 'train_dataloader.batch_size=2', 'train_cfg.max_iters=1']
    common = [file, '--no-exec-config', '--work-dir', work_dir]
    run_tool('tools/train.py', *common, options=options)
    text = run_tool('tools/test.py', file, work_dir / 'iter_1.pth', *common[1:], options=options)
    assert 'mIoU' in text
    text = run_tool('tools/train.py', SEG, *common[1:], options=options, expect=2)
    assert '--no-exec-config accepts only .yaml' in text
