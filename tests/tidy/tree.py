# SPDX-License-Identifier: Apache-2.0
"""The tree as the checks see it: files by path, C code without comments and texts, and findings."""

import ast
import os
import re

TOP_FOLDERS = ("client", "daemon", "deploy", "proto", "tests")
# Inputs of tests, byte for byte: nothing about them is style.
DATA_FOLDERS = ("tests/fuzz/corpus/", "tests/vectors/")
BUILD_NAMES = ("BUILD", "WORKSPACE")


class Finding:
    """One thing to put right. key: what it is about, for exceptions; what: says what to do."""

    def __init__(self, path, line, rule, what, key=None):
        self.path, self.line, self.rule, self.what = path, line, rule, what
        self.key = key if key is not None else ""

    def __str__(self):
        return "%s:%d: [%s] %s" % (self.path, self.line, self.rule, self.what)


class File:
    """One text file. kind: 'c' (also headers and tables), 'py', 'sh', 'build', or ''."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
        self.name = os.path.basename(path)
        self.folder = os.path.dirname(path)
        self.kind = self.find_kind()
        self._code = None

    def find_kind(self):
        if self.path.endswith((".c", ".h", ".def", ".cu", ".cuh", ".cc")):
            return "c"
        if self.path.endswith(".py") or self.text.startswith("#!/usr/bin/python3"):
            return "py"
        if self.name in BUILD_NAMES or self.path.endswith(".bzl"):
            return "build"
        if self.path.endswith(".sh") or self.text.startswith("#!/bin/"):
            return "sh"
        return ""

    @property
    def is_header(self):
        return self.path.endswith(".h")

    @property
    def in_tests(self):
        return self.path.startswith("tests/")

    @property
    def code(self):
        """C code with comments and texts blanked out: offsets and lines stay the same."""
        if self._code is None:
            self._code = blank_comments(self.text)
        return self._code

    def at(self, line, rule, what, key=None):
        return Finding(self.path, line, rule, what, key)

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1


# A comment, a text or a character; the first of them to begin wins.
_SKIPPED = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def _blank(match):
    found = match.group(0)
    if found[0] in "\"'":
        return found[0] + " " * (len(found) - 2) + found[0]
    return re.sub(r"[^\n]", " ", found)


def blank_comments(text):
    """Comments become blanks; of texts only the quotes stay."""
    return _SKIPPED.sub(_blank, text)


def blank_directives(code):
    """Preprocessor lines, with those they continue on, become blanks."""
    return re.sub(r"(?m)^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
                  lambda m: re.sub(r"[^\n]", " ", m.group(0)), code)


class Tree:
    """The text files under root; others (pictures, damaged inputs) are not looked at."""

    def __init__(self, files, top=()):
        self.files = {file.path: file for file in files}
        self.top = tuple(top)

    @staticmethod
    def read(root):
        top = sorted(os.listdir(root))
        paths = [name for name in top if os.path.isfile(os.path.join(root, name))]
        for folder in TOP_FOLDERS + (".ci",):
            for at, folders, names in os.walk(os.path.join(root, folder)):
                folders[:] = sorted(f for f in folders if f != "__pycache__")
                paths += [os.path.relpath(os.path.join(at, name), root) for name in sorted(names)]
        files = []
        for path in paths:
            if path.startswith(DATA_FOLDERS):
                continue
            try:
                with open(os.path.join(root, path), encoding="utf-8") as source:
                    files.append(File(path, source.read()))
            except (UnicodeDecodeError, FileNotFoundError):
                continue  # not text, or gone since it was listed
        return Tree(files, top)

    def of_kind(self, *kinds):
        return [file for file in self.files.values() if file.kind in kinds]

    def headers(self):
        return [file for file in self.files.values() if file.is_header]


class Function:
    """A C function with a body: name, the first and the last line, and the text before its body."""

    def __init__(self, name, first, last, head):
        self.name, self.first, self.last, self.head = name, first, last, head


class Declaration:
    """What ends with a ; outside every brace: its text and its first and last line."""

    def __init__(self, text, first, last):
        self.text, self.first, self.last = text, first, last


# A name before its bracket; MR_KERNEL(add)( names add.
_HEAD = re.compile(r"(?:[A-Z_]+\((\w+)\)|([A-Za-z_]\w*))\s*\(")


def _function_name(head):
    """The name before the first bracket, attributes apart; None where head is no function's."""
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", head, flags=re.DOTALL).strip()
    if "=" in head or not head.endswith(")"):
        return None
    match = _HEAD.search(head)
    return match.group(1) or match.group(2) if match else None


def parse(file):
    """(functions, declarations) of a C file, at file scope; heuristic, but exact for this style."""
    code = blank_directives(file.code)
    functions, declarations = [], []
    depth, start, opened, name = 0, 0, 0, None
    for match in re.finditer(r"[{};]", code):
        at, mark = match.start(), match.group(0)
        if mark == "{":
            if depth == 0:
                opened = at
                name = _function_name(code[start:at])
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0 and name is not None:
                head = code[start:opened]
                first = start + len(head) - len(head.lstrip())
                functions.append(Function(name, file.line_of(first), file.line_of(at), head))
                start, name = at + 1, None
        elif depth == 0:
            text = code[start:at]
            first = start + len(text) - len(text.lstrip())
            declarations.append(Declaration(text.strip(), file.line_of(first), file.line_of(at)))
            start = at + 1
    return functions, declarations


def parse_starlark(file):
    """BUILD files and .bzl files are Python by syntax."""
    return ast.parse(file.text)
