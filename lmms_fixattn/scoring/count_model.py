"""A second way to see what brevity explains: hallucinated objects against words, in a count model.

Of caption j of image i, y is how many objects it hallucinates, each counted once, w its words between blanks (at least
1) and m 1 for a run's caption and 0 for its baseline's:

    y ~ Poisson(mu),    log mu = a + b log w + c m

exp(c) is the rate ratio: how many objects the run hallucinates for one of the baseline's, in captions of equal length.
b is estimated from both, so nothing says that twice the words bring twice the hallucinations. The errors are clustered
by image, of which both runs have a caption, and robust to counts that vary more than a Poisson's do.

It decides nothing. Words need not bring objects: a caption that repeats itself is long, and its rate falls though it
hallucinates what it did before. And b is mostly told by which images have long captions, where hallucinations grow
faster than along a caption: brevity alone lies above 1.
"""

from __future__ import annotations

import warnings

import numpy as np

from lmms_fixattn.scoring.bootstrap import LEVEL, NO_INTERVAL, Floats, Interval

_BEYOND_ESTIMATE = np.log(1e6)


def rate_ratio(run: tuple[Floats, Floats], baseline: tuple[Floats, Floats]) -> Interval:
    """Return the rate ratio of a run to its baseline, with its 95% interval; 1 is no difference.

    run, baseline: (hallucinated objects, words) of the captions of the same images in the same order, each [n].
    NO_INTERVAL where it cannot be estimated: of one image alone, where one of the runs hallucinates nothing, where
    length and run are the same variable, and where the interval spans more than a factor of a million.
    """
    from statsmodels.genmod.families import Poisson
    from statsmodels.genmod.generalized_linear_model import GLM

    n = len(run[0])
    counts = np.concatenate([run[0], baseline[0]])
    words = np.log(np.maximum(np.concatenate([run[1], baseline[1]]), 1.0))
    is_run = np.repeat([1.0, 0.0], n)
    columns = [np.ones(2 * n), is_run, *([words] if np.ptp(words) > 0 else [])]
    design = np.stack(columns, axis=1)
    if n < 2 or not run[0].any() or not baseline[0].any() or np.linalg.matrix_rank(design) < len(columns):
        return NO_INTERVAL
    images = np.tile(np.arange(n), 2)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Of a few captions the likelihood may have no maximum. statsmodels warns; the estimate is then without bound.
        warnings.simplefilter("ignore")
        fitted = GLM(counts, design, family=Poisson()).fit(cov_type="cluster", cov_kwds={"groups": images})
        logs = np.array([fitted.params[1], *fitted.conf_int(alpha=1 - LEVEL)[1]])
    if not (np.abs(logs) < _BEYOND_ESTIMATE).all():
        return NO_INTERVAL
    return Interval(*map(float, np.exp(logs)))
