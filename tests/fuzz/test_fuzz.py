"""Sixty of the damaged files of `make fuzz`, and that the command sees what it looks for."""

import collections

import pytest

from jaxfair.data import pixels, reading
from jaxfair.data.stored import Stored
from tests.data import hostile
from tests.fuzz import run
from tests.fuzz.corpus import TURNS, made, sample_at, samples
from tests.fuzz.mutate import mutated


def test_sixty_damaged_files_end_no_process_and_are_read_or_refused(tmp_path):
    outcomes = run.fuzz(60, 0, tmp_path, processes=1)
    fatal = [outcome for outcome in outcomes if outcome.verdict in run.FATAL]
    assert len(outcomes) == 60 and fatal == [], run.summary(outcomes, 0, 0)
    assert {outcome.kind for outcome in outcomes} == set(TURNS)
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    assert counts["read"] >= 5 and counts["refused"] >= 20
    refused = [o for o in outcomes if o.verdict == "refused"]
    assert all(str(tmp_path) not in o.reason for o in refused if o.kind != "csv")


def test_every_whole_sample_that_is_made_here_is_read(tmp_path):
    """Else the damage would be done to files that are refused as they are."""
    for source, how in (("table", run.FLAT), ("volumes", run.SOLID)):
        jobs = []
        for sample in (sample for sample in made() if sample.source == source):
            (tmp_path / sample.name).write_bytes(sample.content)
            jobs.append(pixels.Job(str(tmp_path / sample.name), run.how_of(sample)))
        found = list(reading.read_files(run.SOURCES[source].read_pixels, jobs, how))
        assert [h["reason"] for image, h in found if image is None] == []


def test_the_same_seed_damages_alike_and_another_one_otherwise():
    corpus = samples()
    chosen = [sample_at(i, corpus) for i in range(40)]
    first, again, other = (
        [mutated(s.name, s.content, run.random.Random(f"{seed} {i}")) for i, s in enumerate(chosen)]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert sum(a != b for a, b in zip(first, other)) > 30
    assert sum(a != s.content for a, s in zip(first, chosen)) > 30


@pytest.mark.parametrize(
    "name, verdict",
    [("abort-1", "aborted"), ("hang-1", "too slow"), ("memory-1", "too large"),
     ("kill-1", "too large"), ("zlib-1", "raised"), ("refuse-1", "refused")],
)  # fmt: skip
def test_the_command_sees_what_it_looks_for(name, verdict):
    how = Stored(image_size=8, max_seconds=1, max_megabytes=4)
    job = pixels.Job(f"/nowhere/{name}.dcm", how)
    [(image, header)] = reading.read_files(hostile.read_pixels, [job], how)
    assert image is None and run._verdict(header["reason"], f"{name}.dcm") == verdict, header


def test_what_failed_is_kept_where_one_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    outcomes = [
        run.Outcome("a.png", "png", "aborted", "", 0.0),
        run.Outcome("b.png", "png", "refused", "", 0.0),
    ]
    assert list(run.kept(outcomes, tmp_path, tmp_path / "kept")) == ["a.png"]
    assert (tmp_path / "kept" / "a.png").read_bytes() == b"x"
    assert "aborted: a.png" in run.summary(outcomes, 3, 1.0)
