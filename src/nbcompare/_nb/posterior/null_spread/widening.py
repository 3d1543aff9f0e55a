"""The likelihood of the log fold change, widened about its maximum by the null spread and moved by the common shift, through size factors."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.posterior.null_spread.null import NullDistribution

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def widened(data: Data, log_fc: np.ndarray, null: NullDistribution) -> tuple[Data, np.ndarray]:
    """Counts with exposures at which the observed log fold change d is (d - shift) / spread, and the move of the reference's log rate.

    The likelihood of d / spread at these exposures has the width that the likelihood of d has with standard errors times the spread. Half of
    the move is made in each group. The counts stay as they are, and with them the information on dispersion and mean.
    """
    if null == NullDistribution():
        return data, np.zeros(len(log_fc))
    reference, exposure1, treated, exposure2 = data
    move = np.nan_to_num(log_fc - (log_fc - null.shift) / null.spread, nan=0.0)
    up = np.exp(0.5 * move)[:, None]
    exposures = np.broadcast_to(exposure1, reference.shape) / up, np.broadcast_to(exposure2, treated.shape) * up
    return (reference, exposures[0], treated, exposures[1]), -0.5 * move
