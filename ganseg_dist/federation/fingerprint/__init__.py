"""A federation's fingerprint of its data: what sites disclose of their distribution before the first round.

Optional: `federation.fingerprint` switches it on, and no other module of the federation depends on it. A site measures
(`measure`) histograms over fixed bins (`histograms`) and reduces them to what may leave it (`disclosure`); the server
and the report compare the sites' histograms (`differences`).
"""
