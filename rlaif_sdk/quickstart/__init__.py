"""The main job on defaults that need no model hub. Nothing here loads torch until it runs."""
