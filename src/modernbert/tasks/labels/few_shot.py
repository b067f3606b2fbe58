"""Labels from a handful of examples: texts of one label are drawn together, then told apart.

After SetFit (Tunstall et al., arXiv 2209.11055): first the vectors of texts are tuned so that the
cosine of two is 1 where their labels are equal and 0 where they are not; then a logistic
regression is fitted to the vectors.

Unlike there, the vector of a text is what the prediction block makes of the pooled hidden states,
so that the regression is the last layer of an ordinary classifier; and a step compares all of its
texts with one another instead of sampling pairs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.inference.batching import batch_tokens_for
from modernbert.metrics.plain_model import logistic_regression
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pooling import pool
from modernbert.tasks.labels.objective import LabelObjective, outputs_of, packed, rows_of_each
from modernbert.tasks.tuning.job import HeldOutSplit, Review, TuningJob
from modernbert.tasks.tuning.task import Pack, computed_together, own_rows
from modernbert.training.distributed import Group

PASSES_PER_EPOCH = 20
"""How often an epoch sees each text, so that it is compared with many others."""


class TextVectors(nn.Module):
    """A classifier without its last layer: gives a vector for each text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, SequenceClassifier)
        self.model = model

    def forward(self, batch: PackedBatch) -> Tensor:
        """Compute vectors: (num_sequences, hidden_size)."""
        hidden = self.model.encoder(batch)
        vectors: Tensor = self.model.head(pool(hidden, batch, self.model.settings.pooling))
        return vectors


class Likeness:
    """The objective that texts of one label are alike and others are not: squared error of cosines.

    Args:
        labels: The objective of the finished classifier, which also scores it.
    """

    whole_steps = True

    def __init__(self, labels: LabelObjective[Any]) -> None:
        self._labels = labels
        self.examples = [each for each in labels.train for _ in range(PASSES_PER_EPOCH)]
        self.lengths = [len(example.token_ids) for example in self.examples]

    @property
    def metric(self) -> str:
        """The classifier's metric."""
        return self._labels.metric

    def num_targets(self, _row: int) -> int:
        return 1

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, _done: float, /) -> Tensor:
        """Return the sum over this process's texts of the mean over all other texts of the step."""
        examples = [self.examples[row] for row in rows]
        vectors = functional.normalize(self.vectors(module, examples, group), dim=1)
        labels = torch.tensor([each.label for each in examples])
        own = torch.tensor(own_rows(range(len(rows)), group), device=group.device).long()
        wanted = (labels[own, None] == labels[None, :]).to(vectors.dtype)
        errors = (vectors[own] @ vectors.T - wanted).square()
        is_itself = own[:, None] == torch.arange(len(rows), device=group.device)
        return errors.masked_fill(is_itself, 0).sum() / max(1, len(rows) - 1)

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Compute the scores of the finished classifier; empty for vectors."""
        return (
            {} if isinstance(module, TextVectors) else self._labels.evaluate(module, split, group)
        )

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """Look at the predictions of the finished classifier in detail."""
        return self._labels.review(module, split, group)

    def vectors(self, module: nn.Module, examples: Sequence[Any], group: Group) -> Tensor:
        """Compute the vectors of texts with all processes: (num_examples, hidden_size) float32."""

        def compute(pack: Pack) -> Sequence[Tensor]:
            chosen = [examples[place] for place in pack.places]
            batch = packed(chosen, group.device)
            outputs = outputs_of(module, batch)
            return rows_of_each(outputs, batch)

        lengths = [len(example.token_ids) for example in examples]
        batch_tokens = batch_tokens_for(group.device, self._labels.micro_batch_tokens)
        return torch.cat(computed_together(compute, lengths, batch_tokens, group))

    def with_last_layer(self, module: nn.Module, group: Group) -> SequenceClassifier:
        """Fit the last layer to the vectors of the texts by logistic regression.

        Returns:
            The finished classifier.
        """
        assert isinstance(module, TextVectors)
        model, examples = module.model, self._labels.train
        with torch.no_grad():
            features = self.vectors(module, examples, group).cpu().double()
        labels = torch.tensor([each.label for each in examples])
        weight, bias = logistic_regression(features, labels, len(model.labels))
        with torch.no_grad():
            model.classifier.weight.copy_(weight)
            model.classifier.bias.copy_(bias)
        return model


def few_shot_job(job: TuningJob) -> TuningJob:
    """Make the job of learning one label per text from a handful of examples."""
    labels = job.objective
    assert isinstance(labels, LabelObjective)
    objective = Likeness(labels)
    return replace(
        job,
        objective=objective,
        first=lambda seed: TextVectors(job.first(seed)),
        kept=job.first,
        finish=objective.with_last_layer,
    )
