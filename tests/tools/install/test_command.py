"""Whole installations, with stand-ins for uv and for what it installs."""

import shutil
import signal
import time

import pytest
from install import display
from stand_ins import calls, run, start


def synced(env):
    """Return how often the pins were installed."""
    return sum(call.startswith('pip sync') for call in calls(env))


def made(env):
    """Return how often the environment was made."""
    return sum(call.startswith('venv') for call in calls(env))


class TestHelp:
    @pytest.mark.parametrize('option', ['--help', '-h'])
    def test_prints_and_does_nothing(self, checkout, machine_with_uv, option):
        before = sorted(path for path in checkout.rglob('*') if '__pycache__' not in path.parts)
        status, output, errors = run(checkout, machine_with_uv, option)
        assert status == 0, errors
        assert 'usage' in output
        assert '--python' in output
        after = sorted(path for path in checkout.rglob('*') if '__pycache__' not in path.parts)
        assert after == before
        assert calls(machine_with_uv) == []

    @pytest.mark.parametrize('arguments', [['--pyton', '3.11'], ['3.11'], ['--upgrade']])
    def test_mistakes_do_nothing(self, checkout, machine_with_uv, arguments):
        status, _, errors = run(checkout, machine_with_uv, *arguments)
        assert status == 2
        assert 'usage' in errors
        assert not (checkout / '.venv').exists()
        assert calls(machine_with_uv) == []


class TestInstall:
    def test_all_steps_and_then_nothing_to_do(self, checkout, machine_with_uv):
        status, output, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        for number in range(1, display.STEPS + 1):
            assert f'[{number}/{display.STEPS}]' in output
        assert 'Installed in' in output
        assert not (checkout / '.venv' / 'tmp').exists()
        asked = len(calls(machine_with_uv))
        status, output, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert output == 'make install: .venv is up to date\n'
        assert len(calls(machine_with_uv)) == asked

    def test_pins_are_installed_with_hashes_and_nothing_is_built(self, checkout, machine_with_uv):
        run(checkout, machine_with_uv)
        call = next(call for call in calls(machine_with_uv) if call.startswith('pip sync'))
        assert '--require-hashes' in call
        assert '--only-binary :all:' in call
        assert '--compile-bytecode' in call
        assert call.endswith('requirements/lock.txt')

    def test_another_stack_has_an_environment_of_its_own(self, checkout, machine_with_uv):
        run(checkout, machine_with_uv)
        arguments = ['--stack', 'onedl']
        status, output, errors = run(checkout, machine_with_uv, *arguments)
        assert status == 0, errors
        assert 'Installed in' in output
        wheels = [call for call in calls(machine_with_uv) if call.endswith('.whl')]
        assert ['/onedl_mmcv-2.3.6-' in call for call in wheels] == [False, True]
        syncs = [call for call in calls(machine_with_uv) if call.startswith('pip sync')]
        assert syncs[1].endswith('requirements/onedl/lock.txt')
        assert '.venv-onedl/bin/python' in syncs[1]
        assert '--only-binary :all:' not in syncs[1]
        assert '--only-binary torch ' in syncs[1]
        assert '--only-binary onedl-mmdetection' not in syncs[1]
        _, output, _ = run(checkout, machine_with_uv, *arguments)
        assert output == 'make install: .venv-onedl is up to date\n'
        _, output, _ = run(checkout, machine_with_uv)
        assert output == 'make install: .venv is up to date\n'

    def test_unknown_stack(self, checkout, machine_with_uv):
        status, _, errors = run(checkout, machine_with_uv, '--stack', 'onedle')
        assert status == 2
        assert "invalid choice: 'onedle'" in errors
        assert 'onedl' in errors
        assert calls(machine_with_uv) == []

    def test_environment_elsewhere(self, checkout, machine_with_uv):
        status, _, errors = run(checkout, machine_with_uv, '--venv', '.venv-other')
        assert status == 0, errors
        assert (checkout / '.venv-other' / 'mmslak-stamp').exists()
        assert not (checkout / '.venv').exists()

    @pytest.mark.parametrize('name', ['/tmp/other', 'docs', '..', '.venv/../docs', '.git'])
    def test_only_environments_are_replaced(self, checkout, machine_with_uv, name):
        status, _, errors = run(checkout, machine_with_uv, '--venv', name)
        assert status == 2
        assert f'{name!r} is not .venv, nor a name such as .venv-other' in errors
        assert calls(machine_with_uv) == []

    def test_changed_pins_update_the_environment(self, checkout, machine_with_uv):
        run(checkout, machine_with_uv)
        (checkout / '.venv' / 'kept').touch()
        with (checkout / 'requirements' / 'lock.txt').open('a') as file:
            file.write('# changed\n')
        status, _, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert (made(machine_with_uv), synced(machine_with_uv)) == (1, 2)
        assert (checkout / '.venv' / 'kept').exists()

    def test_a_foreign_environment_is_replaced(self, checkout, machine_with_uv):
        (checkout / '.venv' / 'bin').mkdir(parents=True)
        (checkout / '.venv' / 'foreign').touch()
        status, _, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert not (checkout / '.venv' / 'foreign').exists()
        assert not list(checkout.glob('.venv-old-*'))

    def test_a_link_to_an_environment_is_replaced_not_followed(
        self, checkout, machine_with_uv, tmp_path
    ):
        (tmp_path / 'precious').mkdir()
        (tmp_path / 'precious' / 'file').touch()
        (checkout / '.venv').symlink_to(tmp_path / 'precious')
        status, _, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert (tmp_path / 'precious' / 'file').exists()
        assert not (checkout / '.venv').is_symlink()


class TestInterrupted:
    @pytest.mark.parametrize(
        ('number', 'status'), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)]
    )
    def test_is_done_again_from_scratch(self, checkout, machine_with_uv, number, status):
        env = {**machine_with_uv, 'UV_KILLS': str(int(number))}
        assert run(checkout, env)[0] == status
        assert (checkout / '.venv' / 'bin' / 'python').exists()
        (checkout / '.venv' / 'half a package').touch()
        shutil.rmtree(checkout / '.venv-old-x', ignore_errors=True)
        (checkout / '.venv-old-x').mkdir()
        status, output, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert 'Installed in' in output
        assert made(machine_with_uv) == 2
        assert not (checkout / '.venv' / 'half a package').exists()
        assert not (checkout / '.venv-old-x').exists()

    def test_an_update_too(self, checkout, machine_with_uv):
        run(checkout, machine_with_uv)
        with (checkout / 'requirements' / 'lock.txt').open('a') as file:
            file.write('# changed\n')
        run(checkout, {**machine_with_uv, 'UV_KILLS': str(int(signal.SIGKILL))})
        status, _, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert made(machine_with_uv) == 2

    @pytest.fixture(autouse=True)
    def ctrl_c_is_not_ignored(self):
        """Undo what a shell in the background does; processes inherit it."""
        given = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, given)

    def test_ctrl_c_says_how_to_continue(self, checkout, machine_with_uv):
        env = {**machine_with_uv, 'UV_KILLS': str(int(signal.SIGINT))}
        status, _, errors = run(checkout, env)
        assert status == 130
        assert errors == '\nmake install: interrupted; run it again to continue\n'

    def test_no_process_is_left(self, checkout, machine_with_uv):
        """The stand-in sleeps for a minute after it has killed the installer."""
        env = {**machine_with_uv, 'UV_KILLS': str(int(signal.SIGKILL))}
        began = time.monotonic()
        run(checkout, env)  # returns when the last process that holds its output has ended
        assert time.monotonic() - began < 20


class TestTwoAtOnce:
    def test_one_installs_and_the_other_waits(self, checkout, machine_with_uv):
        env = {**machine_with_uv, 'UV_SLEEPS': '2'}
        processes = [start(checkout, env) for _ in range(2)]
        results = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], results
        assert synced(env) == 1
        outputs = sorted((output for output, _ in results), key=len)
        assert 'another make install is using' in outputs[0]
        assert 'up to date' in outputs[0]
        assert 'Installed in' in outputs[1]
