"""Faults of claims: over several stages, about other parameters, and side by side."""

from jaxfair.data.overlap import Places
from jaxfair.privacy import descent, plan, statement, study, verify, verify_bound
from tests.privacy.chains import read
from tests.privacy.mutations.putting import replaced, wrapped


def fault_78_a_claim_takes_the_better_of_two_words():
    """A seed's noise, or a guarantee for images, becomes one for patients a stage later."""

    def better(name, one, other):
        return min(one, other, key=descent.ORDER[name].index)

    return replaced(descent, "_worse", better)


def fault_79_tuning_is_that_of_the_last_stage():
    """Fifty runs were compared for the first one."""

    def alone(original, runs, delta, *, stages=1):
        return original(runs[-1:], delta)

    return wrapped(statement, "tuning_cost", alone)


def fault_80_nobody_looks_who_trained_before():
    """Another fold, another salt: the test is of people that the network has seen."""
    return replaced(Places, "ids", lambda self, column, *splits: set())


def fault_81_any_parameters_do():
    """The checkpoints of a run without privacy lie under a private claim."""

    def digests(original, run):
        claim = read(run) if (run / "privacy.json").exists() else original(run)
        return original(run) | {"parameters_digest": claim["parameters_digest"]}

    return wrapped(verify_bound.seals, "digests", digests)


def fault_82_any_metrics_do():
    """Losses of patients in metrics.jsonl."""

    def digests(original, run):
        claim = read(run) if (run / "privacy.json").exists() else original(run)
        return original(run) | {"metrics_digest": claim["metrics_digest"]}

    return wrapped(verify_bound.seals, "digests", digests)


def fault_83_the_unit_is_what_the_claim_says():
    """Nothing else is asked who was drawn."""

    def own(original, files, dp):
        return original(files, dp) | {"unit": files.statement["unit"]}

    return wrapped(verify, "_own_words", own)


def fault_84_the_earlier_stage_is_not_compared():
    """Another run lies where this one began."""
    return replaced(verify_bound, "_compared", lambda told, there, workdir: [])


def fault_85_each_run_is_priced_by_itself():
    """Mean of five folds, at epsilon 8."""
    dearest = lambda original, trained, *rest: max(original([t], *rest) for t in trained)
    return wrapped(study, "_cost", dearest)


def fault_86_patients_of_a_plain_run_count_as_protected():
    """Its parameters are public weights, somebody thought."""
    return replaced(plan, "check_protected", lambda earlier: None)


def fault_131_only_the_split_is_asked_whether_patients_were_counted():
    """A table that was composed by counting is called independent."""
    return replaced(verify, "COUPLING", {"split": "thesis"})
