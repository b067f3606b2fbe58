"""Text to token ids: ModernBERT's tokenizer, or one trained on texts of one's own."""

from modernbert.tokenizer.derive import derive
from modernbert.tokenizer.tokenizer import TextEncoding, Tokenizer, WordEncoding
from modernbert.tokenizer.train import train

__all__ = ["TextEncoding", "Tokenizer", "WordEncoding", "derive", "train"]
