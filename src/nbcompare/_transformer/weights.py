"""The file of a network: tensors as safetensors, configuration and origin in its header. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcompare._optional import require
from nbcompare._transformer.layout import N_FEATURES
from nbcompare._transformer.training_range import Ranges

if TYPE_CHECKING:
    from nbcompare._transformer.network import Network

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "posterior"  # name of the weights that are read where none are asked for
OTHER_FILE = "Give a file that python -m nbcompare._transformer.training.train wrote, or leave network out."
FORMAT = 2  # of features, Laplace approximations and heads: a network of another format cannot be read


@dataclass(frozen=True)
class Trained:
    """A network with what its file says of it."""

    network: Network
    header: dict[str, str]
    ranges: Ranges  # what it was trained on
    sha256: str = ""  # of its file


def load_network(path: str | os.PathLike[str] | None = None) -> Trained:
    """A trained network from its file.

    Parameters
    ----------
    path
        A safetensors file that ``python -m nbcompare._transformer.training.train`` wrote, or the name of one that comes with the package.
        By default the package's own.

    Raises
    ------
    ImportError
        Without torch and safetensors.
    ValueError
        Where there is no such file, or it is of another format.
    """
    require("torch", "transformer")
    require("safetensors", "transformer")
    file = Path(DEFAULT if path is None else path)
    bundled = WEIGHTS / f"{file}.safetensors"
    if not file.is_file() and bundled.is_file():
        file = bundled
    if not file.is_file():
        names = ", ".join(repr(found.stem) for found in sorted(WEIGHTS.glob("*.safetensors")))
        msg = f"There is no network {str(path)!r}. Give the path of a file of weights, or one of {names}."
        raise ValueError(msg)
    return _load(str(file), file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: str, _changed: int) -> Trained:
    network, header = read_weights(path)
    ranges: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(header["training"]).items()
    }
    return Trained(network, header, Ranges(**ranges), hashlib.sha256(Path(path).read_bytes()).hexdigest())


def write_weights(path: Path, network: Network, about: dict[str, str]) -> None:
    """Write a network with its configuration, and what is to be said of it."""
    from safetensors.torch import save_file

    header = {
        "format": str(FORMAT),
        "config": json.dumps(network.config.as_dict()),
        "n_summaries": str(N_FEATURES),
        "version": version("nbcompare"),
        **about,
    }
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part, metadata=header)
    part.chmod(0o644)
    part.replace(path)


def read_weights(path: Path | str) -> tuple[Network, dict[str, str]]:
    """A network and the header of its file; raises ValueError where the file is of another format."""
    from safetensors import SafetensorError, safe_open

    from nbcompare._transformer.network import Config, Network

    try:
        opened = safe_open(str(path), framework="pt")
    except SafetensorError as error:
        msg = f"{path} cannot be read as a file of weights: {error}. Give a file that python -m nbcompare._transformer.training.train wrote."
        raise ValueError(msg) from error
    with opened as file:
        header = file.metadata() or {}
        if header.get("format") != str(FORMAT) or header.get("n_summaries") != str(N_FEATURES):
            msg = (
                f"{path} is of format {header.get('format')!r}, and this version of nbcompare reads format '{FORMAT}'. "
                "Train it again with python -m nbcompare._transformer.training.train, or install the version that wrote it."
            )
            raise ValueError(msg)
        try:
            config = json.loads(header["config"])
            known = {field.name for field in fields(Config)}
            network = Network(Config(**{name: value for name, value in config.items() if name in known}))
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            msg = f"{path} is damaged: its header does not describe a network ({error}). {OTHER_FILE}"
            raise ValueError(msg) from error
        stored, expected = set(file.keys()), set(network.state_dict())
        if stored != expected:
            names = ", ".join(sorted(stored ^ expected)[:3])
            msg = (
                f"{path} holds other layers than this version of nbcompare has ({names}, ...). "
                "Train it again with python -m nbcompare._transformer.training.train, or install the version that wrote it."
            )
            raise ValueError(msg)
        tensors = {name: file.get_tensor(name) for name in stored}
        wrong = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
        if wrong:
            msg = f"{path} is damaged: the weights {wrong[0]!r} hold values that are not finite. {OTHER_FILE}"
            raise ValueError(msg)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            msg = f"{path} is damaged: its weights have other shapes than its header says. {OTHER_FILE}"
            raise ValueError(msg) from error
    return network.eval(), header
