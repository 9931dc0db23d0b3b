#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the emitted CUDA kernels cost, from their machine code: no GPU is needed, and nothing here is a time on one.

Every (scheme, shape, architecture) is compiled by kvcc and disassembled by nvdisasm. The main loop of the attention
kernel is found and its instructions are counted for one block of 32 tokens of one KV head, which one warp handles, so
that a lane has 2 * head_dim stored elements of it; where query heads need several passes over a block, all of them
count. disassembly.py says which loop is taken and what of it is counted. What runs once per split (query, windows,
merge) is not.

The budget is how many instructions a lane can issue for each element while the GPU reads the element's bytes, scales
included: multiprocessors * 4 schedulers * 32 lanes * clock / (0.9 * bandwidth) * bytes. The 0.9 is an assumption: a
kernel reaches about nine tenths of the bandwidth that data sheets give. The GPU is the one of the architecture with the
least budget (passes/TargetInfo.cpp), or --gpu. A kernel that uses more than its budget is bound by instructions.
"""
import argparse
import concurrent.futures
import csv
import datetime
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from disassembly import KINDS, DisassemblyError, Kernel, parse, read_resources

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
RESULTS = ROOT / "tools/bench/results"
BASELINE = RESULTS / "sass-baseline.csv"
PIN = ROOT / "tools/bench/requirements-sass.txt"
TOLERANCE = 0.05
REACHED = 0.9  # of the theoretical bandwidth

SHAPES = ["llama-3.1-8b", "llama-3.1-405b", "llama-2-7b", "qwen2.5-7b-instruct", "gemma-2-9b", "llama-3.2-1b-instruct"]
WINDOW = "<sink = 32, recent = 96, flush = 32>"
PRESETS = ["innerq-base", "innerq-small", "innerq-hybrid", "kvcc-3", "kvcc-3.5", "kivi-2", "q4_0", "q8_0", "int4-token", "fp8",
           "fp16"]
CUSTOM = {f"K{k} V{v}": (f"<i{k}, map = sym, group = 1x32, scale = f16>",
                         f"<i{v}, map = sym, group = 32x1, scale = f16>")
          for k, v in ((3, 2), (2, 2), (4, 4), (3, 3))}
# What a baseline has unless rows are chosen: each architecture (sm_86 is like sm_89 here), most shapes and formats once.
CHECKED = ([("innerq-small", "llama-3.1-8b", arch)
            for arch in ("sm_75", "sm_80", "sm_89", "sm_90", "sm_100", "sm_120")] +
           [(scheme, "llama-3.1-8b", "sm_90") for scheme in ("innerq-base", "kivi-2", "q4_0", "fp8")] +
           [("innerq-small", shape, "sm_90") for shape in ("qwen2.5-7b-instruct", "gemma-2-9b")])

# Warps, blocks and KiB of shared memory of a multiprocessor (CUDA C++ Programming Guide 13, "Technical Specifications
# per Compute Capability"); all have 65536 registers in four parts, given to warps in units of 256. Shared memory of a
# block comes in units of 128 bytes (256 on sm_75), and since sm_80 the driver takes 1 KiB more (Tuning Guides).
LIMITS = {"sm_75": (32, 16, 64), "sm_80": (64, 32, 164), "sm_86": (48, 16, 100), "sm_89": (48, 24, 100),
          "sm_90": (64, 32, 228), "sm_100": (64, 32, 228), "sm_120": (48, 24, 100)}

COLUMNS = ["scheme", "shape", "arch", "gpu", "bits", "instructions", "per_element", "budget", "used_percent", *KINDS,
           "registers", "local_bytes", "spill_bytes", "shared_bytes", "threads", "ctas_per_sm", "warps_per_sm",
           "cubin_bytes", "compile_ms", "kernel", "loop", "blocks_per_iteration", "inner_trips", "outer_trips", "passes",
           "remarks"]


PEER_COLUMNS = ["peer", "arch", "per_element", "of_what", "registers"]


class Failure(Exception):
    """Something to tell the user in one line."""


# The machine's tools.


def environment_folder():
    return Path(os.environ.get("KVCC_PYTHON_ENV", ROOT / ".venv"))


def find_nvdisasm():
    if named := os.environ.get("KVCC_NVDISASM"):
        if os.access(named, os.X_OK):
            return named
        raise Failure(f"expected the path of nvdisasm in KVCC_NVDISASM, but got '{named}'")
    for found in sorted(environment_folder().glob("lib/python3*/site-packages/nvidia/*/bin/nvdisasm")):
        return str(found)
    for toolkit in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if toolkit and os.access(f"{toolkit}/bin/nvdisasm", os.X_OK):
            return f"{toolkit}/bin/nvdisasm"
    return shutil.which("nvdisasm")


def need_nvdisasm():
    path = find_nvdisasm()
    if not path:
        raise Failure("no nvdisasm, the disassembler of CUDA; `tools/dev bench sass --install` installs it, or set "
                      "KVCC_NVDISASM to its path")
    return path


def install():
    folder = environment_folder()
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r",
                       PIN]).returncode:
        raise Failure(f"cannot install what {PIN.relative_to(ROOT)} pins into {folder}")


def disassemble(cubin_path):
    done = subprocess.run([need_nvdisasm(), "-c", str(cubin_path)], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"nvdisasm: {done.stderr.strip()}")
    return parse(done.stdout)


def kvcc(*arguments):
    done = subprocess.run([str(BUILD / "bin/kvcc"), *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "KVCC_CACHE": "off"})
    if done.returncode:
        found = done.stderr.split("kvcc: error: ", 1)[-1].strip()
        raise Failure("; ".join(line.strip() for line in found.splitlines()).replace(":; ", ": "))
    return done


# GPUs.


def gpus():
    """{name: (arch, lane instructions per byte read)}, from the table that the compiler's cost model uses."""
    text = (ROOT / "passes/TargetInfo.cpp").read_text()
    rows = re.findall(r'gpu\("([\w-]+)", "(sm_\d+)", (\d+), ([\d.]+), ([\d.]+),', text)
    if not rows:
        raise Failure("expected the table of GPUs in passes/TargetInfo.cpp, but found no row")
    return {name: (arch, int(units) * 4 * 32 * float(megahertz) * 1e6 / (REACHED * float(gigabytes) * 1e9))
            for name, arch, units, megahertz, gigabytes in rows}


def gpu_of(arch, chosen):
    own = {name: rate for name, (of, rate) in gpus().items() if of == arch}
    name = next((name for name in chosen if name in own), None) or min(own, key=own.get)
    return name, own[name]


def occupancy(arch, registers, shared, threads):
    """Blocks of a kernel that a multiprocessor holds."""
    warps_limit, blocks_limit, kilobytes = LIMITS[arch]
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    unit, reserved = (256, 0) if arch == "sm_75" else (128, 1024)
    taken = -(-(shared + reserved) // unit) * unit
    return min(blocks_limit, warps_limit // warps, 65536 // 4 // per_warp * 4 // warps,
               kilobytes * 1024 // taken if taken else blocks_limit)


# One row.


def scheme_arguments(scheme):
    if scheme in CUSTOM:
        return ["-k", CUSTOM[scheme][0], "-v", CUSTOM[scheme][1], "--window", WINDOW]
    if scheme.startswith("<"):
        keys, separator, values = scheme.partition(" / ")
        if not separator:
            raise Failure(f"expected a preset, {', '.join(CUSTOM)}, a table FILE.mlir or '<KEYS> / <VALUES>', but got "
                          f"'{scheme}'")
        return ["-k", keys, "-v", values, "--window", WINDOW]
    return ["--scheme", scheme]


def write_model(shape, folder):
    """The model's configuration without a softcap, which kvcc refuses and which costs little."""
    config = json.loads((ROOT / f"test/models/{shape}.json").read_text())
    if "attn_logit_softcapping" in config:
        config["attn_logit_softcapping"] = None  # leaving it out would mean the default of the family
    path = Path(folder) / f"{shape}.json"
    path.write_text(json.dumps(config))
    return path


def spill_bytes(kernel):
    """What loads from and stores to local memory move, each counted once."""
    return sum(next((int(bits) // 8 for bits in ("128", "64") if f".{bits}" in i.opcode), 4)
               for block in kernel.blocks for i in block.instructions if i.name in ("LDL", "STL"))


def choose_kernel(code, pattern):
    names = [name for name in code if re.search(pattern, name)]
    if not names:
        raise Failure(f"expected --kernel to match one of {', '.join(sorted(code))}, but got '{pattern}'")
    return [(name, Kernel(code[name])) for name in sorted(names)]


def analyse(code, head_dim, heads, options):
    """The matching kernel whose main loop has the most products."""
    best = None
    for name, kernel in choose_kernel(code, options.kernel):
        loop = kernel.main_loop(head_dim, heads, options.blocks, options.inner)
        if loop and (not best or (loop.tensor, loop.found, loop.products) > best[0]):
            best = (loop.tensor, loop.found, loop.products), name, kernel, loop
    if not best:
        raise Failure(f"expected a loop in the kernels that match '{options.kernel}', but got none")
    return best[1:]


def remarks_of(loop, used=None, options=None):
    remarks = []
    if used and used.dynamic and not options.dynamic_shared:
        remarks.append("dynamic shared memory of unknown size, not in the occupancy (see --dynamic-shared)")
    if not loop.found:
        remarks.append("no loop has the products of a block: the one with the most is taken for one")
    if loop.inner_trips.count(None):
        remarks.append(f"inner loops that run an unknown number of times, counted once: {loop.inner_trips.count(None)}")
    if loop.unshared:
        remarks.append(f"instructions around the loop, not counted (see --inner): {loop.unshared}")
    return remarks


def measure(scheme, shape, arch, model, options, rounds):
    target = ["--target", f"cuda:{arch}"]
    try:
        group = json.loads(kvcc("explain", model, *scheme_arguments(scheme), *target, "-o", "json").stdout)["groups"]
        group = next(each for each in group if each["served"])
        times = []
        with tempfile.TemporaryDirectory(prefix="kvcc-sass-") as folder:
            path = Path(folder) / "kernel.cubin"
            for _ in range(rounds):
                done = kvcc("compile", model, *scheme_arguments(scheme), *target, "--emit", "cubin", "-o", path)
                times.append(float(re.search(r"compiled cold in ([\d.]+) ms", done.stderr).group(1)))
            code, cubin = disassemble(path), path.read_bytes()
        pass_heads = int(re.search(r"heads = (\d+)", group["schedule"]).group(1))
        name, kernel, loop = analyse(code, group["head_dim"], pass_heads, options)
        used = read_resources(cubin)[name]
    except Failure as failure:
        raise Failure(f"{scheme}, {shape}, {arch}: {failure}") from None
    bits = (group["key_bits"] + group["value_bits"]) / 2
    passes = -(-group["q_heads"] // group["kv_heads"] // pass_heads)
    instructions = passes * sum(loop.counts.values())
    per_element = instructions / (2 * group["head_dim"])
    gpu, rate = gpu_of(arch, options.gpu)
    budget = rate * bits / 8
    shared = used.shared + options.dynamic_shared
    ctas = occupancy(arch, used.registers, shared, used.threads) if used.threads else ""
    row = {"scheme": scheme, "shape": shape, "arch": arch, "gpu": gpu, "bits": f"{bits:.2f}",
           "instructions": f"{instructions:.1f}", "per_element": f"{per_element:.3f}", "budget": f"{budget:.2f}",
           "used_percent": f"{100 * per_element / budget:.0f}",
           **{kind: f"{passes * loop.counts[kind]:.1f}" for kind in KINDS}, "registers": used.registers,
           "local_bytes": used.stack, "spill_bytes": spill_bytes(kernel), "shared_bytes": shared,
           "threads": used.threads, "ctas_per_sm": ctas, "warps_per_sm": ctas and ctas * -(-used.threads // 32),
           "cubin_bytes": len(cubin), "compile_ms": f"{statistics.median(times):.0f}", "kernel": name,
           "loop": hex(loop.address), "blocks_per_iteration": loop.blocks,
           "inner_trips": " ".join(str(trips or "?") for trips in loop.inner_trips),
           "outer_trips": " ".join(map(str, loop.outer_trips)), "passes": passes,
           "remarks": "; ".join(remarks_of(loop, used, options))}
    assert list(row) == COLUMNS
    return row


def measure_all(wanted, options, rounds):
    need_nvdisasm()
    with tempfile.TemporaryDirectory(prefix="kvcc-sass-") as folder, \
            concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        models = {shape: write_model(shape, folder) for shape in {shape for _, shape, _ in wanted}}
        jobs = [pool.submit(measure, *each, models[each[1]], options, rounds) for each in wanted]
        try:
            return [job.result() for job in jobs]
        except Failure:
            pool.shutdown(cancel_futures=True)
            raise


# Output.


def table(rows, columns):
    cells = [[str(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in
                     [[column.replace("_", " ") for column in columns], ["---"] * len(columns), *cells])


def report(rows):
    costs = ["scheme", "shape", "arch", "gpu", "bits", "instructions", "per_element", "budget", "used_percent",
             "registers", "local_bytes", "spill_bytes", "shared_bytes", "threads", "ctas_per_sm", "warps_per_sm",
             "cubin_bytes", "compile_ms"]
    kinds = ["scheme", "shape", "arch", *KINDS, "passes", "blocks_per_iteration", "inner_trips", "outer_trips"]
    text = (f"{table(rows, costs)}\n\nInstructions of a lane per block of 32 tokens and KV head, by class:\n\n"
            f"{table(rows, kinds)}\n")
    remarks = {}
    for row in rows:
        if row["remarks"]:
            remarks.setdefault(row["remarks"], []).append(f"{row['scheme']}, {row['shape']}, {row['arch']}")
    for remark, where in remarks.items():
        text += f"\n* {remark} ({len(where)} rows: {'; '.join(where[:3])}{'; ...' if len(where) > 3 else ''})"
    return text + ("\n" if remarks else "")


def write_csv(rows, path):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def record(rows, options):
    today = datetime.date.today()
    version = subprocess.run([find_nvdisasm(), "--version"], capture_output=True, text=True).stdout
    version = re.search(r"V([\d.]+)", version)[1]
    nvrtc = json.loads(kvcc("doctor", "-o", "json").stdout).get("nvrtc", {}).get("version", "")
    text = (f"Emitted CUDA kernels by their machine code, {today}; `tools/dev bench sass {shlex.join(sys.argv[1:])}`; "
            f"NVRTC {nvrtc}, nvdisasm {version}. No GPU was used. Instructions are a lane's, per block of 32 tokens and "
            f"KV head, and per stored element of keys and values; the budget is what `gpu` can issue while it reads the "
            f"element's bytes at {REACHED} of its theoretical bandwidth. Local memory and spills in bytes per thread; "
            f"compile ms: from the scheme to the cubin with all of its kernels, median of {options.rounds} fresh "
            f"processes, {options.jobs} at a time. `tools/bench/sass.py` and `disassembly.py` say what is counted.\n\n")
    (RESULTS / f"sass-{today}.md").write_text(text + report(rows))
    write_csv(rows, RESULTS / f"sass-{today}.csv")


# --check.


def key(row):
    return row["scheme"], row["shape"], row["arch"]


def read_baseline(path, wanted):
    if not path.is_file():
        raise Failure(f"expected a baseline that --update-baseline wrote, but there is no file '{path}'")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        baseline = {key(row): float(row["per_element"]) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise Failure(f"expected the columns scheme, shape, arch and per_element in '{path}'") from None
    if not baseline:
        raise Failure(f"expected at least one row in '{path}'")
    for scheme, shape, arch in baseline:
        if shape not in SHAPES or arch not in LIMITS:
            raise Failure(f"expected a shape ({', '.join(SHAPES)}) and an architecture ({', '.join(LIMITS)}) in "
                          f"'{path}', but got '{shape}', '{arch}'")
    if wanted is not None:
        baseline = {each: value for each, value in baseline.items() if each in wanted}
        if not baseline:
            raise Failure(f"expected some of the rows of '{path}' to be chosen, but got none")
    return baseline


def check(baseline, rows):
    worse, better = [], []
    for row in rows:
        now, then = float(row["per_element"]), baseline[key(row)]
        line = (f"{', '.join(key(row))}: {now:.3f} instructions per element, recorded {then:.3f} "
                f"({100 * (now / then - 1):+.1f} %)")
        if now > then * (1 + TOLERANCE):
            worse.append(line)
        elif now < then * (1 - TOLERANCE):
            better.append(line)
    for line in better:
        print(f"sass.py: note: better: {line}; record a new baseline with --update-baseline")
    for line in worse:
        print(f"sass.py: error: {line}", file=sys.stderr)
    if worse:
        print(f"sass.py: {len(worse)} of {len(rows)} rows are more than {100 * TOLERANCE:.0f} % above the baseline",
              file=sys.stderr)
        return 1
    print(f"sass.py: {len(rows)} rows, none more than {100 * TOLERANCE:.0f} % above the baseline")
    return 0


# --peers.


def heaviest_loop(kernel):
    """The loop with the most products, of such loops the one with the most logic: that decodes; the other reads windows."""
    totals = [kernel.totals(loop, kernel.tensor)[:2] for loop in kernel.loops]
    return max(totals, key=lambda total: (total[1], total[0]["logic"]))[0]


def count_peer(cubin, name, elements):
    """(instructions, per element, registers) of the main loop of kernel `name`, which decodes `elements` in a lane."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        code = disassemble(file.name)
    total = sum(heaviest_loop(Kernel(code[name])).values())
    return total, total / elements, read_resources(cubin)[name].registers


def peer_rows(arch, head_dim=128, queries=4):
    """What cuda.py's peers of this folder need, for the heads of Llama-3.1-8B; Triton's best block and warps."""
    import innerq_peer
    rows = []
    for kind, bits in innerq_peer.KINDS.items():
        cubin = innerq_peer.compile_cubin(innerq_peer.text(*bits, head_dim, queries), arch)
        both = [("keys", count_peer(cubin, "innerq_scores", head_dim)), ("values", count_peer(cubin, "innerq_values", 32))]
        mean = sum(count[1] for _, count in both) / 2
        rows.append([f"innerq-{kind}", f"{mean:.2f}", "; ".join(f"{what} {count[1]:.2f}" for what, count in both),
                     max(count[2] for _, count in both)])
    try:
        import triton_peer
    except ImportError as error:
        print(f"sass.py: note: Triton's kernels are not counted: {error}", file=sys.stderr)
        return rows
    for kind, (_, inner) in triton_peer.FORMATS.items():
        for packed in (True, False):
            counts = []
            for tokens, warps in sorted({(c.kwargs["TOKENS"], c.num_warps) for c in triton_peer.configs()}):
                if inner and tokens != triton_peer.GROUP:
                    continue
                cubin = triton_peer.compile_cubin(kind, arch, tokens, warps, 3, head_dim, queries, packed)
                counts.append((count_peer(cubin, "split_kernel", 2 * tokens * head_dim / (32 * warps))[1:], tokens, warps))
            (per_element, registers), tokens, warps = min(counts)
            name = f"triton-{kind}" + ("" if packed else ", without assembly")
            rows.append([name, f"{per_element:.2f}", f"blocks of {tokens} tokens, warps: {warps}", registers])
    return rows


def show_peers(options):
    from peers import Unavailable
    need_nvdisasm()
    for arch in chosen_archs(options):
        try:
            rows = peer_rows(arch)
        except Unavailable as error:
            raise Failure(str(error)) from None
        print(table([dict(zip(PEER_COLUMNS, [row[0], arch, *row[1:]])) for row in rows], PEER_COLUMNS), flush=True)
    return 0


# --file.


def show_file(options):
    path = options.file
    if not path.is_file():
        raise Failure(f"expected a cubin or a disassembly, but there is no file '{path}'")
    data = path.read_bytes()
    is_cubin = data[:4] == b"\x7fELF"
    code = disassemble(path) if is_cubin else parse(data.decode(errors="replace"))
    if not code:
        raise Failure(f"expected a cubin or what nvdisasm -c prints of one, but got '{path}'")
    name, _, loop = analyse(code, options.head_dim, options.heads, options)
    total = sum(loop.counts.values())
    print(f"{name}: loop at {loop.address:#x}, products by {'tensor cores' if loop.tensor else 'FFMA'}")
    print(f"blocks per iteration: {loop.blocks}; trips of inner loops: {loop.inner_trips or 'none'}, of it in the loops "
          f"around: {loop.outer_trips or 'none'}; instructions that rarely run: {loop.skipped}")
    print(f"per block: {total:.1f} instructions, {total / (2 * options.head_dim):.3f} per element, "
          f"{loop.products:.0f} products")
    print(", ".join(f"{kind} {loop.counts[kind]:.1f}" for kind in KINDS if loop.counts[kind]))
    for remark in remarks_of(loop):
        print(f"remark: {remark}")
    if is_cubin:
        used = read_resources(data)[name]
        print(f"registers {used.registers}, local {used.stack} bytes, shared {used.shared} bytes, threads {used.threads}")
    return 0


# Command line.


def positive(text):
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"expected a positive number, but got '{text}'")
    return int(text)


def one_of(what, legal):
    def convert(text):
        if text not in legal:
            raise argparse.ArgumentTypeError(f"expected {what} ({', '.join(legal)}), but got '{text}'")
        return text
    return convert


def pattern(text):
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"expected a regular expression, but got '{text}': {error}") from None
    return text


def parse_options(arguments):
    parser = argparse.ArgumentParser(prog="sass.py", description=__doc__.split("\n\n")[0],
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheme", nargs="+", metavar="S",
                        help=f"presets, {', '.join(CUSTOM)}, tables (FILE.mlir) or IR, '<KEYS> / <VALUES>'; default: all "
                             f"of {', '.join(PRESETS + list(CUSTOM))}")
    parser.add_argument("--shape", nargs="+", metavar="M", type=one_of("a shape", SHAPES),
                        help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--arch", nargs="+", metavar="A", type=one_of("an architecture", [*LIMITS, "all"]),
                        help=f"default: sm_90; all: {' '.join(LIMITS)}")
    parser.add_argument("--gpu", nargs="+", metavar="G", default=[], type=one_of("a GPU", list(gpus())),
                        help="whose budget, where it has the architecture; default: the one with the least")
    parser.add_argument("--kernel", default="attend", type=pattern, metavar="REGEX",
                        help="which kernel; default: attend")
    parser.add_argument("--blocks", type=positive, metavar="N",
                        help="blocks of 32 tokens per iteration of the main loop; default: by its number of products")
    parser.add_argument("--inner", type=positive, metavar="N", help="iterations of the main loop per iteration of the "
                        "one around it; default: found in the code, where it is a constant")
    parser.add_argument("--dynamic-shared", type=positive, default=0, metavar="BYTES",
                        help="dynamic shared memory of a launch, which a cubin does not tell, for the occupancy")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="compilations of each kernel; default: 3")
    parser.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="processes at a time; default: one per processor")
    parser.add_argument("--record", action="store_true", help="write results/sass-DATE.md and .csv")
    parser.add_argument("--check", nargs="?", type=Path, const=BASELINE, metavar="CSV",
                        help=f"compare the rows of a baseline ({BASELINE.relative_to(ROOT)}), fail if any needs "
                             f"{100 * TOLERANCE:.0f} %% more instructions per element")
    parser.add_argument("--update-baseline", nargs="?", type=Path, const=BASELINE, metavar="CSV",
                        help="write the baseline: a dozen rows, or those that are chosen")
    parser.add_argument("--install", action="store_true", help="install nvdisasm beside NVRTC, and do nothing else")
    parser.add_argument("--find", action="store_true", help="print the path of nvdisasm, and do nothing else")
    parser.add_argument("--peers", action="store_true", help="count the kernels of innerq_peer.cuh and, where Triton is "
                        "installed, of triton_peer.py instead, with the heads of llama-3.1-8b; --arch is the only option")
    parser.add_argument("--file", type=Path, metavar="F",
                        help="look at a cubin, or at what nvdisasm -c printed of one, instead of compiling")
    parser.add_argument("--head-dim", type=positive, default=128, metavar="N", help="of --file; default: 128")
    parser.add_argument("--heads", type=positive, default=1, metavar="N",
                        help="of --file: query heads that share a pass; default: 1")
    options = parser.parse_args(arguments)
    if sum(bool(each) for each in (options.check, options.update_baseline, options.record, options.file,
                              options.peers)) > 1:
        parser.error("expected at most one of --check, --update-baseline, --record, --peers and --file")
    return options


def chosen_archs(options):
    return list(LIMITS) if options.arch and "all" in options.arch else options.arch or ["sm_90"]


def chosen_rows(options):
    archs = chosen_archs(options)
    return [(scheme, shape, arch) for scheme in options.scheme or PRESETS + list(CUSTOM)
            for shape in options.shape or SHAPES for arch in archs]


def run(options):
    if options.install:
        install()
        return 0
    if options.find:
        print(need_nvdisasm())
        return 0
    if options.file:
        return show_file(options)
    if options.peers:
        return show_peers(options)
    chosen = options.scheme or options.shape or options.arch
    if options.check:
        baseline = read_baseline(options.check, chosen_rows(options) if chosen else None)
        return check(baseline, measure_all(list(baseline), options, 1))
    if options.update_baseline:
        write_csv(measure_all(chosen_rows(options) if chosen else CHECKED, options, 1), options.update_baseline)
        return 0
    wanted = chosen_rows(options)
    archs, table = {arch for _, _, arch in wanted}, gpus()
    for name in options.gpu:
        if table[name][0] not in archs:
            legal = ", ".join(gpu for gpu, (arch, _) in table.items() if arch in archs)
            raise Failure(f"expected --gpu to be one of {' or '.join(sorted(archs))} ({legal}), but got '{name}'")
    rows = measure_all(wanted, options, options.rounds)
    print(report(rows), end="")
    if options.record:
        record(rows, options)
    return 0


def main():
    try:
        return run(parse_options(sys.argv[1:]))
    except (Failure, DisassemblyError) as failure:
        print(f"sass.py: error: {failure}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
