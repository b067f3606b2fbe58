"""Tokenizer: text to token ids, with ModernBERT's vocabulary or your own."""

from modernbert.tokenizer.derive import derive
from modernbert.tokenizer.tokenizer import TextEncoding, Tokenizer, WordEncoding
from modernbert.tokenizer.train import train

__all__ = ["TextEncoding", "Tokenizer", "WordEncoding", "derive", "train"]
