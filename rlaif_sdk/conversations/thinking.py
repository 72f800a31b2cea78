"""Where a policy's thinking stands within its text.

Known are tags (``<think>``, ``<thinking>``, ``<thought>``, ``<reasoning>``, ``[THINK]``, ``◁think▷``,
``<|START_THINKING|>``, ``<|begin_of_thought|>``), closed or not, and Harmony's channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

_ANGLED = (  # what stands after a <
    r"(?:(/?)((?i:think|thinking|thought|reasoning|seed:think))\s*>"
    r"|\|(?:START|(END))_(THINKING)\|>"
    r"|\|(?:begin|(end))_of_(thought)\|>)"
)
_ANGLED_TAGS = re.compile(rf"<(?<!`.){_ANGLED}")
"""For text without other tags: a pattern that begins with one character is found faster than one that may with three."""
_TAGS = re.compile(rf"[<\[◁](?<!`.)(?:(?<=<){_ANGLED}|(?<=\[)(/?)(THINK)\]|(?<=◁)(/?)(think)▷)")
"""Of both, the last group of a match is the tag's name, and the one before it says whether the tag closes."""
_CODE = re.compile(r"^[ \t]*```[^\n`]*\n(?:(?![ \t]*```)[^\n]*\n)*[ \t]*```[ \t]*$", re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
"""What stands around the answer where ``<|begin_of_thought|>`` stands before the thinking."""
_SEGMENT = re.compile(
    r"(?:<\|start\|>[^<]*)?<\|channel\|>\s*(?P<channel>\w*)(?P<recipient>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<body>.*?)(?:<\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
_BARE_FINAL = "assistantfinal"
"""What is left of Harmony's header of the last channel when a tokenizer takes its special tokens out."""


def split_thinking(text: str) -> tuple[str, str]:
    """What is said and what is thought in a policy's text.

    Thinking begins at an opening tag and ends at the first closing tag of that name, or at the end of the text. Before
    a closing tag that nothing opened, all is thinking: the opening tag stood in the chat template. A tag right after a
    backtick, and one in code, is a word about tags, unless it closes thinking. Text without thinking is returned as
    it is; where thinking is taken out, the white space around it goes too.

    Returns:
        The words said, and the words thought; parts of either are separated by blank lines.
    """
    found = _stretches(text)
    return (text, "") if found is None else (_joined(text, found[0]), _joined(text, found[1]))


def said_stretches(text: str) -> list[tuple[int, int]]:
    """Where in a policy's text the words stand that `split_thinking` gives as said, between its blank lines."""
    found = _stretches(text)
    return [(0, len(text))] if found is None else found[0]


_Stretches: TypeAlias = list[tuple[int, int]]


def _stretches(text: str) -> tuple[_Stretches, _Stretches] | None:
    """Where a text is said, and where thought, without the white space around it; None for text without thinking."""
    if "<" not in text and "[" not in text and "◁" not in text:
        return _bare_stretches(text)
    if "<|channel|>" in text:
        return _channel_stretches(text)
    if not _names_thinking(text):
        return _bare_stretches(text)
    said: _Stretches = []
    thought: _Stretches = []
    within: str | None = None
    start = 0
    code = _code(text) if "`" in text else []
    tags = _TAGS if "THINK]" in text or "◁" in text else _ANGLED_TAGS
    for match in tags.finditer(text):
        group = match.lastindex or 0
        tag, closes = match[group].lower(), bool(match[group - 1])
        if within is None and any(begin < match.start() < end for begin, end in code):
            continue
        if within is None:
            (thought if closes else said).append((start, match.start()))
            within = None if closes else tag
        elif closes and tag == within:
            thought.append((start, match.start()))
            within = None
        else:
            continue
        start = match.end()
    if start == 0:
        return _bare_stretches(text)
    (said if within is None else thought).append((start, len(text)))
    if "_of_thought|>" in text:
        said = [part for stretch in said for part in _without_solution_tags(text, *stretch)]
    return _stripped(text, said), _stripped(text, thought)


def after_thinking(text: str) -> str:
    """What a model says after it has thought, as a judge does that thinks first.

    A tag that opens after the first words is one of them, unlike in `split_thinking`: a judge may quote it.
    """
    if "<|channel|>" in text or (text.startswith("analysis") and _BARE_FINAL in text):
        return split_thinking(text)[0].strip()
    within: str | None = None
    for match in _TAGS.finditer(text):
        group = match.lastindex or 0
        tag, closes = match[group].lower(), bool(match[group - 1])
        if closes and within in (None, tag):
            return _SOLUTION.sub("", text[match.end() :]).strip()
        if within is None:
            if text[: match.start()].strip():
                break
            within = tag
    return text.strip() if within is None else ""


def _code(text: str) -> list[tuple[int, int]]:
    """Where code stands in a text: blocks, and what is between two backticks and does not begin with a closing tag."""
    blocks = [found.span() for found in _CODE.finditer(text)]
    inline = [found.span() for found in _INLINE_CODE.finditer(text)]
    return blocks + [(begin, end) for begin, end in inline if not _closes_first(text, begin, end)]


def _closes_first(text: str, begin: int, end: int) -> bool:
    """Whether the first tag between two backticks closes, so that the one before it may stand in thinking."""
    found = _TAGS.search(text[begin + 1 : end])
    return found is not None and bool(found[(found.lastindex or 0) - 1])


def _names_thinking(text: str) -> bool:
    """Whether the name of a tag stands in the text, which costs far less to see than to look for tags."""
    lowered = text.lower()
    return "think" in lowered or "thought" in lowered or "reasoning" in lowered


def _bare_stretches(text: str) -> tuple[_Stretches, _Stretches] | None:
    if text.startswith("analysis") and _BARE_FINAL in text:
        final = text.index(_BARE_FINAL)
        said, thought = (final + len(_BARE_FINAL), len(text)), (len("analysis"), final)
        return _stripped(text, [said]), _stripped(text, [thought])
    return None


def _channel_stretches(text: str) -> tuple[_Stretches, _Stretches]:
    said: _Stretches = []
    thought: _Stretches = []
    start = 0
    for match in _SEGMENT.finditer(text):
        said.append((start, match.start()))
        if match["channel"].lower() == "analysis":
            thought.append(match.span("body"))
        elif "to=" not in match["recipient"]:  # what is addressed to a tool is neither said nor thought
            said.append(match.span("body"))
        start = match.end()
    said.append((start, len(text)))
    return _stripped(text, said), _stripped(text, thought)


def _without_solution_tags(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _SOLUTION.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _stripped(text: str, stretches: _Stretches) -> _Stretches:
    """Without the white space around each, and those that are nothing else."""
    found = []
    for start, end in stretches:
        words = text[start:end]
        if stripped := words.strip():
            begin = start + words.index(stripped[0])
            found.append((begin, begin + len(stripped)))
    return found


def _joined(text: str, stretches: _Stretches) -> str:
    return "\n\n".join(text[start:end] for start, end in stretches)
