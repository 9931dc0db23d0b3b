# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The cache and the attention for Transformers, on small models of each family with random weights, and on SmolLM2-135M
# where `tools/dev setup --python` has put it.
import copy
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; tools/dev setup --python")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed; tools/dev setup --python")
import kvcc  # noqa: E402
from kvcc.profile import capture  # noqa: E402
from kvcc.transformers import KvccCache, KvccLayer, find_padding  # noqa: E402

# The name that all versions know; newer ones prefer `cache`.
pytestmark = pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
F32 = "k = <f32>; v = <f32>; window = <sink = 0, recent = 0, flush = 32>"
SIZES = {"vocab_size": 300, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
         "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA4 = {"head_dim": 32, "global_head_dim": 512, "sliding_window": 64, "layer_types": LAYERS, "attention_k_eq_v": False,
          "num_kv_shared_layers": 0, "enable_moe_block": False, "hidden_size_per_layer_input": 0}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "mistral": {"sliding_window": 50},
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 40, "attn_logit_softcapping": 3.0,
               "layer_types": LAYERS},
    "gemma3_text": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64, "layer_types": LAYERS},
    "gpt_oss": {"head_dim": 32, "sliding_window": 33, "num_local_experts": 2, "num_experts_per_tok": 1,
                "layer_types": LAYERS},
}
EXACT = {"gemma2": "eager", "gpt_oss": "eager"}  # SDPA has no softcaps and no sinks


def make(family="llama", dtype=torch.float32, **changes):
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model


@pytest.fixture(scope="module")
def llama():
    return make()


def prompts(batch=3, tokens=70, padding=(0, 37, 5)):
    torch.manual_seed(1)
    ids = torch.randint(1, 300, (batch, tokens))
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, :padding[row]] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def generate(model, inputs, cache=None, tokens=30, **options):
    model.set_attn_implementation(EXACT.get(model.config.model_type, "sdpa") if cache is None else "kvcc")
    if cache is not None:
        options["past_key_values"] = cache
    return model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", [F32, "fp16"])
def test_greedy_output_is_that_of_the_exact_cache(family, scheme):
    model, inputs = make(family), prompts()
    cache = KvccCache(model, scheme)
    wanted = generate(model, inputs)
    assert torch.equal(generate(model, inputs, cache), wanted)
    assert cache.get_seq_length() == wanted.shape[1] - 1
    # Padding is not stored.
    assert cache.layers[0].cache.lengths == [99, 62, 94]
    assert all(layer.keys is None and layer.values is None for layer in cache.layers)


@pytest.mark.parametrize("dtype, scheme", [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_logits_in_half_precision(dtype, scheme):
    """Where tokens depend on rounding: as far from those in double precision as exact attention's."""
    torch.manual_seed(2)
    ids = torch.randint(1, 300, (2, 100))
    logits = {}
    for name, implementation, kind in [("double", "sdpa", torch.float64), ("exact", "sdpa", dtype), ("kvcc", "kvcc", dtype)]:
        model = make(dtype=dtype).to(kind)  # the same rounded weights
        model.set_attn_implementation(implementation)
        options = {"past_key_values": KvccCache(model, scheme)} if name == "kvcc" else \
            {"past_key_values": transformers.DynamicCache()}
        with torch.no_grad():
            model(ids[:, :60], **options)
            logits[name] = model(ids[:, 60:], **options).logits.double()
    errors = {name: (logits[name] - logits["double"]).norm() / logits["double"].norm() for name in ("exact", "kvcc")}
    assert errors["kvcc"] < 1.2 * errors["exact"] + 1e-3


@pytest.mark.parametrize("scheme, bound", [("auto", 0.2), ("innerq-small", 0.5), ("q8_0", 0.02), ("kvcc-3.5", 0.3)])
def test_quantized_schemes_come_near(scheme, bound):
    llama = make(initializer_range=0.08)  # attention that is not too sharp
    torch.manual_seed(3)
    ids = torch.randint(1, 300, (1, 400))
    cache = KvccCache(llama, scheme)
    with torch.no_grad():
        llama.set_attn_implementation("sdpa")
        wanted = llama(ids).logits[:, 380:]
        llama.set_attn_implementation("kvcc")
        llama(ids[:, :380], past_key_values=cache)
        got = llama(ids[:, 380:], past_key_values=cache).logits
    assert 0 < (got - wanted).norm() / wanted.norm() < bound
    assert cache.nbytes > 0 and cache.exact_nbytes == 3 * 2 * 400 * 2 * 32 * 4


def test_memory_is_as_promised(llama):
    torch.manual_seed(3)
    ids = torch.randint(1, 300, (1, 512))
    cache = KvccCache(llama, "q4_0", max_tokens=512)
    llama.set_attn_implementation("kvcc")
    with torch.no_grad():
        llama(ids, past_key_values=cache)
    info = cache.program.layers[0]
    pages = cache.program.pages_for(0, 512)
    assert cache.nbytes == 3 * (pages * info.page_bytes + info.slot_bytes)
    assert pages * info.page_bytes < 4.6 / 32 * cache.exact_nbytes / 3


def test_a_prompt_in_pieces_and_a_long_second_turn(llama):
    torch.manual_seed(4)
    ids = torch.randint(1, 300, (2, 100))
    cache = KvccCache(llama, F32)
    with torch.no_grad():
        llama.set_attn_implementation("sdpa")
        wanted = llama(ids).logits[:, 40:]
        llama.set_attn_implementation("kvcc")
        llama(ids[:, :40], past_key_values=cache)
        got = llama(ids[:, 40:], past_key_values=cache).logits
    assert (got - wanted).norm() < 1e-4 * wanted.norm()


def test_beams_and_drafts(llama):
    inputs = prompts()
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    for given, options in [(inputs, {"num_beams": 4}), (one, {"prompt_lookup_num_tokens": 4})]:
        wanted = generate(llama, given, **options)
        assert torch.equal(generate(llama, given, KvccCache(llama, F32), **options), wanted)


def test_batch_operations(llama):
    inputs = prompts()
    wanted = generate(llama, inputs, tokens=8)
    cache = KvccCache(llama, F32)
    out = generate(llama, inputs, cache, tokens=4)
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    rows = [2, 2, 0, 0]
    more = torch.cat([inputs["attention_mask"], torch.ones(3, 4, dtype=torch.long)], 1)[rows]
    again = generate(llama, {"input_ids": out[rows], "attention_mask": more}, cache, tokens=4)
    assert torch.equal(again, wanted[rows])
    cache.reorder_cache(torch.tensor([3, 2, 1, 0]))
    assert cache.layers[0].padding == [0, 0, 5, 5] and cache.batch_size == 4


def test_a_prompt_that_several_answers_share(llama):
    inputs = prompts()
    wanted = generate(llama, inputs, tokens=8)
    prompt = KvccCache(llama, F32)
    out = generate(llama, inputs, prompt, tokens=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], 1)
    for _ in range(2):
        cache = copy.deepcopy(prompt)
        assert torch.equal(generate(llama, {"input_ids": out, "attention_mask": mask}, cache, tokens=7), wanted)
        assert (prompt.get_seq_length(), cache.get_seq_length()) == (70, 77)


def test_crop_and_reset(llama):
    inputs = {name: tensor[:1] for name, tensor in prompts().items()}
    wanted = generate(llama, inputs)
    cache = KvccCache(llama, F32)
    assert torch.equal(generate(llama, inputs, cache), wanted)
    cache.crop(-20)
    assert cache.get_seq_length() == 79
    more = {"input_ids": wanted[:, :80], "attention_mask": torch.ones(1, 80, dtype=torch.long)}
    assert torch.equal(generate(llama, more, cache, tokens=20), wanted)
    with pytest.raises(kvcc.InvalidArgument, match="to take back"):
        cache.crop(-60)
    with pytest.raises(kvcc.InvalidArgument, match="at most 0"):
        cache.crop(5)
    cache.crop(-cache.get_seq_length())
    assert cache.get_seq_length() == 0
    assert torch.equal(generate(llama, inputs, cache), wanted)
    cache.reset()
    assert torch.equal(generate(llama, prompts(), cache), generate(llama, prompts()))  # another batch, too


# -- What is refused.

@pytest.mark.parametrize("family, changes, options, words", [
    ("gemma4_text", GEMMA4, {}, r"gemma4_text: layers 1, 2: head_dim 512.*is not served \(unserved='exact'"),
    ("llama", {"hidden_size": 96, "num_attention_heads": 4}, {}, "head_dim 24 .expected a multiple of 32"),
])
def test_models_are_refused_before_the_first_token(family, changes, options, words):
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **changes})
    with pytest.raises(kvcc.Unsupported, match=words):
        KvccCache(config, "fp16", **options)


def test_a_latent_cache_is_refused():
    config = transformers.AutoConfig.for_model("deepseek_v3")
    with pytest.raises(kvcc.Unsupported, match="MLA caches one latent per token"):
        KvccCache(config, "fp16")


def test_layers_that_are_not_served_are_left_to_transformers():
    model, inputs = make("gemma4_text", **GEMMA4), prompts()
    cache = KvccCache(model, F32, unserved="exact")
    assert [isinstance(layer, KvccLayer) for layer in cache.layers] == [True, False, False]
    assert torch.equal(generate(model, inputs, cache), generate(model, inputs))


def test_a_model_that_is_not_what_its_configuration_says():
    model = make("mistral")
    cache = KvccCache(model, F32)
    model.config.sliding_window = 10
    with pytest.raises(kvcc.Unsupported, match="expected a sliding window of 50 tokens, as the configuration says, but got 10"):
        generate(model, prompts(), cache, tokens=2)
    model = make("gemma2")
    cache = KvccCache(model, F32)
    model.model.layers[0].self_attn.attn_logit_softcapping = None
    with pytest.raises(kvcc.Unsupported, match="expected a softcap of 3, as the configuration says, but got 0"):
        generate(model, prompts(), cache, tokens=2)


def test_more_than_max_tokens(llama):
    with pytest.raises(kvcc.InvalidArgument, match="at most max_tokens = 80 tokens, but got 81"):
        generate(llama, prompts(), KvccCache(llama, F32, max_tokens=80))


def test_the_attention_and_the_cache_need_each_other(llama):
    inputs = prompts()
    llama.set_attn_implementation("kvcc")
    with pytest.raises(kvcc.InvalidArgument, match="expected keys of a KvccCache, but got others; pass past_key_values"):
        llama.generate(**inputs, max_new_tokens=2)
    llama.set_attn_implementation("sdpa")
    with pytest.raises(kvcc.InvalidArgument, match="but got 'sdpa'; call model.set_attn_implementation"):
        llama.generate(**inputs, past_key_values=KvccCache(llama, F32), max_new_tokens=2)
    # A configuration that the model does not know of.
    cache = KvccCache(transformers.LlamaConfig(**SIZES), F32)
    with pytest.raises(kvcc.InvalidArgument, match="after each update, but got a second update"):
        llama.generate(**inputs, past_key_values=cache, max_new_tokens=2)


def test_a_cache_of_two_models(llama):
    cache, inputs = KvccCache(llama, F32), prompts()
    generate(llama, inputs, cache, tokens=2)
    other = make()
    other.set_attn_implementation("kvcc")
    with pytest.raises(kvcc.InvalidArgument, match="expected one model to use this KvccCache"):
        other(inputs["input_ids"][:, :1], past_key_values=cache, attention_mask=torch.ones(3, 72))


@pytest.mark.parametrize("make_cache, words", [
    (lambda m: KvccCache(m, "fp16", dtype=torch.float16), "expected keys of f16 in layer 0, but got torch.float32"),
    (lambda m: KvccCache(m, "fp16", dtype=torch.int8), "expected a dtype of"),
    (lambda m: KvccCache(transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 1}), "fp16"), "for another model"),
    (lambda m: KvccCache(transformers.LlamaConfig(**{**SIZES, "num_hidden_layers": 2}), "fp16"), "layer_idx from 0 to 1"),
    (lambda m: KvccCache("model", "fp16"), "expected model to be a model or a configuration"),
    (lambda m: KvccCache(m, "fp15"), "the nearest is fp16"),
    (lambda m: KvccCache(m, "fp16", unserved="maybe"), "expected unserved to be 'refuse' or 'exact'"),
    (lambda m: KvccCache(m, "fp16", max_tokens=0), "expected max_tokens of at least 1"),
])
def test_wrong_caches(llama, make_cache, words):
    with pytest.raises(kvcc.InvalidArgument, match=words):
        generate(llama, prompts(), make_cache(llama))


def test_masks(llama):
    inputs = prompts()
    for row, column in [(0, 10), (1, 69), (2, 69)]:
        wrong = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
        wrong["attention_mask"][row, column] = 0
        with pytest.raises(kvcc.Unsupported, match="causal with padding at the left"):
            generate(llama, wrong, KvccCache(llama, F32), tokens=2)
    cache = KvccCache(llama, F32)
    out = generate(llama, inputs, cache, tokens=2)
    with pytest.raises(kvcc.InvalidArgument, match=r"hides \[0, 37, 5\] tokens"):
        llama(out[:, -1:], past_key_values=cache)
    info = cache.layers[0].info
    two_way = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(kvcc.Unsupported, match="causal"):
        find_padding(two_way, 1, 8, 8, info)
    with pytest.raises(kvcc.Unsupported, match=r"shape \[1, 1, 8, 9\]"):
        find_padding(two_way, 1, 8, 9, info)
    with pytest.raises(kvcc.InvalidArgument, match="only padding in sequence 0"):
        find_padding(torch.zeros(1, 1, 8, 8, dtype=torch.bool), 1, 8, 8, info)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_what_a_profile_captures(family):
    model = make(family)
    model.set_attn_implementation(EXACT.get(family, "sdpa"))
    ids = prompts(1, 90, (0,))["input_ids"][0]
    tensors = capture(model, ids)
    with torch.no_grad():
        layers = model(ids[None], use_cache=True, past_key_values=transformers.DynamicCache()).past_key_values.layers
    for index, layer in enumerate(layers):
        for name, known in (("k", layer.keys), ("v", layer.values)):
            torch.testing.assert_close(tensors[f"layer.{index}.{name}"].float(), known[0], rtol=1e-3, atol=1e-3)
        assert tensors[f"layer.{index}.q"].shape == (4, 90, 32) and tensors[f"layer.{index}.g"].isfinite().all()


@pytest.mark.parametrize("layer", range(3))
def test_sensitivities_predict_the_kl(llama, layer):
    llama.set_attn_implementation("sdpa")
    ids = prompts(1, 232, (0,))["input_ids"][0]
    tensors = capture(llama, ids, queries=2)
    assert tensors[f"layer.{layer}.q"].shape == (4, 2, 32) and tensors[f"layer.{layer}.k"].shape == (2, 232, 32)
    assert "layer.0.g" not in capture(llama, ids, sensitivity=False)
    projection = llama.model.layers[layer].self_attn.o_proj
    with torch.no_grad():
        exact = llama(ids[None]).logits[0].log_softmax(-1)
    # By far less than what a head gives, at every token but those that the sensitivities leave out.
    sigma, sums = 1e-3, []
    for _ in range(8):
        noise = sigma * torch.randn(1, 232, 128)
        noise[:, :32] = 0
        hook = projection.register_forward_pre_hook(lambda module, inputs: (inputs[0] + noise,))
        with torch.no_grad():
            changed = llama(ids[None]).logits[0].log_softmax(-1)
        hook.remove()
        sums.append((exact.exp() * (exact - changed)).double().sum())
    traces = torch.einsum("hii->", tensors[f"layer.{layer}.g"].double())
    assert float(sum(sums) / 8) == pytest.approx(float(0.5 * sigma**2 * traces * 200), rel=0.3)


def test_training_is_refused():
    model = make(attention_dropout=0.1).train()
    model.set_attn_implementation("kvcc")
    with pytest.raises(kvcc.Unsupported, match="expected no dropout"):
        model(prompts()["input_ids"], past_key_values=KvccCache(model, F32))


# -- A real model.

@pytest.fixture(scope="module")
def smollm2():
    folder = Path(os.environ.get("KVCC_SMOLLM2", ""))
    if not (folder / "config.json").exists():
        pytest.skip("no folder of SmolLM2-135M in KVCC_SMOLLM2; tools/dev setup --python makes one")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def test_smollm2_generates(smollm2):
    model, tokenizer = smollm2
    tokenizer.padding_side = "left"
    inputs = tokenizer(["The capital of France is", "Once upon a time, there was a little girl who"], padding=True,
                       return_tensors="pt")
    wanted = generate(model, inputs, tokens=12)
    assert torch.equal(generate(model, inputs, KvccCache(model, "fp16"), tokens=12), wanted)
    # So few tokens all stay in the windows.
    assert torch.equal(generate(model, inputs, KvccCache(model, "auto"), tokens=12), wanted)
    assert "Paris" in tokenizer.decode(wanted[0])
