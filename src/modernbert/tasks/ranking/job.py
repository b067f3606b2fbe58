"""`RankingJob`: the training of a retriever or reranker, with all that its recipe names opened."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.errors import InputError
from modernbert.inference.inputs import TextEncoder
from modernbert.inference.loading import longest_sequence
from modernbert.metrics.ranking import ranking_scores
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.multi_vector import Activation
from modernbert.settings import to_mapping
from modernbert.tasks.ranking.data import RetrievalData, as_judged_texts, read_retrieval_data
from modernbert.tasks.ranking.examples import Kind, prepared
from modernbert.tasks.ranking.learners import TextLearner, TokenLearner, text_learner, token_learner
from modernbert.tasks.ranking.recipe import RetrievalRecipe
from modernbert.tasks.ranking.reranker_folder import save_reranker
from modernbert.tasks.ranking.reranking import Reranking
from modernbert.tasks.ranking.retrieval import Retrieval
from modernbert.tasks.tuning.first_model import first_model, require_layers, training_device
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training.isolation import undisturbed
from modernbert.training.precision import autocast


@dataclass(frozen=True)
class Ranker:
    """A model on its device, and how it is written into a folder."""

    module: nn.Module
    save: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class RankingJob:
    """One kind of ranking on given data, from a given model, for any number of runs.

    recipe: with the loss that was chosen.
    test: the task evaluated on the rows to test on; None without such.
    build: a model of this kind from a seed and a folder: that of the recipe before its first step,
        or one that was trained from it.
    notes: what a user should know of the data, a line each.
    fingerprint: the sha256 (hex) of all that is learnt from or evaluated on.
    """

    kind: Kind
    recipe: RetrievalRecipe
    task: Retrieval | Reranking
    test: Retrieval | Reranking | None
    config: EncoderConfig
    build: Callable[[int, str], Ranker]
    notes: Sequence[str]
    fingerprint: str

    def first(self, seed: int) -> Ranker:
        """The model before its first step."""
        return self.build(seed, self.recipe.model)

    @contextmanager
    def reading(self, seed: int, folder: Path) -> Iterator[nn.Module]:
        """A model that was trained, from its folder, to be evaluated."""
        module, device = self.build(seed, str(folder)).module, self.task.device
        with undisturbed(module, device), autocast(device, self.recipe.training.precision):
            yield module


def open_ranking_job(kind: Kind, recipe: RetrievalRecipe) -> RankingJob:
    """Read all that a recipe names, and check it.

    Raises:
        ModernBertError: the model or the data cannot be used.
    """
    settings = recipe.training
    if settings.matryoshka_dims and kind != "retrieve":
        raise InputError("matryoshka_dims: are for one vector a text")
    ranking_scores({}, {"none": {}}, [settings.metric])  # an unknown one is refused here
    data, loss, notes = prepared(kind, recipe)
    recipe = replace(recipe, training=replace(settings, loss=loss))
    opened = (_rerank_job if kind == "rerank" else _retrieval_job)(kind, recipe, data, notes)
    require_layers(opened.config, settings)
    return opened


def _retrieval_job(
    kind: Kind, recipe: RetrievalRecipe, data: RetrievalData, notes: Sequence[str]
) -> RankingJob:
    device, given = training_device(), recipe.data
    dev, test = _judged(given.dev, given.dev_split), _judged(given.test, given.test_split)

    def build(seed: int, model: str) -> Ranker:
        learner = _learner(kind, replace(recipe, model=model), seed)
        return Ranker(learner.to(device), learner.save)

    learner = _learner(kind, recipe, recipe.sweep.seeds[0])
    scale = learner.scale if recipe.training.scale is None else recipe.training.scale
    task = Retrieval(learner.sides, data, recipe.training, dev, scale=scale, device=device)
    return RankingJob(
        kind=kind,
        recipe=recipe,
        task=task,
        test=None if test is None else task.on(test),
        config=learner.embedder.model.config,
        build=build,
        notes=[*notes, *task.notes],
        fingerprint=_fingerprint(recipe, data, {"dev": dev, "test": test}),
    )


def _learner(kind: Kind, recipe: RetrievalRecipe, seed: int) -> TextLearner | TokenLearner:
    return text_learner(recipe) if kind == "retrieve" else token_learner(recipe, seed)


def _rerank_job(
    kind: Kind, recipe: RetrievalRecipe, data: RetrievalData, notes: Sequence[str]
) -> RankingJob:
    settings, device = recipe.training, training_device()
    head = ClassifierSettings(labels=("LABEL_0",), pooling=settings.pooling, problem="regression")
    config = EncoderConfig.from_pretrained(recipe.model)
    tokenizer = Tokenizer.from_pretrained(recipe.model)
    max_seqlen = longest_sequence(config, tokenizer, recipe.data.max_seqlen)
    activation: Activation = "Sigmoid" if settings.loss == "binary" else "Identity"

    def build(seed: int, model: str) -> Ranker:
        module = first_model(SequenceClassifier, head, model, seed=seed).to(device)
        return Ranker(
            module,
            lambda folder: save_reranker(
                module, tokenizer, folder, activation=activation, max_seqlen=max_seqlen
            ),
        )

    given = recipe.data
    dev, test = _rows(given.dev, given.dev_split), _rows(given.test, given.test_split)
    task = Reranking(TextEncoder(tokenizer, max_seqlen), data, settings, dev, device=device)
    return RankingJob(
        kind=kind,
        recipe=recipe,
        task=task,
        test=None if test is None else task.on(test),
        config=config,
        build=build,
        notes=[*notes, *task.notes],
        fingerprint=_fingerprint(recipe, data, {"dev": dev, "test": test}),
    )


def _rows(source: str | None, split: str) -> RetrievalData | None:
    return None if source is None else read_retrieval_data(source, split)


def _judged(source: str | None, split: str) -> JudgedTexts | None:
    if source is None:
        return None
    if is_judged_folder(Path(source)):
        return read_judged_texts(source, split)
    return as_judged_texts(read_retrieval_data(source, split), source)


def _fingerprint(
    recipe: RetrievalRecipe,
    data: RetrievalData,
    held_out: Mapping[str, JudgedTexts | RetrievalData | None],
) -> str:
    """Of the examples, and of all that is scored; wherever they were read."""
    values = to_mapping(recipe.data)
    lengths = {name: values.get(name) for name in ("max_seqlen", "query_max_seqlen")}
    digest = sha256(json.dumps(lengths).encode())
    rows: list[Any] = [asdict(example) for example in data.examples]
    for name, texts in held_out.items():
        if isinstance(texts, RetrievalData):
            rows += [name, *(asdict(example) for example in texts.examples)]
        elif texts is not None:
            rows += [name, texts.queries, texts.judgements, *texts.documents.items()]
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
