"""Labels from a handful of examples: texts of one label are drawn together, then told apart.

After SetFit (Tunstall et al., arXiv 2209.11055): first the vectors of texts are tuned so that the
cosine of two is 1 where their labels are equal and 0 where they are not; then a logistic
regression is fitted to the vectors.

Unlike there, the vector of a text is what the prediction block makes of the pooled hidden states,
so that the regression is the last layer of an ordinary classifier; and a step compares all of its
texts with one another instead of sampling pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import SettingsError
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pooling import pool
from modernbert.tasks.labels.classification import LabelledText, SingleLabel
from modernbert.tasks.tuning.fine_tuning import in_packs, packed

PASSES_PER_EPOCH = 20
"""How often an epoch sees each text, so that it is compared with many others."""

_PENALTY = 1.0  # on the weights' squares, against the sum of the losses
_ITERATIONS = 200


class TextVectors(nn.Module):
    """A classifier as what gives vectors of texts; its last layer is left out."""

    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch) -> Tensor:
        """(num_sequences, hidden_size)."""
        hidden = self.model.encoder(batch)
        vectors: Tensor = self.model.head(pool(hidden, batch, self.model.settings.pooling))
        return vectors


class Likeness:
    """Texts of one label should be alike, and others not: squared error of the cosine."""

    metric = "loss"

    def num_targets(self, _example: LabelledText, /) -> int:
        """One a text."""
        return 1

    def loss(
        self, outputs: Tensor, _batch: PackedBatch, examples: Sequence[LabelledText], /
    ) -> Tensor:
        """The sum over the texts of the mean over all the others."""
        labels = torch.tensor([each.label for each in examples], device=outputs.device)
        vectors = functional.normalize(outputs, dim=1)
        wanted = (labels[:, None] == labels[None, :]).to(vectors.dtype)
        errors = (vectors @ vectors.T - wanted).square()
        return errors.fill_diagonal_(0).sum() / max(1, len(examples) - 1)

    def scores(
        self, _outputs: Sequence[Tensor], _examples: Sequence[LabelledText], /
    ) -> dict[str, float]:
        """None: vectors are no predictions."""
        return {}


def require_single_label(objective: object) -> None:
    """Refuse what has no label to compare.

    Raises:
        SettingsError: any number of labels, tags, numbers or answers.
    """
    if not isinstance(objective, SingleLabel):
        raise SettingsError("few_shot: is for one label a text; leave it out")


def fit_last_layer(
    vectors: TextVectors,
    examples: Sequence[LabelledText],
    device: torch.device,
    batch_tokens: int,
) -> SequenceClassifier:
    """Fit the last layer to the vectors of the examples by logistic regression.

    Returns the classifier, ready.
    """
    model = vectors.model
    features, labels = [], []
    with torch.no_grad():
        for pack in in_packs(examples, batch_tokens):
            features.append(vectors(packed(pack, device)).double())
            labels += [each.label for each in pack]
    weight, bias = _regression(
        torch.cat(features), torch.tensor(labels, device=device), len(model.labels)
    )
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    return model


def _regression(features: Tensor, labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """The weights and biases with the least penalised loss.

    features: (rows, hidden_size) float64. labels: (rows,) int64.
    """
    weight = features.new_zeros(num_labels, features.shape[1]).requires_grad_()
    bias = features.new_zeros(num_labels).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = functional.linear(features, weight, bias)
        value = functional.cross_entropy(logits, labels, reduction="sum")
        value = value + _PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
