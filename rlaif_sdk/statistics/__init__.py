"""Arrays of scores, and what is measured on them: sums over groups, correlations, ranks."""
