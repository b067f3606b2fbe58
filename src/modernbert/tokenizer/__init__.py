"""Tokenizer: text to token ids, with ModernBERT's vocabulary or your own."""

from modernbert.tokenizer.tokenizer import TextEncoding, Tokenizer, WordEncoding
from modernbert.tokenizer.train import derive, train

__all__ = ["TextEncoding", "Tokenizer", "WordEncoding", "derive", "train"]
