"""A damaged file of weights is refused in one sentence that names it."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from nbcompare._transformer.weights import DEFAULT, WEIGHTS, load_network  # noqa: E402


def content() -> tuple[dict, dict[str, str]]:
    with safe_open(str(WEIGHTS / f"{DEFAULT}.safetensors"), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())


def damaged(kind: str) -> tuple[dict, dict[str, str]]:
    tensors, header = content()
    first = next(iter(tensors))
    config = json.loads(header["config"])
    if kind == "no config":
        del header["config"]
    elif kind == "config is no JSON":
        header["config"] = "{"
    elif kind == "config is a list":
        header["config"] = "[1]"
    elif kind in ("width is text", "negative width", "other width"):
        name = next(name for name, value in config.items() if isinstance(value, int) and value > 8)
        config[name] = {"width is text": "wide", "negative width": -3, "other width": config[name] * 2}[kind]
        header["config"] = json.dumps(config)
    elif kind == "a tensor missing":
        del tensors[first]
    elif kind == "a tensor too many":
        tensors["more"] = torch.zeros(2)
    elif kind == "NaN":
        tensors[first] = torch.full_like(tensors[first], float("nan"))
    return tensors, header


KINDS = [
    "no config", "config is no JSON", "config is a list", "width is text", "negative width", "other width", "a tensor missing",
    "a tensor too many", "NaN",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights(kind, tmp_path):
    tensors, header = damaged(kind)
    save_file(tensors, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(ValueError, match=r"w\.safetensors (is damaged|holds other layers)"):
        load_network(tmp_path / "w.safetensors")


def test_the_weights_of_the_package_are_read():
    assert load_network().header["format"] == "2"
