"""Commands that compile much keep it on disk."""

import jax
import pytest

from jaxfair import train
from jaxfair.audit import __main__ as audit
from jaxfair.engine.compiling import keep_compilations


@pytest.fixture
def folder_of_cache():
    """`() -> the folder`, which is afterwards what it was."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_what_is_compiled_lies_in_the_cache_of_the_user(folder_of_cache, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compilations()
    assert folder_of_cache() == f"{tmp_path}/jaxfair/xla"


def test_a_folder_that_was_named_is_left(folder_of_cache, monkeypatch, tmp_path):
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compilations()
    assert folder_of_cache() == "elsewhere"


@pytest.mark.parametrize("command", [train, audit])
def test_training_and_audit_keep_what_they_compile(command, monkeypatch):
    called = []
    monkeypatch.setattr(command, "keep_compilations", lambda: called.append(1))
    assert command.main(["", "--config=no_such_file.py"]) == 2
    assert called == [1]
