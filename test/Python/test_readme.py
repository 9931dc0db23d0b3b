# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The snippets of the package's README, in order, and the two commands behind them, on a small model with a tokenizer.
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; tools/dev setup --python")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed; tools/dev setup --python")
import kvcc  # noqa: E402
from kvcc import eval as evaluation  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
README = Path(__file__).resolve().parents[2] / "runtime/python/README.md"
TEXT = """A cache holds what a model has read, so that it need not read it again. For each token and each layer there are
a key and a value. The query of the next token is compared with all the keys, and the values are mixed by how well they
fit. With long texts the keys and values of all layers take more memory than the weights of the model, and reading them
takes most of the time of a step. So they are stored with few bits: a scale for a group of numbers, and a small code for
each of them. The first tokens and the last ones stay as they are, because much depends on them. """ * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and a tokenizer, beside texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    path = tmp_path_factory.mktemp("readme")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([TEXT], trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>"]))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>").save_pretrained(
        path / "model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128,
                                      num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                      max_position_embeddings=2048, initializer_range=0.2, pad_token_id=1,
                                      bos_token_id=None, eos_token_id=None)
    transformers.LlamaForCausalLM(config).save_pretrained(path / "model")
    (path / "text.txt").write_text(TEXT)
    (path / "calibration.txt").write_text(TEXT.lower())
    return path


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)


def test_python_snippets(folder, capsys):
    names = {"MODEL": str(folder / "model")}
    snippets = [code for code in blocks("python") if "kvcc.distributed" not in code]  # for these see ranks.py
    assert len(snippets) == 5
    for code in snippets:
        exec(compile(code, str(README), "exec"), names)
    assert names["out"].shape == (1, 1, 2, 32)
    printed = capsys.readouterr().out
    assert "a cache holds what" in printed and "MLA caches one latent per token" in printed


def test_shell_snippets(folder):
    scripts = blocks("sh")
    assert len(scripts) == 1
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(["bash", "-e"], input=scripts[0], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "MODEL": "model", "PATH": path})
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (q4_0|innerq-small|kvcc-3.5|auto; budget = 3.25) \| ([0-9.]+) \|", done.stdout, re.M)
    assert len(rows) == 4
    assert (folder / "table.md").read_text() == done.stdout
    assert (folder / "pareto.svg").read_text().count("kvcc-3.5") >= 1
    assert json.loads((folder / "profile.json").read_text())


@pytest.fixture(scope="module")
def subject(folder):
    return evaluation.load(str(folder / "model"), folder / "text.txt")


def test_eval_measures_what_it_says(subject):
    model, ids = subject
    exact = "k = <f32>; v = <f32>; window = <sink = 0, recent = 0, flush = 32>"
    rows = {r.scheme: r for r in evaluation.evaluate(model, ids, [exact, "q8_0", "innerq-small"], passages=2, prefill=150,
                                                     tokens=50)}
    assert all(r.tokens == 100 for r in rows.values())
    assert rows[exact].kl < 1e-6 and rows[exact].top1 == 1 and abs(rows[exact].perplexity_ratio - 1) < 1e-4
    assert rows[exact].kl < rows["q8_0"].kl < rows["innerq-small"].kl
    assert (rows[exact].bits, rows["q8_0"].bits, rows["innerq-small"].bits) == (32, 8.5, 3.0)
    for r in rows.values():
        assert r.total_bits > r.bits and r.kl <= r.kl_p99 <= r.kl_max and r.kl_error > 0
        assert r.total_bytes * 8 == r.total_bits * 2 * 200 * 2 * 32


def test_outputs(subject, tmp_path):
    model, ids = subject
    saved = []
    results = evaluation.evaluate(model, ids, ["q8_0", "q4_0", "kivi-2"], passages=2, prefill=150, tokens=20,
                                  save=lambda passages, results: saved.append((passages, results)))
    # What a run that is cut off leaves behind.
    assert [passages for passages, _ in saved] == [1, 2] and saved[1][1] == results
    assert [r.tokens for r in saved[0][1]] == [20] * 3
    for name in ("t.md", "t.csv", "t.json", "t.png"):
        evaluation.write(results, tmp_path / name, "title")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "t.json").read_text())["results"][0]["scheme"] == "q8_0"
    front = evaluation.pareto(results)
    assert [r.bits for r in front] == sorted(r.bits for r in front)
    assert [r.kl for r in front] == sorted((r.kl for r in front), reverse=True)


@pytest.mark.parametrize("options, words", [
    (["no-such-folder", "--text", "{text}", "--scheme", "fp16"], "expected a folder with a model of Transformers"),
    (["{model}", "--text", "no.txt", "--scheme", "fp16"], "expected a file of text, but got 'no.txt'"),
    (["{model}", "--text", "{text}", "--scheme", "fp15", "--passages", "1"], "the nearest is fp16"),
    (["{model}", "--text", "{text}", "--scheme", "fp16", "--passages", "100"], "expected a text of at least"),
    (["{model}", "--text", "{text}", "--scheme", "fp16", "--chunk", "0"], "expected chunk of at least 1"),
    (["{model}", "--text", "{text}", "--scheme", "quanto:many", "--passages", "1"], "quanto"),
])
def test_eval_refuses(folder, capsys, options, words):
    filled = [o.format(model=folder / "model", text=folder / "text.txt") for o in options]
    assert evaluation.main(filled) == 1
    assert words in capsys.readouterr().err


def test_commas_of_schemes():
    assert list(evaluation.split_schemes(["a,b", "k = <i3, x>; v = <f16>", "auto; budget = 3"])) == \
        ["a", "b", "k = <i3, x>; v = <f16>", "auto; budget = 3"]
