"""Many runs that differ in a few fields: experiments, whose arms are fixed, and sweeps, which search."""
