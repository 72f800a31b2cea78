"""Fit the weights of the word evidence on summaries of news, and measure them on articles that were left out.

    python evaluation/news.py fit CLIFF_error_types.csv hallucination_annotations_xsum_summaries.csv
    python evaluation/news.py measure CLIFF_error_types.csv hallucination_annotations_xsum_summaries.csv
    python evaluation/news.py qags mturk_cnndm.jsonl
    python evaluation/news.py qags mturk_xsum.jsonl

Data, none of it in this package:

- CLIFF (Cao and Wang 2021, Apache-2.0): 600 summaries of 300 articles of CNN/DailyMail and XSum by BART and Pegasus,
  with the spans that people found unsupported, in the file that AggreFact (Tang et al. 2023) keeps with its articles,
  https://github.com/Liyan06/AggreFact, `data/error_type_mapping/CLIFF_error_types.csv`.
- XSum hallucination annotations (Maynez et al. 2020, CC BY 4.0), the summaries of those articles:
  https://github.com/google-research-datasets/xsum_hallucination_annotations.
- QAGS (Wang et al. 2020), 474 summaries of other systems, every sentence judged by three people, of which nothing was
  fitted or chosen: `data/` of https://github.com/W4ngatang/qags, which names no licence for it.

Cases are made of the same articles, see `made_cases.py`. `development` articles give the weights, `held-out` ones the
figures. Intervals are 95%, by resampling articles.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from made_cases import ERRORS, HALVES, Case, half_of, made_cases
from numpy.typing import NDArray
from truthfulqa import auc

from rlaif_factuality import FactualityParams, rlaif_rewards
from rlaif_factuality.claims import find_claims
from rlaif_factuality.evidence import Evidence, find_evidence, measure
from rlaif_factuality.sentences import split_sentences
from rlaif_factuality.source import Source
from rlaif_sdk import RewardBatch

HUMAN = ("CLIFF, CNN/DailyMail", "CLIFF, XSum", "Maynez, XSum")
EQUAL = 2.5
RIDGE = 200.0
RESAMPLES = 1000


def load_articles(cliff: Path) -> dict[str, str]:
    """The articles by id."""
    return {row["id"]: row["doc"] for row in _rows(cliff)}


def cliff_cases(cliff: Path) -> Iterator[Case]:
    """Whole summaries; one with any unsupported span is unsupported."""
    for row in _rows(cliff):
        kind = HUMAN[0] if row["origin"] == "cnndm" else HUMAN[1]
        yield Case(kind, row["id"], row["doc"], row["summ"], row["error_type"] == "correct")


def cliff_sentences(cliff: Path) -> Iterator[Case]:
    """Sentences of the summaries; one with an unsupported span in it is unsupported."""
    for row in _rows(cliff):
        sentences = split_sentences(row["summ"])
        spans = (
            [] if row["error_type"] == "correct" else [_plain(span) for span in ast.literal_eval(row["annotated_span"])]
        )
        marked = [any(span in _plain(sentence) for span in spans) for sentence in sentences]
        if spans and not any(marked):
            continue  # a span over several sentences
        kind = HUMAN[0] if row["origin"] == "cnndm" else HUMAN[1]
        for sentence, is_marked in zip(sentences, marked, strict=True):
            yield Case(kind, row["id"], row["doc"], sentence, not is_marked)


def maynez_cases(path: Path, articles: dict[str, str]) -> Iterator[Case]:
    """Summaries of one sentence; unsupported where two of three people marked a span."""
    marked: dict[tuple[str, str], set[str]] = {}
    for row in _rows(path):
        people = marked.setdefault((row["bbcid"], row["summary"]), set())
        if row["hallucination_type"] != "NULL":
            people.add(row["worker_id"])
    for (document, summary), people in marked.items():
        if document in articles:
            yield Case(HUMAN[2], document, articles[document], summary, len(people) < 2)


def qags_cases(path: Path) -> Iterator[Case]:
    """Whole summaries; supported where most of the people who judged it say so of every sentence."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            sentences = row["summary_sentences"]
            supported = all(
                sum(answer["response"] == "yes" for answer in sentence["responses"]) * 2 > len(sentence["responses"])
                for sentence in sentences
            )
            yield Case("QAGS", str(number), row["article"], " ".join(item["sentence"] for item in sentences), supported)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _plain(text: str) -> str:
    return "".join(re.findall(r"\w+", text.casefold()))


def fit(cases: Sequence[Case]) -> tuple[float, NDArray[np.float64]]:
    """Bias and weights of a logistic regression, by Newton's method; kinds of cases and labels are balanced.

    The ridge draws the weights to equal ones (`EQUAL`, with the sign that a measure ought to have) and not to zero: a
    few hundred labels tell how well measures do together, and hardly which of several that go together deserves it.
    Made cases whose error is found by itself (`roles`, `name`, `number`, `negation`) would teach nothing.
    """
    rows, labels, kinds = [], [], []
    sources: dict[str, Source] = {}
    for case in cases:
        source = sources.setdefault(case.source, Source((case.source,)))
        for claim in find_claims(case.text, source):
            finding = find_evidence(claim)
            if case.kind not in HUMAN and (finding.missing or finding.exchanged or finding.negated or finding.replaced):
                continue
            rows.append(astuple(measure(claim, source, finding.missing)))
            labels.append(case.supported)
            kinds.append(case.kind if case.kind in HUMAN else "made")
    features_NF, labels_N = np.asarray(rows), np.asarray(labels, dtype=float)
    groups = Counter(zip(kinds, labels, strict=True))
    weights_N = np.asarray(
        [len(rows) / (2 * len(HUMAN) * groups[kind, label]) for kind, label in zip(kinds, labels, strict=True)]
    )
    design_NF = np.column_stack([np.ones(len(rows)), features_NF])
    start_F = np.asarray([0.0, *(-EQUAL if name.startswith("new") else EQUAL for name in Evidence.__slots__)])
    ridge_FF = RIDGE * np.diag((start_F != 0.0).astype(float))
    beta_F = np.zeros_like(start_F)
    for _ in range(30):
        support_N = 1 / (1 + np.exp(-design_NF @ beta_F))
        gradient_F = design_NF.T @ (weights_N * (labels_N - support_N)) - ridge_FF @ (beta_F - start_F)
        curvature_FF = (design_NF * (weights_N * support_N * (1 - support_N))[:, None]).T @ design_NF + ridge_FF
        beta_F += np.linalg.solve(curvature_FF, gradient_F)
    return float(beta_F[0]), beta_F[1:]


def factuality(cases: Sequence[Case]) -> list[float]:
    """The reward, as a user would call it; an abstention counts as 0."""
    reward = next(iter(rlaif_rewards())).build(FactualityParams())
    batch = RewardBatch(
        prompts=["Summarize the article."] * len(cases),
        completions=[case.text for case in cases],
        columns={"reference": [case.source for case in cases]},
    )
    return [score.value or 0.0 for score in reward.score(batch)]


def trigram_overlap(cases: Sequence[Case]) -> list[float]:
    """The baseline: the share of the text's runs of three words that the source has."""
    return [_overlap(_grams(case.text), _grams(case.source)) for case in cases]


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return set(zip(words, words[1:], words[2:], strict=False)) or set(zip(words, strict=True))


def _overlap(text: set[tuple[str, ...]], source: set[tuple[str, ...]]) -> float:
    return len(text & source) / max(1, len(text))


def interval(cases: Sequence[Case], scores: Sequence[float]) -> str:
    """AUC of supported against unsupported, with its 95% interval."""
    documents: dict[str, tuple[list[float], list[float]]] = {}
    for case, score in zip(cases, scores, strict=True):
        documents.setdefault(case.document, ([], []))[case.supported].append(score)
    groups = list(documents.values())

    def pooled(chosen: Sequence[int]) -> float:
        wrong, right = (np.asarray([score for index in chosen for score in groups[index][side]]) for side in (0, 1))
        return auc(right, wrong) if len(right) and len(wrong) else np.nan

    rng = np.random.default_rng(0)
    drawn = [pooled(rng.integers(0, len(groups), len(groups)).tolist()) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{pooled(range(len(groups))):.3f} [{low:.3f}, {high:.3f}]"


def print_judged(kind: str, cases: Sequence[Case], scores: Mapping[Case, float]) -> None:
    """One line: how well the scores tell what people found supported."""
    wrong = sum(not case.supported for case in cases)
    found = interval(cases, [scores[case] for case in cases])
    print(f"  {kind:22} AUC {found}  n={len(cases)}, {wrong} unsupported")


def report(cases: Sequence[Case], scorers: dict[str, Callable[[Sequence[Case]], list[float]]]) -> None:
    """Print the figures of people's labels, then of made errors against copied and shortened sentences."""
    for name, scorer in scorers.items():
        scores = dict(zip(cases, scorer(cases), strict=True))
        print(name)
        for kind in HUMAN:
            print_judged(kind, [case for case in cases if case.kind == kind], scores)
        right = [case for case in cases if case.kind in ("copied", "shortened")]
        print(
            f"  {'copied, shortened':22} {np.mean([scores[case] >= 0.5 for case in right]):.3f} above the threshold, n={len(right)}"
        )
        for kind in ERRORS:
            wrong_cases = [case for case in cases if case.kind == kind]
            chosen = right + wrong_cases
            found = np.mean([scores[case] < 0.5 for case in wrong_cases])
            print(
                f"  {kind:22} AUC {interval(chosen, [scores[case] for case in chosen])}  "
                f"{found:.3f} below the threshold, n={len(wrong_cases)}"
            )


def main() -> None:
    """Print weights, or figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fit", "measure"):
        command = commands.add_parser(name)
        command.add_argument("cliff", type=Path, help="CLIFF_error_types.csv")
        command.add_argument("maynez", type=Path, help="hallucination_annotations_xsum_summaries.csv")
        command.add_argument(
            "--half", choices=HALVES, help="of the articles; by default development to fit, else held-out"
        )
    commands.add_parser("qags").add_argument("summaries", type=Path, help="mturk_cnndm.jsonl or mturk_xsum.jsonl")
    arguments = parser.parse_args()
    scorers = {"trigram overlap": trigram_overlap, "factuality": factuality}
    if arguments.command == "qags":
        cases = list(qags_cases(arguments.summaries))
        for name, scorer in scorers.items():
            print_judged(name, cases, dict(zip(cases, scorer(cases), strict=True)))
        return
    fits = arguments.command == "fit"
    half = arguments.half or HALVES[not fits]
    articles = load_articles(arguments.cliff)
    human = cliff_sentences(arguments.cliff) if fits else cliff_cases(arguments.cliff)
    cases = [*human, *maynez_cases(arguments.maynez, articles), *made_cases(articles)]
    cases = [case for case in cases if half_of(case.document) == half]
    if fits:
        bias, weights = fit(cases)
        print(f"BIAS = {bias:.2f}\nWEIGHTS = Evidence(")
        for name, weight in zip(Evidence.__slots__, weights, strict=True):
            print(f"    {name}={weight:.2f},")
        print(")")
        return
    start = time.process_time()
    factuality(cases)
    elapsed = time.process_time() - start
    sentences = sum(len(split_sentences(case.text)) for case in cases)
    print(
        f"{half}: {len(cases)} texts, {sentences} sentences, {sentences / elapsed:,.0f} a second, sources read as well"
    )
    report(cases, scorers)


if __name__ == "__main__":
    main()
