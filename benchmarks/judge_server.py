"""A slow judge behind a loopback server, asked by the composer, by TRL's own reward loop and by hand."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _judge import judge, judge_server
from _report import interleaved, save
from _rewards import text_batch
from _trl_loop import trl_rewards

from rlaif_sdk import Composer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the server takes for a request")
    parser.add_argument("--at-once", type=int, default=64, help="requests that are allowed at once")
    parser.add_argument("--blocking", type=float, default=0.5, help="seconds of a blocking reward beside the judge")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    batch = text_batch(options.rows)
    ideal = options.latency * -(-options.rows // options.at_once)

    def model(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        time.sleep(options.blocking)  # a local model, say, that holds its thread and not the interpreter
        return [1.0] * len(completions)

    with judge_server(options.latency) as port:
        ask = judge(port, options.at_once)
        alone, beside = {"judge": ask}, {"judge": ask, "model": model}
        trl_alone = trl_rewards(alone, dict.fromkeys(alone, 1.0))
        trl_beside = trl_rewards(beside, dict.fromkeys(beside, 1.0))
        with Composer(alone) as composer, Composer(beside) as both:
            expected = asyncio.run(ask(batch.prompts, batch.completions))
            assert composer.compose(batch).to_list() == expected
            assert [round(total, 4) for total in trl_alone(batch)] == [round(total, 4) for total in expected]
            seconds = interleaved(
                {
                    "judge, by hand": lambda: asyncio.run(ask(batch.prompts, batch.completions)),
                    "judge, composer": lambda: composer.compose(batch),
                    "judge, TRL's loop": lambda: trl_alone(batch),
                    "judge and a blocking reward, composer": lambda: both.compose(batch),
                    "judge and a blocking reward, TRL's loop": lambda: trl_beside(batch),
                },
                repeats=options.repeats,
            )
    results, lines = {"ideal (s)": ideal}, []
    for name, own in seconds.items():
        median = statistics.median(own)
        results |= {f"{name} (s)": median, f"{name} over ideal": median / ideal}
        lines.append(f"| {name} | {median:.3f} | {median / ideal:.3f} |")
    table = "\n".join(
        [
            (
                f"{options.rows} completions, a judge of {1e3 * options.latency:.0f} ms, {options.at_once} requests at once "
                f"(ideal {ideal:.2f} s), a blocking reward of {options.blocking} s; medians of {options.repeats} rounds:"
            ),
            "",
            "| | s | over ideal |",
            "|---|---|---|",
            *lines,
        ]
    )
    save("judge_server", results, table)


if __name__ == "__main__":
    main()
