"""A GGUF file that llama.cpp runs, so that its outputs can be compared with the model's."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.errors import ExportError
from modernbert.export.source import ExportSource

_RANK, _NONE = 4, 0


class LlamaSession:
    """A file that llama.cpp runs on the CPU, a row at a time."""

    def __init__(self, file: Path, source: ExportSource) -> None:
        import llama_cpp

        self._library: Any = llama_cpp
        model: Any = source.model
        self._num_labels = len(model.labels) if model.is_of_texts else 0
        self._width, length = model.config.hidden_size, model.config.max_seqlen
        self._llama: Any = llama_cpp.Llama(
            str(file),
            embedding=True,
            n_ctx=length,
            n_batch=length,
            n_ubatch=length,
            n_threads=torch.get_num_threads(),
            pooling_type=_RANK if self._num_labels else _NONE,
            verbose=False,
        )

    def tokenize(self, text: str) -> list[int]:
        """Split a text as llama.cpp does."""
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=True, special=True)
        return ids

    def __call__(self, token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
        """Compute the output for ids and a mask of tokens, (rows, columns) each."""
        rows = [self._row(ids[mask]) for ids, mask in zip(token_ids, present.bool(), strict=True)]
        if self._num_labels:
            return [np.stack(rows)]
        padded = np.zeros((*token_ids.shape, self._width), dtype=np.float32)
        padded[present.bool().numpy()] = np.concatenate(rows)
        return [padded]

    def _row(self, ids: Tensor) -> np.ndarray:
        """Return (num_labels,) or (tokens, hidden_size)."""
        library, context = self._library, self._llama.ctx
        batch = library.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids.tolist()):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, True
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            failed = library.llama_encode(context, batch) != 0
        finally:
            library.llama_batch_free(batch)
        if failed:
            raise ExportError("llama.cpp cannot compute the file, which was not kept")
        if self._num_labels:
            values = library.llama_get_embeddings_seq(context, 0)
            return np.ctypeslib.as_array(values, (self._num_labels,)).copy()
        values = library.llama_get_embeddings(context)
        return np.ctypeslib.as_array(values, (len(ids), self._width)).copy()
