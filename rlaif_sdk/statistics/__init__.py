"""What is measured on arrays of scores: groups, correlations, ranks, and estimates with how far off they may be."""
