"""As far as a how-to uses it."""
