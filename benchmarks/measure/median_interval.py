"""How far the median of successive times could be off by chance.

Of n independent samples, the number below the true median is binomial, whatever their distribution, which gives ranks
between which that median lies (Conover 1999, section 3.2). Successive times are seldom independent: a slow second
makes many samples slow together. So n is replaced by the number of independent samples that say as much about the
median (Vehtari et al. 2021, "Rank-normalization, folding, and localization", section 4.3), from the autocorrelation of
whether a sample is above the median, cut off where it is noise alone (Geyer 1992, initial monotone sequence).
"""

import math
from collections.abc import Sequence

import numpy as np

#: Fewer independent samples than these say too little of how much the samples depend on each other.
_LEAST = 10
#: The normal distribution's quantile for 95% in the middle.
_Z = 1.959963984540054


def median_interval(times: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Return a 95% interval for the median that endlessly many samples of the same process would have.

    Both ends are samples. None where they are too few, or too much alike from one to the next: where they say no more
    than nine independent ones would.

    Args:
        times: the samples in the order in which they were taken.
    """
    values = np.asarray(times, dtype=np.float64)
    count = len(values)
    independent = independent_samples(values) if count else 0
    if independent < _LEAST:
        return None
    half = _Z * count / (2 * math.sqrt(independent))
    low, high = math.floor(count / 2 - half), math.ceil(count / 2 + half) + 1  # ranks from 1, both inside
    low_value, high_value = np.partition(values, [low - 1, high - 1])[[low - 1, high - 1]]
    return float(low_value), float(high_value)


def independent_samples(values: np.ndarray) -> float:
    """Return how many independent samples would say as much about the median as these do; never more than there are.

    Args:
        values: float64 (n,), at least one, in order.
    """
    above = (values > np.median(values)).astype(np.float64)
    above -= above.mean()
    count = len(above)
    # The autocovariance at all lags at once: the inverse transform of the power spectrum, without wrapping around.
    spectrum = np.fft.rfft(above, 2 * count)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), 2 * count)[:count] / count
    if covariance[0] <= 0:  # all alike
        return float(count)
    correlation = covariance / covariance[0]
    pairs = correlation[0 : count - count % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)
    return count / max(1.0, 2 * float(pairs.sum()) - 1)
