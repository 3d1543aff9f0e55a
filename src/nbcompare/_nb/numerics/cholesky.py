"""Small symmetric matrices X' W X, their lower triangles row by row in one vector, and what Cholesky's factor gives.

A design has its products x_ij x_ik (k <= j) ready, so that a matrix of any weights is a weighted sum of their rows. The leading block of
a packed matrix is a prefix of it: designs have the tested directions last, and the null's matrix is the prefix.

Each matrix gets RIDGE on its diagonal. A direction in which the data say nothing (a donor without counts) then has the same pivot in all
matrices and leaves their ratios alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

RIDGE = 1e-6  # columns of designs have mean square one: this is a millionth of a count


def products_of(rows: np.ndarray) -> np.ndarray:
    """Products of the columns of a design, (n_samples, p (p + 1) / 2)."""
    first, second = np.tril_indices(rows.shape[1])
    return np.ascontiguousarray(rows[:, first] * rows[:, second])


@njit(cache=True, nogil=True, error_model="numpy")
def gram(weight, products, p, out):
    """X' W X + ridge for the first p columns."""
    size = p * (p + 1) // 2
    for k in range(size):
        out[k] = 0.0
    for i in range(weight.shape[0]):
        w = weight[i]
        for k in range(size):
            out[k] += w * products[i, k]
    for j in range(p):
        out[j * (j + 3) // 2] += RIDGE


@njit(cache=True, nogil=True, error_model="numpy")
def cholesky(a, p):
    """Replaces the matrix by its factor, the diagonal inverted."""
    for i in range(p):
        row = i * (i + 1) // 2
        for j in range(i):
            other = j * (j + 1) // 2
            s = a[row + j]
            for k in range(j):
                s -= a[row + k] * a[other + k]
            a[row + j] = s * a[other + j]
        s = a[row + i]
        for k in range(i):
            s -= a[row + k] * a[row + k]
        a[row + i] = 1.0 / math.sqrt(max(s, 1e-12))


@njit(cache=True, nogil=True, error_model="numpy")
def half_log_determinant(a, p):
    """Half the log determinant of a matrix, from its factor."""
    product = 1.0
    value = 0.0
    for i in range(p):
        product *= a[i * (i + 3) // 2]
        if i % 16 == 15:  # the product of so many can be written
            value -= math.log(product)
            product = 1.0
    return value - math.log(product)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(a, g, p):
    """Solves L x = g in place."""
    for i in range(p):
        row = i * (i + 1) // 2
        s = g[i]
        for k in range(i):
            s -= a[row + k] * g[k]
        g[i] = s * a[row + i]


@njit(cache=True, nogil=True, error_model="numpy")
def backward(a, g, p):
    """Solves L' x = g in place."""
    for i in range(p - 1, -1, -1):
        row = i * (i + 1) // 2
        x = g[i] * a[row + i]
        g[i] = x
        for k in range(i):
            g[k] -= a[row + k] * x


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def transposed_times(t, columns, p, out):
    """X' t for the first p columns."""
    for j in range(p):
        s = 0.0
        for i in range(t.shape[0]):
            s += t[i] * columns[j, i]
        out[j] = s


@njit(cache=True, nogil=True, error_model="numpy")
def add_times(b, columns, p, out):
    """Adds X b to `out`."""
    for j in range(p):
        t = b[j]
        for i in range(out.shape[0]):
            out[i] += t * columns[j, i]
