"""The expected dispersion of each comparison's genes, by the trend and by the groups that the comparison is not about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbcompare._nb.dispersion.trend import prior_dispersion
from nbcompare._nb.moderated import Moderated
from nbcompare._nb.posterior.dispersion_prior import Expected, Statistics, expected_dispersion, statistics_of_group
from nbcompare.tl._samples.groups import Design


class DispersionPriors:
    """Dispersion statistics of the groups of a data set without blocks; not asked where the user has `is_given` what to expect."""

    def __init__(self, design: Design, result: Moderated, *, is_given: bool):
        pseudobulk, self.pairs, shared = design.pseudobulk, design.pairs, result.shared
        assert shared is not None  # without blocks
        self.mean, self.trend, self.variance = (
            shared.mean,
            shared.trend.at(shared.mean),
            shared.trend.log_dispersion_var,
        )
        self.error = shared.trend.error
        prior_phi, self.prior_df = prior_dispersion(self.mean, self.trend, self.variance, self.error)
        self.of_group: list[Statistics] = []  # each relative to the group's own dispersion ratio
        for k in range(pseudobulk.n_groups):
            samples = pseudobulk.group == k
            counts, exposure = pseudobulk.counts[:, samples], shared.exposure[:, samples]
            self.of_group.append(statistics_of_group(counts, exposure, prior_phi * shared.dispersion_ratio[k]))
        self.in_fit, self.is_given = shared.in_fit, is_given

    def expected(self, c: int, dispersion_ratio: np.ndarray) -> tuple[Expected, np.ndarray]:
        """Log phi before the groups of the c-th comparison are seen, and the degrees of freedom of its moderated dispersion.

        `dispersion_ratio` holds their dispersion ratios, (2,); phi is the data set's, to which they are relative.
        """
        pair = [int(k) for k in self.pairs[c] if k >= 0]
        alone = (dispersion_ratio > 1.0).any() or len(self.of_group) == 2
        used = pair if alone else np.flatnonzero(self.in_fit).tolist()
        nothing = (
            alone or self.is_given or len(pair) < 2
        )  # two arms, the user, or all others, which are a group themselves
        others = [] if nothing else [k for k in used if k not in pair]
        from_others = self._sum(others) if others else None
        degrees = self.prior_df + self._sum(used).df
        return expected_dispersion(self.mean, self.trend, self.variance, from_others, self.error), degrees

    def _sum(self, groups: Sequence[int]) -> Statistics:
        chosen = [self.of_group[k] for k in groups]
        zero = np.zeros(len(self.mean))
        return Statistics(sum((one.statistic_sum for one in chosen), zero), sum((one.df for one in chosen), zero))
