"""How well word vectors agree with people about which words are alike: Spearman's rank correlation (``mean_rho``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sagesmith_algorithms.errors import DataError

__all__ = ["similarity"]

_SEPARATOR = re.compile(r"[\t,;]")


def similarity(pieces: Iterable[bytes], vector: Callable[[str], Any]) -> dict[str, Any]:
    """Return the correlation of the cosines of word pairs with people's scores, and how many pairs were found.

    Args:
        pieces: text of lines ``word, word, score`` (separated by TAB, comma or semicolon), as WordSim-353 has them; lines that
            begin with # and a header are left out.
        vector: the vector of a word, or None.

    Raises:
        DataError: a line is none of these.
    """
    from scipy.stats import spearmanr

    scores, cosines, n_pairs = [], [], 0
    for number, line in enumerate(b"".join(pieces).decode().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in _SEPARATOR.split(line)]
        try:
            score = float(cells[2])
        except (IndexError, ValueError):
            if number == 1:  # a header
                continue
            raise DataError(
                f"line {number} of the channel 'validation' is no pair of words with a score, such as tiger,cat,7.35"
            ) from None
        n_pairs += 1
        a, b = (
            next((v for v in (vector(word), vector(word.lower())) if v is not None), None)
            for word in cells[:2]
        )
        if a is None or b is None:
            continue
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        if length:
            scores.append(score)
            cosines.append(float(np.dot(a, b)) / length)
    varied = len(set(scores)) > 1 and len(set(cosines)) > 1
    rho = float(spearmanr(scores, cosines)[0]) if varied else 0.0
    return {"spearmans_rho": rho, "total_pairs": n_pairs, "not_found": n_pairs - len(scores)}
