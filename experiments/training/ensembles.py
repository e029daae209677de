"""Models of one shape, different seeds, trained side by side with Adam; resumable, same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from experiments.training.checkpoints import Checkpoint

__all__ = ["Ensemble", "Training", "train"]


class Ensemble:
    """`parameters[name][m]` is the parameter of member m. Member m depends on (seed, m) alone."""

    def __init__(self, build: Callable[[], nn.Module], members: int, seed: int):
        self.size = members
        models = []
        for m in range(members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.SeedSequence([seed, m]).generate_state(1)[0]))
                models.append(build())
        self.model = models[0]
        self.parameters, _ = stack_module_state(models)

    def together(self, inputs: torch.Tensor) -> torch.Tensor:
        """All members at once on inputs (members, ...), in the same few large products."""
        return torch.vmap(self.call)(self.parameters, inputs)

    def one_by_one(self, inputs: torch.Tensor, **options) -> Iterator[torch.Tensor]:
        """Each member on its own inputs: for models whose products are large already."""
        for m in range(self.size):
            parameters = {name: value[m] for name, value in self.parameters.items()}
            yield self.call(parameters, inputs[m], **options)

    def call(self, parameters: dict, inputs: torch.Tensor, **options) -> torch.Tensor:
        """The model with these parameters, of one member, on its inputs."""
        return functional_call(self.model, parameters, (inputs,), options)

    def members(self) -> Iterator[nn.Module]:
        """A copy of each member, as a module of its own."""
        for m in range(self.size):
            model = deepcopy(self.model)
            model.load_state_dict({k: v[m].detach() for k, v in self.parameters.items()})
            yield model.requires_grad_(False)


class Training(NamedTuple):
    """So many steps of Adam; observed at step 0, every so often, and last.

    The rate is constant, or falls linearly to reach 0 after `decay` steps, which may be more than
    there are.
    """

    steps: int
    rate: float
    every: int
    decay: int | None = None

    def rate_at(self, step: int) -> float:
        """The rate of this step (the first is 0)."""
        return self.rate if self.decay is None else self.rate * (1.0 - step / self.decay)


def train(
    ensemble: Ensemble,
    losses: Callable[[int], torch.Tensor],
    observe: Callable[[], dict[str, np.ndarray]],
    training: Training,
    checkpoint: Checkpoint,
    progress: Callable[[float], None],
) -> dict[str, np.ndarray]:
    """Train the ensemble in place; what was observed, by name, (observations, ...), and the steps.

    `losses(step)` are those of all members, (members,), on the batches of this step, which may
    depend on nothing else. Goes on from the checkpoint, which every observation renews: an
    interrupted training ends with the same bits as one that was not.

    Raises FloatingPointError when a loss is not finite.
    """
    optimizer = torch.optim.Adam(ensemble.parameters.values(), lr=training.rate)
    begun, seen = _resume(ensemble, optimizer, checkpoint)
    for step in range(begun, training.steps + 1):
        due = step % training.every == 0 or step == training.steps
        if due and step not in seen["step"]:
            for name, value in {"step": np.array(step), **observe()}.items():
                seen.setdefault(name, []).append(value)
            _save(ensemble, optimizer, checkpoint, seen)
            progress(step / training.steps)
        if step == training.steps:
            break
        current = losses(step)
        if not current.isfinite().all():
            found = current.tolist()
            member = next(m for m, loss in enumerate(found) if not isfinite(loss))
            raise FloatingPointError(
                f"the loss of member {member} is {found[member]} at step {step}; lower the rate "
                f"{training.rate}"
            )
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(step)
        optimizer.zero_grad()
        current.sum().backward()  # no member's parameters enter another's loss
        optimizer.step()
    return {name: np.stack(values) for name, values in seen.items()}


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _save(ensemble, optimizer, checkpoint, seen):
    tensors = {f"seen {name}": torch.tensor(np.stack(v)) for name, v in seen.items()}
    for name, parameter in ensemble.parameters.items():
        tensors[f"parameter {name}"] = parameter.detach()
        for moment in _MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment} {name}"] = optimizer.state[parameter][moment]
    checkpoint.save(tensors)


def _resume(ensemble, optimizer, checkpoint) -> tuple[int, dict[str, list]]:
    """The step to go on from and what was observed up to it."""
    tensors = checkpoint.load()
    if tensors is None:
        return 0, {"step": []}
    for name, parameter in ensemble.parameters.items():
        parameter.data.copy_(tensors[f"parameter {name}"])
        if f"step {name}" in tensors:
            optimizer.state[parameter] = {m: tensors[f"{m} {name}"] for m in _MOMENTS}
    names = [name for name in tensors if name.startswith("seen ")]
    seen = {name.removeprefix("seen "): list(tensors[name].numpy()) for name in names}
    return int(seen["step"][-1]), seen
