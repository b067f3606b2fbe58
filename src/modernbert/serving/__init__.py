"""A model folder as an HTTP service: queue, batches, routes."""
