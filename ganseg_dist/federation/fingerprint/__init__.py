"""A federation's fingerprint of its data, the distributions that sites disclose before the first round.

An optional component, which nothing else in the federation depends on. A site's end measures (`measure`) histograms
over fixed bins (`histograms`), reduces them to what may leave it (`disclosure`) and releases them once (`record`). The
server's end compares the sites' histograms (`differences`) and writes what the report reads (`record`).
"""

from ganseg_dist.config import RunConfig
from ganseg_dist.federation.privacy import withholds_scores


def is_exchanged(config: RunConfig) -> bool:
    """Whether sites disclose a fingerprint; both ends use this."""
    return config.federation.fingerprint and not withholds_scores(config)
