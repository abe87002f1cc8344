"""Faults of what predict joins: scores and thresholds, maps and cases, files and digests."""

import dataclasses

import numpy as np

from jaxfair.model_file import container
from jaxfair.predict import __main__ as command
from jaxfair.predict import gallery, judged, output, scoring
from tests.privacy.mutations.putting import replaced, wrapped


def fault_340_the_threshold_of_another_group_decides():
    def swapped(original, model, task, score, facts, **more):
        other = {"F": "M", "M": "F"}.get(facts["sex"], facts["sex"])
        return original(model, task, score, {**facts, "sex": other}, **more)

    return wrapped(scoring, "decided", swapped)


def fault_341_a_pooled_threshold_is_told_as_a_groups():
    def told(original, model, task, score, facts, **more):
        found = original(model, task, score, facts, **more)
        return found._replace(of=f"sex: {facts['sex']}")

    return wrapped(scoring, "decided", told)


def fault_342_an_image_is_not_prepared_as_in_the_training():
    def stretched(original, path, how):
        return original(path, dataclasses.replace(how, resize="stretch"))

    return wrapped(scoring, "Job", stretched)


def fault_343_a_label_is_judged_by_the_threshold_of_the_first():
    def first(original, model, task, score, facts, **more):
        return original(model, next(iter(model.thresholds)), score, facts, **more)

    return wrapped(judged, "decided", first)


def fault_344_maps_are_written_of_the_wrong_case():
    last = []

    def other(original, path, pixels, maps, affine=None):
        last.append(maps)
        return original(path, pixels, last[0], affine)

    return wrapped(output, "write_map", other)


def fault_345_nobody_compares_the_digest_that_was_asked_for():
    return wrapped(command, "load_model", lambda original, path, sha256=None: original(path))


def fault_346_the_page_does_not_say_that_it_is_not_for_diagnosis():
    return replaced(gallery, "CAUTION", "")


def fault_347_parts_are_not_compared_with_their_digests():
    class Any:
        def __ne__(self, other):
            return False

    def trusting(original, path, parts, name):
        found = original(path, parts, name)
        return found | {"parts": Any()} if name == container.MANIFEST else found

    return wrapped(container, "json_part", trusting)


def fault_348_the_groups_of_a_batch_are_in_another_order():
    from jaxfair.model_file.model import Model

    def turned(original, self, images, groups=None):
        turned = {name: list(np.roll(values, 1)) for name, values in (groups or {}).items()}
        return original(self, images, turned)

    return wrapped(Model, "score", turned)


def fault_349_a_group_decides_though_pooled_was_asked_for():
    def auto(original, model, task, score, facts, *, rule, by):
        return original(model, task, score, facts, rule=rule, by=judged.AUTO)

    return wrapped(scoring, "decided", auto)
