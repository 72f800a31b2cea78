"""What can be loaded as a classifier, and what is refused and why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rlaif_sdk import ConfigError, MissingExtraError, RewardError, load_classifier
from rlaif_sdk.models.onnx_providers import open_session, thread_count
from tests.models.classifier_folders import WORDS, build_bert, write_word_tokenizer
from tests.models.tiny_classifiers import build


@pytest.fixture
def folder(onnx_folder: Path, tmp_path: Path) -> Path:
    """A copy of the ONNX classifier to break."""
    return Path(shutil.copytree(onnx_folder, tmp_path / "model"))


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON object in a file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def save_graph(file: Path, *, inputs: dict[str, int], outputs: dict[str, list[int | str]]) -> None:
    """Write an ONNX graph with integer inputs and constant float outputs of the given shapes."""
    fixed = {name: [1 if isinstance(size, str) else size for size in shape] for name, shape in outputs.items()}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name))
        for name, shape in fixed.items()
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, ["n", "t"]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)


def test_importing_the_interface_loads_no_heavy_library() -> None:
    """A plugin can import the loader without torch, transformers or onnxruntime."""
    code = "import sys; from rlaif_sdk import load_classifier; print({'torch', 'transformers', 'onnxruntime'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_revision_changes_with_the_weights(bert_folder: Path, tmp_path: Path) -> None:
    """The same folder has the same revision; one changed file has another."""
    copy = Path(shutil.copytree(bert_folder, tmp_path / "copy"))
    first = load_classifier(bert_folder).revision
    assert load_classifier(copy).revision == first
    edit_json(copy / "config.json", transformers_version="0")
    assert load_classifier(copy).revision != first


def test_a_folder_that_does_not_exist_is_no_hub_name(tmp_path: Path) -> None:
    """A path is never looked up on the hub."""
    for missing in (tmp_path / "nothing", str(tmp_path / "nothing"), "./nothing"):
        with pytest.raises(ConfigError, match="does not exist"):
            load_classifier(missing)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"backend": "tensorflow"}, "unknown classifier backend 'tensorflow'"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"max_length": 0}, "at least 1"),
        ({"max_length": 33}, "max_length is 33 where the model takes at most 32"),
        ({"tokens_per_batch": 0}, "at least 1"),
        ({"truncation_side": "middle"}, "'left' or 'right'"),
        ({"backend": "onnx"}, "found none"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_options_that_cannot_be_met_are_refused(bert_folder: Path, options: dict[str, Any], problem: str) -> None:
    """Each refusal names the value."""
    with pytest.raises(ConfigError, match=problem):
        load_classifier(bert_folder, **options)


def test_eight_bit_products_do_not_overflow_on_older_processors(tmp_path: Path) -> None:
    """x86 processors without VNNI saturate them unless onnxruntime is told otherwise."""
    save_graph(tmp_path / "model.onnx", inputs={"input_ids": TensorProto.INT64}, outputs={"logits": ["n", 1]})
    session, _ = open_session(tmp_path / "model.onnx", "cpu")
    options = session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_pickled_weights_are_not_loaded(bert_folder: Path, tmp_path: Path) -> None:
    """A folder with a ``.bin`` file alone is refused, and the pickle is not opened."""
    import torch

    copy = Path(shutil.copytree(bert_folder, tmp_path / "pickled"))
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        load_classifier(copy)


def test_code_of_a_model_repository_is_not_run(bert_folder: Path, tmp_path: Path) -> None:
    """A config that names its own classes runs nothing."""
    copy = Path(shutil.copytree(bert_folder, tmp_path / "code"))
    canary = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    edit_json(
        copy / "config.json",
        model_type="evil",
        auto_map={"AutoModelForSequenceClassification": "evil.Evil", "AutoConfig": "evil.Evil"},
    )
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_classifier(copy)
    assert not canary.exists()


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    """An encoder that was never fine-tuned would get a random head and score noise."""
    from transformers import BertForSequenceClassification

    build_bert(tmp_path)
    BertForSequenceClassification.from_pretrained(tmp_path).bert.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no trained classifier: its weights lack .*classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("llama", "LlamaForTokenClassification"),
        ("qwen2", "Qwen2ForTokenClassification"),
        ("qwen3", "Qwen3ForTokenClassification"),
        ("bert", "BertForMultipleChoice"),
    ],
)
def test_a_head_of_another_task_is_refused(tmp_path: Path, family: str, architecture: str) -> None:
    """A process reward model has a head `score` over every token, and would score a whole text by the last one."""
    import transformers

    build(tmp_path, family)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    getattr(transformers, architecture)(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"is a {architecture}: it scores no sequence"):
        load_classifier(tmp_path)


def test_an_architecture_of_another_name_with_a_trained_head_is_read(tmp_path: Path) -> None:
    """As OpenRLHF saves its reward models."""
    build(tmp_path, "llama")
    before = load_classifier(tmp_path).logits(["it is"])
    edit_json(tmp_path / "config.json", architectures=["LlamaModel"], value_head_prefix="score")
    np.testing.assert_array_equal(load_classifier(tmp_path).logits(["it is"]), before)


def test_several_questions_and_bfloat16(tmp_path: Path) -> None:
    """``problem_type`` makes a multi-label classifier, and bfloat16 stays near float32."""
    build_bert(tmp_path, problem_type="multi_label_classification")
    exact = load_classifier(tmp_path)
    assert exact.problem_type == "multi_label_classification"
    rounded = load_classifier(tmp_path, dtype="bfloat16").logits(["a dog"])
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact.logits(["a dog"]), atol=0.3)


def test_a_causal_model_without_padding_token_scores_a_batch_as_single_texts(tmp_path: Path) -> None:
    """A decoder reads its score at each row's last token, so padding must be known to it."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(vocab_size=len(WORDS) + 4, num_labels=1, initializer_range=0.5, eos_token_id=3, **shape)
    config.pad_token_id = None
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    write_word_tokenizer(tmp_path)
    edit_json(tmp_path / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    loaded = load_classifier(tmp_path)
    texts = ["the cat sat on the mat", "a dog", "bad"]
    np.testing.assert_allclose(loaded.logits(texts), np.concatenate([loaded.logits([t]) for t in texts]), atol=1e-5)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_an_onnx_folder_needs_its_files(folder: Path, file: str) -> None:
    """What is missing is named."""
    (folder / file).unlink()
    with pytest.raises(ConfigError, match=f"has no {file}"):
        load_classifier(folder)


def test_external_data_outside_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """A graph cannot read other files of the machine, by ``..``, by an absolute path or through a link."""
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "model.onnx.data").read_bytes())
    (folder / "link").symlink_to(secret)
    for location in ("../secret", str(secret), "link"):
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ConfigError, match="external data outside its folder"):
            load_classifier(folder)


@pytest.mark.parametrize(
    ("location", "problem"),
    [("loop", "external data loop is missing"), ("a\0b", "no valid ONNX file"), ("", "outside its folder")],
)
def test_a_place_of_external_data_that_leads_nowhere_is_refused(folder: Path, location: str, problem: str) -> None:
    """A link to itself, a zero byte, and nothing."""
    (folder / "loop").symlink_to("loop")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=problem):
        load_classifier(folder)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
@pytest.mark.parametrize("file", ["config.json", "model.onnx", "tokenizer.json"])
def test_what_is_no_file_in_a_folder_is_refused_at_once(folder: Path, file: str, kind: str) -> None:
    """Nobody waits for a pipe, or reads a device without end."""
    (folder / file).unlink()
    if kind == "a pipe":
        os.mkfifo(folder / file)
    elif kind == "a device":
        (folder / file).symlink_to("/dev/zero")
    else:
        (folder / file).mkdir()
    with pytest.raises(ConfigError, match=f"is {kind}|has no tokenizer.json"):
        load_classifier(folder)


def test_external_data_of_a_nested_tensor_is_found(folder: Path) -> None:
    """Tensors in the branches of an ``If`` count as well as the graph's own."""
    tensor = numpy_helper.from_array(np.zeros(4, dtype=np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    branch = helper.make_graph([helper.make_node("Constant", [], ["out"], value=tensor)], "branch", [], [])
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="passwd"):
        load_classifier(folder)


def test_missing_external_data_is_named(folder: Path) -> None:
    """A download that lost a file says which."""
    (folder / "model.onnx.data").unlink()
    with pytest.raises(ConfigError, match=r"model.onnx.data is missing"):
        load_classifier(folder)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x3a\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_no_onnx_model_is_refused(folder: Path, content: bytes) -> None:
    """Nothing, text and a truncated message are refused with the file's name."""
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.onnx"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"),
    [
        ({"input_ids": TensorProto.INT64}, {"logits": ["n", 3]}, r"shape .* where \(texts, 2\) is needed"),
        ({"input_ids": TensorProto.INT64}, {"logits": ["n", "t", 2]}, "shape"),
        ({"input_ids": TensorProto.INT64}, {"hidden": ["n", 2], "pooled": ["n", 2]}, "no output is called logits"),
        ({"pixel_values": TensorProto.INT64}, {"logits": ["n", 2]}, "pixel_values"),
        ({"input_ids": TensorProto.FLOAT}, {"logits": ["n", 2]}, r"input_ids tensor\(float\)"),
    ],
)
def test_a_graph_that_is_no_text_classifier_is_refused(
    folder: Path, inputs: dict[str, int], outputs: dict[str, list[int | str]], problem: str
) -> None:
    """Wrong inputs and outputs are found at loading, not in the middle of training."""
    save_graph(folder / "model.onnx", inputs=inputs, outputs=outputs)
    with pytest.raises(ConfigError, match=problem):
        load_classifier(folder)


def test_a_graph_newer_than_the_onnxruntime_here_says_what_to_install(folder: Path) -> None:
    """onnxruntime 1.22 said of an export that its opset is "under development"."""
    save_graph(folder / "model.onnx", inputs={"input_ids": TensorProto.INT64}, outputs={"logits": ["n", 2]})
    graph = onnx.load(folder / "model.onnx")
    graph.opset_import[0].version = 99
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(ConfigError, match=r"cannot load it.* does not read its opset: a later one does"):
        load_classifier(folder)


def test_a_graph_that_fails_at_a_batch_says_which(folder: Path) -> None:
    """The refusal has the folder, the batch and onnxruntime's words; a batch that it can run is scored."""
    shape = numpy_helper.from_array(np.array([2, 2], dtype=np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["input_ids", "shape"], ["ids"]),
        helper.make_node("Cast", ["ids"], ["logits"], to=TensorProto.FLOAT),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "test", [ids], [logits], [shape])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10), folder / "model.onnx"
    )
    classifier = load_classifier(folder, device="cpu")
    with pytest.raises(RewardError, match=r"cannot run .*model on a batch of 1x5 tokens: .*[Rr]eshape"):
        classifier.logits(["a good dog"])


def test_a_graph_that_gives_another_shape_than_it_declares_is_found_out(folder: Path) -> None:
    """One row of logits for two texts is an error, never broadcast."""
    save_graph(folder / "model.onnx", inputs={"input_ids": TensorProto.INT64}, outputs={"logits": ["n", 2]})
    with pytest.raises(RewardError, match=r"shape \(1, 2\) for 2 texts"):
        load_classifier(folder).logits(["a cat", "a dog"])


def test_two_graphs_need_a_name(folder: Path) -> None:
    """``model.onnx`` is taken before others; without it the choice is the user's."""
    shutil.copy(folder / "model.onnx", folder / "other.onnx")
    load_classifier(folder)
    (folder / "model.onnx").rename(folder / "another.onnx")
    with pytest.raises(ConfigError, match=r"found another\.onnx, other\.onnx"):
        load_classifier(folder)


def test_a_missing_library_names_the_extra(folder: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the pip command."""
    for library in ("onnxruntime", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[onnx\]"):
        load_classifier(folder)
    with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[models\]"):
        load_classifier(bert_folder)


def test_the_cpu_runs_a_graph_where_cuda_does_not_load(folder: Path) -> None:
    """Without a CUDA device the CPU is chosen in silence, and asking for CUDA is an error."""
    from rlaif_sdk.models.onnx_providers import cuda_device_count

    if cuda_device_count():
        pytest.skip("this machine has a CUDA device")
    assert load_classifier(folder).provider == "CPUExecutionProvider"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="'cuda' cannot be used"):
        load_classifier(folder, device="cuda")


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_a_model_gets_the_processors_that_its_process_may_use(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], granted: int
) -> None:
    """Those of its affinity and of its container's quota, and no more; ``OMP_NUM_THREADS`` says otherwise."""
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("rlaif_sdk.io.processors._CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_count() == granted
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert thread_count() == 2
    session, _ = open_session(folder / "model.onnx", "cpu")
    assert session.get_session_options().intra_op_num_threads == 2
