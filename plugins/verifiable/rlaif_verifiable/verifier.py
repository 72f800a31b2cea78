"""The process in which math-verify runs: a request a line on standard input, a reply a line on standard output.

It is no sandbox; it is there so that a formula that takes for ever, or all memory, ends nothing but it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import sympy
from math_verify import parse, verify

MEMORY = 4 * 2**30


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Whether the text's answer equals the right one, what was read, and None for a right answer that cannot be read."""
    right = read(request["right"])
    if not right:
        return {"right": None, "equal": False, "said": None}
    said = read(request["text"])
    equal = verify(right, said, float_rounding=request["precision"], strict=request["strict"], timeout_seconds=None)
    equal = bool(equal) and not differ_exactly(right[0], said[0])
    return {"right": str(right[-1]), "equal": equal, "said": str(said[-1])[:200] if said else None}


def read(text: str) -> list[Any]:
    """What math-verify reads, and the words that it read last; nothing where those are a torn formula."""
    found: list[Any] = parse(text, parsing_timeout=None)
    return [] if found and str(found[-1]).count("{") != str(found[-1]).count("}") else found


def differ_exactly(right: Any, said: Any) -> bool:
    """Whether two exact numbers are unequal that rounding makes equal: 1/2**98 and 1/2**99 are both 0 to six places."""
    numbers = [
        one for one in (right, said) if isinstance(one, sympy.Expr) and one.is_number and not one.has(sympy.Float)
    ]
    if len(numbers) < 2:
        return False
    gap, size = (abs(sympy.N(one, 30)) for one in (right - said, right))
    return bool(gap.is_comparable and size.is_comparable and gap > size * sympy.Float("1e-20"))


def limit_memory() -> None:
    """Where the system can, let no formula take more than `MEMORY`."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


def main() -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    limit_memory()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever a formula raises is the reply
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
