"""Training a reranker, which reads a query and a document together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.devices import filled
from modernbert.files import updated_folder
from modernbert.inference.batching import batch_tokens_for
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.metrics.ranking import ranked
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.initialize import first_model
from modernbert.model.multi_vector import DenseActivation
from modernbert.tasks.ranking.data import RankedTexts, RetrievalData, read_retrieval_data
from modernbert.tasks.ranking.examples import RankingExamples, cut_notes
from modernbert.tasks.ranking.losses import DISTILLATION, LABELLED, LISTWISE
from modernbert.tasks.ranking.rankings import Rankings, word_scores
from modernbert.tasks.ranking.recipe import RerankLoss, RerankRecipe, RerankTraining
from modernbert.tasks.tuning.job import HeldOutSplit, ModelUse, Review, TuningJob, opened_model
from modernbert.tasks.tuning.task import Pack, computed_together
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training.distributed import Group

METRICS = ("ndcg@10", "mrr@10", "map@100")

_USE = ModelUse(
    library="sentence-transformers",
    pipeline="text-ranking",
    gives="a score for a query and a document",
    example='from modernbert import Reranker\n\nmodel = Reranker.from_pretrained("FOLDER")\n'
    'print(model.scores([("A question?", "A text that may answer it.")]))',
    also='sentence-transformers loads it as well: `CrossEncoder("FOLDER")`.',
)


class Reranking:
    """Learns how well documents answer a query, from all documents of a query at once.

    `notes` says how many pairs are truncated, and `num_cut` counts them.

    Args:
        encode: Encodes pairs, truncating those that are too long.
        data: The encoded queries with their documents.
        held_out: The examples to evaluate on, by the name of the split.
        training: How to train; its loss is the one that was chosen.
    """

    whole_steps = False

    def __init__(
        self,
        encode: TextEncoder,
        data: RetrievalData,
        held_out: Mapping[str, RetrievalData],
        training: RerankTraining,
    ) -> None:
        self.data, self.training, self._encode = data, training, encode
        self.metric = training.metric
        self.scale = 1.0 if training.scale is None else training.scale
        self.held_out = {name: merged(each) for name, each in held_out.items()}
        pairs = [self._encoded(example) for example in data.examples]
        self.notes = cut_notes(data.source, "pairs", [each for row in pairs for each in row])
        self.num_cut = sum(each.is_truncated for row in pairs for each in row)
        self._ids = [[each.token_ids for each in row] for row in pairs]
        self.lengths = [sum(map(len, ids)) for ids in self._ids]

    def num_targets(self, _row: int) -> int:
        return 1

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, _done: float, /) -> Tensor:
        """Return the sum of the losses of some queries; the documents of each stay together."""
        ids = [self._ids[row] for row in rows]
        outputs = self.scale * _outputs(module, [x for pairs in ids for x in pairs], group)
        scores = outputs.split([len(each) for each in ids])
        examples = [self.data.examples[row] for row in rows]
        loss = str(self.training.loss)
        if loss in LABELLED:
            return LABELLED[loss](scores, [_labels(each).to(outputs) for each in examples])
        wanted = [torch.tensor(each.wanted, device=group.device) for each in examples]
        return {**DISTILLATION, **LISTWISE}[loss](scores, wanted)

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Compute how well the documents of each query of a split are ranked."""
        if not self.held_out.get(split):
            return {}
        return self.rankings(module, split, group).scores([*METRICS, self.metric])

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """Return the queries that are answered worst."""
        return self.rankings(module, split, group).review(self.metric)

    @torch.no_grad()
    def rankings(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Rankings:
        """Rank the documents of each query of a split, the best first."""
        examples = self.held_out[split]
        return _rankings(examples, self._scores(module, examples, group))

    def plain_scores(self, split: str) -> dict[str, float]:
        """Compute how well BM25 ranks the same documents; empty where it is missing."""
        examples = self.held_out[split]
        texts = dict.fromkeys(text for each in examples for text in each.documents)
        places = {text: place for place, text in enumerate(texts)}
        found = word_scores(texts, [each.query for each in examples], len(texts))
        pairs = zip(examples, found, strict=False)
        scores = [words.get(places[text], 0.0) for each, words in pairs for text in each.documents]
        return _rankings(examples, scores).scores([self.metric]) if scores else {}

    def _scores(
        self, module: nn.Module, examples: Sequence[RankedTexts], group: Group
    ) -> list[float]:
        """Compute the score of each document of each example."""
        ids = [each.token_ids for example in examples for each in self._encoded(example)]

        def compute(pack: Pack) -> Sequence[Tensor]:
            outputs = _outputs(module, [ids[place] for place in pack.places], group)
            return list(outputs[:, None].split(1))

        batch_tokens = batch_tokens_for(group.device, self.training.micro_batch_tokens)
        found = computed_together(compute, [len(each) for each in ids], batch_tokens, group)
        return [float(score) for score in found]

    def _encoded(self, example: RankedTexts) -> list[EncodedText]:
        pairs: list[Text] = [(example.query, text) for text in example.documents]
        return self._encode(pairs)


def _rankings(examples: Sequence[RankedTexts], scores: Iterable[float]) -> Rankings:
    """Rank the documents of each example by their scores, which come in the order of both."""
    given = iter(scores)
    documents: dict[str, str] = {}
    found, judgements = {}, {}
    for number, example in enumerate(examples):
        names = [f"{number}.{place}" for place in range(len(example.documents))]
        documents.update(zip(names, example.documents, strict=True))
        found[str(number)] = ranked({name: next(given) for name in names})
        judgements[str(number)] = dict.fromkeys(names[: example.relevant], 1)
    queries = {str(number): example.query for number, example in enumerate(examples)}
    return Rankings(queries=queries, documents=documents, found=found, judgements=judgements)


def _outputs(module: nn.Module, sequences: Sequence[Sequence[int]], group: Group) -> Tensor:
    """Compute what a module returns for each sequence, (num_sequences,) float32."""
    batch = PackedBatch.from_sequences(sequences, device=group.device)
    outputs: Tensor = module(filled(batch))
    return outputs[: batch.num_sequences, 0].float()


def _labels(example: RankedTexts) -> Tensor:
    """Return (num_documents,), 1 for those that answer the query."""
    labels = torch.zeros(len(example.documents))
    labels[: example.relevant] = 1
    return labels


def merged(data: RetrievalData) -> list[RankedTexts]:
    """Join all documents of a query into one example, answers first; skip queries without any."""
    documents: dict[str, dict[str, None]] = {}
    for each in data.examples:
        documents.setdefault(each.query, {}).update(dict.fromkeys(each.documents))
    return [
        RankedTexts(
            query=query,
            documents=tuple(sorted(texts, key=lambda text: text not in data.known[query])),
            relevant=len(data.known[query]),
        )
        for query, texts in documents.items()
        if data.known[query]
    ]


def open_rerank(recipe: RerankRecipe) -> TuningJob:
    """Open the job of learning a score for a query and a document.

    Raises:
        ModernBertError: The model or the data cannot be used.
    """
    rows = recipe.data

    def read(source: RetrievalData | str, split: str) -> RetrievalData:
        return read_retrieval_data(source, split, rows) if isinstance(source, str) else source

    examples = RankingExamples[RetrievalData].open(recipe, plain="binary", read=read)
    training = replace(recipe.training, loss=cast(RerankLoss, examples.loss))
    config, tokenizer, max_seqlen = opened_model(recipe)
    head = ClassifierSettings(labels=("LABEL_0",), pooling=training.pooling, problem="regression")
    encode = TextEncoder(tokenizer, max_seqlen)
    objective = Reranking(encode, examples.data, examples.held_out, training)
    activation: DenseActivation = "Sigmoid" if training.loss in LABELLED else "Identity"

    def save(module: nn.Module, folder: Path) -> None:
        assert isinstance(module, SequenceClassifier)
        save_reranker(module, tokenizer, folder, activation=activation, max_seqlen=max_seqlen)

    return TuningJob(
        verb="rerank",
        phase="rerank",
        recipe=replace(recipe, training=training),
        config=config,
        objective=objective,
        first=lambda seed: first_model(SequenceClassifier, head, recipe.model, seed=seed),
        load=SequenceClassifier.from_pretrained,
        save=save,
        use=_USE,
        **examples.about(objective),
    )


def save_reranker(
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    activation: DenseActivation,
    max_seqlen: int,
) -> None:
    """Write a folder that Reranker, CrossEncoder and transformers load.

    Args:
        model: The trained model, with one output.
        tokenizer: Its tokenizer.
        folder: The folder to write to.
        activation: What turns an output into a score.
        max_seqlen: The length at which pairs are truncated, in tokens.

    Raises:
        ModelFolderError: The folder cannot be written.
        TokenizerError: The tokenizer cannot be written.
    """
    module = "activation" if activation == "Sigmoid" else "linear"
    # Where CrossEncoder looks since version 4, and where it looked before.
    named = f"torch.nn.modules.{module}.{activation}"
    with updated_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial, model_max_length=max_seqlen)
        path = partial / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["sentence_transformers"] = {"activation_fn": named}
        config["sbert_ce_default_activation_function"] = named
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
