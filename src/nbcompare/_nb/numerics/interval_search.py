"""Where does a test of the null hypothesis "the log fold change is x" just reject? A safeguarded secant search for that x.

The signed deviate of a test falls as the null x rises. The search keeps the largest x whose deviate is above the target and the smallest
whose deviate is below. It stops when a secant step is shorter than `CLOSE`; the point that it then returns is not evaluated, its error is of
second order in that step. A target that is not reached within `FAR` of the estimate has an infinite bound.

The state of a search is a vector, so that searches of several genes can go side by side: `begin`, then `advance` with the deviate at
state[X] until it is true; state[X] then is the bound.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.special import normal_from_t

NORMAL = 1.959963984540054  # deviate of a two-sided p-value of 0.05
ONE_SIDED = 1.6448536269514722  # of a p-value of 0.05 on one side, where a group has no counts

CLOSE = 3e-3  # natural log; a secant step of so little ends a search
NEAR = 0.5  # of the deviate to its target: further away a short step is no sign of the end
FAR = 30.0  # natural log, beyond which a bound is infinite
MOST = 60  # evaluations
BISECT_FROM = 10

X, CENTRE, TARGET, LOW, HIGH, LAST_X, LAST_GAP, N = range(8)
SIZE = 8


@njit(cache=True, nogil=True, error_model="numpy")
def begin(state, centre, start, target):
    """Look for the null whose deviate is `target`, from `start`; at `centre`, the estimate, the deviate is about zero."""
    state[X] = start
    state[CENTRE] = centre
    state[TARGET] = target
    state[LOW] = -math.inf
    state[HIGH] = math.inf
    state[N] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def advance(state, deviate):
    """Take in the deviate at state[X] and move there where the target should be; whether the search has ended."""
    x = state[X]
    gap = deviate - state[TARGET]
    if not abs(gap) < math.inf:
        far = abs(x - state[CENTRE]) > 0.5 * FAR  # where means are beyond what a float holds
        state[X] = math.copysign(math.inf, x - state[CENTRE]) if far else math.nan
        return True
    if gap == 0.0:
        return True
    n = state[N]
    state[N] = n + 1.0
    if gap > 0.0:
        state[LOW] = x
    else:
        state[HIGH] = x
    low = state[LOW]
    high = state[HIGH]
    reach = abs(x - state[CENTRE])
    if n == 0.0:
        fraction = deviate / state[TARGET]
        proposal = state[CENTRE] + (x - state[CENTRE]) / min(max(fraction, 0.25), 4.0)
        close = 0.1 * CLOSE  # the line through the estimate is no secant
    else:
        proposal = x - gap * (x - state[LAST_X]) / (gap - state[LAST_GAP])
        close = CLOSE
    short = abs(proposal - x) < close
    stuck = short and abs(gap) > NEAR
    if low > -math.inf and high < math.inf:
        if stuck or n >= BISECT_FROM or not low < proposal < high:
            proposal = 0.5 * (low + high)
            short = high - low < 0.2 * CLOSE
    else:
        up = 1.0 if gap > 0.0 else -1.0
        if stuck or not (proposal - x) * up > 0.0:
            inwards = up * (state[CENTRE] - x) > 0.0
            proposal = x + up * (0.5 * reach if inwards else max(reach, 0.1))
            short = False
        proposal = x + up * min(up * (proposal - x), max(3.0 * reach, 1.0))
    state[LAST_X] = x
    state[LAST_GAP] = gap
    state[X] = proposal
    if short or n >= MOST:
        return True
    if abs(proposal - state[CENTRE]) > FAR:
        state[X] = math.copysign(math.inf, proposal - state[CENTRE])
        return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def t_critical(df, deviate):
    """The t whose normal equivalent on `df` degrees of freedom, `normal_from_t`, is this deviate > 0."""
    if not df < math.inf:
        return deviate
    square = deviate * deviate
    t = deviate * (
        1.0 + (square + 1.0) / (4.0 * df) + ((5.0 * square + 16.0) * square + 3.0) / (96.0 * df * df)
    )  # Cornish and Fisher
    last_t = deviate
    last = normal_from_t(last_t, df)
    for _ in range(20):
        now = normal_from_t(t, df)
        if abs(now - deviate) < 1e-7 or now == last:
            break
        step = (deviate - now) * (t - last_t) / (now - last)
        last_t = t
        last = now
        t = max(t + step, 0.5 * t)
    return t
