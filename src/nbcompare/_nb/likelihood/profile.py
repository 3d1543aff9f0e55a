"""The profile likelihood of one gene in the dispersion: the rates of its groups are maximised out.

Kernels on one gene's row of counts, its groups being y[starts[g]:starts[g+1]]. Groups without counts have rate 0 and say nothing.
The Cox-Reid adjustment takes half the log information on each group's log rate, I_g = sum m / (1 + phi m), off the profile.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.log_pmf import log_density, mean_slopes, rising_factorial_slopes
from nbcompare._nb.numerics.special import digamma_minus_log, stirling_remainder

MAX_STEPS = 80


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(y, l, starts, phi, cox_reid, rates):
    """First and second derivative of the (adjusted) profile log likelihood in phi; rates are moved to their maximum at phi.

    Second derivative of a profile: that at fixed rates plus (sum (y - m) m / (1 + phi m)^2)^2 / J, J the observed information on a log
    rate. That of the adjustment is approximate: it only sets the step.
    """
    first = 0.0
    second = 0.0
    beyond_log, trigamma = digamma_minus_log(1.0 / phi)
    for g in range(rates.shape[0]):
        if rates[g] <= 0.0:
            continue
        rate = rate_at(y, l, starts[g], starts[g + 1], phi, rates[g])
        rates[g] = rate
        cross = 0.0
        observed = 0.0
        q1 = 0.0
        q2 = 0.0
        q3 = 0.0
        qf = 0.0
        for i in range(starts[g], starts[g + 1]):
            m = rate * l[i]
            f = 1.0 / (1.0 + phi * m)
            log_rising_first, log_rising_second = rising_factorial_slopes(y[i], phi, beyond_log, trigamma)
            mean_first, mean_second = mean_slopes(y[i], m, phi)
            first += log_rising_first + mean_first
            second += log_rising_second + mean_second
            cross -= (y[i] - m) * m * f * f
            observed += m * (1.0 + phi * y[i]) * f * f
            if cox_reid:
                q = m * f
                q1 += q
                q2 += q * q
                q3 += q * q * q
                qf += q * f
        second += cross * cross / observed
        if cox_reid:
            first += 0.5 * (q2 - cross / observed * qf) / q1
            second += 0.5 * (q2 * q2 / (q1 * q1) - 2.0 * q3 / q1)
    return first, second


@njit(cache=True, nogil=True, error_model="numpy")
def rate_at(y, l, start, stop, phi, rate):
    """Rate of one group with counts that maximises the likelihood at phi: Newton in the log rate, bracketed, from `rate`."""
    low = 0.0
    high = math.inf
    for step in range(MAX_STEPS):
        score = 0.0
        observed = 0.0
        for i in range(start, stop):
            m = rate * l[i]
            f = 1.0 / (1.0 + phi * m)
            score += (y[i] - m) * f
            observed += m * (1.0 + phi * y[i]) * f * f
        if score > 0.0:
            low = rate
        else:
            high = rate
        move = min(max(score / observed, -1.5), 1.5)
        proposal = rate * (math.exp(move) if abs(move) > 1e-4 else 1.0 + move + 0.5 * move * move)
        if abs(move) < 1e-5:
            return proposal
        if proposal <= low or proposal >= high or (step > 15 and low > 0.0 and high < math.inf):
            proposal = math.sqrt(low * high) if low > 0.0 and high < math.inf else proposal
        rate = proposal
    return rate


@njit(cache=True, nogil=True, error_model="numpy")
def profile_out(y, l, starts, phi, rates):
    """Move the rates of all groups with counts to their maximum at phi."""
    for g in range(rates.shape[0]):
        if rates[g] > 0.0:
            rates[g] = rate_at(y, l, starts[g], starts[g + 1], phi, rates[g])


@njit(cache=True, nogil=True, error_model="numpy")
def objective(y, l, starts, phi, cox_reid, rates):
    """Log likelihood at these rates and phi, less half the log information on each rate if `cox_reid`."""
    value = log_likelihood_of_gene(y, l, starts, phi, rates)
    if cox_reid:
        for g in range(rates.shape[0]):
            information = 0.0
            for i in range(starts[g], starts[g + 1]):
                information += rates[g] * l[i] / (1.0 + phi * rates[g] * l[i])
            if information > 0.0:
                value -= 0.5 * math.log(information)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def log_likelihood_of_gene(y, l, starts, phi, rates):
    """Sum of the log densities of one gene's counts."""
    value = 0.0
    rest = stirling_remainder(1.0 / phi) if phi > 0.0 else 0.0
    for g in range(rates.shape[0]):
        for i in range(starts[g], starts[g + 1]):
            value += log_density(y[i], rates[g] * l[i], phi, rest)
    return value
