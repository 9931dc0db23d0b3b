#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The binary interface of libkvcc as text, and what may change in it.

Usage: abi.py --library LIBKVCC.SO --header KVCC.H --clang CLANG --llvm FOLDER [--update] BASELINE

Writes down the soname, the exported functions with their types, every enumerator with its value, every member of every
structure with its offset, size and type (a 64-bit platform), and compares that with BASELINE: exit status 0 if they are
equal, else 1 with every difference. --update accepts the differences: writes BASELINE, but refuses what breaks programs
that were built before, unless the soname is another one or there is no BASELINE.

FOLDER has llvm-nm and llvm-objdump. Types come from clang's syntax tree, offsets and sizes from a program that the compiler builds from the header. (The library
is built without debug information, so tools that read that see its symbols only.)
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile


def run(*command, text=None):
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"abi.py: {command[0]} failed")
    return done.stdout


def declarations(clang, header):
    """The functions, enums and structures that the header itself declares: name -> type, enumerators, members."""
    tree = json.loads(run(clang, "-x", "c", "-std=c11", "-fsyntax-only", "-Xclang", "-ast-dump=json", header))
    functions, enums, structures = {}, {}, {}
    in_header = False
    for node in tree["inner"]:
        # clang names a file only where it is another than before.
        location = node.get("loc", {})
        location = location.get("expansionLoc", location)
        if "file" in location:
            in_header = os.path.realpath(location["file"]) == os.path.realpath(header)
        if not in_header or node.get("isImplicit"):
            continue
        inner = node.get("inner", [])
        if node["kind"] == "FunctionDecl":
            functions[node["name"]] = node["type"]["qualType"]
        elif node["kind"] == "EnumDecl":
            enums[node["name"]] = [each["name"] for each in inner if each["kind"] == "EnumConstantDecl"]
        elif node["kind"] == "RecordDecl" and node.get("completeDefinition"):
            structures[node["name"]] = [(each["name"], each["type"]["qualType"]) for each in inner
                                        if each["kind"] == "FieldDecl"]
    return functions, enums, structures


def numbers(clang, header, enums, structures):
    """Offsets, sizes and values, as a program built from the header prints them."""
    lines = ["#include <stdio.h>", f'#include "{os.path.abspath(header)}"', "int main(void) {"]

    def show(key, value):
        lines.append(f'  printf("{key} %lld\\n", (long long)({value}));')
    for enum, names in enums.items():
        for name in names:
            show(name, name)
    for structure, members in structures.items():
        show(structure, f"sizeof({structure})")
        for name, _ in members:
            show(f"{structure}.{name}", f"offsetof({structure}, {name})")
            show(f"{structure}.{name}.size", f"sizeof((({structure} *)0)->{name})")
    lines.append("  return 0;\n}")
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "numbers")
        run(clang, "-x", "c", "-std=c11", "-o", program, "-", text="\n".join(lines))
        return {key: int(value) for key, value in (line.split() for line in run(program).splitlines())}


def describe(arguments):
    """All lines of the baseline, in a fixed order, those of a structure in the order of its members."""
    functions, enums, structures = declarations(arguments.clang, arguments.header)
    values = numbers(arguments.clang, arguments.header, enums, structures)
    exported = {line.split()[-1] for line in run(arguments.llvm + "/llvm-nm", "--dynamic", "--defined-only",
                                                 arguments.library).splitlines() if line}
    soname = re.search(r"SONAME\s+(\S+)", run(arguments.llvm + "/llvm-objdump", "-p", arguments.library)).group(1)
    lines = ["soname " + soname]
    for name in sorted(exported | set(functions)):
        if name not in functions:
            sys.exit(f"abi.py: expected exported functions that {arguments.header} declares, but got {name}")
        if name not in exported:
            sys.exit(f"abi.py: expected {arguments.library} to export what the header declares, but {name} is missing")
        lines.append(f"function {name}: {functions[name]}")
    for enum in sorted(enums):
        lines += [f"enum {enum}: {name} = {values[name]}" for name in enums[enum]]
    used = " ".join(type for members in structures.values() for _, type in members)
    for structure in sorted(structures):
        members = structures[structure]
        # One that is a member of another can never grow; all others say which version of them the caller has.
        is_inner = re.search(rf"\b{structure}\b(?!\s*\*)", used)
        if not is_inner and members[0] != ("size", "size_t"):
            sys.exit(f"abi.py: expected {structure} to begin with size_t size, but got {members[0][1]} {members[0][0]}")
        lines.append(f"struct {structure}: {values[structure]} bytes" + (", fixed" if is_inner else ""))
        lines += [f"member {structure}.{name}: at {values[f'{structure}.{name}']}, "
                  f"{values[f'{structure}.{name}.size']} bytes, {type}" for name, type in members]
    return lines


def breaks(old, new):
    """The old lines that programs rely on and that the new interface does not have. Structures that are not fixed may
    grow: their sizes may change as long as every old member is where it was and new members lie behind the old end."""
    kept = set(new)
    sizes = {match[1]: int(match[2]) for match in (re.match(r"struct (\w+): (\d+)", line) for line in old) if match}
    growing = {match[1] for match in (re.fullmatch(r"struct (\w+): \d+ bytes", line) for line in new) if match}
    lost = []
    for line in old:
        match = re.fullmatch(r"struct (\w+): \d+ bytes", line)
        if line not in kept and not (match and match[1] in growing):
            lost.append(line)
    for line in new:
        # In the padding at the end of the old structure, its size would not say whether the member is there.
        match = re.match(r"member (\w+)\.\w+: at (\d+)", line)
        if match and line not in old and int(match[2]) < sizes.get(match[1], 0):
            lost.append(line)
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("library", "header", "clang", "llvm"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("baseline")
    arguments = parser.parse_args()
    new = describe(arguments)
    old = []
    if os.path.exists(arguments.baseline):
        with open(arguments.baseline, encoding="utf-8") as file:
            old = [line for line in file.read().splitlines() if line and not line.startswith("#")]
    if old == new:
        print("abi.py: nothing has changed")
        return 0
    for line in old:
        if line not in new:
            print("- " + line)
    for line in new:
        if line not in old:
            print("+ " + line)
    lost = breaks(old, new) if old and old[0] == new[0] else []
    if lost:
        print("abi.py: programs built before would break, which takes another soname, by:")
        for line in lost:
            print("  " + line)
        return 1
    if not arguments.update:
        print("abi.py: programs built before still work; tools/dev abi --update accepts the change" if old and old[0] == new[0]
              else "abi.py: expected the recorded interface; tools/dev abi --update records this one")
        return 1
    with open(arguments.baseline, "w", encoding="utf-8") as file:
        file.write("# The binary interface of libkvcc, 64-bit. Written by tools/dev abi --update; see runtime/README.md.\n")
        file.write("\n".join(new) + "\n")
    print("abi.py: recorded in " + arguments.baseline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
