"""What pretrainings are compared on: a text of every machine, and one first model for everyone.

The sources, docstrings and manual of the Python installation, a tokenizer of 16,384 entries
learned from them, and token shards; files that are held out are seen by nobody in training.
Documents are cut into pieces of at most 512 tokens, [CLS] and [SEP] included, for everyone alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.cli.prepare import prepare_shards
from modernbert.cli.tokenizer import train_on
from modernbert.data.mixture import Documents
from modernbert.data.packing import Bin, Stretch, split_documents
from modernbert.data.python_corpus import collect_python_corpus
from modernbert.data.settings import PrepareSettings
from modernbert.data.shards import ShardFolder
from modernbert.files import new_folder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.pretrained import from_foreign
from modernbert.settings import parse
from modernbert.tasks.pretraining.data import PretrainingData
from modernbert.tasks.pretraining.pretrain import Pretraining, build_model
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.training.computation import autocast, undisturbed

VOCAB_SIZE = 16_384
MAX_SEQLEN = 512
MASKED_SHARE = 0.3
HELD_OUT_TOKENS = 60_000
_BIN_TOKENS = 1_024


@dataclass(frozen=True)
class Text:
    """A folder with everything in it; made once, then read."""

    folder: Path

    @classmethod
    def prepare(cls, folder: Path, documents: Sequence[Path] | None = None) -> "Text":
        """Make whatever of it is missing, in about two minutes.

        documents: files of another text, of which a fiftieth is held out.
        """
        text = cls(folder)
        corpus = folder / "corpus"
        if documents is None and not (corpus / "train.jsonl").exists():  # written last
            collect_python_corpus(corpus)
        train = [corpus / "train.jsonl"] if documents is None else list(documents)
        if not (text.tokenizer / "tokenizer_config.json").exists():
            train_on(train, VOCAB_SIZE).save_pretrained(text.tokenizer)
        settings = PrepareSettings(held_out=0.0 if documents is None else 0.02)
        prepare_shards(train, text.train_shards, text.tokenizer, settings)
        if documents is None:
            shards = folder / "shards" / "held-out"
            prepare_shards([corpus / "held-out.jsonl"], shards, text.tokenizer, PrepareSettings())
        if not text.first_model.exists():
            with new_folder(text.first_model) as fresh:
                build_model(text.recipe()).save_pretrained(fresh)
                text.opened.tokenizer.save_pretrained(fresh, model_max_length=MAX_SEQLEN)
        return text

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return self.folder / "tokenizer"

    @property
    def first_model(self) -> Path:
        """The model that everyone begins with, and its tokenizer."""
        return self.folder / "first-model"

    @property
    def held_out_shards(self) -> Path:
        """The shards that everyone is scored on."""
        beside = self.train_shards / "held-out"
        return beside if beside.exists() else self.folder / "shards" / "held-out"

    @property
    def train_shards(self) -> Path:
        """The shards that everyone trains on."""
        return self.folder / "shards" / "train"

    def recipe(self) -> PretrainingRecipe:
        """What the first model and the held-out batches are made from."""
        numbers: Mapping[str, Any] = {
            "output": str(self.folder / "none"),
            "tokenizer": str(self.tokenizer),
            "dropout": 0.0,  # as transformers has it
            "sources": [{"shards": str(self.train_shards)}],
            "model": {"preset": "tiny"},
            "packing": {"max_seqlen": MAX_SEQLEN, "bin_tokens": _BIN_TOKENS},
            "masking": {"rate": MASKED_SHARE},
            "batch": {"bins_per_step": 2},
            "training": {"total_tokens": 1, "schedule": {"peak_learning_rate": 1e-3}},
            "evaluation": {
                "shards": str(self.held_out_shards),
                "max_tokens": HELD_OUT_TOKENS,
            },
        }
        return parse(PretrainingRecipe, numbers, where="benchmark")

    @cached_property
    def opened(self) -> PretrainingData:
        """Tokenizer and shards."""
        return PretrainingData.open(self.recipe())

    def pieces(self) -> Iterator[list[int]]:
        """The training text as [CLS] ids [SEP], at most 512 long each."""
        folder = ShardFolder.open(self.train_shards)
        for number, shard in enumerate(folder.shards):
            documents = Documents.of_shard(shard, number, 0, shard.num_documents)
            cut = split_documents(documents, MAX_SEQLEN)
            spans = zip(cut.starts.tolist(), cut.stops.tolist(), strict=True)
            whole = Bin(0, tuple(Stretch(shard, *span) for span in spans), folder.special_token_ids)
            for sequence in whole.sequences:
                yield sequence.tolist()

    def blocks(self) -> Iterator[list[int]]:
        """The same one after another, in blocks of exactly 512; what is left at the end is dropped.

        A block's documents see one another, as in transformers' own example of pretraining.
        """
        row = np.concatenate([np.array(piece) for piece in self.pieces()])
        for start in range(0, len(row) - MAX_SEQLEN + 1, MAX_SEQLEN):
            yield row[start : start + MAX_SEQLEN].tolist()

    def held_out_figures(self, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Loss and accuracy of our weights or transformers', on everyone's batches and masks."""
        model = MaskedLanguageModel(self.opened.config)
        own = {from_foreign(name): weight for name, weight in weights.items()}
        model.load_state_dict({name: own[name] for name in model.state_dict()})
        with undisturbed(model, torch.device("cpu")), autocast("cpu", "auto"):
            return Pretraining(self.opened).evaluate(model)
