from __future__ import annotations

from nbcompare._nb.hidden.offer import shared_variation


def test_one_where_genes_are_independent(hidden):
    data = hidden.simulate(1, strength=0.0)
    assert 0.9 < shared_variation(hidden.prepare(data.counts, data.group)[0]) < 1.15


def test_large_where_samples_share_a_direction(hidden):
    data = hidden.simulate(1, strength=0.3)
    assert shared_variation(hidden.prepare(data.counts, data.group)[0]) > 1.6
