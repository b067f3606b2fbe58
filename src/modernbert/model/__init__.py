"""The model: config, encoder, heads and model folders.

Read it top to bottom: config -> encoder -> layer -> attention.
"""

from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel, SequenceClassifier, TokenClassifier
from modernbert.model.initialize import initialize

__all__ = [
    "Encoder",
    "EncoderConfig",
    "MaskedLanguageModel",
    "SequenceClassifier",
    "TokenClassifier",
    "initialize",
]
