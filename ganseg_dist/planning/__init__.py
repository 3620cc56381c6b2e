"""The steps before training: the checked cohort, the resolved config, the split, the prepared cases."""
