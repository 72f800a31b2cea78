"""Images reach judges that take them as they were written, and other rewards say that they saw none."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

from rlaif_sdk import Composer, Reward, RewardBatch
from rlaif_sdk.conversations import image_block, read
from rlaif_sdk.exceptions import ConversationError
from rlaif_sdk.integrations import Host, Sample
from tests.judges.conftest import letters
from tests.serving.loopback import serving

URL = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def asked(*images: Any) -> Any:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *images]}]


def judged(server: Any, prompts: list[Any], completions: list[Any], **options: Any) -> Any:
    server.answer = lambda *_: (200, {}, letters({"E": -0.01, "D": -5.0, "C": -9.0, "B": -9.0, "A": -9.0}))
    params = {"model": "judge", "base_url": server.url, "scale": [1, 5], "backend_options": options}
    with Composer.from_config({"rewards": {"judge": {"params": params}}}) as composer:
        return composer.compose(RewardBatch(prompts, completions)).rewards["judge"]


def test_a_judge_that_takes_images_gets_the_blocks_untouched(judge_server: Any) -> None:
    """After the text, which shows where they stand, those of the prompt first; a row without any stays text."""
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "This."}, {"type": "image", "image": DATA}]}]
    column = judged(judge_server, [asked(URL), "Hi."], [answer, "Hello."], images=True)
    shown, plain = sorted((body["messages"][0]["content"] for body in judge_server.requests), key=len)
    assert isinstance(plain, str)
    text, *images = shown
    assert text["type"] == "text"
    assert "[image]\nWhat is this?" in text["text"]
    assert images == [URL, {"type": "image_url", "image_url": {"url": DATA}}]
    assert column.raw.min() > 0.99
    assert column.reason(0) is None


def test_a_judge_of_text_says_that_it_saw_no_image(judge_server: Any) -> None:
    """The default: nothing but text is sent, and the reason of the row says so."""
    column = judged(judge_server, [asked(URL), "Hi."], ["A cat.", "Hello."])
    assert all(isinstance(body["messages"][0]["content"], str) for body in judge_server.requests)
    assert column.reason(0) == "it saw no image"
    assert column.reason(1) is None
    assert column.record(0)["reason"] == "it saw no image"


def test_an_image_that_cannot_be_sent_leaves_its_row_unscored(judge_server: Any) -> None:
    """Other rows are judged; the reason says what an image is."""
    lost = {"type": "image", "image": "cat.png"}
    column = judged(judge_server, [asked(lost), asked(URL)], ["A cat."] * 2, images=True)
    assert "str is no image that can be sent" in column.failures[0]
    assert column.raw[1] > 0.99


def test_a_rubric_s_judge_gets_them_too(judge_server: Any) -> None:
    """Each request about a row has its images."""
    pytest.importorskip("rlaif_rubric")
    judge_server.answer = lambda *_: (200, {}, letters({"A": -0.01, "B": -5.0}))
    params = {
        "model": "judge", "base_url": judge_server.url, "backend_options": {"images": True},
        "criteria": ["names the animal", "is brief"], "mode": "likelihood",
    }  # fmt: skip
    with Composer.from_config({"rewards": {"rubric": {"params": params}}}) as composer:
        column = composer.compose(RewardBatch([asked(URL)], ["A cat."])).rewards["rubric"]
    assert [body["messages"][0]["content"][1:] for body in judge_server.requests] == [[URL], [URL]]
    assert "saw no image" not in (column.reason(0) or "")


class Words(Reward):
    """Counts words, and says why."""

    def score(self, batch: RewardBatch) -> Any:
        return [float(len(text.split())) for text in batch.completion_texts]


def test_who_saw_an_image_is_known_of_every_reward() -> None:
    """One that reads text says that it saw none, beside its own reason; a function that gets messages sees the blocks."""
    found: list[Any] = []

    def looks(prompts: list[Any], completions: list[Any]) -> list[float]:
        found.append(prompts[0][0]["content"][1])
        return [1.0] * len(prompts)

    def lengths(completion_texts: list[str]) -> list[float]:
        return [float(len(text)) for text in completion_texts]

    parts = {"words": Words(), "looks": looks, "lengths": lengths}
    composition = Composer(parts).compose(RewardBatch([asked(URL), "Hi."], ["A cat.", "Hello."]))
    assert found == [URL]
    assert {name: column.reason(0) for name, column in composition.rewards.items()} == {
        "words": "it saw no image", "looks": None, "lengths": "it saw no image"
    }  # fmt: skip
    assert all(column.reason(1) is None for column in composition.rewards.values())
    assert "saw no image" in str(composition.explain(0))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "input_image", "image_url": DATA},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA.partition(",")[2]}},
        {"type": "image", "image": PNG},
        {"type": "image", "image": {"bytes": PNG, "path": None}},
        {"type": "image", "url": DATA},
    ],
)
def test_blocks_of_every_shape_become_one(block: dict[str, Any]) -> None:
    """Of the Responses API, of Anthropic, of chat templates and of data sets; all are read where they stand."""
    assert image_block(block) == {"type": "image_url", "image_url": {"url": DATA}}
    (turn,) = read(asked(block))
    assert turn.images == (block,)
    (result,) = read([{"role": "tool", "content": [block]}])
    assert result.images == (block,)


def test_an_image_of_pillow_is_sent_as_a_file() -> None:
    """As TRL has them in prompts."""
    pillow = pytest.importorskip("PIL.Image")
    for mode in ("RGB", "RGBA", "L", "CMYK", "F"):  # PNG has no word for the last two
        url = image_block({"type": "image", "image": pillow.new(mode, (2, 2))})["image_url"]["url"]
        assert url.startswith("data:image/png;base64,iVBOR")


def test_an_image_of_pillow_whose_file_is_cut_off_leaves_its_row_unscored(judge_server: Any) -> None:
    """Pillow reads files when it needs them."""
    pillow, file = pytest.importorskip("PIL.Image"), io.BytesIO()
    pillow.effect_noise((64, 64), 9).save(file, "PNG")
    cut = pillow.open(io.BytesIO(file.getvalue()[:500]))
    column = judged(judge_server, [asked({"type": "image", "image": cut}), asked(URL)], ["A cat."] * 2, images=True)
    assert "an image cannot be sent" in column.failures[0]
    assert column.raw[1] > 0.99


def test_a_reward_in_a_process_gets_pillow_s_images_as_addresses() -> None:
    """JSON holds those, and `image_block` leaves them as they are."""
    from rlaif_sdk.scoring.wire import decode_batch, encode_batch

    image = pytest.importorskip("PIL.Image").new("RGB", (2, 2))
    batch = RewardBatch([asked({"type": "image", "image": image})], ["Grey."])
    ((block,),) = decode_batch(json.loads(encode_batch(batch, (), "judge"))["score"]).images.values()
    assert image_block(block) == image_block({"type": "image", "image": image})


@pytest.mark.parametrize("asks", ["remote", "host"])
def test_a_reward_server_gets_pillow_s_images_as_addresses(asks: str) -> None:
    """By the reward that asks it, and by an adapter: what its rewards read is an image that a judge can be sent."""
    found: list[Any] = []

    def looks(prompts: list[Any], completions: list[Any]) -> list[float]:
        found.append(prompts[0][0]["content"][1])
        return [1.0] * len(prompts)

    block = {"type": "image", "image": pytest.importorskip("PIL.Image").new("RGB", (2, 2))}
    with Composer({"looks": looks}) as composer, serving(composer) as server:
        if asks == "host":
            assert Host(server.url, "a test").score([Sample(asked(block), "Grey.")])[0].total == 1.0
        else:
            with Composer.from_config({"rewards": {"remote": {"params": {"url": server.url}}}}) as remote:
                assert remote.compose(RewardBatch([asked(block)], ["Grey."])).to_list() == [1.0]
    assert image_block(found[0]) == image_block(block)


@pytest.mark.parametrize("image", ["cat.png", b"no image", b"RIFF\0\0\0\0WAVE", None, 3, {"path": "cat.png"}])
def test_what_is_no_image_is_refused(image: Any) -> None:
    """A path means nothing to a server, and files are not read for one."""
    with pytest.raises(ConversationError, match="no image that can be sent"):
        image_block({"type": "image", "image": image})
