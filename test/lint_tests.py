#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Finds tests that check nothing, which pass forever and look like coverage.

Usage: lint_tests.py [FILE or FOLDER]...   (default: the folder of this script)

Prints `file:line: message` for every finding and exits with 1 if there is any. Looks at lit tests (.mlir, .test) and
gtest files (*Test.cpp); folders named Inputs are passed over unless they are given.
"""
import difflib
import os
import re
import sys

SKIPPED_FOLDERS = {"Inputs", "data", "models", "__pycache__"}
KEYWORDS = ["RUN", "REQUIRES", "UNSUPPORTED", "XFAIL", "ALLOW_RETRIES", "DEFINE", "REDEFINE", "COM"]
CHECK_SUFFIXES = ["", "-NEXT", "-SAME", "-LABEL", "-DAG", "-NOT", "-EMPTY", "-COUNT-1"]
EXPECTED = {kind + suffix for kind in ("error", "warning", "note", "remark") for suffix in ("", "-re")}

# Commands that decide between pass and fail, and commands that only prepare for others.
CHECKERS = {"FileCheck", "not", "!", "diff", "cmp", "grep", "count", "test", "%python", "python3"}
PREPARERS = {"cat", "cd", "chmod", "cp", "echo", "export", "ln", "mkdir", "mv", "rm", "sed", "split-file", "touch"}

# A word in the place of a directive: first on its line, perhaps after a comment marker, before a colon.
DIRECTIVE = re.compile(r"^\s*(?://+|#+|;+)?\s*([A-Za-z][\w-]*)(\{LITERAL\})?(\s*:|\s|$)(.*)")
TEMPORARY = re.compile(r"%[tT]\b[\w./-]*")
EXPECTATION = re.compile(r"\b(exp\w+[-_])([\w-]+?)(?:\s*@[\w+-]+)?(?:\s+\d+)?\s*\{\{")
GTEST = re.compile(r"^(?:TYPED_)?TEST(?:_F|_P)?\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)\s*\{", re.MULTILINE)
# Helpers that expect something say so in their names.
GTEST_CHECK = re.compile(r"\b(?:(?:EXPECT|ASSERT)_\w+|ADD_FAILURE\w*|FAIL|(?:check|expect)(?:[A-Z]\w*)?)\s*[(<]")
CXX_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def run_lines(lines):
    """The RUN commands as (number of the first line, text): continuation lines joined, DEFINEs expanded."""
    commands, definitions, open_command = [], {}, False
    for number, line in enumerate(lines, 1):
        if match := re.search(r"\b(?:RE)?DEFINE:\s*(%\{\w+\})\s*=\s*(.*)", line):
            definitions[match.group(1)] = match.group(2)
        match = re.search(r"\bRUN:\s*(.*)", line)
        if not match:
            continue
        text = match.group(1).rstrip()
        if open_command:
            commands[-1] = (commands[-1][0], commands[-1][1] + " " + text.rstrip("\\"))
        else:
            commands.append((number, text.rstrip("\\")))
        open_command = text.endswith("\\")

    def expand(text):
        for _ in range(8):  # a definition may use others
            text = re.sub(r"%\{\w+\}", lambda m: definitions.get(m.group(0), m.group(0)), text)
        return text
    return [(number, expand(text)) for number, text in commands]


def command_words(text):
    """The programs that a RUN line starts: first words of its pipelines, also those behind `env A=b` and `not`."""
    words = []
    for part in re.split(r"\|\||&&|[|;]", text):
        tokens = part.split()
        while tokens:
            word = tokens.pop(0)
            if word == "env" or re.match(r"\w+=|-u$|\(", word):
                continue
            words.append(word)
            if word not in ("not", "!", "--crash"):
                break
    return words


def check_prefixes(commands):
    """The prefixes of all FileCheck calls; empty if there is none."""
    prefixes = set()
    for _, text in commands:
        for call in re.findall(r"\bFileCheck\b([^|;&]*)", text):
            named = re.findall(r"--?check-prefix(?:es)?[= ]([\w,-]+)", call)
            prefixes.update(p for names in named for p in names.split(","))
            if not named:
                prefixes.add("CHECK")
    return prefixes


def lint_run_lines(commands):
    if not commands:
        yield 1, "no RUN line"
        return
    for i, (number, text) in enumerate(commands):
        words = command_words(text)
        if CHECKERS & set(words) or re.search(r"-verify-diagnostics\b", text):
            continue
        if words and all(word in PREPARERS for word in words):
            continue
        # What it leaves in a file or folder counts where a later line uses that.
        if any(use == mine or use.startswith(mine + "/") or mine.startswith(use + "/")
               for mine in TEMPORARY.findall(text) for _, later in commands[i + 1:] for use in TEMPORARY.findall(later)):
            continue
        yield number, "the RUN line checks nothing; pipe it into FileCheck, or use not, diff, cmp or -verify-diagnostics"


def lint_directives(lines, commands):
    prefixes = check_prefixes(commands)
    legal = set(KEYWORDS) | {p + s for p in prefixes | {"CHECK"} for s in CHECK_SUFFIXES}
    for number, line in enumerate(lines, 1):
        match = DIRECTIVE.match(line)
        if not match:
            continue
        word, _, separator, rest = match.groups()
        known = re.sub(r"-COUNT-\d+$", "-COUNT-1", word)
        colon = separator == ":"
        if known in legal and colon:
            base = next((p for p in sorted(prefixes | {"CHECK"}, key=len, reverse=True)
                         if known == p or known.startswith(p + "-")), None)
            if known in KEYWORDS:
                continue
            if not prefixes:
                yield number, f"{word} in a file that never runs FileCheck"
            elif base not in prefixes:
                yield number, f"{word}, but no FileCheck uses the prefix {base}"
            elif raw := re.search(r"%\d+\b", re.sub(r"\{\{.*?\}\}", "", rest)):
                yield number, f"raw SSA number '{raw.group(0)}' in {word}; capture a name instead"
        elif known in legal:
            # Prose may begin with a keyword, but not with CHECK-NEXT.
            if separator.endswith(":") or known not in KEYWORDS:
                yield number, f"{word} without a colon behind it is no directive"
        elif separator.endswith(":"):
            # Prose is in small letters, misspelt directives rarely are; a prefix of the file never is.
            near = difflib.get_close_matches(known.upper(), legal, 1, 0.75)
            if near and (word.isupper() or known.upper() in legal or "-" in word):
                yield number, f"misspelt directive {word}; did you mean {near[0]}?"
            elif word.isupper() and any(word.startswith(p) for p in prefixes | {"CHECK"}):
                yield number, f"unknown directive {word}; a prefix that FileCheck is not told about?"


def lint_diagnostics(lines, commands):
    verified = any(re.search(r"-verify-diagnostics\b", text) for _, text in commands)
    for number, line in enumerate(lines, 1):
        for word, kind in EXPECTATION.findall(line):
            if word != "expected-" or kind not in EXPECTED:
                yield number, f"misspelt expectation {word}{kind}; legal are " + ", ".join(sorted(EXPECTED))
            elif not verified:
                yield number, f"expected-{kind} in a file that never runs with -verify-diagnostics"


def lint_lit(text):
    lines = text.splitlines()
    commands = run_lines(lines)
    yield from lint_run_lines(commands)
    yield from lint_directives(lines, commands)
    yield from lint_diagnostics(lines, commands)


def lint_gtest(text):
    # Comments and literals become blanks of the same length: braces and names in them do not count.
    code = CXX_TOKENS.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)
    for match in GTEST.finditer(code):
        depth, end = 1, match.end()
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        if not GTEST_CHECK.search(code, match.end(), end):
            number = code.count("\n", 0, match.start()) + 1
            yield number, f"test {match.group(1)}.{match.group(2)} expects nothing"


def files_of(path):
    if os.path.isfile(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            yield os.path.join(folder, name)


def main(paths):
    found = False
    for path in paths or [os.path.dirname(os.path.abspath(__file__))]:
        if not os.path.exists(path):
            sys.exit(f"lint_tests.py: no such file or folder: {path}")
        for file in files_of(path):
            lint = lint_lit if file.endswith((".mlir", ".test")) else lint_gtest if file.endswith("Test.cpp") else None
            if not lint:
                continue
            with open(file, encoding="utf-8") as stream:
                findings = sorted(lint(stream.read()))
            for number, message in findings:
                print(f"{os.path.relpath(file)}:{number}: {message}")
                found = True
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
