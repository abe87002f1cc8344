"""Exact intervals of rates over patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from jaxfair.fairness.rates import rate_estimate
