"""`packed` for several genes side by side: arrays have a gene a column, and the first `size` columns count.

Loops over genes have no branches, so that the compiler computes several at once.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.cholesky import RIDGE


@njit(cache=True, nogil=True, error_model="numpy")
def factor(w, products, size, p, a):
    """Cholesky's factor of X' W X + ridge, the diagonal inverted; `packed.gram` and `packed.cholesky`."""
    n = w.shape[0]
    for e in range(p * (p + 1) // 2):
        for k in range(size):
            a[e, k] = 0.0
        for i in range(0, n - 1, 2):
            x, z = products[i, e], products[i + 1, e]
            for k in range(size):
                a[e, k] += x * w[i, k] + z * w[i + 1, k]
        if n % 2 == 1:
            x = products[n - 1, e]
            for k in range(size):
                a[e, k] += x * w[n - 1, k]
    for i in range(p):
        row = i * (i + 1) // 2
        for k in range(size):
            a[row + i, k] += RIDGE
        for j in range(i + 1):
            other = j * (j + 1) // 2
            for c in range(j):
                for k in range(size):
                    a[row + j, k] -= a[row + c, k] * a[other + c, k]
            if j < i:
                for k in range(size):
                    a[row + j, k] *= a[other + j, k]
        for k in range(size):
            pivot = a[row + i, k]
            a[row + i, k] = 1.0 / math.sqrt(1e-12 if pivot < 1e-12 else pivot)


@njit(cache=True, nogil=True, error_model="numpy")
def forward(a, size, p, g):
    """Solves L x = g in place."""
    for i in range(p):
        row = i * (i + 1) // 2
        for c in range(i):
            for k in range(size):
                g[i, k] -= a[row + c, k] * g[c, k]
        for k in range(size):
            g[i, k] *= a[row + i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def backward(a, size, p, g):
    """Solves L' x = g in place."""
    for j in range(p):
        i = p - 1 - j
        row = i * (i + 1) // 2
        for k in range(size):
            g[i, k] *= a[row + i, k]
        for c in range(i):
            for k in range(size):
                g[c, k] -= a[row + c, k] * g[i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def transposed_times(t, columns, size, p, out):
    """X' t."""
    for j in range(p):
        for k in range(size):
            out[j, k] = 0.0
        for i in range(t.shape[0]):
            x = columns[j, i]
            for k in range(size):
                out[j, k] += x * t[i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def add_times(b, columns, size, p, out):
    """Adds X b to `out`."""
    for i in range(out.shape[0]):
        for j in range(p):
            x = columns[j, i]
            for k in range(size):
                out[i, k] += x * b[j, k]


@njit(cache=True, nogil=True, error_model="numpy")
def add_scaled(scale, x, size, n_rows, out):
    """Adds x, each gene's times its scale."""
    for i in range(n_rows):
        for k in range(size):
            out[i, k] += scale[k] * x[i, k]


@njit(cache=True, nogil=True, error_model="numpy")
def sum_squares(g, size, p, out):
    for k in range(size):
        out[k] = 0.0
    for j in range(p):
        for k in range(size):
            out[k] += g[j, k] * g[j, k]


@njit(cache=True, nogil=True, error_model="numpy")
def largest_of(t, size, out):
    """Largest size of each gene."""
    for k in range(size):
        out[k] = 0.0
    for i in range(t.shape[0]):
        for k in range(size):
            x = abs(t[i, k])
            out[k] = x if x > out[k] else out[k]
