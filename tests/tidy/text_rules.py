# SPDX-License-Identifier: Apache-2.0
"""What holds for every text: widths, blanks, sizes, words; and for scripts what C has too."""

import ast
import re

from tree import Finding

WIDTH_MAX = 100
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
SPDX = "# SPDX-License-Identifier: Apache-2.0"
TOP = ("BUILD", "LICENSE", "README.md", "WORKSPACE", "client", "daemon", "deploy", "proto", "tests")
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE = re.compile(r"(?<![\w.$}\"'/-])/(work|root|home)/|(?<![\w.$}/-])/tmp/")


def check_lines(tree):
    for file in tree.files.values():
        for number, line in enumerate(file.lines, 1):
            if file.kind and len(line) > WIDTH_MAX:
                yield file.at(number, "width", "%d columns, the limit is %d: break the line"
                              % (len(line), WIDTH_MAX))
            if line != line.rstrip() and file.name != "LICENSE":
                yield file.at(number, "blanks", "blanks at the line's end: delete them")
            if file.kind and "\t" in line:
                yield file.at(number, "tab", "a tab: use blanks (in a text \\t)")
            if "\r" in line:
                yield file.at(number, "blanks", "a carriage return: lines end with \\n")


def check_files(tree):
    for file in tree.files.values():
        if file.text and not file.text.endswith("\n"):
            yield file.at(len(file.lines), "last-line", "the file does not end with a newline")
        if file.text.endswith("\n\n"):
            yield file.at(len(file.lines), "last-line", "the file ends with an empty line")
        if file.kind and len(file.lines) > FILE_LINES_MAX:
            yield file.at(FILE_LINES_MAX, "file-length", "%d lines, the limit is %d: part it"
                          " by its nouns" % (len(file.lines), FILE_LINES_MAX))


def check_words(tree):
    for file in tree.files.values():
        if file.name == "LICENSE":
            continue
        for number, line in enumerate(file.lines, 1):
            match = UNFINISHED.search(line)
            if match:
                yield file.at(number, "unfinished", "%s: finish it, or open an issue and name"
                              " the limit here" % match.group(1))
            match = MACHINE.search(line)
            if match and not file.in_tests:
                yield file.at(number, "machine", "%s... is a place of one machine: take it from"
                              " an option" % match.group(0), match.group(0))


def check_scripts(tree):
    """Python and shell: the licence above all but #!; Python functions as long as C's at most."""
    for file in tree.of_kind("py", "sh"):
        first = 1 if file.text.startswith("#!") else 0
        if len(file.lines) <= first or file.lines[first] != SPDX:
            yield file.at(first + 1, "head", "line %d is: %s" % (first + 1, SPDX))
        if file.kind == "py":
            yield from check_python(file)


def check_python(file):
    try:
        module = ast.parse(file.text)
    except SyntaxError as error:
        yield file.at(error.lineno or 1, "syntax", str(error))
        return
    if ast.get_docstring(module) is None:
        yield file.at(1, "head", "the essay, a docstring, comes before the code")
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield file.at(node.lineno, "function-length", "%s has %d lines, the limit is"
                              " %d: let its parts have names"
                              % (node.name, lines, FUNCTION_LINES_MAX), (node.name, lines))


def check_top(tree):
    for name in tree.top:
        if name not in TOP and not name.startswith((".", "bazel-")):
            yield Finding(name, 1, "top", "the top of the tree holds only %s" % ", ".join(TOP))


CHECKS = (check_lines, check_files, check_words, check_scripts, check_top)
