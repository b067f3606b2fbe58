"""How much arithmetic a token costs, counted from the sizes alone."""

from modernbert.model.config import EncoderConfig


def flops_per_token(config: EncoderConfig, length: int, *, masked_share: float = 0.0) -> float:
    """Floating-point operations of a forward for one token of a sequence of `length` tokens.

    A multiplication and an addition count as two. Matrix products alone are counted, as is usual:
    those of the weights, and of attention those with the keys that a token really sees. A
    training step costs three times as much.

    masked_share: the fraction of the tokens that go through the MLM head and the vocabulary.

    >>> config = EncoderConfig.preset("base")
    >>> round(flops_per_token(config, 1024) / 1e6)
    251
    """
    width = config.hidden_size
    weights = config.num_layers * (4 * width * width + 3 * width * config.intermediate_size)
    head = masked_share * width * (width + config.vocab_size)
    num_global = config.layer_kinds.count("global")
    seen = float(num_global * length)
    seen += (config.num_layers - num_global) * _mean_window(length, config.window)
    return 2 * (weights + head + 2 * width * seen)


def _mean_window(length: int, window: int) -> float:
    """How many tokens one sees in a window, on average over a sequence.

    >>> _mean_window(3, 1), _mean_window(3, 64)
    (2.3333333333333335, 3.0)
    """
    reach = min(window, length - 1)
    return (length * (2 * reach + 1) - reach * (reach + 1)) / length
