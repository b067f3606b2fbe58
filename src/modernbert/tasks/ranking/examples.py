"""What a ranking learns from and is scored on, in the form that its loss needs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Generic, Protocol, TypeVar

from modernbert.data.judged_texts import JudgedTexts
from modernbert.data.rows.table import held_out
from modernbert.errors import InputError
from modernbert.inference.inputs import EncodedText
from modernbert.metrics.ranking import ranking_scores
from modernbert.settings import to_mapping
from modernbert.tasks.ranking.data import (
    RankedTexts,
    RetrievalData,
    one_answer_each,
    read_retrieval_data,
)
from modernbert.tasks.ranking.losses import DISTILLATION, IN_BATCH, LABELLED, LISTWISE
from modernbert.tasks.ranking.recipe import RankedRows, RerankTraining, VectorTraining
from modernbert.tasks.tuning.job import Objective, RowMixture
from modernbert.tasks.tuning.recipe import TuningRecipe

H = TypeVar("H", bound=JudgedTexts | RetrievalData)


class RankingObjective(Objective, Protocol):
    """An `Objective` that knows which of its texts are cut, and how well BM25 does.

    Attributes:
        notes: Which texts to learn from are cut, one line each.
        num_cut: How many of them are.
    """

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def num_cut(self) -> int: ...

    def plain_scores(self, split: str) -> dict[str, float]:
        """Compute how well BM25 ranks the documents of a split; empty where it is missing."""


@dataclass(frozen=True, kw_only=True)
class RankingExamples(Generic[H]):
    """What a ranking learns from and is scored on, and what its job says about that.

    Attributes:
        rows: The rows of the recipe, from which everything was read.
        data: The examples in the form that the loss needs.
        loss: The loss that was asked for, or that suits the rows.
        held_out: What to score on, by the name of the split.
        notes: What you should know about the rows to learn from, one line each.
        num_dropped: How many queries, and how many negatives, are not learned from.
    """

    rows: RankedRows
    data: RetrievalData
    loss: str
    held_out: Mapping[str, H]
    notes: Sequence[str]
    num_dropped: tuple[int, int] = (0, 0)

    @classmethod
    def open(
        cls, recipe: TuningRecipe, *, plain: str, read: Callable[[RetrievalData | str, str], H]
    ) -> "RankingExamples[H]":
        """Read everything that a recipe names, in the form that its loss needs.

        Args:
            recipe: The recipe of a verb that learns rankings.
            plain: The verb's loss that needs no teacher.
            read: Gives what is scored, from examples or the source of some, and a split's name.

        Raises:
            DocumentError: The data cannot be read.
            InputError: The metric is unknown, or no example can be used.
        """
        rows, training = recipe.data, recipe.training
        assert isinstance(rows, RankedRows)
        assert isinstance(training, VectorTraining | RerankTraining)
        ranking_scores({}, {"none": {}}, [training.metric])  # an unknown one is refused here
        data, held = training_data(rows)
        kept, loss, notes, dropped = prepared(rows, data, training.loss, plain=plain)
        splits = {"dev": rows.dev_split, "test": rows.test_split}
        sources: dict[str, RetrievalData | str] = {} if held is None else {"dev": held}
        sources |= {name: each for name, each in rows.sources.items() if name in splits}
        held_out = {name: read(each, splits[name]) for name, each in sources.items()}
        return cls(
            rows=rows, data=kept, loss=loss, held_out=held_out, notes=notes, num_dropped=dropped
        )

    def about(self, objective: RankingObjective) -> dict[str, Any]:
        """Return the fields of a `TuningJob` that tell of its data.

        Raises:
            InputError: A data set has no example that can be used.
        """
        return {
            "splits": self._sizes(),
            "fingerprint": self._fingerprint(),
            "notes": [
                *self.notes,
                *(note for each in self.held_out.values() for note in each.notes),
                *objective.notes,
            ],
            "facts": {
                "examples": len(self.data.examples),
                "learned from": self._summary(objective.num_cut),
                "loss": self.loss,
            },
            "mixture": self._mixture(),
            "plain": lambda: {name: objective.plain_scores(name) for name in self.held_out},
            "plain_name": "BM25",
        }

    def _summary(self, num_cut: int) -> str:
        """Return in one line what is learned from, and what of the rows is not."""
        examples = self.data.examples
        queries = {each.query for each in examples}
        positives = {
            (each.query, text) for each in examples for text in each.documents[: each.relevant]
        }
        negatives = {
            (each.query, text) for each in examples for text in each.documents[each.relevant :]
        }
        dropped_queries, dropped_negatives = self.num_dropped
        left_out = [
            (dropped_queries, "queries dropped"),
            (dropped_negatives, "negatives dropped"),
            (num_cut, "texts cut"),
        ]
        return ", ".join(
            [
                f"{len(queries):,} queries",
                f"{len(positives):,} positives",
                f"{len(negatives):,} negatives",
                *(f"{count:,} {what}" for count, what in left_out if count),
            ]
        )

    def _mixture(self) -> RowMixture | None:
        """Return how rows of several data sets are mixed; None for one data set."""
        if not self.rows.more:
            return None
        sources = [each.source for each in self.data.examples]
        for number, (name, _) in enumerate(self.rows.weighted):
            if number not in sources:
                raise InputError(f"{name}: has no example that can be used")
        return RowMixture(sources=sources, weights=[weight for _, weight in self.rows.weighted])

    def _sizes(self) -> dict[str, str]:
        """Describe the source and the size of each split."""
        sizes = {"train": f"{self.data.source}, {len(self.data.examples):,} examples"}
        for name, texts in self.held_out.items():
            queries = len(texts.known if isinstance(texts, RetrievalData) else texts.queries)
            share = name == "dev" and self.rows.dev_share is not None
            held = f"{self.rows.dev} of {self.data.source}"
            sizes[name] = f"{held if share else getattr(self.rows, name)}, {queries:,} queries"
        return sizes

    def _fingerprint(self) -> str:
        """Return the sha256 (hex) of the examples and of everything that is scored."""
        values = to_mapping(self.rows)
        lengths = {name: values.get(name) for name in ("max_seqlen", "query_max_seqlen")}
        digest = sha256(json.dumps(lengths).encode())
        rows: list[Any] = [_values_of(example) for example in self.data.examples]
        rows += [list(self.rows.weighted)] if self.rows.more else []
        for name, texts in self.held_out.items():
            if isinstance(texts, RetrievalData):
                rows += [name, *(_values_of(example) for example in texts.examples)]
            else:
                rows += [name, texts.queries, texts.judgements, *texts.documents.items()]
        for row in rows:
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def training_data(settings: RankedRows) -> tuple[RetrievalData, RetrievalData | None]:
    """Read the training data, and divide off held-out queries if the recipe asks for a fraction.

    Raises:
        DocumentError: The data cannot be read.
        InputError: The fraction is less than one query.
    """
    first, *more = (
        read_retrieval_data(source, settings.train_split, settings)
        for source, _ in settings.weighted
    )
    if settings.dev_share is None:
        return first.joined(more), None
    queries = list(first.known)
    chosen = held_out(queries, settings.dev_share)
    if not any(chosen):
        told = f"is less than one query of {first.source}; raise it"
        raise InputError(f"--dev {settings.dev}: {told}")
    sides: list[set[str]] = [set(), set()]
    for query, is_out in zip(queries, chosen, strict=True):
        sides[is_out].add(query)
    more = [each.only(each.known.keys() - sides[True]) for each in more]
    held = replace(first.only(sides[True]), notes=())
    return first.only(sides[False]).joined(more), held


def prepared(
    settings: RankedRows, data: RetrievalData, asked: str | None, *, plain: str
) -> tuple[RetrievalData, str, list[str], tuple[int, int]]:
    """Bring the examples of a recipe into the form that its loss needs.

    Args:
        settings: The rows that were read.
        data: The rows of queries with their documents, as they were read.
        asked: The loss that was asked for; None for the one that suits the rows.
        plain: The verb's loss that needs no teacher.

    Returns:
        The examples, the loss, the notes, and how many queries and negatives are left out.

    Raises:
        InputError: No example can be used, or the examples lack what the loss needs.
    """
    has_scores = all(each.scores is not None for each in data.examples)
    loss = asked or ("margin" if has_scores else plain)
    if loss not in LABELLED and loss not in LISTWISE:
        # The others learn all documents of a query, answers or not, side by side.
        data = replace(data, examples=one_answer_each(data.examples))
    if loss in DISTILLATION:
        for row, each in enumerate(data.examples, start=1):
            if each.scores is None or len(each.documents) < 2:
                raise InputError(
                    f"{data.source}, example {row}: the loss {loss!r} needs scores of a positive "
                    f"and of one negative or more; take {plain!r}, or add them"
                )
    used = [each for each in data.examples if _has_use(each, loss)]
    if not used:
        needs = "a document that answers it"
        if loss in LISTWISE:
            needs = f"documents of different labels or scores, from which {loss!r} learns"
        raise InputError(f"{data.source}: no query has {needs}")
    most, notes = settings.num_negatives, list(data.notes)
    kept = used if most is None else [each.first(each.relevant + most) for each in used]
    if left := len(data.examples) - len(used):
        without = "different labels or scores" if loss in LISTWISE else "an answer"
        notes.append(f"{data.source}: {left:,} queries without {without} are left out")
    beyond = sum(len(each.documents) for each in used) - sum(len(each.documents) for each in kept)
    return replace(data, examples=kept), loss, notes, (left, beyond)


def _has_use(example: RankedTexts, loss: str) -> bool:
    """Whether a loss learns anything from an example."""
    if loss in LISTWISE:
        return len(set(example.wanted)) > 1
    return loss not in IN_BATCH or example.relevant > 0


def cut_notes(source: str, name: str, texts: Sequence[EncodedText]) -> list[str]:
    """Say in one line how many texts were truncated; an empty list if none were.

    Args:
        source: The source of the texts.
        name: What they are, such as "documents".
        texts: Texts, each of which knows whether it was truncated.
    """
    cut = [len(each.token_ids) for each in texts if each.is_truncated]
    if not cut:
        return []
    return [
        f"{source}: {len(cut):,} of {len(texts):,} {name} are longer than {max(cut):,} tokens and "
        "are cut there"
    ]


def _values_of(example: RankedTexts) -> dict[str, Any]:
    """What an example says, without what earlier versions did not know and it does not have."""
    values = asdict(example)
    later = ("grades", "source")
    return {name: value for name, value in values.items() if value or name not in later}
