"""A claim in the words of people; needs no accountant."""

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context

__all__ = ["members_found", "risk_words", "rounded_up"]


def members_found(rates: Mapping[str, float]) -> tuple[int, int]:
    """Returns how many of 100 and of 1,000 members an attacker finds at most, rounded up.

    Args:
      rates: `true_positive_rates` of `risk`: where he may accuse 1 in 100, and 1 in 1,000.

    >>> members_found({"0.01": 0.0924, "0.001": 0.0183})
    (10, 19)
    """
    return math.ceil(round(100 * rates["0.01"], 9)), math.ceil(round(1000 * rates["0.001"], 9))


def risk_words(rates: Mapping[str, float], unit: str) -> str:
    """Returns the risk in one sentence for readers, its figures rounded up.

    Args:
      rates: `true_positive_rates` of `risk`.

    >>> print(risk_words({"0.01": 0.0924, "0.001": 0.0183}, "patient")[:86])
    An attacker who may accuse 1 in 100 innocent patients finds at most 10 in 100 members;
    """
    of_hundred, of_thousand = members_found(rates)
    return (
        f"An attacker who may accuse 1 in 100 innocent {unit}s finds at most {of_hundred} in 100 "
        f"members; one who may accuse 1 in 1,000 finds at most {of_thousand:,} in 1,000."
    )


def rounded_up(value: float, digits: int = 4) -> str:
    """Returns a number of a claim with so many digits, rounded up.

    >>> rounded_up(7.99991), rounded_up(8.00001), rounded_up(1e-5), rounded_up(1.00001e-6)
    ('8', '8.001', '1e-05', '1.001e-06')
    """
    up = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(value)))
    return f"{float(up):.{digits}g}"
