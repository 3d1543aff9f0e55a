"""Samples without a count that a full fit sends to zero because the tested direction sets them apart: an empty group, in any design.

Half a count is moved into them, along a direction that leaves the null's score as it is, so that effect and root become finite: y + t u e
with u = m~ in those samples and u = y in the others, e the residual of the tested column on the others, weights u / (1 + phi m~).
"""

from __future__ import annotations

from numba import njit

from nbcompare._nb.numerics.cholesky import backward, cholesky, forward, gram, transposed_times

SENT_TO_ZERO = 1e-3  # fitted mean
FALL = 10.0  # of the mean under the null over that of the full fit
LEAST = 0.01  # mean under the null, summed over such samples, from which on they matter


@njit(cache=True, nogil=True, error_model="numpy")
def is_separated(y, m, m_null):
    """Whether the full fit sends samples to zero that the null expects counts of."""
    expected = 0.0
    for i in range(y.shape[0]):
        if y[i] == 0.0 and m[i] < SENT_TO_ZERO and m_null[i] > FALL * m[i]:
            expected += m_null[i]
    return expected > LEAST


@njit(cache=True, nogil=True, error_model="numpy")
def half_a_count(y, m, m_null, phi, design, rises, space):
    """Counts (written to space.counts) with half a count in the samples sent to zero, the others giving in proportion, at most half.

    `rises`: the effect is positive. False if the direction has no such sample, and nothing is to be moved.
    """
    n = y.shape[0]
    w = space.w
    for i in range(n):
        w[i] = m_null[i] if y[i] == 0.0 and m[i] < SENT_TO_ZERO else y[i]
    free_direction(m_null, phi, design, space)
    empty = 0.0
    for i in range(n):
        if rises:
            w[i] = -w[i]
        if y[i] == 0.0 and w[i] > 0.0:
            empty += w[i]
    if empty <= 0.0:
        return False
    step = 0.5 / empty
    for i in range(n):
        if w[i] < 0.0 and y[i] > 0.0:
            step = min(step, -0.5 * y[i] / w[i])
    for i in range(n):
        space.counts[i] = max(y[i] + step * w[i], 0.0)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def free_direction(m_null, phi, design, space):
    """U e from u, both in space.w: along it counts change the tested column's score and none of the null's. Its information is given."""
    w = space.w
    g = space.g
    rows = design.rows
    n = m_null.shape[0]
    q = rows.shape[1] - 1
    for i in range(n):
        w[i] /= 1.0 + phi * design.ratio[i] * m_null[i]
        space.move[i] = w[i] * rows[i, q]
    transposed_times(space.move, design.columns, q, g)
    gram(w, design.products, q, space.a)
    cholesky(space.a, q)
    forward(space.a, g, q)
    backward(space.a, g, q)
    information = 0.0
    for i in range(n):
        e = rows[i, q]
        for j in range(q):
            e -= rows[i, j] * g[j]
        information += w[i] * e * e
        w[i] *= e * (1.0 + phi * design.ratio[i] * m_null[i])
    return information
