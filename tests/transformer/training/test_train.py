"""Training on a small scale, its files, and what they say."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from nbcompare._transformer.training.train import Run, main, parse  # noqa: E402
from nbcompare._transformer.training_range import Ranges  # noqa: E402
from nbcompare._transformer.weights import WEIGHTS, load_network, read_weights, write_weights  # noqa: E402

from ..conftest import posterior  # noqa: E402, TID252

MODEL_CARD = Path(__file__).parents[3] / "docs" / "model_card.md"
THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds on a prior of the user's own."""
    out = tmp_path_factory.mktemp("smoke") / "own.safetensors"
    main(["--smoke", "--out", str(out), "--width", "16", "--depth", "2", "--prior-scale", "0.5", "0.6"])
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file))


def test_smoke(smoke: Path, drawn) -> None:
    (row,) = rows(smoke)
    assert float(row["examples"]) == 16384
    assert float(row["alternative"]) > -1.8
    trained = load_network(smoke)
    assert trained.ranges.scale == (0.5, 0.6)
    assert trained.header["examples"] == "16384"
    assert np.isfinite(posterior(drawn, network=trained).mean).all()


def test_a_run_is_fixed_by_its_seed_and_can_be_continued(smoke: Path, tmp_path: Path) -> None:
    """Stopped in the middle and continued gives the weights of a run that was not stopped."""
    again = tmp_path / "again.safetensors"
    options = ["--smoke", "--out", str(again), "--width", "16", "--depth", "2", "--prior-scale", "0.5", "0.6"]
    run = Run(parse(options))
    for _ in range(2):
        run.advance()
    run.save()
    main(options)
    first, second = load_file(smoke), load_file(again)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor)
    assert [row["examples"] for row in rows(again)] == ["8192", "16384"]
    main(options)  # finished: nothing is left to do
    assert len(rows(again)) == 2


def test_training_can_start_from_weights(smoke: Path, tmp_path: Path) -> None:
    out = tmp_path / "continued.safetensors"
    run = Run(parse(["--smoke", "--out", str(out), "--width", "16", "--depth", "2", "--start", str(smoke)]))
    stored = load_file(smoke)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in run.network.state_dict().items())


def test_files_with_other_layers_are_refused(smoke: Path, tmp_path: Path) -> None:
    """Such as those of the networks with attention among replicates, which early versions had."""
    network, _ = read_weights(smoke)
    path = tmp_path / "attention.safetensors"
    write_weights(path, network, {})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path) | {"replicates.embed.weight": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(ValueError, match=r"holds other layers.*replicates\.embed\.weight.*Train it again"):
        load_network(path)


def test_the_network_with_attention_is_gone() -> None:
    with pytest.raises(ValueError, match="There is no network 'attention'.*one of 'posterior'"):
        load_network("attention")


def test_other_formats_are_refused(smoke: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file(load_file(smoke), path, metadata={"format": "0"})
    with pytest.raises(ValueError, match="reads format '2'"):
        load_network(path)
    path.write_bytes(b"not a file of weights")
    with pytest.raises(ValueError, match="cannot be read"):
        load_network(path)


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_weights_that_come_with_the_package(path: Path) -> None:
    assert path.stat().st_size < 1e6
    trained = load_network(path.stem)
    assert json.loads(trained.header["training"]) == json.loads(json.dumps(Ranges().as_dict()))
    text = MODEL_CARD.read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert f"{int(trained.header['examples']):,}" in text
    assert trained.header["version"] in text


def test_posterior_does_not_depend_on_threads(drawn) -> None:
    expected = posterior(drawn)
    torch.set_num_threads(1)
    np.testing.assert_allclose(posterior(drawn).mean, expected.mean, rtol=1e-5, atol=1e-5)
