"""What the loader settles from a model's own files, and that each number is the one of transformers and of the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rlaif_sdk import Composer, ConfigError, OnnxScorer, RewardBatch, load_classifier
from rlaif_sdk.models.encoding import JoinedText, TemplatedText
from tests.models.architectures import small_model
from tests.models.classifier_folders import build_bert
from tests.models.test_every_architecture import ALPHABET, own_logits, write_tokenizer

torch = pytest.importorskip("torch")

ENDED = ["yes.", "a good answer, kind", "b", "no! never."]
LONG_PROMPT = "why do you ask? " * 10


def saved(folder: Path, name: str, *, ends: bool = True, **settings: Any) -> Any:
    """A small model of an architecture in a folder with a tokenizer of characters."""
    network = small_model(name, **settings)
    network.save_pretrained(folder)
    write_tokenizer(folder, pad_id=1, ends=ends)
    return network


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def composed(use: str, params: dict[str, Any], prompts: list[Any], completions: list[Any]) -> list[float | None]:
    with Composer.from_config({"rewards": {"r": {"use": use, "params": {"device": "cpu", **params}}}}) as composer:
        return composer.compose(RewardBatch(prompts, completions)).to_list()


@pytest.mark.parametrize("pad", [None, -1])
@pytest.mark.parametrize("name", ["llama", "ctrl", "gpt2"])
def test_a_decoder_without_padding_token_is_read_at_its_last_token(name: str, pad: int | None, tmp_path: Path) -> None:
    """Texts that end in the end token, in one batch: none of their ends is taken for padding, whatever stands for "none"."""
    network = saved(tmp_path, name, pad_token_id=None)
    edit_json(tmp_path / "config.json", pad_token_id=pad)
    classifier = load_classifier(tmp_path, device="cpu")
    found_NL = classifier.logits(ENDED)
    np.testing.assert_allclose(found_NL, own_logits(network, classifier.encoder, ENDED, types=False), atol=1e-4)


def test_a_decoder_whose_batch_has_every_token_of_its_vocabulary_is_read_too(tmp_path: Path) -> None:
    """No token is left that could fill up short rows, so they are read one by one."""
    network = saved(tmp_path, "llama", pad_token_id=None, vocab_size=4 + len(ALPHABET))
    classifier = load_classifier(tmp_path, device="cpu")
    everything = ["abcdefghijklmnopqrstuvwxyz", "0123456789.,!?:;-'", "~", TemplatedText("a[PAD]b")]
    found_NL = classifier.logits_of(everything)
    np.testing.assert_allclose(found_NL, own_logits(network, classifier.encoder, everything, types=False), atol=1e-4)


def test_a_padding_token_outside_the_vocabulary_is_refused_where_transformers_does(tmp_path: Path) -> None:
    """Its assertion becomes an error that names the model."""
    saved(tmp_path, "llama")
    edit_json(tmp_path / "config.json", pad_token_id=60)
    with pytest.raises(ConfigError, match="cannot be loaded: Padding_idx"):
        load_classifier(tmp_path, device="cpu")


@pytest.mark.parametrize("name", ["gpt2", "bert", "data2vec-text"])
def test_a_long_prompt_does_not_cost_the_completion(name: str, tmp_path: Path) -> None:
    """Prompts of several times the model's length: completions still get scores of their own, by decoder and encoder."""
    saved(tmp_path, name)
    found = composed("reward_model", {"model": str(tmp_path)}, [LONG_PROMPT] * 2, ["yes.", "no!"])
    assert found[0] != pytest.approx(found[1], abs=1e-4)


def test_a_long_conversation_loses_its_beginning(tmp_path: Path) -> None:
    """Messages are cut on the left as well, and a text of its own where the tokenizer declares."""
    saved(tmp_path, "bert")
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    edit_json(tmp_path / "tokenizer_config.json", chat_template=template)
    asked = [{"role": "user", "content": LONG_PROMPT}]
    answers = [[{"role": "assistant", "content": text}] for text in ("yes.", "no!")]
    found = composed("reward_model", {"model": str(tmp_path)}, [asked] * 2, answers)
    assert found[0] != pytest.approx(found[1], abs=1e-4)
    classifier = load_classifier(tmp_path, device="cpu")
    whole = classifier.logits([LONG_PROMPT + "yes.", LONG_PROMPT + "no!"])
    assert whole[0] == pytest.approx(whole[1], abs=1e-6)
    ends = classifier.logits_of([JoinedText(LONG_PROMPT + "yes."), JoinedText(LONG_PROMPT + "no!")])
    assert ends[0] != pytest.approx(ends[1], abs=1e-4)


@pytest.mark.parametrize("labels", [1, 3])
def test_a_regression_models_output_is_taken_as_it_is(labels: int, tmp_path: Path) -> None:
    """One quantity or several: neither sigmoid nor softmax touches them, so their order is the model's."""
    network = saved(tmp_path, "bert", num_labels=labels, problem_type="regression")
    params = {"model": str(tmp_path), **({"label": "LABEL_2"} if labels > 1 else {})}
    found = composed("text_classification", params, ["why"] * len(ENDED), ENDED)
    encoder = load_classifier(tmp_path, device="cpu").encoder
    expected_NL = own_logits(network, encoder, list(ENDED), types=True)
    assert found == pytest.approx(expected_NL[:, labels - 1].tolist(), abs=1e-4)


@pytest.mark.parametrize("output", ["probability", "log_odds"])
def test_a_probability_of_a_regression_model_is_refused(output: str, tmp_path: Path) -> None:
    """There is none, and a squashed quantity would pass for one."""
    saved(tmp_path, "bert", problem_type="regression")
    with pytest.raises(ConfigError, match=f"regression model.* has no {output}"):
        composed("text_classification", {"model": str(tmp_path), "output": output}, ["a"], ["b"])


def test_a_regression_model_judges_no_toxicity(tmp_path: Path) -> None:
    """A plugin that needs a probability says so before anything is scored."""
    pytest.importorskip("rlaif_toxicity")
    saved(tmp_path, "bert", problem_type="regression")
    with pytest.raises(ConfigError, match="no probabilities"):
        composed("toxicity", {"model": str(tmp_path), "label": "LABEL_0"}, ["a"], ["b"])


@pytest.mark.parametrize(("labels", "stated"), [(1, None), (3, None), (3, "multi_label_classification")])
def test_other_outputs_are_transformers_own(labels: int, stated: str | None, tmp_path: Path) -> None:
    """A single logit and several questions take the sigmoid, a choice the softmax, as the pipeline gives them."""
    from transformers import AutoTokenizer, pipeline

    network = saved(tmp_path, "bert", num_labels=labels, problem_type=stated)
    pipe = pipeline(
        "text-classification", model=network, tokenizer=AutoTokenizer.from_pretrained(tmp_path), device="cpu"
    )
    expected = [{row["label"]: row["score"] for row in rows} for rows in pipe(ENDED, top_k=None)]
    for label in expected[0]:
        found = composed("text_classification", {"model": str(tmp_path), "label": label}, ["a"] * 4, ENDED)
        assert found == pytest.approx([row[label] for row in expected], abs=1e-5)


def test_an_unknown_problem_type_is_refused(onnx_folder: Path, tmp_path: Path) -> None:
    """Rather than read as a choice."""
    folder = shutil.copytree(onnx_folder, tmp_path / "copy")
    edit_json(folder / "config.json", problem_type="ordinal")
    with pytest.raises(ConfigError, match="unknown problem_type 'ordinal'"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("bert", 40),
        ("ctrl", 40),
        ("data2vec-text", 38),
        ("esm", 38),
        ("gpt2", 40),
        ("gpt_bigcode", 40),
        ("luke", 38),
        ("mpt", 40),
        ("openai-gpt", 40),
        ("roberta", 38),
        ("roberta-prelayernorm", 38),
    ],
)
def test_the_longest_input_is_known_by_each_of_its_names(name: str, longest: int, tmp_path: Path) -> None:
    """A longer text is cut to it, and scored; nothing runs past the position table."""
    saved(tmp_path, name)
    classifier = load_classifier(tmp_path, device="cpu")
    assert classifier.encoder.max_length == longest
    assert np.isfinite(classifier.logits(["ab c" * 100])).all()
    assert classifier.truncated == 1


def test_a_longer_input_than_512_may_be_asked_of_a_model_that_states_none(tmp_path: Path) -> None:
    """A model without a position table takes what the user says; 512 is only what is taken where nobody says anything."""
    saved(tmp_path, "bloom")
    assert load_classifier(tmp_path, device="cpu").encoder.max_length == 512
    assert load_classifier(tmp_path, device="cpu", max_length=700).encoder.max_length == 700


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta-xl", "data2vec-text", "gpt2"])
def test_token_types_go_only_to_a_model_that_has_them(name: str, tmp_path: Path) -> None:
    """A tokenizer that names them beside a model with one type, or whose types would be words: pairs are scored."""
    sizes = {} if name == "gpt2" else {"type_vocab_size": 1}
    network = saved(tmp_path, name, **sizes)
    classifier = load_classifier(tmp_path, device="cpu")
    pairs = list(zip(ENDED, reversed(ENDED), strict=True))
    found_NL = classifier.logits_of(pairs)
    np.testing.assert_allclose(found_NL, own_logits(network, classifier.encoder, pairs, types=False), atol=1e-4)


def test_a_graph_gets_no_token_types_that_its_tokenizer_does_not_make(onnx_folder: Path, tmp_path: Path) -> None:
    """optimum's graphs of BERT always have the input; a tokenizer that does not name it leaves it at zero."""
    folder = shutil.copytree(onnx_folder, tmp_path / "copy")
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    with_types, without = load_classifier(onnx_folder), load_classifier(folder)
    first, second = ["the cat"], ["a dog sat"]
    assert not np.allclose(with_types.logits(first, second), without.logits(first, second), atol=1e-3)
    tokens = without.encoder.pad(without.encoder.encode([("the cat", "a dog sat")])[0])
    tokens.token_type_ids[:] = 0
    np.testing.assert_allclose(without.logits(first, second), with_types.forward(tokens), atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"
)  # peft asks transformers for it
def test_a_trained_adapter_is_loaded_where_a_model_is(tmp_path: Path) -> None:
    """Merged into its base, with its own head, without an export in between."""
    peft = pytest.importorskip("peft")
    network = saved(tmp_path / "base", "bert", num_labels=1)
    network.name_or_path = network.config._name_or_path = str(tmp_path / "base")
    adapted = peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    classifier = load_classifier(tmp_path / "adapter", device="cpu")
    expected_NL = own_logits(adapted.eval(), classifier.encoder, list(ENDED), types=True)
    np.testing.assert_allclose(classifier.logits(ENDED), expected_NL, atol=1e-4)
    assert not np.allclose(load_classifier(tmp_path / "base", device="cpu").logits(ENDED), expected_NL, atol=1e-3)


def as_sentence_transformers(onnx_folder: Path, folder: Path) -> Path:
    """The layout that sentence-transformers and the hub's exports have: the graph in a folder of its own."""
    (folder / "onnx").mkdir(parents=True)
    for file in onnx_folder.iterdir():
        shutil.copy(file, folder / "onnx" / file.name if file.name.startswith("model.onnx") else folder / file.name)
    return folder


def test_a_folder_of_sentence_transformers_is_read(onnx_folder: Path, bert_folder: Path, tmp_path: Path) -> None:
    """``onnx/model.onnx`` beside ``config.json``; where weights of PyTorch lie there too, ``backend`` chooses."""
    folder = as_sentence_transformers(onnx_folder, tmp_path / "cross-encoder")
    expected_NL = load_classifier(onnx_folder).logits(["a dog", "bad"])
    np.testing.assert_array_equal(load_classifier(folder).logits(["a dog", "bad"]), expected_NL)
    shutil.copy(bert_folder / "model.safetensors", folder)
    assert type(load_classifier(folder, device="cpu")).__name__ == "TorchClassifier"
    assert type(load_classifier(folder, backend="onnx")).__name__ == "OnnxClassifier"


def test_a_folder_of_another_exporter_scores_by_every_way_in(onnx_folder: Path, tmp_path: Path) -> None:
    """Without a manifest: `OnnxScorer` and the reward ``onnx`` take it, with config and tokenizer beside the graph too."""
    folder = tmp_path / "model"
    shutil.copytree(onnx_folder, folder / "onnx")
    expected_NL = load_classifier(onnx_folder).logits(["a dog", "bad"])
    with OnnxScorer(folder) as scorer:
        assert scorer.manifest is None
        np.testing.assert_array_equal(scorer.score(["a dog", "bad"]), expected_NL)
    params = {"model": str(folder), "label": "hate", "input": "completion"}
    found = composed("onnx", params, ["a", "b"], ["a dog", "bad"])
    assert found == pytest.approx(expected_NL[:, 1].tolist(), abs=1e-6)
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        OnnxScorer(folder, variant="int8")


def as_another_maker(exported: Path, folder: Path, layout: str) -> Path:
    """An export without what only ours have: the manifest, and the side in the tokenizer's settings."""
    if layout == "onnx":
        as_sentence_transformers(exported, folder)
    else:
        shutil.copytree(exported, folder)
    (folder / "manifest.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["truncation_side"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if layout == "nested":
        config = json.loads((folder / "config.json").read_text())
        edit_json(folder / "config.json", text_config=config, model_type="gemma3")
    return folder


@pytest.mark.parametrize(
    ("name", "layout"),
    [("gpt2", "flat"), ("llama", "flat"), ("llama", "onnx"), ("gpt2", "nested"), ("bert", "flat"), ("bert", "onnx")],
)
def test_another_makers_folder_cuts_a_long_text_where_the_torch_engine_does(
    name: str, layout: str, model_folder: Callable[[str], Path], exported: Callable[..., Path], tmp_path: Path
) -> None:
    """A decoder is read at its last token, so its text loses its beginning, whatever its tokenizer says; an encoder's its end."""
    folder = as_another_maker(exported(name), tmp_path / "model", layout)
    exact, found = (load_classifier(one, device="cpu") for one in (model_folder(name), folder))
    texts = [LONG_PROMPT + "yes.", LONG_PROMPT + "no! never.", "short"]
    found_NL = found.logits(texts)
    np.testing.assert_allclose(found_NL, exact.logits(texts), atol=1e-4)
    assert (exact.truncated, found.truncated) == (2, 2)
    assert (found_NL[0] != found_NL[1]).all() == (name != "bert")


def test_an_export_cuts_where_it_was_told_to(exported: Callable[..., Path], tmp_path: Path) -> None:
    """The manifest's side comes before the model type's."""
    shutil.copytree(exported("gpt2"), tmp_path / "out")
    edit_json(tmp_path / "out" / "manifest.json", truncation_side="right")
    first, second = load_classifier(tmp_path / "out", device="cpu").logits([LONG_PROMPT + "yes.", LONG_PROMPT + "no!"])
    assert first == second


def test_an_exports_axes_are_named_and_its_tokenizer_loads_elsewhere(exported: Callable[..., Path]) -> None:
    """``batch`` and ``sequence`` in the graph, and a tokenizer class that versions of transformers before 5 know."""
    folder = exported("gpt2")
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"], "logits": ["batch", 1]}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)


def test_a_graph_that_counts_positions_outside_is_given_them(tmp_path: Path, bert_folder: Path) -> None:
    """optimum gives decoders an input ``position_ids``; the model types that number from their padding are refused it."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["position_ids"], ["positions"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["positions"], ["logits"], axes=[1], keepdims=1),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "position_ids")]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "test", inputs, [output])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10), tmp_path / "model.onnx"
    )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / file, tmp_path)
    edit_json(tmp_path / "config.json", id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    assert load_classifier(tmp_path).logits(["a dog", "the cat sat"]).tolist() == [[3.0], [4.0]]
    edit_json(tmp_path / "config.json", model_type="roberta")
    with pytest.raises(ConfigError, match="position_ids"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("folder", ["bert_folder", "onnx_folder"])
def test_a_token_that_the_model_does_not_know_costs_its_own_row_alone(
    folder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Tokens added to the tokenizer alone: the lookup failed for every row of the batch."""
    from tokenizers import Tokenizer

    given = request.getfixturevalue(folder)
    expected_NL = load_classifier(given, device="cpu").logits(["a dog", "bad"])
    model = tmp_path / "model"
    shutil.copytree(given, model, ignore=shutil.ignore_patterns("manifest.json"))
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens(["zebra", "yak"])
    tokenizer.save(str(model / "tokenizer.json"))
    classifier = load_classifier(model, device="cpu")
    found_NL = classifier.logits(["a dog", "zebra dog", "bad", "yak"])
    np.testing.assert_allclose(found_NL[[0, 2]], expected_NL, atol=1e-5)
    assert np.isnan(found_NL[[1, 3]]).all()
    classifier.close()


def test_a_graph_without_a_mask_gets_batches_without_padding(tmp_path: Path, bert_folder: Path) -> None:
    """It would read the padding as words; here a graph gives the length of what it reads."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("ReduceSum", ["ones", "axis"], ["logits"], keepdims=1),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "test", inputs, [output], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10), tmp_path / "model.onnx"
    )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / file, tmp_path)
    edit_json(tmp_path / "config.json", id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    assert load_classifier(tmp_path).logits(["a dog", "the cat sat", "bad"]).tolist() == [[4.0], [5.0], [3.0]]


def test_several_labels_are_no_reward_model(tmp_path: Path) -> None:
    """Whatever engine runs it."""
    build_bert(tmp_path)
    with pytest.raises(ConfigError, match="has 2 labels"):
        composed("reward_model", {"model": str(tmp_path)}, ["a"], ["b"])
