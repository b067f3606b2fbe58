"""What a model learns from each token: a race of ways to train."""
