"""Fine-tuning side by side: this package, transformers.Trainer, sentence-transformers, TF-IDF."""
