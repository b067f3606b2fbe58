"""Serving beside other servers: throughput, latency, fairness, and a long soak."""
