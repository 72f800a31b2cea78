"""Makes the pictures of the pages, from the pages' own examples; `nox -s pictures` runs it.

A terminal is drawn by rich; web pages are opened in this machine's Chromium.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from rlaif_sdk.preferences.review import ReviewStore
from tests.docs.markdown_blocks import blocks

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1100, 600
PAIRS = [
    {
        "prompt": "My plant's leaves turn yellow. What should I do?",
        "chosen": "Let the soil dry between waterings. Yellow leaves mostly come from too much water; if the soil is dry "
        "already, move the pot to more light.",
        "rejected": "Yellow leaves can have many causes. Plants need water, light, air, soil and care, and it is important "
        "to look after all of them. Consult an expert if in doubt.",
        "chosen_prob": 0.58,
        "chosen_response": 2,
        "prob_1": 0.42,
        "flipped": True,
        "tie": False,
        "rationales": ["Both are polite. Response 2 names the likeliest cause and says how to tell it from another."],
        "judge": "Qwen/Qwen3-4B-Instruct-2507",
    },
    {
        "prompt": "How long do I boil an egg?",
        "chosen": "Seven minutes for a soft yolk, ten for a hard one.",
        "rejected": "It depends.",
        "chosen_prob": 0.97,
        "chosen_response": 1,
        "prob_1": 0.97,
        "flipped": False,
        "tie": False,
        "rationales": [],
        "judge": "Qwen/Qwen3-4B-Instruct-2507",
    },
]


def draw_explanation() -> None:
    """What the example of the README prints of its second row."""
    example = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example.code, "README.md", "exec"), names)  # noqa: S102 - the project's own page
    console = Console(record=True, width=112, file=io.StringIO())
    console.print("[bold]>>>[/bold] print(composition.explain(1))")
    console.print(names["composition"].explain(1))
    drawn = console.export_svg(title="Lyon, you idiot.")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # a page may load no font from elsewhere
    (PICTURES / "explain.svg").write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE), encoding="utf-8")


def shoot_report(page: Page, folder: Path) -> None:
    """The report of the run on the page about rewards that are hacked."""
    code = []
    for block in blocks(ROOT / "docs" / "howto" / "diagnose-rewards.md"):
        if block.file:
            (folder / block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            code.append(block.code)
    command = [
        sys.executable,
        "-m",
        "rlaif_sdk",
        "report",
        "run",
        "--config",
        "rewards.yaml",
        "--output",
        "report.html",
    ]
    subprocess.run([sys.executable, "-c", code[0]], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    page.goto((folder / "report.html").as_uri())
    page.wait_for_timeout(1500)  # the plots draw themselves
    shoot(page, "report")


def draw_plot(page: str, name: str, *command: str) -> None:
    """The plot that a command draws of what the examples of a page write.

    Args:
        page: The how-to.
        name: The picture's.
        command: What rlaif is asked to do.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, code = Path(place), []
        for block in blocks(ROOT / "docs" / "howto" / page):
            if block.file:
                (folder / block.file).write_text(block.code, encoding="utf-8")
            elif block.language == "python":
                code.append(block.code)
        rlaif = [sys.executable, "-m", "rlaif_sdk", *command, "--plot", "plot.png"]
        subprocess.run([sys.executable, "-c", code[0]], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(rlaif, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with Image.open(folder / "plot.png") as picture:
            picture.convert("RGB").quantize(64).save(PICTURES / f"{name}.png", optimize=True)


def draw_alarm() -> None:
    """What people think of simulated policies whose judge is fooled, step by step, from the benchmark's results."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    results = json.loads((ROOT / "benchmarks" / "results" / "alarm_hacks.json").read_text(encoding="utf-8"))
    hacks = {name: found for name, found in results.items() if name != "machine"}
    figure, axes = plt.subplots(1, len(hacks), figsize=(2.6 * len(hacks), 2.8), sharey=True, layout="constrained")
    for place, (axis, (name, found)) in enumerate(zip(axes, hacks.items(), strict=True)):
        for side, label, style in (
            ("clean", "no hack", ":"),
            ("none", "no alarm", "--"),
            ("alarm", "with the action", "-"),
        ):
            axis.plot(found["curves"][side], style, label=label, linewidth=1.2)
        if found["alarm of curve"] is not None:
            axis.axvline(found["alarm of curve"], color="0.5", linewidth=0.8)
        axis.set_title("\n".join(textwrap.wrap(name, 24)), fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        if place == 0:
            axis.set_ylabel("what people think", fontsize=8)
            axis.legend(fontsize=7, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(64).save(PICTURES / "alarm.png", optimize=True)


def shoot_review(page: Page, folder: Path) -> None:
    """The review page with a pair that the judge is unsure of."""
    (folder / "labels.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    store = ReviewStore(folder / "review.sqlite", audit=0)
    store.add([folder / "labels.jsonl"])
    with serving(store) as address:
        page.goto(address)
        page.fill("#name", "Ana")
        page.keyboard.press("Enter")
        page.wait_for_selector("#pair:not([hidden])")
        shoot(page, "review")
    store.close()


@contextlib.contextmanager
def serving(store: ReviewStore) -> Iterator[str]:
    """The address at which a review is served."""
    import uvicorn

    from rlaif_sdk.preferences.review.app import create_app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(store, token=store.token()), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/#token={store.token()}"
        server.should_exit = True
        thread.join()


def shoot(page: Page, name: str) -> None:
    """The window, in 64 colours, which are enough for text and plots."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(64).save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    """Makes all pictures."""
    PICTURES.mkdir(exist_ok=True)
    draw_explanation()
    draw_plot("fit-a-composition.md", "fit", "fit", "pairs.jsonl", "rewards.yaml")
    draw_plot("attack-rewards.md", "attack", "attack", "rewards", "answers.jsonl", "rewards.yaml", "--witness", "right")
    draw_alarm()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("the report and the review page are not pictured: there is no Chromium")
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        running = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = running.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        shoot_report(page, Path(folder))
        shoot_review(page, Path(folder))
        running.close()
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.relative_to(ROOT)}  {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
