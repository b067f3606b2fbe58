"""Fine-tuning to rank documents for queries: retrievers and rerankers."""
