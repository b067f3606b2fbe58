"""Which tokens are masked, and what replaces them.

Every random number comes from Philox, a counter-based generator, with the key (seed, bin). The mask
of a bin is therefore a function of these two numbers, whichever process makes it, before or after a
resume. Only raw words of the generator are used, which NumPy keeps the same in all versions.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Interval

from modernbert.data.shards import SpecialTokens
from modernbert.errors import InputError
from modernbert.settings import Doc, Settings, to_mapping

TRAINING_RATE = 0.3  # P section 2.2.2
EVALUATION_RATE = 0.15  # whatever the rate in training, so that runs compare

# Of the masked tokens; the remaining tenth stays (Devlin et al. 2019, and the paper's code).
MASK_SHARE = 0.8
RANDOM_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class MaskingSettings(Settings):
    """How much to mask in training.

    Raises:
        SettingsError: The rate is out of its range.
    """

    rate: Annotated[
        float,
        Interval(gt=0, le=1),
        Doc("The probability that a token is masked in training; evaluation always uses 0.15."),
    ] = TRAINING_RATE


class MaskedTokens(NamedTuple):
    """Tokens after masking, and what they were.

    Attributes:
        token_ids: (num_tokens,) int64, as the model sees them.
        masked_indices: (num_masked,) int64, ascending indices of the tokens to predict; may be
            empty.
        labels: (num_masked,) int64, the original ids at these indices.
    """

    token_ids: np.ndarray
    masked_indices: np.ndarray
    labels: np.ndarray


def mask_tokens(
    token_ids: np.ndarray,
    *,
    special_token_ids: SpecialTokens,
    vocab_size: int,
    rate: float,
    key: tuple[int, int],
) -> MaskedTokens:
    """Mask tokens at random: 80% become [MASK], 10% a random id, 10% stay, as in BERT.

    Each token is masked independently with probability `rate`, as in the paper's code. An exact
    number per bin would make the tokens of a bin depend on each other and gain nothing, as the loss
    is divided by the masked tokens of the whole step. At a lower rate the same key masks a subset.

    Args:
        token_ids: (num_tokens,) int64; not changed.
        special_token_ids: Tokens that are never masked and never drawn as replacements. Any other
            id below `vocab_size` can be drawn, including unused slots, as BERT draws from the whole
            vocabulary.
        vocab_size: The number of tokens in the vocabulary.
        rate: The probability that a token is masked.
        key: The seed, and the id of the bin.

    Raises:
        InputError: The rate is not from 0 to 1, or the key is not two numbers from 0 to 2^64 - 1.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"rate: got {rate}, expected 0 to 1")
    if not all(0 <= number < 1 << 64 for number in key):
        raise InputError(f"key: got {key}, expected two numbers from 0 to 2^64 - 1")
    specials = np.unique(list(to_mapping(special_token_ids).values()))
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64))
    draws = _uniform(generator, len(token_ids))
    masked = np.flatnonzero((draws < rate) & ~np.isin(token_ids, specials))
    labels = token_ids[masked]
    action = draws[masked] / rate if rate else draws[masked]  # uniform in [0, 1) again
    replaced = np.where(action < MASK_SHARE, special_token_ids.mask, labels)
    random = (action >= MASK_SHARE) & (action < MASK_SHARE + RANDOM_SHARE)
    replaced[random] = _random_ids(generator, int(random.sum()), specials, vocab_size)
    hidden = token_ids.copy()
    hidden[masked] = replaced
    return MaskedTokens(hidden, masked, labels)


def _uniform(generator: np.random.Philox, size: int) -> np.ndarray:
    """Return (size,) float64 in [0, 1), each from the upper 53 bits of a word."""
    words: np.ndarray = generator.random_raw(size)
    return (words >> np.uint64(11)) * 2.0**-53


def _random_ids(
    generator: np.random.Philox, size: int, specials: np.ndarray, vocab_size: int
) -> np.ndarray:
    """Return (size,) int64, uniform over the ids of the vocabulary that are not in `specials`."""
    words: np.ndarray = generator.random_raw(size)
    ids = (words % np.uint64(vocab_size - len(specials))).astype(np.int64)
    for special in specials:  # ascending: ids at or above each gap move up by one
        ids += ids >= special
    return ids
