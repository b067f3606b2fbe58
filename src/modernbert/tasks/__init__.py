"""Tasks: pretraining, fine-tuning and retrieval, put together from rooms below."""
