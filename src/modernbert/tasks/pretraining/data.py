"""The tokenizer and the shards of a phase, opened and checked against one another."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from modernbert.data import loader
from modernbert.data.collate import MaskedBatch
from modernbert.data.packing import BinStream
from modernbert.data.shards import ShardFolder, SpecialTokens
from modernbert.errors import ConfigError, ShardError
from modernbert.model.config import LAYOUT_FIELDS, EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import PretrainingObjective, to_mapping
from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe
from modernbert.tasks.pretraining.vocabulary_loss import predictions
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training.distributed import ALONE, Group


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """What the paths of one phase of a recipe lead to.

    Attributes:
        config: Of the model in this phase, with the tokenizer's vocabulary.
        sources: The shards to train on and their weights.
        held_out: The shards to evaluate on.
        general: The shards that show what is forgotten.
        seed: Of the order of the data and of the masks.
        tokens_before: Of all phases before.
    """

    phase: PhaseRecipe
    tokenizer: Tokenizer
    config: EncoderConfig
    sources: tuple[tuple[ShardFolder, float], ...]
    held_out: ShardFolder | None
    general: ShardFolder | None
    seed: int
    tokens_before: int

    @classmethod
    def open(cls, recipe: PretrainingRecipe, index: int = 0) -> Self:
        """Open a phase's data; of the shards only the manifests and the sizes are looked at.

        Args:
            recipe: The recipe of the whole run.
            index: The number of the phase.

        Raises:
            TokenizerError: No usable tokenizer.
            ShardError: A shard folder that is broken or was made with another tokenizer.
            ConfigError: A model that does not fit the tokenizer or the length of the sequences.
            ModelFolderError: The model to start from cannot be read.
        """
        phase = recipe.phases[index]
        tokenizer = Tokenizer.from_pretrained(recipe.tokenizer)
        cache = recipe.shard_cache
        sources = tuple(
            (ShardFolder.open(each.shards, cache), each.weight) for each in phase.sources
        )
        settings = phase.evaluation
        held_out = ShardFolder.open(settings.shards, cache) if settings else None
        named = settings.general if settings else None
        general = ShardFolder.open(named, cache) if named else None
        for folder in [*(folder for folder, _ in sources), held_out, general]:
            if folder is not None:
                _check_tokenizer(folder, tokenizer, recipe.tokenizer)
        return cls(
            phase=phase,
            tokenizer=tokenizer,
            config=model_config(phase, tokenizer),
            sources=sources,
            held_out=held_out,
            general=general,
            seed=_seed(phase.seed, recipe.data_begins(index)),
            tokens_before=recipe.tokens_before(index),
        )

    def bins(self) -> BinStream:
        """Return the endless row of the bins to train on."""
        return BinStream(self.sources, self.phase.packing, seed=self.seed)

    def held_out_batches(self, group: Group = ALONE) -> Iterator[MaskedBatch]:
        """Return the batches of an evaluation, each time the same; none without held-out shards.

        Args:
            group: Each of its processes gets its share, and all get as many.

        Raises:
            ShardError: The folder holds no documents, was changed, or holds unknown token ids.
        """
        return self._evaluation_batches(self.held_out, self.phase.objective, group)

    def general_batches(self, group: Group = ALONE) -> Iterator[MaskedBatch]:
        """Return what `held_out_batches` does, of the general text and always with masks."""
        return self._evaluation_batches(self.general, "masked", group)

    def _evaluation_batches(
        self, held_out: ShardFolder | None, objective: PretrainingObjective, group: Group
    ) -> Iterator[MaskedBatch]:
        settings = self.phase.evaluation
        if settings is None or held_out is None:
            return
        for batch in loader.held_out_batches(
            held_out,
            self.phase.packing,
            seed=settings.seed,
            max_tokens=settings.max_tokens,
            part=group.rank,
            parts=group.size,
            objective=objective,
        ):
            require_known_ids(batch, [held_out])
            yield batch

    @property
    def identity(self) -> dict[str, Any]:
        """What the weights at the phase's end depend on, besides the settings of the training."""
        phase = self.phase
        objective = {} if phase.objective == "masked" else {"objective": phase.objective}
        return {
            **objective,
            "model": _identity_of(self.config),
            "sources": {
                str(number): {"fingerprint": folder.fingerprint, "weight": weight}
                for number, (folder, weight) in enumerate(self.sources)
            },
            "seed": phase.seed,
            "packing": to_mapping(phase.packing),
            "masking": to_mapping(phase.masking),
            "bins_per_step": phase.batch.bins_per_step,
            "ramp": None if phase.batch.ramp is None else to_mapping(phase.batch.ramp),
            "dropout": phase.dropout,
        }


def model_config(phase: PhaseRecipe, tokenizer: Tokenizer | None) -> EncoderConfig:
    """Return the numbers of the model in a phase.

    Args:
        phase: The phase, which may change the model's numbers.
        tokenizer: None for the published vocabulary in a new model.

    Raises:
        ConfigError: Numbers that do not fit together, the tokenizer or the sequences.
        ModelFolderError: The model to start from cannot be read.
    """
    vocabulary = {} if tokenizer is None else _vocabulary(tokenizer)
    config = phase.model.config(max_seqlen=phase.packing.max_seqlen, **vocabulary)
    for name, expected in vocabulary.items():
        if (got := getattr(config, name)) != expected:
            raise ConfigError(
                f"{phase.model.start}: {name} is {got}, but {expected} in the recipe's tokenizer; "
                "use the tokenizer that this model was trained with"
            )
    if phase.packing.max_seqlen > config.max_seqlen:
        raise ConfigError(
            f"packing.max_seqlen: got {phase.packing.max_seqlen}, but the model is made for "
            f"{config.max_seqlen}; lower it, or raise model.max_seqlen"
        )
    return config


def require_known_ids(batch: MaskedBatch, folders: Iterable[ShardFolder]) -> None:
    """Refuse a batch with a token id outside the vocabulary, naming the file it is from.

    Raises:
        ShardError: There is one.
    """
    folders = list(folders)
    vocab_size = folders[0].vocab_size
    highest = max(int(ids.max()) for ids in (batch.batch.token_ids, batch.labels) if len(ids))
    if highest < vocab_size:
        return
    for folder in folders:
        folder.verify()  # finds it and names the file
    raise ShardError(f"token id {highest} is outside the vocabulary of {vocab_size}")


def _seed(seed: int, data_begins: int) -> int:
    """A phase's own order of the data: that of the seed itself where its row is the first."""
    if not data_begins:
        return seed
    (own,) = np.random.SeedSequence([seed, data_begins]).generate_state(1, np.uint64)
    return int(own)


def _identity_of(config: EncoderConfig) -> dict[str, Any]:
    """The numbers of a model; what only other layouts than the paper's have stands there alone.

    So runs that were begun before there were these fields go on.
    """
    plain = to_mapping(EncoderConfig())
    fields = to_mapping(config)
    return {
        name: value
        for name, value in fields.items()
        if name not in LAYOUT_FIELDS or value != plain.get(name)
    }


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """The tokenizer's numbers under the names that a config has for them."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "unk_token_id": tokenizer.unk_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "mask_token_id": tokenizer.mask_token_id,
    }


def _check_tokenizer(folder: ShardFolder, tokenizer: Tokenizer, name: str) -> None:
    """The fingerprint decides; the numbers of a manifest are compared too, as they are used."""
    special = SpecialTokens(
        cls=tokenizer.cls_token_id,
        sep=tokenizer.sep_token_id,
        pad=tokenizer.pad_token_id,
        mask=tokenizer.mask_token_id,
        unk=tokenizer.unk_token_id,
    )
    for got, expected in (
        (folder.tokenizer_fingerprint, tokenizer.fingerprint),
        (folder.vocab_size, tokenizer.vocab_size),
        (folder.special_token_ids, special),
    ):
        if got != expected:
            raise ShardError(
                f"{folder.path}: made with another tokenizer than {name}; "
                "use the one it was made with, or prepare the corpus again"
            )


_MOST_EXAMPLES, _TOP_K = 16, 3
_TOKENS_BEFORE, _TOKENS_AFTER = 24, 16


def held_out_examples(
    model: MaskedLanguageModel, batch: MaskedBatch, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Predict some masked tokens of a batch, spread evenly over it.

    Args:
        model: In evaluation mode, on its device.
        batch: A held-out batch.
        tokenizer: The tokenizer of the batch.

    Returns:
        JSON values: the text `before` and `after` a token as the model saw it, the token that was
        `expected`, and the best `predicted` tokens with their probabilities.
    """
    rows = predictions(model, batch.to(model.decoder_weight.device), None)[: batch.num_masked]
    chosen = np.unique(np.linspace(0, batch.num_masked - 1, _MOST_EXAMPLES).astype(int)).tolist()
    logits = rows[chosen].float() @ model.decoder_weight.float().T + model.decoder_bias.float()
    scores, ids = logits.softmax(-1).topk(_TOP_K)
    return [
        {
            **_around(batch, int(batch.masked_indices[index]), tokenizer),
            "expected": tokenizer.decode([int(batch.labels[index])]),
            "predicted": [
                [tokenizer.decode([token]), round(score, 4)]
                for token, score in zip(ids[place].tolist(), scores[place].tolist(), strict=True)
            ],
        }
        for place, index in enumerate(chosen)
    ]


def _around(batch: MaskedBatch, place: int, tokenizer: Tokenizer) -> dict[str, str]:
    """The text on both sides of a token, within its sequence."""
    cu_seqlens = batch.batch.cu_seqlens
    sequence = int(torch.searchsorted(cu_seqlens, place, right=True)) - 1
    start, end = cu_seqlens[sequence : sequence + 2].tolist()
    token_ids = batch.batch.token_ids
    before = token_ids[max(start + 1, place - _TOKENS_BEFORE) : place]
    after = token_ids[place + 1 : min(end - 1, place + 1 + _TOKENS_AFTER)]
    return {"before": tokenizer.decode(before), "after": tokenizer.decode(after)}


def first_batch(batches: Iterator[MaskedBatch]) -> MaskedBatch | None:
    """Return the first batch with masked tokens."""
    return next((batch for batch in batches if batch.num_masked), None)
