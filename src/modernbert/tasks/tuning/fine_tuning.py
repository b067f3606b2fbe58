"""Fine-tuning on labelled sequences: the `Task` of a `Trainer`, for any `Objective`.

    rows -> examples (token ids and a target) -> steps -> micro-batches, packed -> outputs -> loss

What the outputs of a model mean, what they should be and how good they are is an objective's
affair: labels, numbers, tags of words, or answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import TrainingError
from modernbert.inference.batching import batch_tokens_for, packs
from modernbert.tasks.cpu_shapes import filled
from modernbert.tasks.tuning.epochs import Epochs
from modernbert.training.task import Progress, Step

"""A hundred steps of 32 short texts, tiny size, one core: 620 MB in place of 1,090 MB without, and
about a tenth less time."""


class Example(Protocol):
    """One sequence; what it should give is known to its objective."""

    @property
    def token_ids(self) -> Sequence[int]: ...


E = TypeVar("E", bound=Example)
C = TypeVar("C", bound=Example, contravariant=True)


class Objective(Protocol[C]):
    """What a model's outputs should be.

    metric: the score by which weights are chosen; higher is better.
    """

    @property
    def metric(self) -> str: ...

    def num_targets(self, example: C, /) -> int:
        """How many targets an example has; the loss of a step is the mean over all of them."""

    def loss(self, outputs: Tensor, batch: PackedBatch, examples: Sequence[C], /) -> Tensor:
        """The SUM of the losses of a batch's targets; the outputs are float32."""

    def scores(self, outputs: Sequence[Tensor], examples: Sequence[C], /) -> dict[str, float]:
        """How good outputs are, all those of a set of examples together; on the CPU."""


class FineTuning(Generic[E]):
    """Learning an objective from examples.

    train, dev: the examples; without any of `dev` nothing is evaluated.
    epochs: the steps of `train`.
    micro_batch_tokens: the most tokens that are computed at once; by device when None.
    """

    def __init__(
        self,
        objective: Objective[E],
        train: Sequence[E],
        dev: Sequence[E],
        epochs: Epochs,
        *,
        device: torch.device | str = "cpu",
        micro_batch_tokens: int | None = None,
    ) -> None:
        self.objective, self.train, self.dev, self.epochs = objective, train, dev, epochs
        self.device = torch.device(device)
        self.micro_batch_tokens = batch_tokens_for(self.device, micro_batch_tokens)

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The steps from a place on."""
        for rows, position in self.epochs.steps(progress.position):
            examples = [self.train[row] for row in rows]
            num_tokens = sum(len(example.token_ids) for example in examples)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + num_tokens,
                position=position,
            )
            yield Step(
                micro_batches=list(in_packs(examples, self.micro_batch_tokens)),
                progress=progress,
                num_targets=sum(self.objective.num_targets(example) for example in examples),
                num_tokens=num_tokens,
                fill=1.0,  # nothing is padded
            )

    def loss(self, module: nn.Module, micro_batch: Sequence[E], *, step: int) -> Tensor:  # noqa: ARG002
        """The sum of the losses of a micro-batch's targets."""
        batch = packed(micro_batch, self.device)
        return self.objective.loss(outputs_of(module, batch), batch, micro_batch)

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Mean loss and scores on the examples of `dev`."""
        return evaluate(module, self.objective, self.dev, self.device, self.micro_batch_tokens)


def evaluate(
    module: nn.Module,
    objective: Objective[E],
    examples: Sequence[E],
    device: torch.device,
    batch_tokens: int,
) -> dict[str, float]:
    """Mean loss and scores of a module on some examples; nothing without examples."""
    if not examples:
        return {}
    outputs, loss = predict(module, objective, examples, device, batch_tokens)
    num_targets = sum(objective.num_targets(example) for example in examples)
    return {"loss": loss / max(1, num_targets), **objective.scores(outputs, examples)}


@torch.no_grad()
def predict(
    module: nn.Module,
    objective: Objective[E],
    examples: Sequence[E],
    device: torch.device,
    batch_tokens: int,
) -> tuple[list[Tensor], float]:
    """The outputs of each example, float32 on the CPU, and the sum of their losses.

    Raises:
        TrainingError: outputs that are NaN or infinite.
    """
    found: dict[int, Tensor] = {}
    loss = torch.zeros((), dtype=torch.float64)
    for pack in packs([len(example.token_ids) for example in examples], batch_tokens):
        chosen = [examples[place] for place in pack]
        batch = packed(chosen, device)
        outputs = outputs_of(module, batch)
        if not outputs.isfinite().all():
            raise TrainingError("the model's outputs are not finite; take a lower learning rate")
        loss += objective.loss(outputs, batch, chosen).double().cpu()
        found.update(zip(pack, of_each(outputs.cpu(), batch), strict=True))
    return [found[place] for place in range(len(examples))], float(loss)


def outputs_of(module: nn.Module, batch: PackedBatch) -> Tensor:
    """What a module gives for a batch, float32."""
    full = filled(batch)
    outputs: Tensor = module(full)
    is_for_tokens = len(outputs) == full.total_tokens
    return outputs[: batch.total_tokens if is_for_tokens else batch.num_sequences].float()


def of_each(outputs: Tensor, batch: PackedBatch) -> Sequence[Tensor]:
    """The outputs of each sequence: one row of them, or a row for each token.

    outputs: (num_sequences, width) or (total_tokens, width); a sequence has two tokens at least.
    """
    return outputs.unbind() if len(outputs) == batch.num_sequences else batch.split(outputs)


def in_packs(examples: Sequence[E], batch_tokens: int) -> Iterator[list[E]]:
    """Examples in packs of at most so many tokens, but one example in any case."""
    for pack in packs([len(example.token_ids) for example in examples], batch_tokens):
        yield [examples[place] for place in pack]


def packed(examples: Sequence[Example], device: torch.device) -> PackedBatch:
    """The sequences of examples as one batch."""
    return PackedBatch.from_sequences([each.token_ids for each in examples], device=device)
