"""Writing, finding and replacing whole datasets."""

import pytest
from sample_helpers import tree_hash

from mmslak.sample_data import MANIFEST, write_sample_data


def test_same_arguments_same_bytes_and_scenes_do_not_depend_on_their_number(tmp_path):
    arguments = {'size': 48, 'seed': 9}
    first = write_sample_data(tmp_path / 'first', images=10, **arguments)
    write_sample_data(tmp_path / 'deep/er/second', images=10, **arguments)
    assert tree_hash(tmp_path / 'first') == tree_hash(tmp_path / 'deep/er/second')
    write_sample_data(tmp_path / 'more', images=12, **arguments)
    for path in (tmp_path / 'first').rglob('*'):
        if path.suffix in ('.jpg', '.png', '.xml', '.JPEG'):
            other = tmp_path / 'more' / path.relative_to(tmp_path / 'first')
            assert path.read_bytes() == other.read_bytes()
    assert first.counts['ADE20K'] == {'train': 8, 'val': 2}


def test_existing_data_other_parameters_and_overwrite(tmp_path):
    root = tmp_path / 'data'
    assert write_sample_data(root, images=3, size=48).written
    before = tree_hash(root)
    again = write_sample_data(root, images=3, size=48)
    assert not again.written and again.counts['VOC2007'] == {'train': 2, 'val': 1}
    with pytest.raises(FileExistsError, match='images is 3 instead of 4'):
        write_sample_data(root, images=4, size=48)
    assert tree_hash(root) == before
    assert write_sample_data(root, images=4, size=48, overwrite=True).written
    next(root.rglob('*.xml')).unlink()
    with pytest.raises(FileExistsError, match='files instead of'):
        write_sample_data(root, images=4, size=48)
    assert write_sample_data(root, images=4, size=48, overwrite=True).written
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_interruption_leaves_no_partial_data(tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample_data(tmp_path / 'data', images=5, size=48, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    write_sample_data(tmp_path / 'data', images=3, size=48)
    before = tree_hash(tmp_path / 'data')
    with pytest.raises(KeyboardInterrupt):
        write_sample_data(tmp_path / 'data', images=5, size=48, overwrite=True, progress=interrupt)
    assert tree_hash(tmp_path / 'data') == before


@pytest.mark.parametrize('content', ['note.txt', MANIFEST])
@pytest.mark.parametrize('overwrite', [False, True])
def test_other_directories_are_never_changed(tmp_path, content, overwrite):
    (tmp_path / content).write_text('{}')
    with pytest.raises(FileExistsError, match='is not sample data'):
        write_sample_data(tmp_path, images=2, size=48, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_an_empty_directory_is_accepted_and_a_file_is_not(tmp_path):
    (tmp_path / 'empty').mkdir()
    assert write_sample_data(tmp_path / 'empty', images=2, size=48).written
    (tmp_path / 'file').write_text('x')
    with pytest.raises(FileExistsError, match='is a file'):
        write_sample_data(tmp_path / 'file', images=2, size=48, overwrite=True)
