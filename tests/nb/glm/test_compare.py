"""Tests in any design against statsmodels, brute-force matrices and the comparison of two groups."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from nbcompare._nb.data import Group, Pseudobulk
from nbcompare._nb.glm import compare as glm
from nbcompare._nb.glm.compare import TESTS, design_tests, fixed_dispersions, run_tests
from nbcompare._nb.glm.fit.design import design_matrices
from nbcompare._nb.glm.fit.mle import maximise_design
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status

PAIRED = np.column_stack([np.tile(np.eye(3), (2, 1)), np.repeat([0.0, 1.0], 3)])
LAST = np.array([0.0, 0.0, 0.0, 1.0])
DONORS = np.array([[1.0, 0], [-1, 1], [0, -1], [0, 0]])


def simulate(rng, design, n_genes=60, low=1.0, high=2000.0, spread=0.3, effect=0.7):
    """Counts in a design, log exposures (1, n_samples) and the true dispersions."""
    mean = np.exp(rng.uniform(np.log(low), np.log(high), n_genes))
    phi = 0.1 * (1 + 5 / mean) * rng.lognormal(0, 0.5, n_genes)
    log_exposure = rng.normal(0, spread, len(design))
    log_exposure -= log_exposure.mean()
    eta = np.log(mean)[:, None] + rng.normal(0, effect, (n_genes, design.shape[1])) @ design.T + log_exposure
    m = np.exp(eta)
    counts = rng.poisson(m * rng.gamma(1 / phi[:, None], phi[:, None], m.shape)).astype(float)
    return counts, log_exposure[None], phi


@pytest.fixture(scope="module")
def paired():
    return simulate(np.random.default_rng(0), PAIRED)


def statsmodels_fit(y, design, offset, phi, fix=None):
    """Fitted model at a given dispersion; `fix` removes the directions of a hypothesis."""
    if fix is not None:
        design = design @ stats_null(fix)
    family = sm.families.NegativeBinomial(alpha=phi) if phi > 0 else sm.families.Poisson()
    return sm.GLM(y, design, family=family, offset=offset).fit(tol=1e-14, maxiter=300)


def stats_null(contrast):
    """Basis of the coefficients for which the hypothesis holds."""
    return np.linalg.svd(contrast.reshape(len(contrast), -1).T, full_matrices=True)[2][
        contrast.reshape(len(contrast), -1).shape[1] :
    ].T


def at_fixed(counts, offset, design, contrasts, phi, test, *, closed_form=False):
    """Tests by the kernels at given dispersions."""
    matrices = design_matrices(design, contrasts)
    return run_tests(counts, offset, matrices, fixed_dispersions(phi, counts), TESTS[test], np.zeros(len(contrasts)), 1)


def test_coefficients_likelihood_ratios_and_wald_are_those_of_statsmodels(paired):
    counts, offset, phi = paired
    informative = np.flatnonzero((counts.sum(axis=1) > 30) & (counts.reshape(-1, 2, 3).sum(axis=1) > 0).all(axis=1))[
        :15
    ]
    lrt = at_fixed(counts, offset, PAIRED, [LAST, DONORS], phi, "lrt")
    wald = at_fixed(counts, offset, PAIRED, [LAST, DONORS], phi, "wald")
    for g in informative:
        full = statsmodels_fit(counts[g], PAIRED, offset[0], phi[g])
        np.testing.assert_allclose(lrt.coefficients[g], full.params, atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(lrt.log_fc[g, 0], full.params[3], atol=1e-6)
        one, two = (statsmodels_fit(counts[g], PAIRED, offset[0], phi[g], fix) for fix in (LAST, DONORS))
        np.testing.assert_allclose(lrt.statistic[g, 0] ** 2, 2 * (full.llf - one.llf), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(lrt.statistic[g, 1], 2 * (full.llf - two.llf), rtol=1e-5, atol=1e-7)
        m = full.fittedvalues
        covariance = np.linalg.inv(PAIRED.T * (m / (1 + phi[g] * m)) @ PAIRED)
        np.testing.assert_allclose(wald.se[g, 0] ** 2, covariance[3, 3], rtol=1e-5)
        values = DONORS.T @ full.params
        np.testing.assert_allclose(
            wald.statistic[g, 1], values @ np.linalg.solve(DONORS.T @ covariance @ DONORS, values), rtol=1e-4
        )


def skovgaard(y, design, offset, phi, contrast):
    """r and r* from the formulas, in the basis [null, contrast / |contrast|^2] and by inverses and determinants."""
    turned = np.column_stack([design @ stats_null(contrast), design @ contrast / (contrast @ contrast)])
    full = statsmodels_fit(y, turned, offset, phi)
    null = statsmodels_fit(y, turned[:, :-1], offset, phi)
    hat, tilde = full.fittedvalues, null.fittedvalues
    t = np.log(hat / tilde) - np.log((1 + phi * hat) / (1 + phi * tilde))
    r = np.sign(full.params[-1]) * np.sqrt(2 * np.sum(y * t - np.log1p(phi * (hat - tilde) / (1 + phi * tilde)) / phi))
    s = turned.T * (hat / (1 + phi * tilde)) @ turned
    i = turned.T * (hat / (1 + phi * hat)) @ turned
    j = turned.T * (hat * (1 + phi * y) / (1 + phi * hat) ** 2) @ turned
    j0 = (turned.T * (tilde * (1 + phi * y) / (1 + phi * tilde) ** 2) @ turned)[:-1, :-1]
    det = np.linalg.det
    u = (np.linalg.inv(s) @ turned.T @ (hat * t))[-1] * det(s) * np.sqrt(det(j)) / (det(i) * np.sqrt(det(j0)))
    return r, r + np.log(u / r) / r


def test_modified_root_is_skovgaards(paired):
    counts, offset, phi = paired
    contrast = np.array([0.0, 1.0, -0.5, 2.0])
    found = at_fixed(counts, offset, PAIRED, [LAST, contrast], phi, "moderated")
    informative = np.flatnonzero((counts.reshape(-1, 2, 3).sum(axis=1) > 3).all(axis=1) & (counts > 0).all(axis=1))[:12]
    for g in informative:
        for c, of in enumerate((LAST, contrast)):
            r, modified = skovgaard(counts[g], PAIRED, offset[0], phi[g], of)
            assert abs(r) < 0.1 or abs(found.statistic[g, c] - modified) < 1e-3 / abs(r)


def test_correction_is_continuous_at_the_null():
    y = np.array([[3.0, 5, 4, 40, 44, 39, 41, 36, 50, 33]])
    design = np.column_stack([np.ones(10), np.repeat([0.0, 1.0], [3, 7]), np.arange(10.0) % 3])
    matrices = design_matrices(design, [np.array([0, 1.0, 0])])
    basis = fixed_dispersions(np.array([0.3]), y)
    effect = run_tests(y, np.zeros((1, 10)), matrices, basis, TESTS["moderated"], np.zeros(1), 1).log_fc[0, 0]
    nulls = effect + np.linspace(-0.06, 0.06, 25)
    roots = [
        run_tests(y, np.zeros((1, 10)), matrices, basis, TESTS["moderated"], np.array([null]), 1).statistic[0, 0]
        for null in nulls
    ]
    slopes = np.diff(roots) / np.diff(nulls)
    np.testing.assert_allclose(slopes, slopes.mean(), rtol=0.05)
    assert abs(roots[12]) > 0.02  # the correction at r = 0 is not zero: the arms are unequal


def two_groups(rng, sizes, spread, n_genes=1500):
    x = np.repeat([0.0, 1.0], sizes)
    design = np.column_stack([np.ones(len(x)), x])
    counts, offset, _ = simulate(rng, design, n_genes, spread=spread, high=1000)
    return counts, offset, design, x.astype(np.intp)


@pytest.mark.parametrize(("sizes", "spread"), [((3, 3), 0.0), ((3, 10), 0.3), ((2, 2), 1.0)])
def test_two_groups_are_compared_as_without_a_design(sizes, spread):
    counts, offset, design, group = two_groups(np.random.default_rng(1), sizes, spread)
    plain = moderated_tests(Pseudobulk(counts, np.exp(offset[0]), group), np.array([[0, 1]]))
    found = design_tests(counts, offset, design, [np.array([0, 1.0])])
    np.testing.assert_allclose(found.p_value, plain.p_value, rtol=1e-6)
    np.testing.assert_allclose(found.statistic, plain.statistic, atol=1e-6)
    np.testing.assert_allclose(found.log_fc, plain.log_fc, atol=1e-8)
    tested = ~np.isnan(plain.p_value[:, 0])
    np.testing.assert_allclose(found.dispersion[tested], plain.dispersion[tested, 0])
    np.testing.assert_array_equal(found.status, plain.status)
    np.testing.assert_allclose(found.p_value_all, plain.p_value_all, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 3), (3, 10)])
def test_skovgaards_root_is_the_closed_form_where_exposures_are_equal(sizes, monkeypatch):
    counts, offset, design, _ = two_groups(np.random.default_rng(2), sizes, 0.0)
    closed = design_tests(counts, offset, design, [np.array([0, 1.0])], leave_out=False)
    moderate, infinite = glm.moderate_groups, np.full(len(counts), np.inf)
    monkeypatch.setattr(glm, "_take_pairs", lambda *_: None)
    monkeypatch.setattr(
        glm,
        "moderate_groups",
        lambda *args: replace(moderate(*args), prior_degrees=infinite, own_degrees=0 * counts[:, 0]),
    )
    general = design_tests(counts, offset, design, [np.array([0, 1.0])], leave_out=False)
    tested = ~np.isnan(closed.p_value[:, 0])
    tested &= (closed.status[:, 0] & Status.ZERO_GROUP) == 0
    root = stats.t.isf(stats.norm.sf(np.abs(closed.statistic[tested, 0])), closed.degrees[tested])
    np.testing.assert_allclose(np.abs(general.statistic[tested, 0]), root, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(general.log_fc[tested], closed.log_fc[tested], atol=1e-5)


def test_other_statistics_for_groups_are_close_to_the_exact_ones(monkeypatch):
    """The general Pearson statistic, its variance and trend, on a design of groups."""
    counts, offset, design, _ = two_groups(np.random.default_rng(3), (4, 4), 0.0, 3000)
    exact = design_tests(counts, offset, design, [np.array([0, 1.0])])
    plain = glm.design_matrices
    monkeypatch.setattr(glm, "design_matrices", lambda *args: replace(plain(*args), group=None))
    general = design_tests(counts, offset, design, [np.array([0, 1.0])])
    assert abs(general.trend.log_dispersion_var / exact.trend.log_dispersion_var - 1) < 0.06
    np.testing.assert_allclose(general.trend.dispersion, exact.trend.dispersion, rtol=0.06)
    tested = ~np.isnan(exact.p_value[:, 0]) & (
        np.abs(exact.log_fc[:, 0]) < 0.7
    )  # the prior's degrees differ where arms do
    apart = np.abs(np.log10(general.p_value[tested, 0] / exact.p_value[tested, 0]))
    assert np.median(apart) < 0.01
    assert np.quantile(apart, 0.95) < 0.05


@pytest.mark.parametrize("test", ["moderated", "ql", "wald", "lrt"])
def test_coding_of_the_design_and_order_of_samples_change_nothing(paired, test):
    counts, offset, _ = paired
    first = design_tests(counts, offset, PAIRED, [LAST, DONORS], test=test)
    swapped = PAIRED.copy()
    swapped[:, 3] = 1 - swapped[:, 3]
    other = design_tests(counts, offset, swapped, [LAST, DONORS], test=test)
    np.testing.assert_allclose(other.log_fc[:, 0], -first.log_fc[:, 0], atol=1e-7)
    np.testing.assert_allclose(other.statistic[:, 0], -first.statistic[:, 0], atol=1e-7)
    np.testing.assert_allclose(np.log10(other.p_value), np.log10(first.p_value), atol=1e-6)

    turn = np.random.default_rng(1).normal(size=(4, 4))
    order = np.random.default_rng(2).permutation(6)
    turned = design_tests(
        counts[:, order],
        offset[:, order],
        (PAIRED @ turn)[order],
        [turn.T @ LAST, turn.T @ DONORS],
        test=test,
    )
    np.testing.assert_allclose(np.log10(turned.p_value), np.log10(first.p_value), atol=1e-6)
    np.testing.assert_allclose(turned.log_fc[:, 0], first.log_fc[:, 0], atol=1e-7)

    permuted = design_tests(counts[:, order], offset[:, order], PAIRED[order], [LAST], test=test)
    np.testing.assert_allclose(np.log10(permuted.p_value[:, 0]), np.log10(first.p_value[:, 0]), atol=1e-9, rtol=1e-9)


def test_a_null_value_is_an_offset_taken_off(paired):
    counts, offset, _ = paired
    tilted = offset + 0.4 * PAIRED[:, 3]
    for test in TESTS:
        shifted = design_tests(counts, offset, PAIRED, [LAST], test=test, null=np.array([0.4]))
        taken_off = design_tests(counts, tilted, PAIRED, [LAST], test=test, leave_out=False)
        np.testing.assert_allclose(shifted.statistic, taken_off.statistic, atol=0.02)  # the prior sees the offsets
        np.testing.assert_allclose(shifted.log_fc, taken_off.log_fc + 0.4, atol=0.02)


def test_threads_and_offsets_of_each_gene_change_nothing(paired):
    counts, offset, _ = paired
    counts = np.concatenate([counts, counts + 1, counts + 2])
    one = design_tests(counts, offset, PAIRED, [LAST])
    two = design_tests(counts, np.repeat(offset, len(counts), axis=0), PAIRED, [LAST], n_threads=2)
    np.testing.assert_array_equal(one.p_value, two.p_value)
    np.testing.assert_array_equal(one.coefficients, two.coefficients)


@pytest.mark.parametrize("test", TESTS)
def test_a_gene_is_tested_as_on_its_own_whatever_stands_beside_it(paired, test):
    """Fits are made for several genes at once; those with an empty arm need many steps."""
    counts, offset, phi = paired
    counts = counts.copy()
    counts[::7, 3:] = 0
    contrasts = [LAST, DONORS]
    some = np.random.default_rng(1).permutation(len(counts))[:21]
    whole, few = (at_fixed(counts[genes], offset, PAIRED, contrasts, phi[genes], test) for genes in (slice(None), some))
    for name in ("log_fc", "se", "statistic", "p_value", "separated", "coefficients"):
        np.testing.assert_array_equal(getattr(few, name), getattr(whole, name)[some], err_msg=name)


def test_several_degrees_of_which_one_is_tested_are_the_one(paired):
    """Quasi-likelihood and the others: F with one numerator degree is t squared."""
    counts, offset, _ = paired
    for test in ("ql", "lrt", "wald"):
        found = design_tests(counts, offset, PAIRED, [LAST, DONORS], test=test)
        both = design_tests(counts, offset, PAIRED, [np.column_stack([LAST, DONORS[:, 0]])], test=test)
        assert np.isnan(both.log_fc).all()
        assert np.isnan(both.se).all()
        tested = ~np.isnan(found.p_value[:, 0])
        assert (both.statistic[tested] >= 0).all()
        np.testing.assert_allclose(found.p_value[tested, 1], 2 * stats.norm.sf(found.statistic[tested, 1]), rtol=1e-6)


def test_moderated_test_of_several_degrees_is_quasi_likelihood(paired):
    counts, offset, _ = paired
    moderated = design_tests(counts, offset, PAIRED, [LAST, DONORS])
    quasi = design_tests(counts, offset, PAIRED, [DONORS], test="ql")
    np.testing.assert_allclose(moderated.p_value[:, 1], quasi.p_value[:, 0], rtol=1e-9)


def test_maximum_likelihood_is_that_of_two_groups(paired):
    rng = np.random.default_rng(4)
    counts, offset, design, _ = two_groups(rng, (4, 4), 0.3, 150)
    counts = counts[counts.sum(axis=1) > 0]
    exposure = np.exp(offset[0])
    for cox_reid in (False, True):
        ours = maximise_design(counts, offset, design_matrices(design, []), cox_reid=cox_reid)
        theirs = fit_likelihood(
            Group(counts[:, :4], exposure[:4]), Group(counts[:, 4:], exposure[4:]), cox_reid=cox_reid
        )
        np.testing.assert_allclose(ours.dispersion, theirs.dispersion, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(ours.log_likelihood, theirs.log_likelihood, atol=1e-4)


def test_maximum_likelihood_in_a_design_is_not_below_statsmodels(paired):
    counts, offset, _ = paired
    ours = maximise_design(counts, offset, design_matrices(PAIRED, []))
    informative = np.flatnonzero((counts > 0).all(axis=1))[:6]
    for g in informative:
        for alpha in [0.0, *np.geomspace(1e-3, 3, 12)]:
            assert ours.log_likelihood[g] >= statsmodels_fit(counts[g], PAIRED, offset[0], alpha).llf - 1e-6


def test_gene_wise_tests_are_normal_and_refit_the_dispersion_under_the_null(paired):
    counts, offset, _ = paired
    found = design_tests(counts, offset, PAIRED, [LAST], test="lrt", dispersion="genewise-ml")
    full = maximise_design(counts, offset, design_matrices(PAIRED, [])).log_likelihood
    null = maximise_design(counts, offset, design_matrices(PAIRED[:, :3], [])).log_likelihood
    tested = ~np.isnan(found.p_value[:, 0])
    np.testing.assert_allclose(found.statistic[tested, 0] ** 2, np.maximum(2 * (full - null), 0)[tested], atol=1e-5)
    np.testing.assert_allclose(found.p_value, 2 * stats.norm.sf(np.abs(found.statistic)), rtol=1e-9)


def test_reasons_and_flags():
    counts = np.array([[0, 0, 0, 0, 0, 0], [1, 0, 2, 0, 1, 0], [0, 0, 0, 9, 14, 8], [20, 31, 18, 44, 60, 51.0]])
    found = design_tests(counts, np.zeros((1, 6)), PAIRED, [LAST])
    status = found.status[:, 0]
    assert status[0] & Status.ALL_ZERO
    assert np.isnan(found.log_fc[0, 0])
    assert status[1] & NOT_TESTED == Status.LOW_COUNTS
    assert np.isfinite(found.log_fc[1, 0])
    assert status[2] & Status.ZERO_GROUP
    assert np.isfinite([found.p_value[2, 0], found.se[2, 0]]).all()
    assert 1 < found.log_fc[2, 0] < 6  # half a count in the empty arm
    np.testing.assert_allclose(found.p_value[2, 0], 2 * stats.norm.sf(abs(found.statistic[2, 0])), rtol=1e-9)
    assert status[3] & NOT_TESTED == 0
    saturated = design_tests(counts, np.zeros((1, 6)), np.eye(6), [np.array([-1.0, 0, 0, 1, 0, 0])])
    assert (saturated.status[3] & Status.NO_REPLICATES).all()
    assert np.isnan(saturated.p_value).all()
    np.testing.assert_allclose(saturated.log_fc[3, 0], np.log(44 / 20), rtol=1e-5)
    five = np.repeat(np.eye(3), 2, axis=0)  # groups of which the contrast's two are empty
    empty = design_tests(np.array([[0, 0, 0, 0, 30.0, 44]]), np.zeros((1, 6)), five, [np.array([1.0, -1, 0])])
    assert empty.status[0, 0] & Status.ALL_ZERO


def test_designs_without_an_intercept_and_contrasts_of_it():
    high, offset, phi = simulate(np.random.default_rng(5), PAIRED, 12, low=50)
    design = np.column_stack([np.linspace(0.5, 3, 6), [1.0, 0, 0, 1, 0, 0]])
    found = at_fixed(high, offset, design, [np.array([1.0, 0])], phi, "lrt")
    low = np.minimum(high, 20)
    rate = at_fixed(low, offset, PAIRED, [np.array([1.0, 0, 0, 0])], phi, "lrt")
    for g in range(6):
        for tested, counts, matrix in ((found, high, design), (rate, low, PAIRED)):
            full = statsmodels_fit(counts[g], matrix, offset[0], phi[g])
            null = statsmodels_fit(counts[g], matrix[:, 1:], offset[0], phi[g])
            np.testing.assert_allclose(tested.coefficients[g], full.params, atol=1e-5)
            np.testing.assert_allclose(tested.statistic[g, 0] ** 2, 2 * (full.llf - null.llf), rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.3, 3.0, 1e6]), st.sampled_from(list(TESTS)))
def test_all_that_is_tested_is_finite(seed, size, test):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(0.3, 0.3 / (0.3 + size * rng.lognormal(0, 2, (40, 6)))).astype(float)
    covariate = np.column_stack([np.ones(6), rng.normal(size=6) * 1e3, np.repeat([0.0, 1], 3)])
    for design, contrast in ((PAIRED, LAST), (covariate, np.array([0, 1.0, 0]))):
        for dispersion in ("moderated", "genewise-ml"):
            found = design_tests(counts, np.zeros((1, 6)), design, [contrast], test=test, dispersion=dispersion)
            tested = (found.status & NOT_TESTED) == 0
            for values in (found.p_value, found.statistic, found.log_fc, found.se):
                assert np.isfinite(values[tested]).all()
            assert (found.p_value[tested] <= 1).all()
            assert np.isnan(found.p_value[~tested]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "design", [PAIRED, np.column_stack([np.ones(6), [-1.2, 0.1, 0.9, -0.6, 0.4, 1.3], np.repeat([0.0, 1], 3)])]
)
def test_null_p_values_are_uniform(design):
    rng = np.random.default_rng(7)
    contrast = np.zeros(design.shape[1])
    contrast[-1] = 1
    null = design.copy()
    null[:, -1] = 0
    counts, offset, _ = simulate(rng, null, 20_000, low=3, high=1000, effect=0.3)
    p = design_tests(counts, offset, design, [contrast]).p_value[:, 0]
    p = p[~np.isnan(p)]
    for level, low, high in ((0.05, 0.045, 0.057), (0.01, 0.008, 0.0128), (0.001, 0.0003, 0.0019)):
        assert low < (p < level).mean() < high


def highest_adjusted(y, x, offset):
    """Maximum over the dispersion of log likelihood less half the log determinant of the first three columns' information."""
    b = np.linalg.lstsq(x, np.log(y + 0.5) - offset, rcond=None)[0]

    def df_ratio(log_alpha):
        nonlocal b
        alpha = np.exp(log_alpha)
        for _ in range(30):
            m = np.exp(offset + x @ b)
            j = x.T * (m * (1 + alpha * y) / (1 + alpha * m) ** 2) @ x
            b = b + np.linalg.solve(j, x.T @ ((y - m) / (1 + alpha * m)))
        nuisance = x[:, :3]
        log_determinant = np.linalg.slogdet(nuisance.T * (m / (1 + alpha * m)) @ nuisance)[1]
        return 0.5 * log_determinant - stats.nbinom.logpmf(y, 1 / alpha, 1 / (1 + alpha * m)).sum()

    return -min(
        optimize.minimize_scalar(df_ratio, bounds=(low, low + 4), method="bounded").fun for low in (-9, -6, -3, 0)
    )


def test_adjusted_likelihood_ratios_are_those_of_scipy(paired):
    """Both likelihoods less half the log determinant of the null's coefficients, each at its own highest dispersion."""
    counts, offset, _ = paired
    found = design_tests(counts, offset, PAIRED, [LAST], test="lrt", dispersion="genewise-ml", cox_reid=True)
    genes = np.flatnonzero((counts > 3).all(axis=1) & (found.dispersion > 0.02))[:8]
    assert len(genes) > 3
    for g in genes:
        full, null = (highest_adjusted(counts[g], PAIRED[:, :k], offset[0]) for k in (4, 3))
        assert found.statistic[g, 0] ** 2 == pytest.approx(2 * (full - null), abs=1e-3)


@pytest.mark.slow
def test_adjusted_likelihood_ratios_are_less_liberal_than_without(paired):
    """With the dispersion of the alternative held fixed the adjusted ones were far more liberal: .02 below .001 where .006 was."""
    design = np.column_stack([np.ones(8), np.random.default_rng(1).normal(size=8), np.repeat([0.0, 1], 4)])
    null = design.copy()
    null[:, -1] = 0
    counts, offset, _ = simulate(np.random.default_rng(2), null, 4000, low=10, effect=0.2)
    plain, adjusted = (
        design_tests(
            counts, offset, design, [np.eye(3)[-1]], test="lrt", dispersion="genewise-ml", cox_reid=cox_reid
        ).p_value[:, 0]
        for cox_reid in (False, True)
    )
    for level in (0.05, 0.01, 0.001):
        assert np.nanmean(adjusted < level) < np.nanmean(plain < level)
