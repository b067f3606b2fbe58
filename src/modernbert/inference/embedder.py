"""`Embedder`: a text to one vector."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.embedder_folder import read_settings, write_settings
from modernbert.inference.embedder_settings import EmbedderSettings
from modernbert.inference.inputs import EncodedText, require_list, with_prompt
from modernbert.inference.loading import load_for_inference
from modernbert.inference.pooled_vectors import EncodeOptions, PooledVectors, check_options
from modernbert.inference.similarity import Vectors, similarity
from modernbert.inference.text_model import TextModel
from modernbert.kinds import ModelKind
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.pooling import Pooling
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

_EMBEDDING_KINDS: tuple[ModelKind, ...] = (
    "embedder",
    "encoder",
    "masked_lm",
    "classifier",
    "tagger",
    "answerer",
)


class Embedder(TextModel[Encoder]):
    """One vector for each text, which lie close together where texts mean alike.

    encoder: on any device, in any precision.
    tokenizer: the one that the encoder was trained with.

    Raises:
        InputError: a tokenizer of another vocabulary, or a longest sequence that cannot be read.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        settings: EmbedderSettings | None = None,
    ) -> None:
        self.settings = settings or EmbedderSettings()
        super().__init__(encoder, tokenizer, max_seqlen=self.settings.max_seqlen)
        self._source: Path | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        pooling: Pooling | None = None,
    ) -> "Embedder":
        """Load a folder of sentence-transformers, or of any model that has an encoder.

        pooling: another one than the folder's own.

        Raises:
            ModelFolderError: no such model, one that cannot be used, or steps after pooling other
                than normalization.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: a pooling that is not supported, or a precision that cannot be had here.
        """
        folder, settings = read_settings(
            find_model(folder_or_hub_id, weights=True, wanted=_EMBEDDING_KINDS)
        )
        if pooling is not None:
            settings = replace(settings, pooling=pooling)
        encoder, tokenizer = load_for_inference(Encoder, folder, precision)
        embedder = cls(encoder, tokenizer, settings)
        embedder._source = folder
        return embedder

    @property
    def encoder(self) -> Encoder:
        """The model itself."""
        return self.model

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `from_pretrained` and sentence-transformers load.

        Where the folder is there already, all its files change at one moment.

        Raises:
            ModelFolderError: the folder cannot be written.
            TokenizerError: as that, for the tokenizer.
        """
        packed_from = self._source if self.encoder.engine is not None else None
        encoder = self.encoder if packed_from is None else Encoder.from_pretrained(packed_from)
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        try:
            with updated_folder(Path(folder).expanduser()) as whole:
                encoder.save_pretrained(whole)
                self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
                write_settings(whole, settings, encoder.config.hidden_size)
        except OSError as error:
            raise ModelFolderError(f"{folder}: cannot be written: {error}") from None

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.encoder.config.hidden_size

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: Literal[False] = False,
        **options: Unpack[EncodeOptions],
    ) -> np.ndarray: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: Literal[True],
        **options: Unpack[EncodeOptions],
    ) -> Tensor: ...

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: bool = False,
        **options: Unpack[EncodeOptions],
    ) -> np.ndarray | Tensor:
        """The vector of a text, (dim,) float32, or those of many in their order, (n, dim).

        Texts longer than the model reads are cut, and a `TruncationWarning` says how many.

        convert_to_tensor: give a tensor on the CPU, and not an array.
        options: see `EncodeOptions`.

        Raises:
            InputError: something else than texts, or an option that cannot be.
        """
        blocks = list(self.stream([texts] if isinstance(texts, str) else texts, **options))
        width = min(self.dim, options.get("truncate_dim") or self.dim)
        joined = np.concatenate([np.zeros((0, width), np.float32), *blocks])
        vectors = joined[0] if isinstance(texts, str) else joined
        return torch.from_numpy(vectors) if convert_to_tensor else vectors

    def encode_query(
        self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]
    ) -> np.ndarray:
        """`encode` with the prompt named `query`, where the model has one."""
        return self.encode(texts, **self._with_prompt(("query",), options))

    def encode_document(
        self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]
    ) -> np.ndarray:
        """`encode` with the prompt named `document`, `passage` or `corpus`, where there is one."""
        return self.encode(texts, **self._with_prompt(("document", "passage", "corpus"), options))

    def stream(
        self, texts: Iterable[str], **options: Unpack[EncodeOptions]
    ) -> Iterator[np.ndarray]:
        """The vectors of any number of texts in bounded memory: blocks (rows, dim), in order.

        Raises:
            InputError: as `encode`.
        """
        require_list(texts, "texts")
        check_options(options, self.dim)
        prompt = self.settings.prompt(options.get("prompt"), options.get("prompt_name"))
        windows: Iterator[list[tuple[EncodedText, Tensor]]] = self.run(
            with_prompt(texts, prompt),
            self._pooled_vectors(prompt, options),
            batch_tokens=options.get("batch_tokens"),
            on_progress=options.get("on_progress"),
        )
        return (torch.stack([vector for _, vector in window]).numpy() for window in windows)

    def similarity(self, first: Vectors, second: Vectors) -> Tensor:
        """How alike vectors are, as this model's training compared them: (n, m) float32."""
        return similarity(first, second, self.settings.similarity)

    def _pooled_vectors(self, prompt: str, options: EncodeOptions) -> PooledVectors:
        excluded = "" if self.settings.pool_prompt else prompt
        return PooledVectors(
            encoder=self.encoder,
            settings=self.settings,
            num_unpooled=len(self.tokenizer.encode(excluded)) - 1 if excluded else 0,
            truncate_dim=options.get("truncate_dim"),
            normalize=options.get("normalize_embeddings", False),
        )

    def _with_prompt(self, names: Iterable[str], options: EncodeOptions) -> EncodeOptions:
        """The options with the prompt of one side, unless they name another."""
        if options.get("prompt") is not None or options.get("prompt_name") is not None:
            return options
        return {**options, "prompt": self.settings.first_prompt(names)}
