# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What sass.py reads out of a cubin: control flow and loops of nvdisasm's text, and the resources in the ELF file.

A kernel's main loop is a loop that does the products of at least one block of 32 tokens per iteration: multiply-adds of
tensor cores where the kernel has any (their A operand holds stored elements), FFMA otherwise. The first of the innermost
such loops in the order of addresses is taken: quantized tokens come before windows. A loop with 2, 4, ... times a
block's products is taken to do so many blocks. What is counted for an iteration:

* every instruction of the loop once, predicated off or not: a warp issues it all the same. Both sides of a branch count,
  since lanes that disagree make their warp issue both; where all lanes agree this is an upper bound;
* inner loops as often as they run. How often is found by following constants through the loop; a loop whose count
  depends on anything else runs once and is reported as unknown;
* enclosing loops whose inner loop has such a count share their own instructions among the blocks of an iteration;
* not what rarely runs: a region behind a branch on the outcome of a vote (the side where any lane said yes, or not all
  did), unless it has more than a quarter of the loop's products; a target of BRA.DIV; a conditional block that calls a
  subroutine (slow paths of divisions and roots); a conditional block that lies out of line, apart from the rest of its
  loop.
"""
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P(?:\d|T))\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
LABEL = re.compile(r"^\s*(\.L_x_\d+|\$?[\w$.]+):\s*$")
TARGET = re.compile(r"`\(([^)]+)\)")
REGISTER = re.compile(r"\bU?R\d+\b")
PREDICATE = re.compile(r"!?\bU?P(?:\d|T)\b")

CLASSES = {  # by the mnemonic before the first point, without the U of the uniform datapath
    "logic": "LOP3 LOP SHF SHL SHR PRMT BMSK SGXT BFE BFI FLO POPC BREV",
    "f32": "FFMA FMUL FADD FFMA2 FMUL2 FADD2",
    "mma": "HMMA IMMA QMMA OMMA DMMA BMMA HGMMA",
    "f16": "HFMA2 HMUL2 HADD2 HMNMX2 HSET2 HSETP2",
    "cvt": "F2F F2FP I2F I2FP F2I F2IP I2I I2IP FRND",
    "int": "IMAD IADD IADD3 VIADD MOV LEA IMUL ISETP SEL CS2R R2UR IMNMX VIMNMX IABS MOV32I VIADDMNMX ISCADD",
    "lds": "LDS LDSM",
    "ldg": "LDG LD",
    "store": "STS STSM STL LDL STG ST",
    "async": "LDGSTS BLKCP LDGDEPBAR DEPBAR SYNCS ARRIVES",
    "mufu": "MUFU",
    "max": "FMNMX FMNMX3 FSETP FSEL FSET FCHK",
    "shfl": "SHFL VOTE VOTEU MATCH REDUX",
    "movm": "MOVM",
    "flow": "BRA BAR BSSY BSYNC BREAK BRX JMP WARPSYNC CALL RET EXIT YIELD NANOSLEEP",
}
CLASS_OF = {name: kind for kind, names in CLASSES.items() for name in names.split()}
KINDS = [*CLASSES, "other"]


class DisassemblyError(Exception):
    pass


@dataclass
class Instruction:
    address: int
    guard: str  # "P0", "!UP1" or ""
    opcode: str
    operands: str

    @cached_property
    def name(self):
        return self.opcode.split(".")[0]

    @cached_property
    def parts(self):
        return [part.strip().replace(".reuse", "") for part in self.operands.split(",")]

    @property
    def target(self):
        found = TARGET.search(self.operands)
        return found and found.group(1)

    @property
    def jumps(self):
        """Whether it goes to its target and does not come back; sm_80 leaves loops by such calls."""
        return self.name in ("BRA", "JMP") or (self.name == "CALL" and (self.target or "").startswith(".L_x"))

    @property
    def is_conditional(self):
        return (self.guard not in ("", "PT", "UPT") or self.opcode.endswith((".DIV", ".CONV"))
                or bool(re.search(r"\bU?P\d", self.operands.split("`")[0])))

    @cached_property
    def kind(self):
        moves = self.name == "HFMA2" and re.search(r"-RZ, RZ,", self.operands)  # a constant on the f16 pipe
        if moves:
            return "int"
        if self.opcode.startswith("HADD2.F32"):
            return "cvt"  # f16 to f32
        name = self.name
        return CLASS_OF.get(name) or CLASS_OF.get(name[1:] if name.startswith("U") else name, "other")

    @cached_property
    def products(self):
        """Multiply-adds of a stored element: per warp for a tensor instruction (its A operand), else per lane."""
        if self.kind == "mma":
            if shape := re.search(r"\.(\d+)x\d+x(\d+)", self.opcode):
                return int(shape.group(1)) * int(shape.group(2)) // 4  # HGMMA, of four warps
            shape = re.search(r"\.168(\d+)", self.opcode)  # m16n8k16 is printed as 16816
            return 16 * int(shape.group(1)) if shape else 256
        if self.name == "FFMA":
            return 1
        if self.name == "FFMA2" or (self.name == "HFMA2" and self.kind == "f16"):
            return 2
        return 0

    @cached_property
    def writes(self):
        """Registers and predicates in the places of results."""
        if self.name.startswith(("ST", "BRA", "BAR", "EXIT")):
            return set()
        found = set()
        for i, part in enumerate(self.parts):
            if re.fullmatch(r"U?R\d+", part) and i == 0:
                found.add(part)
            elif re.fullmatch(r"U?P\d", part) and i < 3:
                found.add(part)
            elif not re.fullmatch(r"U?[RP](\d+|Z|T)", part):
                break
            elif i > 0 and re.fullmatch(r"U?R(\d+|Z)", part):
                break
        return found


@dataclass
class Block:
    index: int
    instructions: list = field(default_factory=list)
    next: list = field(default_factory=list)
    previous: list = field(default_factory=list)
    dominator: int = -1

    @property
    def address(self):
        return self.instructions[0].address

    @property
    def end(self):
        return self.instructions[-1].address


@dataclass
class Loop:
    header: int
    latches: set
    blocks: set
    parent: "Loop" = None
    children: list = field(default_factory=list)
    trips: int = None
    rare: set = field(default_factory=set)


@dataclass
class MainLoop:
    address: int
    tensor: bool  # whether tensor cores multiply
    blocks: float  # blocks of 32 tokens per iteration
    found: bool  # whether some loop does a block's products; otherwise the heaviest one is taken for one block
    counts: Counter  # instructions per block, by class
    products: float  # per block, as for Instruction.products
    inner_trips: list  # of inner loops, None where unknown
    outer_trips: list  # of enclosing loops that share: how often the loop inside them runs
    unshared: int  # instructions per iteration of an enclosing loop that runs its inner one an unknown number of times
    skipped: int  # instructions that rarely run


def parse(text):
    """{kernel: [(labels, instruction)]} of nvdisasm's output."""
    kernels, current, labels = {}, None, []
    for line in text.splitlines():
        if found := re.match(r"\s*\.section\s+\.text\.([^,\s]+)", line):
            current, labels = kernels.setdefault(found.group(1), []), []
        elif re.match(r"\s*\.section\s", line):
            current = None
        elif current is not None and (found := LABEL.match(line)):
            labels.append(found.group(1))
        elif current is not None and (found := INSTRUCTION.match(line)):
            current.append((labels, Instruction(int(found.group(1), 16), found.group(2) or "", *found.group(3, 4))))
            labels = []
    return {name: code for name, code in kernels.items() if code}


class Kernel:
    """Control flow of one kernel: blocks that its entry reaches, their dominators, and its natural loops."""

    def __init__(self, code):
        starts, at = {0}, {}
        for i, (labels, instruction) in enumerate(code):
            for label in labels:
                at[label] = i
                starts.add(i)
            if instruction.name in ("BRA", "JMP", "BRX", "EXIT", "RET", "BREAK", "CALL"):
                starts.add(i + 1)
        order = sorted(start for start in starts if start < len(code))
        self.blocks = []
        for index, (start, end) in enumerate(zip(order, order[1:] + [len(code)])):
            self.blocks.append(Block(index, [instruction for _, instruction in code[start:end]]))
        index_of = {start: index for index, start in enumerate(order)}
        for block in self.blocks:
            last, after = block.instructions[-1], block.index + 1
            if last.jumps and last.target in at:
                block.next.append(index_of[at[last.target]])
            falls = not (last.jumps or last.name in ("BRX", "EXIT", "RET")) or last.is_conditional
            if falls and after < len(self.blocks) and after not in block.next:
                block.next.append(after)
        self.tensor = any(i.kind == "mma" for block in self.blocks for i in block.instructions)
        self.find_dominators()
        self.find_loops()

    def find_dominators(self):
        order, seen, stack = [], {0}, [(0, iter(self.blocks[0].next))]
        while stack:
            index, rest = stack[-1]
            child = next((n for n in rest if n not in seen), None)
            if child is None:
                order.append(index)
                stack.pop()
            else:
                seen.add(child)
                stack.append((child, iter(self.blocks[child].next)))
        order.reverse()
        self.reachable = seen
        rank = {index: i for i, index in enumerate(order)}
        for index in order:
            for follower in self.blocks[index].next:
                self.blocks[follower].previous.append(index)
        self.blocks[0].dominator = 0
        changed = True
        while changed:
            changed = False
            for index in order[1:]:
                new = None
                for other in self.blocks[index].previous:
                    if self.blocks[other].dominator < 0:
                        continue
                    while new is not None and other != new:
                        if rank[other] > rank[new]:
                            other = self.blocks[other].dominator
                        else:
                            new = self.blocks[new].dominator
                    new = other
                changed |= new != self.blocks[index].dominator
                self.blocks[index].dominator = new

    def dominates(self, a, b):
        while b != a and b != 0:
            b = self.blocks[b].dominator
        return a == b

    def find_loops(self):
        loops = {}
        for index in self.reachable:
            for header in self.blocks[index].next:
                if not self.dominates(header, index):
                    continue
                loop = loops.setdefault(header, Loop(header, set(), {header}))
                loop.latches.add(index)
                stack = [index]
                while stack:
                    block = stack.pop()
                    if block not in loop.blocks:
                        loop.blocks.add(block)
                        stack += self.blocks[block].previous
        self.loops = sorted(loops.values(), key=lambda loop: self.blocks[loop.header].address)
        for loop in self.loops:
            around = [other for other in self.loops if other is not loop and loop.header in other.blocks]
            loop.parent = min(around, key=lambda other: len(other.blocks), default=None)
            if loop.parent:
                loop.parent.children.append(loop)
        for loop in self.loops:
            loop.trips = self.count_trips(loop)
            loop.rare = self.find_rare(loop)

    # What rarely runs.

    def find_rare(self, loop):
        rare = set()
        always = {block for block in loop.blocks if all(self.dominates(block, latch) for latch in loop.latches)}
        run, foreign = [], sorted(self.blocks[b].address for b in self.reachable - loop.blocks)
        for block in sorted(loop.blocks, key=lambda b: self.blocks[b].address):
            here = self.blocks[block].address
            if run and any(self.blocks[run[-1][-1]].address < address < here for address in foreign):
                run.append([block])
            elif run:
                run[-1].append(block)
            else:
                run.append([block])
        main = next(part for part in run if loop.header in part)
        rare |= loop.blocks - set(main) - always
        for block in sorted(loop.blocks):
            last = self.blocks[block].instructions[-1]
            if block not in always and last.name == "CALL" and not last.jumps:
                rare.add(block)
            side = self.rare_side(block)
            if side is None or side not in loop.blocks or side in always or self.blocks[side].previous != [block]:
                continue
            region = {other for other in loop.blocks if self.dominates(side, other)}
            if self.products_of(region) * 4 <= self.products_of(loop.blocks):
                rare |= region
        return rare

    def products_of(self, blocks):
        return sum(i.products for b in blocks for i in self.blocks[b].instructions
                   if (i.kind == "mma") == self.tensor)

    def rare_side(self, index):
        """The successor that is rarely taken, if the branch at the end of this block says so."""
        block = self.blocks[index]
        branch = block.instructions[-1]
        if not branch.jumps or len(block.next) != 2:
            return None
        taken, other = block.next
        if ".DIV" in branch.opcode:
            return taken
        guards = [branch.guard] + PREDICATE.findall(branch.operands.split("`")[0])
        guards = [guard for guard in guards if guard.lstrip("!") not in ("", "PT", "UPT")]
        if len(guards) != 1:
            return None
        rare_when = self.vote_of(index, guards[0].lstrip("!"), len(block.instructions) - 1)
        if rare_when is None:
            return None
        return taken if rare_when != guards[0].startswith("!") else other

    def vote_of(self, index, name, before, depth=4):
        """Which value of this predicate or register is rare, if it is the outcome of a vote; None if it is none."""
        while depth:
            for at in range(before - 1, -1, -1):
                instruction = self.blocks[index].instructions[at]
                if name not in instruction.writes:
                    continue
                opcode = instruction.opcode
                if opcode.startswith(("VOTE.ANY", "VOTEU.ANY")):
                    return True
                if opcode.startswith(("VOTE.ALL", "VOTEU.ALL")):
                    return False
                sources = instruction.parts[1:]
                if instruction.name in ("PLOP3", "UPLOP3", "R2UR", "MOV", "UMOV", "ISETP", "UISETP"):
                    named = [o for o in sources if re.fullmatch(r"!?U?[PR]\d+", o) and o.lstrip("!") != name]
                    if len(named) == 1:
                        value = self.vote_of(index, named[0].lstrip("!"), at, depth - 1)
                        flips = named[0].startswith("!") != (".EQ" in opcode or ", 0x40," in instruction.operands)
                        return None if value is None else value != flips
                return None
            if index == 0 or self.blocks[index].previous != [self.blocks[index].dominator]:
                return None
            index = self.blocks[index].dominator
            before = len(self.blocks[index].instructions)
            depth -= 1
        return None

    # How often loops run.

    def count_trips(self, loop, limit=200000):
        """Follows constants from in front of the loop; None if a branch out of it depends on anything else."""
        if len(loop.latches) != 1:
            return None
        chain = list(loop.latches)
        while chain[0] != loop.header:
            chain.insert(0, self.blocks[chain[0]].dominator)
        exits = {block for block in loop.blocks if any(n not in loop.blocks for n in self.blocks[block].next)}
        if not exits or not exits <= set(chain):
            return None
        known = self.constants_before(loop)
        changed = {r for b in loop.blocks - set(chain) for i in self.blocks[b].instructions for r in i.writes}
        size = sum(len(self.blocks[block].instructions) for block in chain)
        for count in range(1, limit // size):
            done = 0
            for index in chain:
                block = self.blocks[index]
                for instruction in block.instructions:
                    evaluate(instruction, known)
                done += len(block.instructions)
                if index in exits:
                    taken = branch_taken(block.instructions[-1], known) if len(block.next) == 2 else None
                    if taken is None:
                        return None
                    if block.next[0 if taken else 1] not in loop.blocks:
                        return count if 2 * done >= size else count - 1  # at the bottom or at the top
                if index == loop.header:
                    for register in changed:
                        known.pop(register, None)
        return None

    def constants_before(self, loop):
        """What is known where the loop is entered."""
        chain, index = [], loop.header
        while index != 0:
            index = self.blocks[index].dominator
            chain.append(index)
        chain.reverse()
        known = {}
        for index, after in zip(chain, chain[1:] + [loop.header]):
            # Loops around give nothing to their headers; between a block and the next in the chain lie others.
            for instruction in self.blocks[index].instructions:
                evaluate(instruction, known)
            between, stack = set(), [b for b in self.blocks[after].previous if not (after == loop.header and
                                                                                    b in loop.blocks)]
            while stack:
                block = stack.pop()
                if block != index and block not in between:
                    between.add(block)
                    stack += self.blocks[block].previous
            for block in between:
                for instruction in self.blocks[block].instructions:
                    for register in instruction.writes:
                        known.pop(register, None)
        return known

    # The main loop.

    def own(self, loop):
        inner = {block for child in loop.children for block in child.blocks}
        return loop.blocks - inner - loop.rare

    def totals(self, loop, tensor):
        """Instructions by class and products of an iteration, with inner loops."""
        counts, products, trips = Counter(), 0, []
        for block in self.own(loop):
            for instruction in self.blocks[block].instructions:
                counts[instruction.kind] += 1
                if (instruction.kind == "mma") == tensor:
                    products += instruction.products
        for child in loop.children:
            if child.header in loop.rare:
                continue
            times = child.trips or 1
            inner, more, below = self.totals(child, tensor)
            counts.update({kind: times * count for kind, count in inner.items()})
            products += times * more
            trips += [child.trips, *below]
        return counts, products, trips

    def main_loop(self, head_dim, heads, blocks=None, inner=None):
        """`blocks`: blocks per iteration, `inner`: iterations per one of the enclosing loop, where they are known."""
        if not self.loops:
            return None
        tensor = self.tensor
        expected = 64 * head_dim * -(-heads // 8) if tensor else 2 * head_dim * heads
        whole = {id(loop): self.totals(loop, tensor) for loop in self.loops}
        enough = [loop for loop in self.loops if whole[id(loop)][1] >= 0.9 * expected]
        innermost = [loop for loop in enough if not any(child in enough for child in loop.children)]
        if innermost:
            loop = innermost[0]
        else:
            loop = max(self.loops, key=lambda loop: (whole[id(loop)][1], -len(loop.blocks)))
        counts, products, trips = whole[id(loop)]
        if not blocks:
            # Offsets and scales add products, so that only whole doublings say more than one block.
            blocks = 1
            while 2 * blocks * expected <= products * 1.001:
                blocks *= 2
        counts = Counter({kind: count / blocks for kind, count in counts.items()})
        result = MainLoop(self.blocks[loop.header].address, tensor, blocks, bool(innermost), counts, products / blocks,
                          trips, [], 0, sum(len(self.blocks[b].instructions) for b in loop.rare))
        child, share = loop, blocks
        while outer := child.parent:
            times = inner if child is loop and inner else child.trips
            siblings = [other for other in outer.children if other is not child and other.header not in outer.rare]
            rest = Loop(outer.header, outer.latches, outer.blocks - child.blocks, None, siblings, None, outer.rare)
            around, _, _ = self.totals(rest, tensor)
            if not times:
                result.unshared = sum(around.values())
                break
            share *= times
            result.outer_trips.append(times)
            result.skipped += sum(len(self.blocks[b].instructions) for b in outer.rare - loop.rare)
            for kind, count in around.items():
                result.counts[kind] += count / share
            child = outer
        return result


def value_of(operand, known):
    if operand in ("RZ", "URZ", "SRZ"):
        return 0
    if operand in ("PT", "UPT", "!PT", "!UPT"):
        return not operand.startswith("!")
    if re.fullmatch(r"-?0x[0-9a-f]+|-?\d+", operand):
        return int(operand, 0) & 0xffffffff
    if operand.startswith("!"):
        value = known.get(operand[1:])
        return None if value is None else not value
    if operand.startswith("-"):
        value = value_of(operand[1:], known)
        return None if value is None else -value & 0xffffffff
    return known.get(operand)


def f16_bits(text):
    return struct.unpack("<H", struct.pack("<e", float(text)))[0]


def evaluate(instruction, known):
    """Changes what is known of registers and predicates: moves, additions and comparisons of integers."""
    operands, name, results = instruction.parts, instruction.opcode.removeprefix("U"), {}
    base = name.split(".")[0]
    if instruction.guard in ("", "PT") and base in ("MOV", "IMAD", "CS2R", "HFMA2", "IADD3", "VIADD", "IADD", "ISETP",
                                                    "PLOP3"):
        values = [value_of(part, known) for part in operands]
        if base == "MOV" and len(operands) > 1:
            results[operands[0]] = values[1]
        elif name.startswith(("IMAD.MOV", "IMAD.U32")) and len(operands) == 4:
            if values[1] == 0 or values[2] == 0:
                results[operands[0]] = values[3]
        elif base == "CS2R" and values[1:2] == [0]:
            register = re.fullmatch(r"(U?R)(\d+)", operands[0])
            results[operands[0]] = 0
            if register and ".32" not in name:
                results[f"{register.group(1)}{int(register.group(2)) + 1}"] = 0
        elif base == "HFMA2" and operands[1:3] == ["-RZ", "RZ"] and len(operands) == 5:
            try:
                results[operands[0]] = f16_bits(operands[3]) << 16 | f16_bits(operands[4])
            except (ValueError, OverflowError):
                pass
        elif base in ("IADD3", "VIADD", "IADD") or name.startswith("IMAD.IADD"):
            terms = [part for part in operands[1:] if not re.fullmatch(r"!?U?P(\d|T)", part)]
            numbers = [value_of(part, known) for part in terms]
            if name.startswith("IMAD.IADD") and len(terms) == 3:
                numbers = [numbers[0], numbers[2]] if terms[1] == "0x1" else [None]
            if all(number is not None for number in numbers):
                carries = [part for part in operands[1:] if re.fullmatch(r"U?P\d", part)]
                total = sum(numbers)
                if ".X" not in name:
                    results[operands[0]] = total & 0xffffffff
                    for carry in carries:
                        results[carry] = total >> 32 != 0
                elif all(carry in known for carry in carries):
                    results[operands[0]] = total + sum(known[carry] for carry in carries) & 0xffffffff
        elif name.startswith("IMAD.X") and len(operands) == 5 and values[1] == values[2] == 0:
            if values[3] is not None and values[4] is not None:
                results[operands[0]] = values[3] + values[4] & 0xffffffff
        elif base == "ISETP" and len(operands) >= 5:
            results[operands[0]] = compare(name, values)
        elif base == "PLOP3" and len(operands) >= 6:
            sources = values[2:5]
            try:
                table = int(operands[5], 16)
            except ValueError:
                table = None
            if table is not None and all(value is not None for value in sources):
                results[operands[0]] = bool(table >> (4 * sources[0] + 2 * sources[1] + sources[2]) & 1)
    for register in instruction.writes:
        known.pop(register, None)
    for register, value in results.items():
        if value is not None and not register.endswith(("Z", "T")):
            known[register] = value


def compare(name, values):
    """ISETP.<condition>[.U32].AND[.EX] P, P, a, b, P[, P]."""
    a, b, chained = values[2], values[3], values[4]
    parts = name.split(".")
    if a is None or b is None or chained is None:
        return None
    if "U32" not in parts:
        a, b = (number - (1 << 32) if number >> 31 else number for number in (a, b))
    outcome = {"LT": a < b, "LE": a <= b, "GT": a > b, "GE": a >= b, "EQ": a == b, "NE": a != b}.get(parts[1])
    if outcome is None:
        return None
    if "EX" in parts:
        # The upper half of a comparison of 64 bits; the last operand is the outcome of the lower one.
        if len(values) < 6 or values[5] is None:
            return None
        lower = values[5]
        outcome = lower if a == b and parts[1] not in ("NE", "EQ") else outcome
        if parts[1] == "NE":
            outcome = a != b or lower
        elif parts[1] == "EQ":
            outcome = a == b and lower
    return {"AND": outcome and chained, "OR": outcome or chained}.get("AND" if "AND" in parts else "OR")


def branch_taken(branch, known):
    conditions = [branch.guard] + PREDICATE.findall(branch.operands.split("`")[0])
    values = [value_of(condition, known) for condition in conditions if condition]
    return None if None in values else all(values)


# The ELF file.


@dataclass
class Resources:
    registers: int = 0
    threads: int = 0  # of a block, at most
    stack: int = 0  # bytes of local memory per thread: arrays and spills
    shared: int = 0  # bytes, static, without what the driver reserves
    dynamic: bool = False  # nothing but dynamic shared memory; besides static memory it leaves no trace


def read_resources(cubin):
    """{kernel: Resources} from the sections .nv.info*, whose attributes are (format, number, size or value)."""
    if cubin[:4] != b"\x7fELF":
        raise DisassemblyError("expected a cubin, an ELF file")
    table, = struct.unpack_from("<Q", cubin, 40)
    flags, = struct.unpack_from("<I", cubin, 48)
    count, names_at = struct.unpack_from("<HH", cubin, 60)
    # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + 64 * i) for i in range(count)]

    def text(section, at):
        start = headers[section][4] + at
        return cubin[start:cubin.index(b"\0", start)].decode()

    sections = {text(names_at, header[0]): header for header in headers}
    symbols = sections[".symtab"]
    result = {name[len(".text."):]: Resources() for name in sections if name.startswith(".text.")}

    def attributes(section):
        at, end = section[4], section[4] + section[5]
        while at < end:
            kind, number, value = struct.unpack_from("<BBH", cubin, at)
            at += 4
            if kind == 4:
                yield number, cubin[at:at + value]
                at += value
            else:
                yield number, struct.pack("<H", value)

    for number, payload in attributes(sections[".nv.info"]):
        if number not in (0x2f, 0x11, 0x23) or len(payload) != 8:  # registers; frame; deepest stack with calls
            continue
        symbol, value = struct.unpack("<II", payload)
        name = text(symbols[6], struct.unpack_from("<I", cubin, symbols[4] + 24 * symbol)[0])
        if name in result and number == 0x2f:
            result[name].registers = value
        elif name in result:
            result[name].stack = max(result[name].stack, value)
    for name, resources in result.items():
        if f".nv.info.{name}" in sections:
            for number, payload in attributes(sections[f".nv.info.{name}"]):
                if number in (0x05, 0x10):  # __launch_bounds__, required threads
                    x, y, z = struct.unpack("<III", payload)
                    resources.threads = x * y * z
        if f".nv.shared.{name}" in sections:
            resources.shared = sections[f".nv.shared.{name}"][5]
            # Since sm_90 the section begins with the 1 KiB that the driver reserves.
            if arch_of(flags) >= 90 and resources.shared >= 1024:
                resources.shared -= 1024
            resources.dynamic = resources.shared == 0
    return result


def arch_of(flags):
    """The architecture in e_flags: its lowest byte, or the second where the ABI is newer."""
    second = flags >> 8 & 0xff
    return second if second >= 75 else flags & 0xff
