"""Fails to import."""

raise RuntimeError("this plugin is broken on purpose")
