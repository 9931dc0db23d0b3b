# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The operators for PyTorch.
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; tools/dev setup --python")
import kvcc  # noqa: E402
import kvcc.torch  # noqa: E402

HEADS, KV_HEADS, DIM = 9, 3, 64


class Step:
    """One sequence, with room for `tokens` tokens, as arguments of the operators."""

    def __init__(self, program, tokens=256, dtype=torch.bfloat16):
        info, self.program = program.layer(0), program
        self.handle = kvcc.torch.register(program)
        count = program.pages_for(0, tokens)
        self.pages = torch.zeros(count, info.page_bytes, dtype=torch.uint8)
        self.slot_pool = torch.zeros(1, info.slot_bytes, dtype=torch.uint8)
        self.table = torch.arange(count, dtype=torch.int32)[None]
        self.slots = torch.zeros(1, dtype=torch.int32)
        torch.manual_seed(0)
        self.keys, self.values = torch.randn(2, 1, KV_HEADS, tokens, DIM).to(dtype)
        self.query = torch.randn(1, 1, HEADS, DIM).to(dtype)

    def memory(self):
        return self.pages, self.slot_pool, self.table, self.slots

    def arguments(self, start, end):
        length = torch.tensor([end], dtype=torch.int32)
        return (self.keys[:, :, start:end], self.values[:, :, start:end], *self.memory(), length,
                torch.tensor([end - start], dtype=torch.int32), self.handle, 0)

    def attend_arguments(self, end):
        return self.query, *self.memory(), torch.tensor([end], dtype=torch.int32), end, self.handle, 0

    def wanted(self, end):
        keys, values = (x[:, :, :end].double().repeat_interleave(HEADS // KV_HEADS, 1) for x in (self.keys, self.values))
        return torch.nn.functional.scaled_dot_product_attention(self.query.transpose(1, 2).double(), keys,
                                                                values).transpose(1, 2)


@pytest.fixture(scope="module")
def program(model_path):
    return kvcc.compile(model_path, "bf16", dtype="bf16")


def test_append_and_attend(program):
    step = Step(program)
    torch.ops.kvcc.append(*step.arguments(0, 200))
    torch.ops.kvcc.append(*step.arguments(200, 201))
    out, lse = torch.ops.kvcc.attend(*step.attend_arguments(201))
    assert out.shape == (1, 1, HEADS, DIM) and lse.shape == (1, 1, HEADS) and out.dtype == lse.dtype == torch.float32
    assert (out - step.wanted(201)).abs().max() < 1e-5


def test_opcheck(program):
    step = Step(program)
    torch.library.opcheck(torch.ops.kvcc.append.default, step.arguments(0, 100))
    torch.library.opcheck(torch.ops.kvcc.attend.default, step.attend_arguments(100))


def test_compile_fullgraph(program):
    step = Step(program)

    def decode(hidden, keys, values, pages, slot_pool, lengths, added, end: int):
        torch.ops.kvcc.append(keys, values, pages, slot_pool, step.table, step.slots, lengths, added, step.handle, 0)
        out, _ = torch.ops.kvcc.attend(hidden * 2, pages, slot_pool, step.table, step.slots, lengths, end, step.handle, 0)
        return out.relu() + 1

    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
    results = []
    for function in (decode, compiled):
        step.pages.zero_(), step.slot_pool.zero_()
        torch.ops.kvcc.append(*step.arguments(0, 100))
        results.append([])
        for end in range(101, 105):
            lengths, added = (torch.tensor([n], dtype=torch.int32) for n in (end, 1))
            results[-1].append(function(step.query, step.keys[:, :, end - 1:end], step.values[:, :, end - 1:end], step.pages,
                                        step.slot_pool, lengths, added, end))
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_fake_tensors_have_shapes(program):
    from torch._subclasses.fake_tensor import FakeTensorMode
    step = Step(program)
    with FakeTensorMode(allow_non_fake_inputs=True):
        out, lse = torch.ops.kvcc.attend(torch.empty(4, 2, HEADS, DIM), *step.attend_arguments(8)[1:])
    assert out.shape == (4, 2, HEADS, DIM) and lse.shape == (4, 2, HEADS)


def test_tensor_memory(program):
    step = Step(program)
    memory = kvcc.torch.TensorMemory("cpu")
    pool = memory.empty(3, 100)
    assert pool.shape == (3, 100) and pool.is_contiguous() and pool.data_ptr() % 64 == 0
    cache = kvcc.LayerCache(program, memory=memory)
    cache.append(step.keys, step.values)
    out, _ = cache.attend(step.query)
    assert isinstance(out, torch.Tensor) and (out - step.wanted(256)).abs().max() < 1e-5


@pytest.mark.parametrize("change, words", [
    (lambda a: (a[0].float(), *a[1:]), "expected query of bfloat16, but got float32"),
    (lambda a: (a[0][0], *a[1:]), "expected query of shape"),
    (lambda a: (*a[:3], a[3].long(), *a[4:]), "expected table of int32, but got int64"),
    (lambda a: (*a[:7], 12345, 0), "that kvcc.torch.register gave"),
    (lambda a: (*a[:8], 99), "expected layer from 0 to 29, but got 99"),
    (lambda a: (a[0].transpose(2, 3).contiguous().transpose(2, 3), *a[1:]), "query that is contiguous"),
])
def test_refused(program, change, words):
    step = Step(program)
    torch.ops.kvcc.append(*step.arguments(0, 100))
    with pytest.raises(kvcc.InvalidArgument, match=words):
        torch.ops.kvcc.attend(*change(step.attend_arguments(100)))


def test_a_program_is_needed():
    with pytest.raises(kvcc.InvalidArgument, match="expected program to be a kvcc.Program"):
        kvcc.torch.register("program")
    with pytest.raises(kvcc.InvalidArgument, match="torch.float16, torch.bfloat16, torch.float32, but got torch.int8"):
        kvcc.torch.dtype_name(torch.int8)
