"""The dispersion of one gene at the highest maximum of its profile likelihood, climbed in the logarithm of the dispersion.

Kernels on one gene's row of counts; the arguments are those of `profile`.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.likelihood.profile import log_likelihood_of_gene, objective, profile_out, slopes

MAX_STEPS = 80
WIDE = 10.0  # ratio of exposures within a group from which on the profile is always searched


@njit(cache=True, nogil=True, error_model="numpy")
def fit_gene(y, l, starts, cox_reid, wide, rates, trial_rates, means):
    """Rates (written), dispersion, and the log likelihood there, of one gene; `trial_rates` is as long as `rates`, `means` as y."""
    at_zero, moment, lowest, highest = poisson_fit(y, l, starts, cox_reid, rates, means)
    if highest <= 0.0:
        return 0.0, 0.0
    for g in range(rates.shape[0]):
        trial_rates[g] = rates[g]
    phi = interior(y, l, starts, cox_reid, wide, trial_rates, means, at_zero, moment, lowest, highest)
    if phi * highest > 1e-8 and (
        at_zero > 0.0
        or objective(y, l, starts, phi, cox_reid, trial_rates) > objective(y, l, starts, 0.0, cox_reid, rates)
    ):
        for g in range(rates.shape[0]):
            rates[g] = trial_rates[g]
    else:
        phi = 0.0
    return phi, log_likelihood_of_gene(y, l, starts, phi, rates)


@njit(cache=True, nogil=True, error_model="numpy")
def interior(y, l, starts, cox_reid, wide, rates, means, at_zero, moment, lowest, highest):
    """Dispersion at the highest maximum above phi = 0, 0 if there is none; rates are written. `means` are those at phi = 0.

    Where the profile rises at 0 there is a maximum above, mostly the only one. Where it does not, and is concave there, there is mostly
    none. Whatever else there may be is searched for.
    """
    if not wide and not may_rise_again(y, means, lowest, highest):
        if at_zero > 0.0:
            return maximize(y, l, starts, cox_reid, rates, moment, 0.0, math.inf)
        if not cox_reid and slopes(y, l, starts, 1e-6 / highest, cox_reid, rates)[1] <= 0.0:
            return 0.0
    return search(y, l, starts, cox_reid, rates, at_zero, lowest, highest)


@njit(cache=True, nogil=True, error_model="numpy")
def poisson_fit(y, l, starts, cox_reid, rates, means):
    """Rates and means at phi = 0 (written), score in phi there, half of sum((y - m)^2 - y) unless adjusted, the moment estimate of phi, the lowest and the highest mean."""
    score = 0.0
    squares = 0.0
    lowest = math.inf
    highest = 0.0
    for g in range(rates.shape[0]):
        total = 0.0
        depth = 0.0
        for i in range(starts[g], starts[g + 1]):
            total += y[i]
            depth += l[i]
        rates[g] = total / depth
        for i in range(starts[g], starts[g + 1]):
            means[i] = rates[g] * l[i]
        if total <= 0.0:
            continue
        for i in range(starts[g], starts[g + 1]):
            m = means[i]
            score += 0.5 * ((y[i] - m) ** 2 - y[i])
            if cox_reid:
                score += 0.5 * y[i] * m / total
            squares += m * m
            lowest = min(lowest, m)
            highest = max(highest, m)
    return score, 2.0 * score / squares, lowest, highest


@njit(cache=True, nogil=True, error_model="numpy")
def may_rise_again(y, means, lowest, highest):
    """Whether the profile may have a second maximum, by a normal approximation at fixed means.

    The score in log phi is positive where D = sum(e^2 q^2) / sum(m q) exceeds 1, with q = 1/(1 + phi m). D falls with phi if all samples are
    equally dispersed; it rises, and may cross 1 more than once, where those of low mean are the more dispersed.
    """
    phi = 0.2 / highest
    before = math.inf
    while phi * lowest < 10.0:
        above = 0.0
        below = 0.0
        for i in range(y.shape[0]):
            q = 1.0 / (1.0 + phi * means[i])
            above += ((y[i] - means[i]) * q) ** 2
            below += means[i] * q
        ratio = above / below
        if ratio > 0.97 * before and ratio > 0.3 and before < 3.0:
            return True
        before = ratio
        phi *= 3.0
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def search(y, l, starts, cox_reid, rates, at_zero, lowest, highest):
    """Dispersion of the highest of all interior maxima, 0 if there is none; rates are written.

    The sign of the score is followed outwards in steps of two; every change from rising to falling is climbed.
    """
    best = 0.0
    best_value = -math.inf
    low = 0.0
    phi = 1e-3 / highest
    last = min(max(100.0 / lowest, 100.0), 1e4)
    rose = at_zero > 0.0
    while phi < last or (rose and phi < 1e7):
        rises = slopes(y, l, starts, phi, cox_reid, rates)[0] > 0.0
        if rose and not rises:
            top = maximize(y, l, starts, cox_reid, rates, max(math.sqrt(low * phi), 0.5 * phi), low, phi)
            value = objective(y, l, starts, top, cox_reid, rates)
            if value > best_value:
                best = top
                best_value = value
        rose = rises
        low = phi
        phi *= 2.0
    if best > 0.0:
        profile_out(y, l, starts, best, rates)
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def maximize(y, l, starts, cox_reid, rates, phi, low, high):
    """Dispersion at a maximum of the profile between low and high by Newton's method in log phi, bracketed; rates are written."""
    for step in range(MAX_STEPS):
        score, curvature = slopes(y, l, starts, phi, cox_reid, rates)
        phi, low, high, done = newton_step(phi, low, high, score, curvature, step)
        if done:
            break
    profile_out(y, l, starts, phi, rates)
    return phi


@njit(cache=True, nogil=True, error_model="numpy")
def newton_step(phi, low, high, score, curvature, step):
    """The next dispersion of a climb and its bracket, from the derivatives in phi, and whether that is the last.

    Newton's in log phi, by two at most; halfway in the bracket, or far out where it is open, if that leads outside or takes long.
    """
    if score > 0.0:
        low = phi
    else:
        high = phi
    score *= phi
    curvature = curvature * phi * phi + score
    move = -score / curvature if curvature < 0.0 else (2.0 if score > 0.0 else -2.0)
    proposal = phi * math.exp(min(max(move, -2.0), 2.0))
    if proposal <= low or proposal >= high or (step > 12 and low > 0.0 and high < math.inf):
        proposal = math.sqrt(low * high) if low > 0.0 and high < math.inf else phi * (8.0 if score > 0.0 else 0.125)
    done = abs(proposal - phi) < 1e-4 * phi or proposal > 1e7 or proposal < 1e-14
    return proposal, low, high, done
