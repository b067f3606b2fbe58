"""`Embedder`: one vector per text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.chunks import (
    ChunkEncoder,
    Chunking,
    Chunks,
    ChunkSettings,
    EncodedChunks,
    beside,
    pooled_chunks,
)
from modernbert.inference.embedder_folder import EmbedderSettings, read_embedder, write_embedder
from modernbert.inference.encode_options import (
    EncodeOptions,
    StreamOptions,
    as_asked,
    check_dim,
    check_options,
    check_results,
    quantized,
    split_options,
    tokens_at_once,
    watched,
)
from modernbert.inference.inputs import (
    CutSide,
    EncodedText,
    TextEncoder,
    num_characters,
    require_list,
)
from modernbert.inference.loading import load_for_inference
from modernbert.inference.similarity import Vectors, similarity
from modernbert.inference.text_model import TextModel, Use
from modernbert.kinds import MODELS, ModelKind
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import Projection
from modernbert.model.pooling import TextPooling, pool
from modernbert.reading import user_path
from modernbert.tokenizer.texts import Span
from modernbert.tokenizer.tokenizer import Tokenizer

_EMBEDDING_KINDS: tuple[ModelKind, ...] = (
    "embedder",
    *(kind for kind, each in MODELS.items() if each.architecture),  # one encoder, perhaps a head
)


class Embedder(TextModel[Encoder]):
    """Computes one vector per text; texts with similar meanings get similar vectors.

    Args:
        encoder: The encoder, on any device and in any precision.
        tokenizer: The tokenizer that the encoder was trained with.
        settings: Pooling, prompts and lengths.
        layers: The layers after pooling, such as a `Projection`.

    Raises:
        InputError: The tokenizer has another vocabulary, or the model cannot read sequences that
            long.
        ConfigError: Two layers do not fit each other.
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
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.
            pooling: The pooling, if it should differ from the folder's.

        Raises:
            ModelFolderError: There is no such model, it cannot be used, or it has unknown modules.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: A setting is not supported, or the device does not support the precision.
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

        If the folder exists already, all its files are replaced at one moment.

        Args:
            folder: The folder to write to.

        Raises:
            ModelFolderError: The folder cannot be written.
            TokenizerError: The tokenizer cannot be written.
        """
        packed_from = self._source if self.encoder.is_packed else None
        encoder = self.encoder if packed_from is None else Encoder.from_pretrained(packed_from)
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        with updated_folder(user_path(folder), error=ModelFolderError) as whole:
            encoder.save_pretrained(whole)
            self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
            write_embedder(whole, settings, encoder.config.hidden_size, tuple(self.layers))

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: Literal[False] = False,
        **options: Unpack[StreamOptions],
    ) -> np.ndarray: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: Literal[True],
        **options: Unpack[StreamOptions],
    ) -> Tensor: ...

    @overload
    def encode(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> Any: ...

    def encode(self, texts: str | Iterable[str], **options: Any) -> Any:
        """Compute the vector of one text or of many, with the options of sentence-transformers.

        Texts longer than the model can read are truncated, and a `TruncationWarning` says how many
        were.

        Args:
            texts: One text, or any number of them.
            **options: As in `EncodeOptions`.

        Returns:
            (dim,) float32 for one text, (num_texts, dim) for many, in their order, unless the
            options ask for another form.

        Raises:
            InputError: Something is not a text, or an option is not valid.
        """
        reading, results = split_options(options)  # type: ignore[arg-type]
        check_results(results)
        is_single = isinstance(texts, str)
        rows = [texts] if isinstance(texts, str) else texts
        kind = results.get("output_value", "sentence_embedding")
        with watched(results, reading, rows) as reading:
            if kind != "sentence_embedding":
                parts = list(self._parts(rows, reading))
                found = parts if kind is None else [part[kind] for part in parts]
                return found[0] if is_single else found
            blocks = list(self.stream(rows, **reading))
        width = min(self.dim, reading.get("truncate_dim") or self.dim)
        vectors = np.concatenate([np.zeros((0, width), np.float32), *blocks])
        asked = as_asked(quantized(vectors, results.get("precision", "float32")), results)
        return asked[0] if is_single else asked

    def encode_query(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> Any:
        """Compute vectors as `encode` does, with the prompt named `query`, if there is one."""
        return self.encode(texts, **self.settings.of_side("query", options))

    def encode_document(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> Any:
        """Compute vectors as `encode` does, with the prompt for documents, if there is one.

        Its name is `document`, `passage` or `corpus`.
        """
        return self.encode(texts, **self.settings.of_side("document", options))

    def stream(
        self, texts: Iterable[str], **options: Unpack[StreamOptions]
    ) -> Iterator[np.ndarray]:
        """Compute the vectors of any number of texts in bounded memory.

        Args:
            texts: The texts, read when they are needed.
            **options: As in `StreamOptions`.

        Returns:
            Blocks of vectors, (num_texts, dim) float32, in the order of the texts.

        Raises:
            InputError: As in `encode`.
        """
        use = self.use(
            prompt=self._prompt(texts, options),
            truncate_dim=options.get("truncate_dim"),
            normalize=options.get("normalize_embeddings", False),
        )
        return (np.stack(list(block)) for block in self._run(use, texts, options))

    def _parts(
        self, texts: Iterable[str], options: StreamOptions
    ) -> Iterator[Mapping[str, Tensor]]:
        """Yield for each text all that sentence-transformers returns for `output_value=None`."""
        prompt = self._prompt(texts, options)
        kept, num_left_out = options.get("truncate_dim"), self.num_left_out(prompt)

        def compute(batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
            hidden = self.encoder(batch)
            vectors = to_host(self.pooled(hidden, batch, num_left_out)[:, : self.dim])
            return list(zip(batch.split(to_host(hidden.float())), vectors, strict=True))

        def finish(
            encoded: Sequence[EncodedText], computed: Sequence[tuple[Tensor, Tensor]]
        ) -> list[Mapping[str, Tensor]]:
            ids = [torch.tensor(text.token_ids) for text in encoded]
            return [
                {
                    "input_ids": each,
                    "attention_mask": torch.ones_like(each),
                    "token_embeddings": hidden,
                    "sentence_embedding": vector[:kept],
                }
                for each, (hidden, vector) in zip(ids, computed, strict=True)
            ]

        encode = self.token_use(prompt=prompt).encode
        use = Use(
            name="parts",
            encode=encode,
            compute=compute,
            finish=finish,
            max_seqlen=self.max_seqlen,
        )
        return (part for block in self._run(use, texts, options) for part in block)

    def _prompt(self, texts: Any, options: StreamOptions) -> str:
        """Check the texts and options of a call; return what to put before each text."""
        require_list(texts, "texts")
        check_options(options, self.dim, self.device)
        return self.settings.prompt(options.get("prompt"), options.get("prompt_name"))

    def _run(
        self, use: Use[str, EncodedText, Any, Any], texts: Iterable[str], options: StreamOptions
    ) -> Iterator[Sequence[Any]]:
        """Run texts through a use with the options of a call."""
        return self.blocks(
            use,
            texts,
            batch_tokens=tokens_at_once(options, self.device, self.max_seqlen),
            on_progress=options.get("on_progress"),
        )

    def encode_chunks(
        self,
        texts: str | Iterable[str],
        *,
        chunks: ChunkSettings | None = None,
        borders: Iterable[Sequence[Span]] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Chunks | list[Chunks]:
        """Compute the vectors of the pieces of long texts, each from one pass over the whole text.

        Every token attends to the whole text before the tokens of each piece are pooled (late
        chunking, arXiv 2409.04701), without special tokens and prompt. A text that is longer than
        the model can read is read in windows that share a quarter of their tokens.

        Args:
            texts: One text, or any number of them.
            chunks: How to divide the texts; by default after 256 tokens.
            borders: The pieces of each text instead, as their starts and ends in characters; of
                one text alone, its pieces.
            **options: As in `StreamOptions`.

        Returns:
            The borders and vectors of the pieces of one text, or a list of them for many.

        Raises:
            InputError: Something is not a text, a piece is not within its text, the model pools
                one token alone, or an option is not valid.
        """
        if isinstance(texts, str):
            given = None if borders is None else [list(borders)]
            (found,) = self.stream_chunks([texts], chunks=chunks, borders=given, **options)  # type: ignore[arg-type]
            return found
        return list(self.stream_chunks(texts, chunks=chunks, borders=borders, **options))

    def stream_chunks(
        self,
        texts: Iterable[str],
        *,
        chunks: ChunkSettings | None = None,
        borders: Iterable[Sequence[Span]] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Iterator[Chunks]:
        """Compute what `encode_chunks` returns for any number of texts in bounded memory.

        Args:
            texts: Any number of texts, which are read as the results are taken.
            chunks: As in `encode_chunks`.
            borders: As in `encode_chunks`, for each text.
            **options: As in `StreamOptions`.

        Raises:
            InputError: See `encode_chunks`.
        """
        require_list(texts, "texts")
        check_options(options, self.dim, self.device)
        if chunks is not None and borders is not None:
            raise InputError("chunks: give either these or borders")
        use = self.chunk_use(
            prompt=self.settings.prompt(options.get("prompt"), options.get("prompt_name")),
            truncate_dim=options.get("truncate_dim"),
            normalize=options.get("normalize_embeddings", False),
        )
        found = self.blocks(
            use,
            zip(texts, repeat(chunks or ChunkSettings()))
            if borders is None
            else beside(texts, borders),
            batch_tokens=tokens_at_once(options, self.device, self.max_seqlen),
            on_progress=options.get("on_progress"),
        )
        return (each for block in found for each in block)

    def use(
        self,
        *,
        prompt: str = "",
        truncate_dim: int | None = None,
        normalize: bool = False,
        cut: CutSide = "right",
    ) -> Use[str, EncodedText, Tensor, np.ndarray]:
        """Describe how texts become vectors, (dim,) float32 each.

        Args:
            prompt: A text to put before each text.
            truncate_dim: The number of dimensions to keep, instead of the model's own number.
            normalize: Whether to scale the vectors to length 1 after that.
            cut: The side on which texts that are too long are truncated.

        Raises:
            InputError: The model does not have that many dimensions.
        """
        num_left_out = self.num_left_out(prompt)
        finished = self.finished(truncate_dim, normalize=normalize)

        def finish(_: Sequence[EncodedText], vectors: Sequence[Tensor]) -> Any:
            return finished(torch.stack(list(vectors)))

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
        """Describe how texts become vectors of tokens, (num_tokens, hidden_size) float32."""
        return Use(
            name="hidden",
            encode=TextEncoder(
                self.tokenizer, self.max_seqlen, cut=cut, prompt=prompt, takes_pairs=False
            ),
            compute=self._hidden,
            finish=lambda _, hidden: [each.numpy() for each in hidden],
            max_seqlen=self.max_seqlen,
        )

    def chunk_use(
        self, *, prompt: str = "", truncate_dim: int | None = None, normalize: bool = False
    ) -> Use[tuple[str, Chunking], EncodedChunks, list[Tensor], Chunks]:
        """Describe how texts become the vectors of their pieces; `use` has the arguments.

        Raises:
            InputError: The model pools one token, which most pieces do not have, or it does not
                have that many dimensions.
        """
        pooling = self.settings.pooling
        kinds = {pooling} if isinstance(pooling, str) else {*pooling}
        if single := kinds & {"cls", "lasttoken"}:
            raise InputError(
                f"chunks: the model pools by {single.pop()!r}, one token of a whole text; load it "
                "with pooling='mean' to have the means of the pieces"
            )
        finished = self.finished(truncate_dim, normalize=normalize)

        @torch.inference_mode()
        def pool(tokens: Tensor, batch: PackedBatch) -> np.ndarray:
            pooled = self.pooled(tokens.to(self.device), batch.to(self.device))
            return finished(pooled[:, : self.dim].cpu())

        return Use(
            name="hidden",
            encode=ChunkEncoder(self.tokenizer, self.max_seqlen, prompt),
            compute=self._hidden,  # type: ignore[arg-type]
            finish=lambda encoded, hidden: [
                pooled_chunks(*each, pool) for each in zip(encoded, hidden, strict=True)
            ],
            max_seqlen=self.max_seqlen,
            size=lambda item: num_characters(item[0]),
        )

    def _hidden(self, batch: PackedBatch) -> Sequence[Tensor]:
        """Return the vectors of the tokens of each sequence, (num_tokens, hidden_size) float32."""
        return batch.split(to_host(self.encoder(batch).float()))

    def finished(
        self, truncate_dim: int | None, *, normalize: bool
    ) -> Callable[[Tensor], np.ndarray]:
        """Return what is done last with vectors (rows, dim); `use` has the arguments.

        Raises:
            InputError: The model does not have that many dimensions.
        """
        if truncate_dim is not None:
            check_dim(truncate_dim, self.dim)

        def finish(vectors: Tensor) -> np.ndarray:
            kept = vectors[:, :truncate_dim]
            return (functional.normalize(kept) if normalize else kept).numpy()

        return finish

    def num_left_out(self, prompt: str) -> int:
        """Return how many tokens at the beginning of sequences are not pooled: [CLS] and prompt."""
        is_pooled = self.settings.pool_prompt or not prompt
        return 0 if is_pooled else len(self.tokenizer.encode(prompt)) - 1

    def pooled(self, hidden: Tensor, batch: PackedBatch, num_left_out: int = 0) -> Tensor:
        """Pool hidden states into the model's vectors, with gradients if there are any.

        Args:
            hidden: (total_tokens, hidden_size), the output of the encoder.
            batch: The sequences, packed one after another.
            num_left_out: The number of tokens to leave out, as `num_left_out` returns it.

        Returns:
            (num_sequences, dim) float32, before `truncate_dim`.
        """
        vectors = pool(hidden.float(), batch, self.settings.pooling, num_left_out=num_left_out)
        vectors = self.layers(vectors)
        return functional.normalize(vectors) if self.settings.normalize else vectors

    def compute(self, batch: PackedBatch, num_left_out: int = 0) -> Sequence[Tensor]:
        """Return the vector of each sequence, (dim,) float32, on the CPU."""
        vectors = self.pooled(self.encoder(batch), batch, num_left_out)
        return to_host(vectors[:, : self.dim]).unbind()

    def similarity(self, first: Vectors, second: Vectors) -> Tensor:
        """Compare vectors with the similarity that the model was trained for.

        Args:
            first: (n, dim), or (dim,) for one vector.
            second: (m, dim), or (dim,).

        Returns:
            (n, m) float32.
        """
        return similarity(first, second, self.settings.similarity)


def _width_after(layers: Iterable[nn.Module], width: int) -> int:
    """Return the number of dimensions after some layers.

    Raises:
        ConfigError: A layer expects another number.
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
