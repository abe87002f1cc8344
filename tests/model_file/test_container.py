"""A model file from an unknown hand: whatever is wrong with it ends in one sentence."""

import hashlib
import io
import zipfile

import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.model_file import container
from jaxfair.model_file.model import load_model
from tests.model_file.hostile import resealed, rezipped
from tests.model_file.made import made_file, made_parts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made_file(tmp_path_factory.mktemp("model") / "m.jaxfair").read_bytes()


@pytest.fixture
def hostile(tmp_path):
    """Writes bytes as somebody would who knows the seal, and returns the path."""

    def write(content, *, sealed=True):
        (tmp_path / "m.jaxfair").write_bytes(resealed(content) if sealed else content)
        return tmp_path / "m.jaxfair"

    return write


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        load_model(path)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said and said.count(". ") <= 1, said


def test_a_whole_file_is_read_and_the_same_parts_give_the_same_bytes(tmp_path, whole):
    path = tmp_path / "m.jaxfair"
    path.write_bytes(whole)
    model = load_model(path)
    assert model.digest == hashlib.sha256(whole).hexdigest()
    assert container.packed(made_parts()) == whole
    assert load_model(path, sha256=model.digest.upper()).digest == model.digest
    with pytest.raises(InputError, match="was asked for"):
        load_model(path, sha256="0" * 64)


def test_the_helper_of_these_tests_writes_what_is_accepted(hostile):
    """So what is refused below is refused for what is wrong with it."""
    assert load_model(hostile(rezipped(list(made_parts().items())))).tasks == ("mass",)


def test_a_changed_byte_is_refused_wherever_it_lies(whole, hostile):
    rng = np.random.default_rng(0)
    places = {0, 1, 14, len(whole) - 1, len(whole) - 65, *rng.integers(0, len(whole), 200).tolist()}
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        refused(hostile(bytes(changed), sealed=False), "m.jaxfair")


def test_a_file_that_was_cut_off_or_grew_is_refused(whole, hostile):
    for content in (whole[:-1], whole[: len(whole) // 2], whole + b"\0", b"", b"PK\x03\x04"):
        refused(hostile(content, sealed=False), "m.jaxfair")


def test_what_is_no_file_of_ours_is_refused(tmp_path, hostile):
    refused(tmp_path / "nothing.jaxfair", "There is no model file")
    refused(tmp_path, "There is no model file")
    refused(hostile(b"\x80\x04K\x01.", sealed=False), "is no model file")


def test_another_version_is_refused_by_its_name(hostile):
    parts = list(made_parts().items())
    for number in (container.FORMAT + 1, "1", None):
        path = hostile(rezipped(parts, manifest={"format": number, "jaxfair": "9.9"}))
        refused(path, "9.9", repr(number))


def test_parts_that_are_missing_too_many_or_there_twice_are_refused(hostile):
    parts = made_parts()
    for name in set(parts) - {"evaluation.json"}:
        refused(hostile(rezipped([p for p in parts.items() if p[0] != name])), name)
    refused(hostile(rezipped([*parts.items(), ("more.txt", b"x")])), "more.txt")

    def renamed(member):
        member.filename = member.filename.replace("manifest", "other")
        return member

    refused(hostile(rezipped(list(parts.items()), renamed)), "manifest.json")
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rezipped([*parts.items(), ("card.md", b"# Another\n")])
    refused(hostile(twice), "card.md", "twice")


@pytest.mark.parametrize(
    "name", ["../card.md", "/etc/card.md", "a/../../card.md", "card.md\\..", "x/"]
)
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(hostile, tmp_path, name):
    before = sorted(tmp_path.parent.rglob("*"))
    path = hostile(rezipped([*made_parts().items(), (name, b"")]))
    refused(path)
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, path])


def test_a_link_is_refused(hostile):
    def linked(member):
        if member.filename == "card.md":
            member.external_attr = 0o120777 << 16
        return member

    refused(hostile(rezipped(list(made_parts().items()), linked)), "card.md", "no plain file")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(hostile):
    """A part of 200 MB of zeros that lies there as 200 kB."""
    parts = {**made_parts(), "card.md": bytes(200 * 2**20)}
    bomb = rezipped(list(parts.items()), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**20
    refused(hostile(bomb), "packed")


def test_overlapping_parts_and_bytes_between_them_are_refused(hostile):
    parts = list(made_parts().items())
    plain = rezipped(parts)
    file = io.BytesIO(b"MZ program " + plain)
    with zipfile.ZipFile(file, "a"):
        pass
    start = plain.index(b"PK\x01\x02")
    gap = plain[:start] + b"\0" * 8 + plain[start:]  # the directory is found 8 bytes further on
    refused(hostile(gap))
    entry = plain.index(b"PK\x01\x02", start + 4)  # the second member begins where the first does
    moved = plain[: entry + 42] + b"\0\0\0\0" + plain[entry + 46 :]
    refused(hostile(moved))


def test_a_part_that_the_manifest_tells_otherwise_is_refused(hostile):
    parts = list(made_parts().items())
    refused(hostile(rezipped(parts, manifest={"parts": {}})), "manifest")


def test_a_file_too_large_to_be_one_is_refused_unread(tmp_path, monkeypatch, whole):
    path = tmp_path / "m.jaxfair"
    path.write_bytes(whole)
    monkeypatch.setattr(container, "LIMIT", 1000)
    refused(path, "larger than")
