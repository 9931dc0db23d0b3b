# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Context parallelism. What the ranks do is in ranks.py, which torchrun starts once for all its checks.
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; tools/dev setup --python")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("PyTorch has no gloo", allow_module_level=True)
import kvcc  # noqa: E402
from kvcc import distributed  # noqa: E402

RANKS = Path(__file__).with_name("ranks.py")
CHECKS = re.findall(r"^def (check_\w+)", RANKS.read_text(), re.M)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", RANKS,
                           folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("world", [4, 2])
def test_ranks(outcomes, check, world):
    for rank, results in enumerate(outcomes):
        assert results.get(f"{check}-{world}", "not run") is None, f"rank {rank}: {results}"


LOST = """
import datetime, os, sys
import torch, torch.distributed as dist
import kvcc
from kvcc import distributed
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=5))
out, lse = torch.zeros(1, 1, 4, 32), torch.zeros(1, 1, 4)
distributed.all_gather_merge(out, lse)
if dist.get_rank() == 1:
    os.kill(os.getpid(), 9) if sys.argv[1] == "killed" else sys.stdin.read()
try:
    distributed.all_gather_merge(out, lse)
except kvcc.Failed as error:
    print(error)
    sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("how", ["killed", "stuck"])
def test_a_lost_rank_is_an_error_of_the_others(how):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    start = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [subprocess.Popen([sys.executable, "-c", LOST, how], env={**os.environ, **start, "RANK": str(rank)},
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for rank in range(2)]
    try:
        printed, errors = ranks[0].communicate(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert "expected all 2 ranks to take part in the all-gather of partial results, but rank 0 got" in printed, errors
    assert "start the group anew" in printed


def test_a_group_is_needed():
    with pytest.raises(kvcc.InvalidArgument, match="expected a process group, but got none; call torch.distributed"):
        distributed.all_gather_merge(torch.zeros(1, 4), torch.zeros(1))


def test_merge():
    """kv.merge, and parts without tokens."""
    torch.manual_seed(0)
    outs, lses = torch.randn(3, 2, 1, 4, 8), 30 * torch.randn(3, 2, 1, 4)
    lses[0, 0], outs[0, 0] = -torch.inf, 0
    lses[:, 1, 0, 2], outs[:, 1, 0, 2] = -torch.inf, 0
    out, lse = distributed.merge(outs, lses)
    weights = lses.double().exp()
    total = weights.sum(0)
    assert torch.allclose(lse.double(), total.log(), rtol=1e-6)
    wanted = ((weights[..., None] * outs).sum(0) / total[..., None]).nan_to_num(0)
    assert torch.allclose(out.double(), wanted, atol=1e-6)
    assert (out[1, 0, 2] == 0).all() and lse[1, 0, 2] == -torch.inf
    assert not distributed.merge(outs * torch.nan, lses)[0].isfinite().any()
