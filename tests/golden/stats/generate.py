"""Writes estimates.json, the known answers of tests/statistics.rs. Run: python generate.py > estimates.json.

The interval is found here without Walsh ranks: a centre v is rejected from below if
scipy.stats.wilcoxon(d - v, alternative="greater", method="exact") has p <= alpha; the bounds are where
rejection stops. Centres tried lie between adjacent Walsh averages, where there are no zeros or ties.
"""

import json

import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20240611)


def walsh(d):
    i, j = np.triu_indices(len(d))
    return np.sort((d[i] + d[j]) / 2)


def bounds(d, alpha):
    w = walsh(d)
    centres = np.concatenate([[w[0] - 1], (w[:-1] + w[1:]) / 2, [w[-1] + 1]])

    def rejected(v, alternative):
        return stats.wilcoxon(d - v, alternative=alternative, method="exact").pvalue <= alpha

    low = 0  # number of centres rejected from below = rank of the lower bound
    while rejected(centres[low], "greater"):
        low += 1
    high = 0
    while rejected(centres[len(w) - high], "less"):
        high += 1
    assert low == high
    return None if low == 0 else [float(w[low - 1]), float(w[len(w) - low])]


def null_rank(n, alpha):
    """The largest k with P(T+ <= k-1) <= alpha, from SciPy's exact p-values of data with T+ = t."""
    k = 0
    while True:
        left, signs = k, -np.ones(n)  # positive ranks that sum to k, greedily
        for rank in range(n, 0, -1):
            if rank <= left:
                signs[rank - 1] = 1
                left -= rank
        assert left == 0
        if stats.wilcoxon(signs * np.arange(1, n + 1), alternative="less", method="exact").pvalue > alpha:
            return k
        k += 1


samples = [rng.normal(0.03, 0.02, n) for n in (4, 5, 6, 8, 11, 12, 20, 21, 33, 50)]
samples += [rng.standard_cauchy(12) * 0.02, np.exp(rng.normal(0, 2, 15)), rng.standard_t(2, 30)]
out = {
    "numpy": np.__version__,
    "scipy": scipy.__version__,
    "quantile": [
        {"values": v.tolist(), "p": p, "expected": float(np.quantile(v, p))}
        for v in (rng.normal(size=1), rng.normal(size=7), rng.exponential(size=20))
        for p in (0.0, 0.05, 0.25, 0.5, 0.9, 0.95, 1.0)
    ],
    "normal_quantile": [
        {"p": p, "expected": float(stats.norm.ppf(p))}
        for p in (
            1e-300,
            1e-100,
            1e-12,
            1e-6,
            0.001,
            0.005,
            0.01,
            0.025,
            0.05,
            0.074,
            0.0751,
            0.1,
            0.3,
            0.45,
            0.6,
            0.9,
            0.925,
            0.95,
            0.975,
            0.99,
            0.995,
            0.999,
            0.999999,
        )
    ],
    "signed_rank": [
        {
            "d": d.tolist(),
            "alpha": alpha,
            "hodges_lehmann": float(np.median(walsh(d))),
            "bounds": bounds(d, alpha),
        }
        for d in samples
        for alpha in (0.05, 0.01)
    ],
    "student_quantile": [
        {"p": p, "freedom": f, "expected": float(stats.t.ppf(p, f))}
        for p in (0.001, 0.05, 0.2, 0.6, 0.8, 0.95, 0.99, 0.999999)
        for f in (1.0, 2.0, 3.5, 4.0, 9.0, 30.0, 1000.0)
    ],
    "student_tail": [
        {"t": t, "freedom": f, "expected": float(stats.t.sf(t, f))}
        for t in (0.0, 0.1, 1.0, 2.5, 12.0)
        for f in (1.0, 4.0, 11.0, 200.0)
    ],
    "prediction": [
        {
            "history": h.tolist(),
            "new": 0.07,
            # stats.t with the scale of a new value about the mean of the old ones.
            "bounds": [
                float(x)
                for x in stats.t.interval(
                    0.90, len(h) - 1, 0.07 - h.mean(), h.std(ddof=1) * np.sqrt(1 + 1 / len(h))
                )
            ],
        }
        for h in (rng.normal(0.02, 0.01, n) for n in (2, 3, 8, 30))
    ],
    # Between launches: the half width of scipy.stats.t over the Hodges-Lehmann estimates of five launches.
    "between": [
        {
            "d": d.ravel().tolist(),
            "half": float(stats.t.ppf(0.95, 4) * stats.sem([np.median(walsh(u)) for u in d])),
        }
        for d in (rng.normal(0.05, 0.02, (5, 12)) + rng.normal(0, 0.02, (5, 1)) for _ in range(4))
    ],
    "benjamini_hochberg": [
        {
            "p": p.tolist(),
            "q": q,
            "rejected": [bool(x) for x in stats.false_discovery_control(p, method="bh") <= q],
        }
        for p in (rng.uniform(size=9) ** 3, rng.uniform(size=40) ** 2, rng.uniform(size=1) / 50)
        for q in (0.05, 0.1, 0.25)
    ],
    "null_rank": [{"n": n, "alpha": a, "rank": null_rank(n, a)} for n in (51, 60, 80) for a in (0.05, 0.01)],
}
print(json.dumps(out, indent=1))
