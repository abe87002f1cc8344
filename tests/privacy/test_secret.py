"""The secret, its streams and where it lives."""

import stat

import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import secret as secrets_room
from jaxfair.privacy.secret import Secret, create_secret, hkdf_expand, insecure_secret, load_secret
from jaxfair.run.folder import RunFolder


def test_a_secret_that_cannot_be_removed_is_no_secret_that_was_forgotten(tmp_path, monkeypatch):
    create_secret(tmp_path / "secret")

    def refuse(path, missing_ok=False):
        raise PermissionError("read only")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(InputError, match="cannot be removed"):
        RunFolder(tmp_path).forget_secret()


def test_hkdf_expand_gives_the_first_vector_of_rfc_5869():
    key = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    expected = (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf_expand(key, info, 42).hex() == expected


def test_streams_differ_over_purpose_step_and_leaf():
    secret = insecure_secret(1)
    arguments = [
        (p, s, leaf) for p in ("noise", "sampling") for s in range(30) for leaf in range(9)
    ]
    streams = {secret.derive(*a) for a in arguments} | {secret.derive("noise", 12)}
    assert len(streams) == len(arguments) + 1


def test_numbers_do_not_run_into_each_other():
    secret = insecure_secret(1)
    assert secret.derive("noise", 1, 23) != secret.derive("noise", 12, 3)


def test_a_created_secret_is_readable_by_its_owner_only_and_never_overwritten(tmp_path):
    made = create_secret(tmp_path / "secret")
    file = tmp_path / "secret" / "secret.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secret(tmp_path / "secret") == made
    with pytest.raises(FileExistsError):
        create_secret(tmp_path / "secret")


def test_two_secrets_of_the_operating_system_differ(tmp_path):
    assert create_secret(tmp_path / "a").material != create_secret(tmp_path / "b").material


def test_a_copied_secret_has_another_identity(tmp_path):
    made = create_secret(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "secret.key").write_bytes(made.material)
    assert load_secret(tmp_path / "b").identity != made.identity


def test_the_material_is_never_shown():
    secret = Secret(bytes(range(32)), source="os")
    assert "material" not in repr(secret)


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        Secret(b"short", source="os")


def test_module_uses_no_global_generator():
    assert not hasattr(secrets_room, "random")
