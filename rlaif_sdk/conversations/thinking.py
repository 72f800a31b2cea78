"""Where a policy's thinking stands within its text.

Known are tags (``<think>``, ``<thinking>``, ``<thought>``, ``<reasoning>``, ``[THINK]``, ``◁think▷``,
``<|START_THINKING|>``, ``<|begin_of_thought|>``), closed or not, and Harmony's channels.
"""

from __future__ import annotations

import re

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
    if "<" not in text and "[" not in text and "◁" not in text:
        return _split_bare(text)
    if "<|channel|>" in text:
        return _split_channels(text)
    if not _names_thinking(text):
        return _split_bare(text)
    said: list[str] = []
    thought: list[str] = []
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
            (thought if closes else said).append(text[start : match.start()])
            within = None if closes else tag
        elif closes and tag == within:
            thought.append(text[start : match.start()])
            within = None
        else:
            continue
        start = match.end()
    if start == 0:
        return _split_bare(text)
    (said if within is None else thought).append(text[start:])
    if "_of_thought|>" in text:
        said = [_SOLUTION.sub("", part) for part in said]
    return _joined(said), _joined(thought)


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


def _split_bare(text: str) -> tuple[str, str]:
    if text.startswith("analysis") and _BARE_FINAL in text:
        thought, _, said = text.removeprefix("analysis").partition(_BARE_FINAL)
        return _joined([said]), _joined([thought])
    return text, ""


def _split_channels(text: str) -> tuple[str, str]:
    said: list[str] = []
    thought: list[str] = []
    start = 0
    for match in _SEGMENT.finditer(text):
        said.append(text[start : match.start()])
        if match["channel"].lower() == "analysis":
            thought.append(match["body"])
        elif "to=" not in match["recipient"]:  # what is addressed to a tool is neither said nor thought
            said.append(match["body"])
        start = match.end()
    said.append(text[start:])
    return _joined(said), _joined(thought)


def _joined(parts: list[str]) -> str:
    return "\n\n".join(stripped for part in parts if (stripped := part.strip()))
