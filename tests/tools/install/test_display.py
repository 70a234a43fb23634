"""What is shown of the progress."""

import io

import pytest
from install import display


class TestCompiling:
    def test_time_left(self):
        clock = iter([0.0, 30.0]).__next__
        progress = display.NinjaProgress(clock)
        progress.feed('precompiled header: done in 23 s')
        progress.feed('[10/77] c++ ...')
        assert '12 %' in progress.text
        assert '3 min 21 s left' in progress.text

    def test_other_lines_change_nothing(self):
        progress = display.NinjaProgress()
        before = progress.text
        progress.feed('copying mmcv/[1/2].py')
        assert progress.text == before


class TestSync:
    def downloading(self, written):
        """Return the progress 30 s into two downloads of together 2 GiB."""
        clock = iter([0.0, 30.0]).__next__
        progress = display.SyncProgress(clock, lambda pid: written)
        progress.watch(1)
        progress.feed('Downloading torch (1.5GiB)')
        progress.feed('Downloading numpy (512.0MiB)')
        return progress

    def test_time_left(self):
        quarter = 0.25 * 2 * 2**30 * display.SyncProgress.UNPACKED
        text = self.downloading(quarter).text
        assert text == 'downloading 2.0 GB: 25 %, about 1 min 30 s left'

    @pytest.mark.parametrize('written', [0, 1000])
    def test_no_guess_at_the_start(self, written):
        assert self.downloading(written).text == 'downloading 2.0 GB'

    def test_never_more_than_all(self):
        assert self.downloading(2**40).text == 'downloading 2.0 GB: nearly done'

    def test_stages(self):
        progress = self.downloading(2**30)
        progress.feed('Prepared 95 packages in 33.18s')
        assert 'linking' in progress.text
        progress.feed('Installed 95 packages in 708ms')
        assert 'bytecode' in progress.text

    def test_nothing_to_download(self):
        progress = display.SyncProgress()
        progress.feed('Resolved 95 packages in 1.22s')
        progress.feed('Installed 95 packages in 2.11s')
        progress.feed(' + torch==2.11.0')
        assert 'bytecode' in progress.text

    def test_bytes_of_a_process_that_is_gone(self):
        assert display.bytes_written(2**30) == 0


class TestLines:
    def test_steps_are_numbered(self):
        stream = io.StringIO()
        shown = display.Display(stream)
        shown.step('first', '5 s')
        shown.done()
        shown.step('second', '1 min')
        lines = stream.getvalue().splitlines()
        assert lines[0] == f'[1/{display.STEPS}] first (about 5 s)'
        assert lines[1].startswith('      done in 0 s')
        assert lines[2].startswith(f'[2/{display.STEPS}] ')

    def test_a_log_is_not_flooded(self):
        stream = io.StringIO()
        shown = display.Display(stream)
        shown.step('first', '5 s')
        for _ in range(100):
            shown.tick('working')
        assert len(stream.getvalue().splitlines()) == 1

    @pytest.mark.parametrize(
        ('seconds', 'text'),
        [(0.2, '0 s'), (59.4, '59 s'), (59.6, '1 min 00 s'), (185, '3 min 05 s')],
    )
    def test_times(self, seconds, text):
        assert display.as_time(seconds) == text
