"""Faults by which somebody decides about others, or by which it is told how many there are."""

import contextlib

from jaxfair.data import build, splits
from jaxfair.engine import books, opening
from jaxfair.privacy import sampling
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.run import checkpoint
from jaxfair.run.folder import RunFolder
from tests.privacy.mutations.putting import replaced, wrapped


def fault_67_a_second_image_of_the_same_pixels_is_dropped():
    """Who leaves brings another in: add or remove one becomes replace one."""

    def read_files(original, *arguments, **how):
        seen = set()
        for image, header in original(*arguments, **how):
            known = image is not None and image.tobytes() in seen
            seen |= set() if image is None else {image.tobytes()}
            yield (None, {"reason": "a copy"}) if known else (image, header)

    return wrapped(build.reading, "read_files", read_files)


def fault_68_a_validation_set_is_carved_where_nobody_validates_yet():
    """One published validation patient brings one in eight back into training."""

    def split(original, names, published, *, salt, carve):
        carve = "validation" not in list(published)
        return original(names, published, salt=salt, carve=carve)

    return wrapped(splits, "split_as_published", split)


def fault_69_padding_is_left_out():
    """A step takes as long as its draw is large."""
    return replaced(PrivacyPlan, "least_chunks", lambda self, chunk_size: 1)


def fault_70_draws_are_padded_to_their_mean():
    """Every second draw is larger."""
    return replaced(sampling, "draw_bound", lambda num_units, prob: int(num_units * prob) + 1)


def fault_71_a_draw_is_cut_to_its_room():
    """Who joins pushes somebody else out, and nobody accounts for it."""
    cut = lambda original, draw, size, least: original(draw[: least * size], size, least)
    return wrapped(sampling, "chunks_from_draw", cut)


def fault_72_orbax_keeps_its_times():
    """The metadata of two checkpoints give the rate in nanoseconds."""
    return replaced(checkpoint, "_forget_times", lambda path: None)


def fault_73_arrays_are_saved_in_a_format_with_times():
    """OCDBT writes the time of a commit among the arrays."""
    return replaced(checkpoint, "_plain_arrays", contextlib.nullcontext)


def fault_74_files_keep_the_time_at_which_they_were_written():
    """A copy that keeps times carries the duration of the run out."""
    return replaced(RunFolder, "level_times", lambda self: None)


def fault_75_the_config_of_a_run_counts_its_units():
    """A number for the reader's convenience."""

    def counted(original, stages, population, fields, folder, config, options):
        config = {**config, "units": len(population.rows)}
        return original(stages, population, fields, folder, config, options)

    return wrapped(opening, "open_books", counted)


def fault_76_there_is_no_lock():
    """Two processes draw and pay in one folder."""
    return replaced(RunFolder, "locked", lambda self: contextlib.nullcontext())


def fault_77_flags_of_the_compiler_are_no_part_of_the_fingerprint():
    """The same noise on sums that were rounded otherwise."""
    return replaced(books, "VARIABLES", ())
