"""``python -m rlaif_sdk`` is ``rlaif``."""

from rlaif_sdk.cli import main

if __name__ == "__main__":
    main()
