"""`Embedder`: a text to one vector."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.batching import Observer
from modernbert.inference.embedder_folder import EmbedderSettings, read_embedder, write_embedder
from modernbert.inference.inputs import CutSide, EncodedText, TextEncoder, require_list
from modernbert.inference.loading import load_for_inference
from modernbert.inference.similarity import Vectors, similarity
from modernbert.inference.text_model import TextModel, Use
from modernbert.kinds import ModelKind
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import Projection
from modernbert.model.pooling import TextPooling, pool
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


class EncodeOptions(TypedDict, total=False):
    """How texts become vectors.

    Attributes:
        prompt: A text to put before each; it takes precedence over `prompt_name`.
        prompt_name: The name of one of the model's prompts.
        normalize_embeddings: Make each vector's length 1, after it is cut to `truncate_dim`.
        truncate_dim: Keep so many numbers of each vector, for a model that was trained for it.
        batch_tokens: The most tokens that are computed at once.
        on_progress: Is called after every batch.
    """

    prompt: str | None
    prompt_name: str | None
    normalize_embeddings: bool
    truncate_dim: int | None
    batch_tokens: int | None
    on_progress: Observer | None


class Embedder(TextModel[Encoder]):
    """One vector for each text, which lie close together where texts mean alike.

    Args:
        encoder: On any device, in any precision.
        tokenizer: The one that the encoder was trained with.
        settings: Pooling, prompts and lengths.
        layers: What comes behind pooling, such as a `Projection`.

    Raises:
        InputError: A tokenizer of another vocabulary, or a longest sequence that cannot be read.
        ConfigError: Layers that do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        settings: EmbedderSettings | None = None,
        *,
        layers: Iterable[nn.Module] = (),
    ) -> None:
        self.settings = settings or EmbedderSettings()
        super().__init__(encoder, tokenizer, max_seqlen=self.settings.max_seqlen)
        self.layers = nn.Sequential(*layers).to(self.device).eval()
        width = encoder.config.hidden_size * self.settings.num_poolings
        self.dim = _width_after(self.layers, width)
        if (kept := self.settings.truncate_dim) is not None:
            check_dim(kept, self.dim)
            self.dim = kept
        self._source: Path | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        pooling: TextPooling | None = None,
    ) -> "Embedder":
        """Load a folder of sentence-transformers, or of any model that has an encoder.

        Args:
            folder_or_hub_id: The folder, that of a run, or an id on the hub.
            precision: What to compute in.
            pooling: Another pooling than the folder's own.

        Raises:
            ModelFolderError: No such model, one that cannot be used, or steps that are not known.
            TokenizerError: No tokenizer beside it, or one that cannot be used.
            ConfigError: Settings that are not supported, or a precision that cannot be had here.
        """
        folder = find_model(folder_or_hub_id, weights=True, wanted=_EMBEDDING_KINDS)
        found, settings = read_embedder(folder)
        if pooling is not None:
            settings = replace(settings, pooling=pooling)
        encoder, tokenizer = load_for_inference(Encoder, found.encoder, precision)
        tokenizer = tokenizer.lowercased() if found.is_lowered else tokenizer
        embedder = cls(encoder, tokenizer, settings, layers=found.layers)
        embedder.layers.requires_grad_(False)
        embedder._source = found.encoder
        return embedder

    @property
    def encoder(self) -> Encoder:
        """The model itself."""
        return self.model

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `from_pretrained` and sentence-transformers load.

        Where the folder is there already, all its files change at one moment.

        Raises:
            ModelFolderError: The folder cannot be written.
            TokenizerError: As that, for the tokenizer.
        """
        packed_from = self._source if self.encoder.engine is not None else None
        encoder = self.encoder if packed_from is None else Encoder.from_pretrained(packed_from)
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        try:
            with updated_folder(Path(folder).expanduser()) as whole:
                encoder.save_pretrained(whole)
                self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
                write_embedder(whole, settings, encoder.config.hidden_size, tuple(self.layers))
        except OSError as error:
            raise ModelFolderError(f"{folder}: cannot be written: {error}") from None

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

        options: see `EncodeOptions`.

        Args:
            texts: The texts.
            convert_to_tensor: Give a tensor on the CPU, and not an array.

        Raises:
            InputError: Something else than texts, or an option that cannot be.
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
        asked: EncodeOptions = self.settings.of_side("query", options)
        return self.encode(texts, **asked)

    def encode_document(
        self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]
    ) -> np.ndarray:
        """`encode` with the prompt named `document`, `passage` or `corpus`, where there is one."""
        asked: EncodeOptions = self.settings.of_side("document", options)
        return self.encode(texts, **asked)

    def stream(
        self, texts: Iterable[str], **options: Unpack[EncodeOptions]
    ) -> Iterator[np.ndarray]:
        """The vectors of any number of texts in bounded memory: blocks (rows, dim), in order.

        Raises:
            InputError: As `encode`.
        """
        require_list(texts, "texts")
        check_options(options, self.dim)
        prompt = self.settings.prompt(options.get("prompt"), options.get("prompt_name"))
        use = self.use(
            prompt=prompt,
            truncate_dim=options.get("truncate_dim"),
            normalize=options.get("normalize_embeddings", False),
        )
        blocks = self.blocks(
            use,
            texts,
            batch_tokens=options.get("batch_tokens"),
            on_progress=options.get("on_progress"),
        )
        return (np.stack(list(block)) for block in blocks)

    def use(
        self,
        *,
        prompt: str = "",
        truncate_dim: int | None = None,
        normalize: bool = False,
        cut: CutSide = "right",
    ) -> Use[str, EncodedText, Tensor, np.ndarray]:
        """Texts to vectors, (dim,) float32 each.

        Args:
            prompt: A text to put before each.
            truncate_dim: How many numbers are kept, in place of the model's own number.
            normalize: Whether the vectors get length 1 after that.
            cut: The side on which a text that is too long loses tokens.

        Raises:
            InputError: A dimension that the model does not have.
        """
        if truncate_dim is not None:
            check_dim(truncate_dim, self.dim)
        num_left_out = self.num_left_out(prompt)

        def finish(_: Sequence[EncodedText], vectors: Sequence[Tensor]) -> Any:
            stacked = torch.stack(list(vectors))[:, :truncate_dim]
            return (functional.normalize(stacked) if normalize else stacked).numpy()

        return Use(
            name=("pooled", num_left_out),
            encode=TextEncoder(
                self.tokenizer, self.max_seqlen, cut=cut, prompt=prompt, takes_pairs=False
            ),
            compute=lambda batch: self.compute(batch, num_left_out),
            finish=finish,
            max_seqlen=self.max_seqlen,
        )

    def token_use(
        self, *, prompt: str = "", cut: CutSide = "right"
    ) -> Use[str, EncodedText, Tensor, np.ndarray]:
        """Texts to the encoder's vectors of their tokens, (num_tokens, hidden_size) float32."""
        return Use(
            name="hidden",
            encode=TextEncoder(
                self.tokenizer, self.max_seqlen, cut=cut, prompt=prompt, takes_pairs=False
            ),
            compute=lambda batch: batch.split(to_host(self.encoder(batch).float())),
            finish=lambda _, hidden: [each.numpy() for each in hidden],
            max_seqlen=self.max_seqlen,
        )

    def num_left_out(self, prompt: str) -> int:
        """How many tokens at the beginning of each sequence are not pooled: [CLS] and prompt."""
        is_pooled = self.settings.pool_prompt or not prompt
        return 0 if is_pooled else len(self.tokenizer.encode(prompt)) - 1

    def pooled(self, hidden: Tensor, batch: PackedBatch, num_left_out: int = 0) -> Tensor:
        """Make the model's vectors of hidden states, with gradients where these have some.

        Args:
            hidden: (total_tokens, hidden_size), what the encoder gives.
            batch: The sequences.
            num_left_out: See `num_left_out`.

        Returns:
            (num_sequences, dim) float32, before `truncate_dim`.
        """
        vectors = pool(hidden.float(), batch, self.settings.pooling, num_left_out=num_left_out)
        vectors = self.layers(vectors)
        return functional.normalize(vectors) if self.settings.normalize else vectors

    def compute(self, batch: PackedBatch, num_left_out: int = 0) -> Sequence[Tensor]:
        """For each sequence its vector, (dim,) float32, on the CPU."""
        vectors = self.pooled(self.encoder(batch), batch, num_left_out)
        return to_host(vectors[:, : self.dim]).unbind()

    def similarity(self, first: Vectors, second: Vectors) -> Tensor:
        """How alike vectors are, as this model's training compared them: (n, m) float32."""
        return similarity(first, second, self.settings.similarity)


def check_options(options: EncodeOptions, dim: int) -> None:
    """Refuse options that are unknown or impossible.

    Args:
        options: What a call was given.
        dim: How many numbers the model's vectors have.

    Raises:
        InputError: There is one.
    """
    known = EncodeOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"{unknown[0]}: no such option; expected one of {', '.join(known)}")
    if (width := options.get("truncate_dim")) is not None:
        check_dim(width, dim)


def check_dim(width: int, dim: int) -> None:
    """Refuse to keep none, or more numbers than a vector has.

    Raises:
        InputError: A width that is not from 1 to `dim`.
    """
    if not 1 <= width <= dim:
        raise InputError(f"truncate_dim: got {width}, expected 1 to {dim}")


def _width_after(layers: Iterable[nn.Module], width: int) -> int:
    """How many numbers a vector has behind some layers.

    Raises:
        ConfigError: A layer that takes another number.
    """
    for layer in layers:
        takes = width
        if isinstance(layer, Projection):
            takes, gives = layer.settings.in_features, layer.settings.out_features
        elif isinstance(layer, nn.LayerNorm):
            takes = gives = layer.normalized_shape[0]
        else:
            gives = width
        if takes != width:
            raise ConfigError(f"{type(layer).__name__}: takes {takes} numbers, but gets {width}")
        width = gives
    return width
