"""ModernBERT's tokenizer, made from the one that OLMo published."""

from pathlib import Path

from modernbert.errors import TokenizerError
from modernbert.tokenizer.definition import (
    closing_tokens,
    fingerprint,
    modernbert_definition,
    read_definition,
)
from modernbert.tokenizer.tokenizer import Tokenizer

PUBLISHED_FINGERPRINT = "3043f35dde0634d777c483f027cf639a26898954d73df902cce65ebb363d8a92"
"""`fingerprint` of the tokenizer that ModernBERT was published with."""

_OLMO_ENTRIES = 50_280
_OLMO_MERGES = 50_009


def derive(olmo_json: Path | str) -> Tokenizer:
    """Build ModernBERT's tokenizer from OLMo's published tokenizer.json (P section 2.2.1).

    The vocabulary and merges stay; BERT's special tokens and 83 unused slots follow them, 50,368
    entries in all, and the template becomes BERT's.

    olmo_json: the file `allenai_gpt-neox-olmo-dolma-v1_5.json`.

    Raises:
        TokenizerError: the file is missing, broken or not exactly OLMo's tokenizer.
    """
    path = Path(olmo_json)
    olmo = read_definition(path)
    model, added = olmo["model"], olmo["added_tokens"]
    vocab = model["vocab"] if isinstance(model["vocab"], dict) else {}
    merges = model.get("merges") or []
    counts = (len(vocab.keys() | {token["content"] for token in added}), len(merges))
    if counts != (_OLMO_ENTRIES, _OLMO_MERGES):
        raise TokenizerError(
            f"{path}: got {counts[0]:,} entries and {counts[1]:,} merges, expected OLMo's "
            f"{_OLMO_ENTRIES:,} and {_OLMO_MERGES:,} (allenai_gpt-neox-olmo-dolma-v1_5.json)"
        )
    definition = modernbert_definition(
        vocab=vocab, merges=merges, added_tokens=[*added, *closing_tokens(_OLMO_ENTRIES)]
    )
    if fingerprint(definition) != PUBLISHED_FINGERPRINT:
        raise TokenizerError(
            f"{path}: has the size of OLMo's tokenizer but other content; expected an unchanged "
            "allenai_gpt-neox-olmo-dolma-v1_5.json"
        )
    return Tokenizer(definition)
