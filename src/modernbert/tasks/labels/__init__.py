"""Fine-tuning on labelled rows: labels of texts or words, numbers, answers."""
