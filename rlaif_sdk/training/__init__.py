"""Training language models from composed rewards. Nothing here loads torch until a trainer is asked for."""
