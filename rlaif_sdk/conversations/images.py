"""Images in conversations: the blocks of every shape in use, as the one that OpenAI-compatible servers take."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from rlaif_sdk.exceptions import ConversationError

Images: TypeAlias = tuple[Mapping[str, Any], ...]
"""Blocks of content that are images, as they were written."""
_SHAPES = "an image is {'type': 'image_url', 'image_url': {'url': 'https://... or data:image/png;base64,...'}}"


def image_block(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block with an image as ``image_url``, which it may be already: it is then returned as it is.

    Read are blocks of OpenAI's Responses, of Anthropic, and those of chat templates with an image of Pillow, an address or
    the bytes of a file; what is no address becomes a ``data:`` URL.

    Example:
        >>> from rlaif_sdk.conversations import image_block
        >>> image_block({"type": "input_image", "image_url": "https://example.com/cat.png"})
        {'type': 'image_url', 'image_url': {'url': 'https://example.com/cat.png'}}

    Raises:
        ConversationError: There is no image in it that can be sent.
    """
    found = block.get("image_url")
    if block.get("type") == "image_url" and isinstance(found, Mapping):
        return dict(block)
    source = block.get("source")
    if isinstance(found, Mapping):
        found = found.get("url")
    elif found is None and isinstance(source, Mapping):  # Anthropic
        data = source.get("data")
        found = source.get("url") if data is None else f"data:{source.get('media_type')};base64,{data}"
    elif found is None:
        found = next((block[key] for key in ("image", "url") if block.get(key) is not None), None)
    return {"type": "image_url", "image_url": {"url": image_address(found)}}


def image_address(image: Any) -> str:
    """The address of an image that is one already, or the ``data:`` URL of Pillow's images, and of the bytes of files.

    Raises:
        ConversationError: It is none of these.
    """
    if isinstance(image, str) and image.startswith(("https://", "http://", "data:")):
        return image
    if isinstance(image, Mapping):  # as datasets have it
        image = image.get("bytes")
    if hasattr(image, "save"):
        image = _png(image)
    kind = _kind(image) if isinstance(image, bytes) else None
    if kind is None:
        raise ConversationError(f"{type(image).__name__} is no image that can be sent", hint=_SHAPES)
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}


def _png(image: Any) -> bytes:
    """An image of Pillow as a file; of colours that PNG has no word for, such as CMYK, as RGB.

    Raises:
        ConversationError: Its file is cut off.
    """
    with io.BytesIO() as file:
        try:
            (image if image.mode in _PNG_MODES else image.convert("RGB")).save(file, format="PNG")
        except OSError as error:
            raise ConversationError(
                f"an image cannot be sent: {error}", hint="leave it out, or mend its file"
            ) from error
        return file.getvalue()


_BEGINNINGS = re.compile(rb"(?P<png>\x89PNG)|(?P<jpeg>\xff\xd8\xff)|(?P<gif>GIF8)|(?P<webp>RIFF.{4}WEBP)", re.DOTALL)


def _kind(data: bytes) -> str | None:
    """The format of a file, by its first bytes."""
    found = _BEGINNINGS.match(data)
    return found and found.lastgroup
