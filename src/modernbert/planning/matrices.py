"""The matrices inside layers: how large they are, and what orthogonalising them takes."""

from collections.abc import Iterator

from modernbert.model.config import EncoderConfig

_NUM_ITERATIONS = 5


def layer_matrices(config: EncoderConfig) -> Iterator[tuple[int, int]]:
    """The shapes of one layer's matrices, in the parts in which Muon takes them."""
    width, inner = config.hidden_size, config.intermediate_size
    yield from [(width, width)] * 4  # queries, keys, values, and the attention's output
    yield from [(inner, width)] * 2
    yield width, inner


def num_matrix_parameters(config: EncoderConfig) -> int:
    """The parameters of all layers' matrices."""
    return config.num_layers * sum(rows * columns for rows, columns in layer_matrices(config))


def orthogonalizing_flops(config: EncoderConfig) -> float:
    """Operations of Muon's products in one step: each iteration has three for each matrix."""
    flops = 0.0
    for shape in layer_matrices(config):
        short, long = sorted(shape)
        flops += _NUM_ITERATIONS * (4 * short**2 * long + 2 * short**3)
    return config.num_layers * flops
