"""ModernBERT on the CPU beside its peers: see the README one folder up."""
