"""The folder of a reranker, as sentence-transformers' CrossEncoder has it."""

import json
from pathlib import Path

from modernbert.files import write_whole
from modernbert.model.heads import SequenceClassifier
from modernbert.model.multi_vector import Activation
from modernbert.tokenizer.tokenizer import Tokenizer


def save_reranker(
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    activation: Activation,
    max_seqlen: int,
) -> None:
    """Write a folder that Reranker, CrossEncoder and transformers load.

    activation: what makes a score of the output.
    max_seqlen: where pairs are cut.

    Raises:
        ModelFolderError: the folder cannot be written.
        TokenizerError: as that, for the tokenizer.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, model_max_length=max_seqlen)
    module = "activation" if activation == "Sigmoid" else "linear"
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # Where CrossEncoder looks since version 4, and where it looked before.
    named = f"torch.nn.modules.{module}.{activation}"
    config["sentence_transformers"] = {"activation_fn": named}
    config["sbert_ce_default_activation_function"] = named
    write_whole(path, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
