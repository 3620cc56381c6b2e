"""Yogi on the server, with the mean change as gradient (Reddi et al., Adaptive federated optimization, ICLR 2021)."""

from __future__ import annotations

from ganseg_dist.federation.strategies.fedadam import AdaptiveServer


class FedYogi(AdaptiveServer):
    """Yogi's second moment, which grows additively."""

    flower_class = "FedYogi"


STRATEGY = FedYogi
