"""What the machine lacks is named before anything is downloaded."""

import time
from pathlib import Path

import pytest
from install import checks
from stand_ins import calls, run, uv_text, write_program


def nothing_found(name):
    return None


class TestCompiler:
    def test_missing(self):
        with pytest.raises(checks.InstallError, match=r'apt-get install g\+\+') as caught:
            checks.find_compiler({}, which=nothing_found)
        assert '\n' not in str(caught.value)

    def test_wrong_cxx_is_named(self):
        with pytest.raises(checks.InstallError, match='no-such-compiler'):
            checks.find_compiler({'CXX': 'no-such-compiler'})

    def test_broken(self, tmp_path):
        broken = tmp_path / 'c++'
        write_program(broken, '#!/bin/sh\nexit 1\n')
        with pytest.raises(checks.InstallError, match='cannot compile'):
            checks.find_compiler({}, which=lambda name: str(broken))

    def test_noticed_before_anything_is_made(self, checkout, machine):
        write_program(Path(machine['PATH']) / 'uv', uv_text())
        began = time.monotonic()
        status, output, errors = run(checkout, machine)
        assert time.monotonic() - began < 5
        assert status == 1
        assert output == ''
        assert len(errors.splitlines()) == 1
        assert 'C++ compiler' in errors
        assert not (checkout / '.venv').exists()
        assert calls(machine) == []

    def test_not_needed_with_a_wheel(self, checkout, machine_with_uv):
        status, output, errors = run(checkout, machine_with_uv)
        assert status == 0, errors
        assert 'found in' in output


class TestDisk:
    def test_full(self, tmp_path):
        with pytest.raises(checks.InstallError, match='free') as caught:
            checks.check_disk(tmp_path, free_bytes=2**30)
        assert str(tmp_path) in str(caught.value)

    def test_large_enough(self, tmp_path):
        checks.check_disk(tmp_path, free_bytes=2**40)

    def test_directory_that_does_not_exist_yet(self, tmp_path):
        with pytest.raises(checks.InstallError, match='free'):
            checks.check_disk(tmp_path / 'cache' / 'uv', free_bytes=2**30)
