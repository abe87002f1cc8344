import os
import pathlib

import numpy as np
import pandas as pd
import pytest

from jaxfair import prepare
from jaxfair.data.sources import rsna
from tests.data import hostile


def call(capsys, *arguments):
    status = prepare.main(["prepare", *map(str, arguments)])
    return status, *capsys.readouterr()


@pytest.fixture
def root(tmp_path):
    from jaxfair.phantom import write

    config = write.PhantomConfig(n_images=24, pixels=32)
    return write.write_phantom(config, tmp_path / "root", progress=False)


def test_the_command_prepares_once_and_says_what_there_is(root, tmp_path, capsys):
    line = ["--source", "rsna", "--root", root, "--out", tmp_path / "set", "--image_size=16"]
    status, out, err = call(capsys, *line)
    assert status == 0 and "decode PHANTOM: 100%" in err
    assert out.startswith("PHANTOM rsna: 24 images of ") and f"written: {tmp_path / 'set'}" in out
    assert (tmp_path / "set" / "data_card.json").is_file()
    status, again, err = call(capsys, *line)
    assert (status, again, err) == (0, out, "")


def test_the_bar_can_be_silenced(root, tmp_path, capsys):
    status, _, err = call(capsys, "--root", root, "--out", tmp_path / "set", "--noprogress")
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--rot", "x"], "Unknown command line flag 'rot'. Did you mean: root"),
        (["--image_size", "big"], "--image_size=big"),
        (["--image_size", "4"], "data.image_size is 4; it must be 8 to 1024"),
        (["--source", "rsno"], "data.source is 'rsno'; it must be one of 'rsna', "),
        (["--root", "/nowhere/at/all"], "The data folder /nowhere/at/all does not exist."),
        (["stray"], "takes no argument 'stray'"),
    ],
)
def test_refused_input_is_one_sentence_and_status_2(arguments, sentence, capsys):
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_an_interrupt_is_one_sentence_and_leaves_nothing(root, tmp_path, capsys, monkeypatch):
    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxfair.data.reading.workers.parallel", stopped)
    status, out, err = call(capsys, "--root", root, "--out", tmp_path / "set", "--noprogress")
    assert (status, out) == (130, "") and err.strip() == "Interrupted: prepare did not finish."
    assert not [name for name in os.listdir(tmp_path) if "draft" in name or name == "set"]


@pytest.mark.parametrize(
    "name", ["prepared.json", "manifest.parquet", "rejected.csv", "data_card.json", "pixels.npy"]
)
def test_a_damaged_prepared_folder_is_one_sentence(root, tmp_path, capsys, name):
    line = ["--root", root, "--out", tmp_path / "set", "--image_size=16", "--noprogress"]
    assert call(capsys, *line)[0] == 0
    for content in (b"{", b""):
        (tmp_path / "set" / name).write_bytes(content)
        status, out, err = call(capsys, *line)
        assert (status, out) == (2, ""), (name, content)
        assert f"{tmp_path / 'set'}" in err and "delete" in err and err.count("\n") == 1


def test_help_names_every_option(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0
    assert all(f"--{name}" in out for name in ("source", "root", "out", "image_size"))


def test_a_config_names_what_options_cannot(tmp_path, capsys):
    config = pathlib.Path(__file__).resolve().parents[1] / "configs" / "table_resnet.py"
    line = ["--config", f"{config}:phantom", f"--config.data.root={tmp_path}"]
    small = ["--config.data.phantom.n_images=24", "--config.data.phantom.pixels=32"]
    status, out, err = call(capsys, *line, *small, "--noprogress", f"--out={tmp_path / 'set'}")
    assert (status, err) == (0, "") and out.startswith("PHANTOM table: 24 images of ")
    assert out.endswith(f"written: {tmp_path / 'set'}\n")
    assert (tmp_path / "set" / "prepared.json").is_file()
    status, out, err = call(capsys, *line, "--config.data.resize=squash")
    assert (status, out) == (2, "") and "data.resize is 'squash'" in err


def test_a_file_that_ends_its_process_is_named_and_the_others_are_prepared(
    root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(rsna, "read_pixels", hostile.read_pixels)
    films = sorted((root / rsna.IMAGES).glob("*.dcm"))
    bad = ["abort-1", "zlib-1", "leave-1"]
    for film, name in zip(films[3::7], bad):
        film.rename(film.with_stem(name))
        for table in [*root.glob("*.csv"), *root.glob("*.json")]:
            table.write_text(table.read_text().replace(film.stem, name))
    line = ["--root", root, "--out", tmp_path / "set", "--image_size=16", "--noprogress"]
    status, _, err = call(capsys, *line)
    assert status == 0, err
    rejected = pd.read_csv(tmp_path / "set" / "rejected.csv").set_index("image_id")["reason"]
    assert rejected["abort-1"] == (
        "abort-1.dcm cannot be read: it ended the process that read it (SIGABRT)."
    )
    assert rejected["zlib-1"] == "zlib-1.dcm cannot be read: error: Error -3."
    assert rejected["leave-1"].endswith("(status 3).")
    kept = pd.read_parquet(tmp_path / "set" / "manifest.parquet")["image_id"]
    assert not set(kept) & set(bad) and len(kept) + len(rejected) >= len(films)


def test_what_words_mean_is_said_on_the_line_to_any_config_of_a_table(tmp_path, capsys):
    words = ("w.", "m.")
    rows = [f"{i}.npy,p{i},{words[i % 2]},{i % 2}" for i in range(20)]
    (tmp_path / "table.csv").write_text("\n".join(["image,patient,sex,effusion", *rows]))
    for i in range(20):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).integers(0, 256, (9, 9), np.uint8))
    line = [f"--config.data.root={tmp_path}", "--config.data.image_size=16", "--noprogress"]
    line += ["--config.data.table.age=", "--config.data.table.view=", "--config", "table_fae"]
    line += ["--config.data.table.anomaly=('effusion',)", f"--out={tmp_path / 'set'}"]
    status, out, err = call(capsys, *line)
    assert (status, out) == (2, "") and "'w.' x 10" in err and err.count("\n") == 1
    assert "--config.data.table.values=\"{'sex': {'word': 'value'}}\"" in err
    dots = "--config.data.table.values={'sex': {'w.': 'F', 'm.': 'M'}}"
    status, out, err = call(capsys, *line, dots)
    assert (status, out) == (2, "") and "as pairs: {'name': [['a.b', 'value']]}" in err
    pairs = "--config.data.table.values={'sex': [['w.', 'F'], ['m.', 'M']]}"
    status, out, err = call(capsys, *line, pairs)
    assert (status, err) == (0, "") and "sex unknown" not in out
