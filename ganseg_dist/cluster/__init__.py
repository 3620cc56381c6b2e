"""Ray: clusters, distributed training, trials and jobs."""
