"""What `import rlaif_sdk` costs beside starting Python itself."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from _report import interleaved, save

STATEMENTS = {
    "Python alone": "pass",
    "import rlaif_sdk": "import rlaif_sdk",
    "from rlaif_sdk import Composer": "from rlaif_sdk import Composer",
    "a registry of the installed plugins": "from rlaif_sdk import Registry; Registry.default().rewards",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    def start(code: str) -> None:
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)

    seconds = interleaved(
        {name: lambda code=code: start(code) for name, code in STATEMENTS.items()}, repeats=options.repeats
    )
    results, lines = {}, []
    for name, own in seconds.items():
        median = statistics.median(own)
        more = statistics.median(a - b for a, b in zip(own, seconds["Python alone"], strict=True))
        results |= {f"{name} (ms)": 1e3 * median, f"{name} more than Python (ms)": 1e3 * more}
        lines.append(f"| {name} | {1e3 * median:.0f} | {1e3 * more:.0f} |")
    table = "\n".join(
        [
            f"A fresh interpreter, median of {options.repeats} interleaved rounds:",
            "",
            "| | ms | more than Python, ms |",
            "|---|---|---|",
            *lines,
        ]
    )
    save("import_time", results, table)


if __name__ == "__main__":
    main()
