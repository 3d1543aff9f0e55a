"""The file of a network: tensors as safetensors, configuration and origin in its header. Nothing in it is ever executed."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nbcompare._transformer.network import Config, Network
from nbcompare._transformer.summaries import N_SUMMARIES

FORMAT = 1  # of summaries, anchors and heads: a network of another format cannot be read


def write_weights(path: Path, network: Network, about: dict[str, str]) -> None:
    """Write a network with its configuration, and what is to be said of it."""
    header = {
        "format": str(FORMAT),
        "config": json.dumps(network.config.as_dict()),
        "n_summaries": str(N_SUMMARIES),
        "version": version("nbcompare"),
        **about,
    }
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part, metadata=header)
    part.chmod(0o644)
    part.replace(path)


def read_weights(path: Path | str) -> tuple[Network, dict[str, str]]:
    """A network and the header of its file; raises ValueError where the file is of another format."""
    try:
        opened = safe_open(str(path), framework="pt")
    except SafetensorError as error:
        msg = f"{path} cannot be read as a file of weights: {error}. Give a file that python -m nbcompare._transformer.train wrote."
        raise ValueError(msg) from error
    with opened as file:
        header = file.metadata() or {}
        if header.get("format") != str(FORMAT) or header.get("n_summaries") != str(N_SUMMARIES):
            msg = (
                f"{path} is of format {header.get('format')!r}, and this version of nbcompare reads format '{FORMAT}'. "
                "Train it again with python -m nbcompare._transformer.train, or install the version that wrote it."
            )
            raise ValueError(msg)
        config = json.loads(header["config"])
        known = {field.name for field in fields(Config)}
        network = Network(Config(**{name: value for name, value in config.items() if name in known}))
        stored, expected = set(file.keys()), set(network.state_dict())
        if stored != expected:
            names = ", ".join(sorted(stored ^ expected)[:3])
            msg = (
                f"{path} holds other layers than this version of nbcompare has ({names}, ...). "
                "Train it again with python -m nbcompare._transformer.train, or install the version that wrote it."
            )
            raise ValueError(msg)
        network.load_state_dict({name: file.get_tensor(name) for name in stored})
    return network.eval(), header
