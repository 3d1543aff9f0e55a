"""Train the network from scratch: ``python -m nbcompare._transformer.training.train --help``.

Every example is fresh and half of them have no change. The loss is minus the log posterior density of what is true. A run is fixed by its
seed, is continued from its checkpoint, and is finished when it has seen ``--examples``; its learning rate falls along a cosine to that point.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbcompare._transformer.network import Config, Network, log_likelihoods
from nbcompare._transformer.training.examples import batches, training_examples
from nbcompare._transformer.training_range import Ranges
from nbcompare._transformer.weights import read_weights, write_weights

CHUNK = 16384  # tests simulated at a time; a chunk's seed is its number
VALIDATION_SEED = 2**31 - 1
WARMUP = 500  # steps
SAVE_EVERY = 120  # seconds


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    run = Run(options)
    run.go()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nbcompare._transformer.training.train", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=Path("nbcompare_network.safetensors"),
        help="weights; the checkpoint and the metrics lie beside it",
    )
    add("--examples", type=float, default=1e8, help="tests to see in all")
    add("--batch", type=int, default=4096)
    add("--rate", type=float, default=2e-3, help="highest learning rate")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--device", default="cpu", help="cpu, cuda or mps")
    add(
        "--start",
        type=Path,
        help="weights to start from, of a network of the same sizes",
    )
    add("--smoke", action="store_true", help="a run of seconds that shows that everything works")
    for field in fields(Config):
        add(f"--{field.name.replace('_', '-')}", type=int, default=field.default, dest=field.name)
    for field in fields(Ranges):
        default = field.default
        count = 2 if isinstance(default, tuple) else None
        kind = int if field.name == "replicates" else float
        add(
            f"--prior-{field.name.replace('_', '-')}",
            type=kind,
            nargs=count,
            default=default,
            dest=f"prior_{field.name}",
        )
    options = parser.parse_args(arguments)
    if options.smoke:
        options.examples, options.batch, options.validation, options.chunk = 16384, 1024, 2048, 4096
    else:
        options.validation, options.chunk = 65536, CHUNK
    return options


def chosen(options: argparse.Namespace, kind: type, prefix: str) -> dict[str, Any]:
    """The options that are fields of this class."""
    values = {field.name: getattr(options, f"{prefix}{field.name}") for field in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


class Run:
    """One training run: network, optimiser, running mean of the weights, and where it stands."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        torch.manual_seed(options.seed)
        self.ranges = Ranges(**chosen(options, Ranges, "prior_"))
        self.config = Config(**chosen(options, Config, ""))
        self.network = Network(self.config).to(options.device)
        self.smooth = Network(self.config).to(options.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=options.rate, weight_decay=1e-4, betas=(0.9, 0.99)
        )
        self.chunk = 0
        self.step = 0
        self.examples = 0
        self.seconds = 0.0
        self.checkpoint = options.out.with_suffix(".checkpoint.pt")
        self.metrics = options.out.with_suffix(".csv")
        self.validation = self.batch(np.random.default_rng(VALIDATION_SEED), options.validation)
        if self.checkpoint.exists():
            self.resume()
        else:
            self.prepare()

    def batch(self, rng: np.random.Generator, n: int) -> list[dict[str, torch.Tensor]]:
        """Fresh tests in batches."""
        data = training_examples(rng, n, self.ranges)
        return list(batches(data, self.options.batch, device=self.options.device))

    def prepare(self) -> None:
        """Scales of the features, from tests of their own, or the weights that are to be started from."""
        data = training_examples(
            np.random.default_rng([self.options.seed, 2**31]), max(self.options.validation, 8192), self.ranges
        )
        self.network.set_scales(torch.as_tensor(data.features))
        if self.options.start is not None:
            self.network.load_state_dict(read_weights(self.options.start)[0].state_dict())
        self.smooth.load_state_dict(self.network.state_dict())

    def resume(self) -> None:
        """Go on where the checkpoint stands."""
        state = torch.load(self.checkpoint, map_location=self.options.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.smooth.load_state_dict(state["smooth"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in ("chunk", "step", "examples", "seconds"):
            setattr(self, name, state[name])

    def go(self) -> None:
        """Chunks until enough examples are seen; validation, checkpoint and weights now and then and at the end."""
        from tqdm.auto import tqdm

        last = time.monotonic()
        with tqdm(total=int(self.options.examples), initial=self.examples, unit="test", unit_scale=True) as bar:
            while self.examples < self.options.examples:
                loss = self.advance()
                bar.update(self.options.chunk)
                bar.set_postfix(loss=f"{loss:.4f}")
                if self.examples >= self.options.examples or time.monotonic() - last > SAVE_EVERY:
                    self.save()
                    last = time.monotonic()

    def advance(self) -> float:
        """Learn from one chunk; its mean loss."""
        spent = time.process_time()
        rng = np.random.default_rng([self.options.seed, self.chunk])
        losses = [self.learn(batch) for batch in self.batch(rng, self.options.chunk)]
        self.chunk += 1
        self.seconds += time.process_time() - spent
        return float(np.mean(losses))

    def learn(self, batch: dict[str, torch.Tensor]) -> float:
        """One step."""
        done = min(self.examples / self.options.examples, 1.0)
        rate = (
            self.options.rate
            * min(1.0, (self.step + 1) / WARMUP)
            * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * done)))
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        scores = log_likelihoods(self.network, batch)
        loss = -(scores["factor"] + scores["alternative"] + scores["null"])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self.examples += len(batch["is_null"])
        keep = min(0.999, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.smooth.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1.0 - keep)
            for mean, now in zip(self.smooth.buffers(), self.network.buffers(), strict=True):
                mean.copy_(now)
        return loss.item()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Log scores of the running mean of the weights on the fixed validation tests."""
        self.smooth.eval()
        scores = [log_likelihoods(self.smooth, batch) for batch in self.validation]
        return {name: float(np.mean([score[name].item() for score in scores])) for name in scores[0]}

    def save(self) -> None:
        """Metrics, checkpoint and weights."""
        scores = self.validate()
        row = {
            "examples": self.examples,
            "cpu_seconds": round(self.seconds),
            **{k: round(v, 6) for k, v in scores.items()},
        }
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        state = {name: getattr(self, name) for name in ("chunk", "step", "examples", "seconds")}
        for name in ("network", "smooth", "optimiser"):
            state[name] = getattr(self, name).state_dict()
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        write_weights(
            self.options.out,
            self.smooth,
            {
                "training": json.dumps(self.ranges.as_dict()),
                "examples": str(self.examples),
                "cpu_hours": f"{self.seconds / 3600:.2f}",
                "seed": str(self.options.seed),
                "validation": json.dumps(scores),
            },
        )


if __name__ == "__main__":
    main()
