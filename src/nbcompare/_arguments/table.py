"""The table: of each argument the kind of value that it takes, with the same limits in all functions."""

from __future__ import annotations

from nbcompare._arguments.kinds import (
    Kind,
    any_levels,
    anything,
    axes,
    columns,
    control,
    data,
    data_or_path,
    device,
    dtype,
    keys,
    level,
    levels,
    new_key,
    number,
    optional,
    path,
    replicates,
    seed,
    text,
    truth,
    word,
    word_or,
)

LARGEST_THRESHOLD = 30.0  # log2 fold change: a billionfold

COUNT = number("a whole number, 1 or more", low=1, whole=True)
WHOLE = number("a whole number, 0 or more", low=0, whole=True)
COUNTS = number("a finite number of counts, 0 or more", low=0)
ADJUSTED = number("a number from 0 to 1, the largest adjusted p-value", low=0, high=1)
FOLD_CHANGE = number("a number, a log2 fold change", infinite=True)
POSITIVE = number("a finite number above 0", low=0, high=float("inf"), between=True)
NOT_NEGATIVE = number("a finite number, 0 or more", low=0)
COLUMN_OF_VAR = text("the name of a column of .var")
STYLES = word("scanpy", "pertpy", "deseq2")

KINDS: dict[str, Kind] = {
    # data
    "adata": data,
    "pdata": data,
    "screen": data,
    "layer": optional(text("the name of a layer, or None for .X")),
    "gene_symbols": optional(COLUMN_OF_VAR),
    "path": optional(path),
    "append": truth,
    "copy": truth,
    "verbose": truth,
    "key": text("text, the key_added of the comparison"),
    "key_added": new_key,
    "keys": keys,
    # samples
    "groupby": columns,
    "replicate_key": optional(columns),
    "block_key": optional(columns),
    "split_by": optional(columns),
    "guide_key": optional(columns),
    "min_cells": number("a whole number of cells, 0 or more", low=0, whole=True),
    "min_counts": COUNTS,
    "min_gene_counts": COUNTS,
    "allow_cells_as_replicates": truth,
    "size_factors": anything,
    "offset": anything,
    # what is compared
    "reference": control,
    "groups": levels,
    "design": optional(text("text, a formula such as '~ donor + condition'")),
    "contrast": anything,
    # the test
    "method": word("mom", "mle", "transformer", "quadrature"),
    "test": word("moderated", "wald", "lrt", "ql"),
    "common_shift": truth,
    "dispersion": word("all", "pair"),
    "cox_reid": truth,
    "hidden_factors": optional(
        word_or(number("None, 'auto', or a whole number of factors, 1 or more", low=1, whole=True), "auto")
    ),
    "lfc_threshold": number(
        f"a log2 fold change from 0 to {LARGEST_THRESHOLD:g} (1 stands for twofold, 0.58 for 50% more)",
        low=0,
        high=LARGEST_THRESHOLD,
    ),
    "alternative": word("greater_abs", "less_abs"),
    "shrink": truth,
    "intervals": truth,
    "fdr": number("a number between 0 and 1", low=0, high=1, between=True),
    "n_fit_perturbations": COUNT,
    "n_factors": word_or(number("'auto', or a whole number of factors, 1 or more", low=1, whole=True), "auto"),
    # posteriors
    "prior": anything,
    "network": optional(path),
    "device": device,
    "importance_sampling": truth,
    "null_spread": truth,
    # how a screen is computed
    "dtype": dtype("float32", "float64"),
    "chunk_size": COUNT,
    "perturbations_per_chunk": optional(COUNT),
    "n_jobs": optional(COUNT),
    "progress": truth,
    # tables
    "group": optional(levels),
    "split": optional(levels),
    "gene": level,
    "perturbation": optional(levels),
    "padj_cutoff": ADJUSTED,
    "log2fc_min": optional(FOLD_CHANGE),
    "log2fc_max": optional(FOLD_CHANGE),
    "style": STYLES,
    "fdr_scope": word("perturbation", "global", "hierarchical"),
    "n_top": WHOLE,
    # figures
    "ax": optional(axes),
    "lfc_cutoff": NOT_NEGATIVE,
    "shrunken": truth,
    "log": truth,
    "genes": any_levels,
    "perturbations": any_levels,
    "values": word("logfoldchanges", "dispersions"),
    "truth": optional(number("a finite number, a log2 fold change")),
    "bins": COUNT,
    "kind": word("histogram", "qq"),
    "n_perturbations": COUNT,
    "n_genes": COUNT,
    # simulated data
    "n_conditions": COUNT,
    "n_replicates": replicates,
    "n_cells": COUNT,
    "n_cells_sd": NOT_NEGATIVE,
    "depth": POSITIVE,
    "depth_sd": NOT_NEGATIVE,
    "abundance_sd": NOT_NEGATIVE,
    "de_fraction": number("a fraction from 0 to 1", low=0, high=1),
    "effect_sd": NOT_NEGATIVE,
    "dispersion_extra": NOT_NEGATIVE,
    "dispersion_sd": NOT_NEGATIVE,
    "paired": truth,
    "donor_sd": NOT_NEGATIVE,
    "rng": seed,
}
EXCEPTIONS: dict[str, Kind] = {  # where a name means another thing in one function
    "datasets.simulate.dispersion": NOT_NEGATIVE,
    "get.check_screen.path": path,
    "get.nb_compare_df.padj_cutoff": optional(ADJUSTED),
    "get.nb_screen_df.gene": optional(levels),
    "get.nb_screen_df.n_top": optional(COUNT),
    "get.nb_screen_df.padj_cutoff": optional(ADJUSTED),
    "pl.forest.groups": optional(levels),
    "pl.gene.groups": optional(levels),
    "pl.knockdown.perturbations": optional(levels),
    "pl.perturbation_strength.kind": word("cells", "ranked"),
    "pl.screen_map.genes": optional(levels),
    "pl.screen_map.perturbations": optional(levels),
    "pl.hidden_factors.kind": word("samples", "scree"),
    "pp.size_factors.groupby": optional(columns),
    "pp.size_factors.method": anything,
    "tl.nb_screen.adata": data_or_path,
    "tl.nb_screen.method": word("mom", "transformer", "quadrature"),
    **{
        f"pl.{name}.group": optional(level)
        for name in ("agreement", "dispersion", "hidden_factors", "ma", "posterior", "pvalues", "volcano")
    },
    **{
        f"pl.{name}.split": optional(level)
        for name in ("agreement", "dispersion", "gene", "hidden_factors", "ma", "posterior", "pvalues", "volcano")
    },
    "get.to_rank_genes_groups.split": optional(level),
}


def kind_of(function: str, argument: str) -> Kind:
    """The kind of an argument of a function such as "tl.nb_compare"."""
    return EXCEPTIONS.get(f"{function}.{argument}") or KINDS[argument]
