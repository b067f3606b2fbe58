"""Serving: the HTTP server, its queue, batches and routes."""
