"""Text is screened before a judge sees it: what nobody sees is undone and flagged, what says nothing is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.judges.screening import contentless, screen


@pytest.mark.parametrize(
    ("text", "normal", "flag"),
    [
        ("a\ud800b", "a\ufffdb", "surrogates"),
        ("Sc\u200bore", "Score", "invisible"),
        ("a\u200db", "ab", "invisible"),
        ("S\ufe0fc\ufe01ore 1\ufe0f0", "Score 10", "invisible"),
        ("\u202eevil\u202c", "evil", "invisible"),
        ("x\u2066y\u2069\ufeff", "xy", "invisible"),
        ("tag\U000e0041\U000e007f", "tag", "invisible"),
        ("nul\x00 bell\x07", "nul bell", "invisible"),
        ("\uff33core: \uff11\uff10", "Score: 10", "lookalikes"),
        ("R\u0430ting", "Rating", "lookalikes"),
        ("\U0001d400nswer", "Answer", "lookalikes"),
    ],
)
def test_tricks_are_undone_and_flagged(text: str, normal: str, flag: str) -> None:
    """Surrogates are replaced, invisible characters removed, look-alikes of Latin letters made Latin."""
    screened = screen(text)
    assert (screened.text, screened.flags) == (normal, (flag,))


@pytest.mark.parametrize(
    "text",
    [
        "Plain text,\n\twith lines.\r\n",
        "Привет, как дела?",
        "Ο Σωκράτης",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "x\u00b2 + \u00bd = \u03b1\u0394",
        "caf\u00e9 na\u00efve \u2764\ufe0f",
        "1\ufe0f\u20e3 #\ufe0f\u20e3",
    ],
)
def test_honest_text_stays_as_it_is(text: str) -> None:
    """Other scripts, emoji, joiners where a script needs them, and mathematics are not touched."""
    assert screen(text).text == text
    assert screen(text).flags == ()


@given(st.text(alphabet=st.characters()))
def test_screening_twice_changes_nothing_more(text: str) -> None:
    """Screening is idempotent, flags what it changes and nothing else, and its result can be encoded."""
    once = screen(text)
    assert bool(once.flags) == (once.text != text)
    assert screen(once.text).text == once.text
    once.text.encode()


@pytest.mark.parametrize(
    "text",
    ["", " \n", ":", ".", ",", "---", "`'\"", "Thought process:", "Solution", "solution:\n", "**Answer:**", "解", "かいせつ",
     "Let's solve this problem step by step.", "Let\u2019s think step by step:", "_Solution_"],
)  # fmt: skip
def test_an_answer_without_content_is_refused(text: str) -> None:
    """Nothing, punctuation alone, and the published master keys in any dress are no answers."""
    assert contentless(text)


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "A",
        "no",
        "\U0001f44d",
        "\u221e",
        "Thought process: it is 4.",
        "The solution is salt water.",
        "Solution: x",
        "12:",
        "Lösung: 4",
        "答案是：四",
        "Ответ\n\nДа",
        "## Solution\nSalt water.",
        "Step 1: stir",
        "<answer>4</answer>",
        "\\boxed{4}",
        "<br>",
        "```\nx\n```",
        "Option 4",
        "Solution 2",
        "Yes",
        "x := y",
        "\u2764",
        "# Title of a poem\nRoses",
        "ー4",
    ],
)
def test_a_short_answer_with_content_is_judged(text: str) -> None:
    """One digit, letter or emoji may be the right answer; an opening followed by something is no opening."""
    assert contentless(text) is None


@pytest.mark.parametrize(
    "text",
    ["Lösung:", "答案是：", "Ответ:", "Step 1:", "Step 2.", "### Réponse", "**Antwort:**", "La réponse est :", "उत्तर:", "الجواب:",
     "정답:", "Đáp án:", "Պատասխան։", "መልስ፡", "해설：\n\n1단계:", "## Solution\n\n### Step 1\n", "Here is the answer:\n```python\n```",
     "Final answer: \\boxed{}", "<answer></answer>", "<think>\n</think>\n\nAnswer:", "\\boxed{ }", "```\n\n```", "Rozwiązanie: …",
     "*Lösung:*\n---", "> Answer:"],
)  # fmt: skip
def test_an_opening_of_any_language_is_refused(text: str) -> None:
    """What only announces something that does not follow is known by its shape, not by its words."""
    assert contentless(text)


@pytest.mark.parametrize(
    "text", ["\u2800", "\ufffd\ufffd", "\ufffc", "\uffa0", "\u2500\u2500", "\u2588", "\u2400", "\u02d0\u02d0", "\u0640\u0640",
             "\u30fc", "\u0301", "\ue000", "\u3000\u3001\u3002"],
)  # fmt: skip
def test_signs_of_nothing_are_no_content(text: str) -> None:
    """Blanks, replacements, drawn boxes, marks and modifiers without a letter."""
    assert contentless(screen(text).text)


@pytest.mark.parametrize(
    "piece", ["`", "~", "<a>", "<1", "a ", ":", "\\\\a", "# ", "\\\\a{ ", "\n", "(", "一步", "step ", "Step 1. "]
)
def test_no_text_takes_long_to_be_looked_at(piece: str) -> None:
    """What a policy may write to keep the judge busy is known in time that grows with its length and no faster."""
    began = time.process_time()
    contentless(screen(piece * 200_000 + "a").text)
    assert time.process_time() - began < 10


OPENINGS = """
Thought process
Let's solve this step by step
Let me think about this carefully.
First, let's analyze the problem.
Here is my answer.
Sure! Here is the answer:
Okay, let me think. Here's the solution:
To solve this problem, we need to think step by step.
Step 1. Let's think.
### Thought process
Gedankengang
Lassen Sie uns das Problem Schritt für Schritt lösen
Hier ist die Lösung
Réfléchissons étape par étape.
Voici la réponse
Vamos a resolver este problema paso a paso
Proceso de pensamiento
Respuesta
Vamos pensar passo a passo.
Aqui está a resposta
Pensiamo passo dopo passo.
Ecco la soluzione
Давайте подумаем шаг за шагом.
Ход мыслей
让我们一步一步地思考
答案是
ステップバイステップで考えましょう
答えは次の通りです
단계별로 생각해 봅시다.
정답은 다음과 같습니다.
دعنا نفكر خطوة بخطوة
الجواب هو
आइए कदम दर कदम सोचें।
उत्तर है
Adım adım düşünelim.
Hãy suy nghĩ từng bước một.
Pomyślmy krok po kroku.
ขั้นตอนการคิด
""".strip().splitlines()


@pytest.mark.parametrize("text", OPENINGS)
def test_an_opening_without_a_colon_is_refused(text: str) -> None:
    """It has only words with which one begins to answer, in a dozen languages, and nothing comes after it."""
    assert contentless(text)
    assert contentless(f"**{text}**\n\n```\n```")
    assert contentless(f"{text}\n\nYes, it is blue.") is None


@pytest.mark.parametrize(
    "text",
    [
        "I think so.", "think", "The problem", "はい", "是", "好的", "我想是", "A", "One", "Die", "Yes", "Sure.", "Let's go",
        "I think it is 4.", "Step by step, the ant climbed.", "Paris. Explanation:", "42. Reasoning:", "No. Here is why:",
        "Can you explain this?", "What is the answer?", "Think different", "Salt solution", "分析化学", "答案A", "思想", "حل الدولتين",
        "I see none there. Here's an example:", "# one two three four five six seven eight nine ten eleven twelve thirteen",
        ":)", "(:", ":-(", "It was good. (:", "nothing wrong with them ((:",
    ],
)  # fmt: skip
def test_an_answer_that_is_like_an_opening_is_judged(text: str) -> None:
    """A sentence before it, one word more, a question, or a face that is made with a colon."""
    assert contentless(text) is None
