"""The network's features, and the columns of the Laplace approximations that they are computed from.

Both ways to compute them (`summaries`, and `device_summaries` in torch) write to the columns that are named here. The trained weights depend on
the order. Even features stay the same when the two groups are exchanged, those of the groups are exchanged, odd ones change their sign.

Symbols: tau, sigma and s are the prior's standard deviations of centre, log fold change and log dispersion. alpha = log dispersion, c = centre and
b = log fold change at the posterior mode, L the lower triangular factor of the covariance there (axes alpha, c, b). The index 0 is for the mode
without a change. A departure is log(sqrt(2 D) / |k|), where D is the fall of the log posterior k standard deviations from the mode:
0 for a Gaussian, positive where the tail is lighter, negative where it is heavier. There are four of them, at k = -2.5, -1, 1 and 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NEAR, FAR = 1.0, 2.5  # where the posterior is evaluated, in its standard deviations


class Feature(NamedTuple):
    """One row of the table."""

    name: str
    meaning: str
    width: int = 1


EVEN = (
    Feature("prior_centre_sd", "log tau"),
    Feature("prior_lfc_sd", "log sigma"),
    Feature("prior_dispersion_sd", "log s"),
    Feature("prior_is_inverse_gamma", "1 for the inverse gamma, 0 for the log-normal"),
    Feature("prior_dispersion", "mean of log dispersion under the prior"),
    Feature("centre", "c in prior standard deviations from the prior's mean, within -6 .. 6"),
    Feature("dispersion", "alpha in prior standard deviations from the prior's mean, within -6 .. 6"),
    Feature("dispersion_sd", "log of L(alpha, alpha) / s"),
    Feature("centre_sd", "log of L(c, c) / tau"),
    Feature("lfc_sd", "log of L(b, b) / sigma"),
    Feature("centre_with_dispersion", "correlation of c and alpha"),
    Feature("centre_departure", "departures along c", 4),
    Feature("dispersion_departure", "departures along alpha, c and b integrated out", 4),
    Feature("bayes_factor", "asinh of the log Bayes factor of no change"),
    Feature("null_dispersion_sd", "log of L0(alpha, alpha) / s"),
    Feature("null_centre_sd", "log of L0(c, c) / tau"),
    Feature("null_centre_with_dispersion", "correlation of c and alpha without a change"),
    Feature("null_dispersion_shift", "asinh of (alpha0 - alpha) / L(alpha, alpha)"),
    Feature("null_centre_shift", "asinh of (c0 - c) / L(c, c)"),
    Feature("null_centre_departure", "departures along c without a change", 4),
    Feature("null_dispersion_departure", "departures along alpha without a change, c integrated out", 4),
)
GROUP = (
    Feature("replicates", "log of their number, at most 64"),
    Feature("counts", "log of 1 + their sum"),
    Feature("information", "log of 1 + information on the log rate, times the prior variance of that rate"),
    Feature("overdispersion", "log of dispersion times mean count, within -8 .. 8"),
    Feature(
        "lfc_departure_near", "departure along b by 1 standard deviation, down for the first group, up for the second"
    ),
    Feature("lfc_departure_far", "the same by 2.5 standard deviations"),
    Feature("information_below", "log of the information at alpha - 2.5 standard deviations relative to that at alpha"),
    Feature("information_above", "the same at alpha + 2.5 standard deviations"),
    Feature("zeros", "fraction of the replicates without counts"),
)
ODD = (
    Feature("lfc", "b / sigma"),
    Feature("lfc_with_dispersion", "correlation of b and alpha"),
    Feature("lfc_with_centre", "correlation of b and c given alpha, times its part of the standard deviation of b"),
    Feature("lfc_z", "asinh of b / L(b, b)"),
)


def first_columns(features: Sequence[Feature], start: int = 0) -> list[int]:
    """The first column of each feature."""
    return [start + sum(one.width for one in features[:k]) for k in range(len(features))]


def as_markdown(features: Sequence[Feature]) -> str:
    """The rows of a table for the documentation."""
    return "\n".join(f"| `{one.name}` | {one.width} | {one.meaning} |" for one in features)


N_EVEN, N_GROUP, N_ODD = (sum(one.width for one in features) for features in (EVEN, GROUP, ODD))
FIRST_GROUP, SECOND_GROUP, FIRST_ODD = N_EVEN, N_EVEN + N_GROUP, N_EVEN + 2 * N_GROUP
N_FEATURES = FIRST_ODD + N_ODD

# Columns in the order of the tables (held by tests/transformer/test_laplace.py).
(
    PRIOR_CENTRE_SD,
    PRIOR_LFC_SD,
    PRIOR_DISPERSION_SD,
    PRIOR_IS_INVERSE_GAMMA,
    PRIOR_DISPERSION,
    CENTRE,
    DISPERSION,
    DISPERSION_SD,
    CENTRE_SD,
    LFC_SD,
    CENTRE_WITH_DISPERSION,
    CENTRE_DEPARTURE,
    DISPERSION_DEPARTURE,
    BAYES_FACTOR,
    NULL_DISPERSION_SD,
    NULL_CENTRE_SD,
    NULL_CENTRE_WITH_DISPERSION,
    NULL_DISPERSION_SHIFT,
    NULL_CENTRE_SHIFT,
    NULL_CENTRE_DEPARTURE,
    NULL_DISPERSION_DEPARTURE,
) = first_columns(EVEN)
(  # of a group, behind FIRST_GROUP or SECOND_GROUP
    REPLICATES,
    COUNTS,
    INFORMATION,
    OVERDISPERSION,
    LFC_DEPARTURE_NEAR,
    LFC_DEPARTURE_FAR,
    INFORMATION_BELOW,
    INFORMATION_ABOVE,
    ZEROS,
) = first_columns(GROUP)
LFC, LFC_WITH_DISPERSION, LFC_WITH_CENTRE, LFC_Z = first_columns(ODD, FIRST_ODD)

# Columns of the Laplace approximations: mode and factor by rows, given a change and without one; log Bayes factor of no change.
(
    MODE_ALPHA,
    MODE_CENTRE,
    MODE_BETA,
    L_ALPHA,
    L_CENTRE_ALPHA,
    L_CENTRE,
    L_BETA_ALPHA,
    L_BETA_CENTRE,
    L_BETA,
    NULL_ALPHA,
    NULL_CENTRE,
    L0_ALPHA,
    L0_CENTRE_ALPHA,
    L0_CENTRE,
    LOG_BAYES_FACTOR,
) = range(15)
N_LAPLACE = 15
