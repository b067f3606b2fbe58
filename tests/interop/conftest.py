"""Small models of transformers with a tokenizer, of sizes for both sets of kernels."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from modernbert.tokenizer.train import train

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The library, silent."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"the square of number {i} is {i * i}, not less." for i in range(99)]
    train(texts, vocab_size=448).save_pretrained(folder, model_max_length=512)
    return folder


@pytest.fixture(scope="session")
def tokenizer(transformers: ModuleType, tokenizer_folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(params=["torch kernels", "C kernels"])
def head_size(request: pytest.FixtureRequest) -> int:
    """Heads of 64 are what the C kernels want; others go to the torch kernels."""
    return 16 if request.param == "torch kernels" else 64


@pytest.fixture(scope="session")
def make(transformers: ModuleType, tokenizer: Any) -> Make:
    """`make("ForMaskedLM", head_size=64, ...)`: a model with weights that all matter."""

    def made(kind: str, *, head_size: int = 64, **changes: Any) -> Any:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in NAMES}
        sizes = {
            "hidden_size": 2 * head_size,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "vocab_size": 448,
            "local_attention": 16,
            "initializer_range": 0.1,
            "num_labels": 2 if kind == "ForQuestionAnswering" else 3,
        }
        ids |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
        config = transformers.ModernBertConfig(**{**sizes, **ids, **changes})
        torch.manual_seed(0)
        return getattr(transformers, f"ModernBert{kind}")(config).eval()

    return made


NAMES = ("cls", "sep", "pad")
