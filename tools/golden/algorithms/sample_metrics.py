"""Writes sample_metrics: pass@k by exact fractions, majority@k by enumerating every subset of the answers.

    python tools/golden/algorithms/sample_metrics.py
"""

import itertools
import random
from collections import Counter
from fractions import Fraction
from math import comb

from golden_file import write

SEED = 7
random.seed(SEED)


def pass_cases():
    sizes = [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 2), (5, 2, 4), (8, 3, 8), (10, 0, 3), (64, 7, 16), (1000, 3, 200), (1000, 990, 11)]
    return [
        {"samples": n, "correct": c, "k": k, "expected": float(1 - Fraction(comb(n - c, k), comb(n, k)))}
        for n, c, k in sizes
    ]


def majority(answers, reference, k):
    total, won = 0, Fraction(0)
    for chosen in itertools.combinations(answers, k):
        votes = Counter(chosen)
        most = max(votes.values())
        winners = [answer for answer, count in votes.items() if count == most]
        total += 1
        if reference in winners:
            won += Fraction(1, len(winners))
    return float(won / total)


def majority_cases():
    pools = [list("aab"), list("abc"), list("aabbc"), list("aaabbbccd"), list("abcdefgh"), list("bbbbbb"), list("aaaaaa")]
    pools += [random.choices("abcdef", weights=[4, 3, 2, 2, 1, 1], k=13) for _ in range(4)]
    return [
        {"answers": pool, "reference": "a", "k": k, "expected": majority(pool, "a", k)}
        for pool in pools
        for k in range(1, len(pool) + 1)
    ]


write("sample_metrics.json", "sample_metrics.py", SEED, [{"passAtK": pass_cases(), "majorityAtK": majority_cases()}])
