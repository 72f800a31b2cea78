"""Numbers that are told with how far off they may be: shares, means, agreement, ranks."""
