"""The published strategies: one module each, named as `federation.strategy` names it, with its class as STRATEGY."""
