"""Options of `nb_compare` that cannot be combined: refused before any work, with the argument to change.

The page docs/combinations.md shows the same rules as a table.
"""

from __future__ import annotations

from nbcompare._anndata import column_names
from nbcompare._messages import SEE_COMBINATIONS
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._posterior.options import check_network, check_prior, refuse_unused


def check_combinations(options: CompareOptions) -> None:
    """Refuse options that exclude each other, and options without effect."""
    _check_posterior(options)
    _check_threshold(options)
    if options.question.design is None:
        _check_without_design(options)
    else:
        _check_design(options)
    _check_test(options)
    _check_hidden_factors(options)
    _check_common_shift(options)


def _refuse(message: str) -> None:
    msg = f"{message} {SEE_COMBINATIONS}"
    raise ValueError(msg)


def _check_posterior(options: CompareOptions) -> None:
    """Loads the network first, so that a missing one is found before other work."""
    method = options.test.method
    if not options.posterior.is_posterior:
        refuse_unused(options.posterior)
        return
    for name, value in {"design": options.question.design, "block_key": options.samples.block_key}.items():
        if value is not None:
            _refuse(f"{name} cannot be combined with method={method!r}. Use method='mom', or leave {name} out.")
    if options.test.test != "moderated":
        _refuse(
            f"method={method!r} takes its p-values from test='moderated', but test is {options.test.test!r}. Leave test out."
        )
    for name in ("shrink", "lfc_threshold"):
        if getattr(options.test, name):
            _refuse(
                f"{name} cannot be combined with method={method!r}, whose posterior already shrinks log2 fold changes. "
                f"Leave {name} out, or use method='mom'."
            )
    if options.test.dispersion == "pair":
        _refuse(
            f"dispersion='pair' cannot be combined with method={method!r}, whose prior comes from the trend of the whole data set. "
            "Leave dispersion out."
        )
    check_prior(options.posterior.prior)
    check_network(options.posterior)


def _check_threshold(options: CompareOptions) -> None:
    test = options.test
    if test.alternative == "less_abs" and test.lfc_threshold == 0:
        _refuse(
            "alternative='less_abs' requires lfc_threshold: it tests whether changes are smaller than a threshold. "
            "Set for example lfc_threshold=1 for twofold."
        )
    if test.lfc_threshold > 0 and test.test != "moderated":
        _refuse(f"lfc_threshold requires test='moderated', but test is {test.test!r}. Leave one of them out.")


def _check_without_design(options: CompareOptions) -> None:
    test, samples = options.test, options.samples
    needs_design = {"contrast": options.question.contrast is not None, "test='ql'": test.test == "ql"}
    for name, is_given in needs_design.items():
        if is_given:
            _refuse(
                f"{name} requires a design, a formula such as design='~ donor + condition'. Set design, or leave {name} out."
            )
    is_plain = (test.test, test.method, samples.block_key, test.dispersion) == ("moderated", "mom", None, "all")
    if options.size_factors.offset is not None and not is_plain:
        _refuse(
            "Without a design, offset requires test='moderated', method='mom' and dispersion='all'. It cannot be combined with "
            "block_key, other tests or methods. Set a design, such as design='~ donor + condition', which supports offsets with all of them."
        )


def _check_design(options: CompareOptions) -> None:
    question = options.question
    if options.samples.block_key is not None:
        blocks = " + ".join(column_names(options.samples.block_key))
        _refuse(f"block_key cannot be combined with design. Put the blocks in the formula: design='~ {blocks} + ...'.")
    if options.test.dispersion == "pair":
        _refuse(
            "dispersion='pair' cannot be combined with design, which fits all samples together. Leave one of them out."
        )
    if question.contrast is None and question.reference == "rest":
        _refuse("reference='rest' cannot be combined with design. Set contrast, such as weights of the coefficients.")
    if question.contrast is not None and question.groups != "all":
        _refuse("groups cannot be combined with contrast: both name the comparisons. Leave one of them out.")
    if levels := list(question.reference_levels):
        column = options.samples.groupby
        _refuse(
            f"reference is {levels}, but several groups cannot be one reference with design. Join them in the column first: "
            f"adata.obs[{column!r}] = adata.obs[{column!r}].astype(str).replace({levels}, 'control'), then reference='control'."
        )


def _check_test(options: CompareOptions) -> None:
    test = options.test
    if options.samples.block_key is not None and (test.test, test.method) != ("moderated", "mom"):
        _refuse(
            f"block_key cannot be combined with test={test.test!r} and method={test.method!r}. Use test='moderated' and method='mom', "
            "or put the blocks in the design: design='~ donor + condition'."
        )
    if test.cox_reid and test.method != "mle":
        _refuse(
            f"cox_reid requires method='mle', but method is {test.method!r}. Leave cox_reid out, or set method='mle'."
        )
    if test.dispersion == "pair" and test.test != "moderated":
        _refuse(f"dispersion='pair' requires test='moderated', but test is {test.test!r}. Leave dispersion out.")


def _check_hidden_factors(options: CompareOptions) -> None:
    test = options.test
    if test.hidden_factors is None:
        return
    given = f"hidden_factors={test.hidden_factors!r}"
    if options.posterior.is_posterior:
        _refuse(
            f"{given} cannot be combined with method={test.method!r}. Use method='mom', or leave hidden_factors out."
        )
    if test.test != "moderated":
        _refuse(f"{given} requires test='moderated', but test is {test.test!r}. Leave one of them out.")
    if test.lfc_threshold:
        _refuse(
            f"{given} cannot be combined with lfc_threshold={test.lfc_threshold:g}. Leave one of them out, and select by log2 fold change in "
            "the table of results."
        )
    if test.dispersion == "pair":
        _refuse(
            f"{given} cannot be combined with dispersion='pair': factors are estimated from all samples of the data set. "
            "Leave one of them out."
        )


def _check_common_shift(options: CompareOptions) -> None:
    if not options.test.common_shift:
        return
    if options.question.design is not None:
        _refuse("common_shift=True cannot be combined with design. Leave one of them out.")
    if options.test.test != "moderated":
        _refuse(
            f"common_shift=True requires test='moderated', but test is {options.test.test!r}. Leave one of them out."
        )
