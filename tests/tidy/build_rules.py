# SPDX-License-Identifier: Apache-2.0
"""BUILD files: the index of their folder, with our own rules and all warnings."""

import ast

from tree import Finding, parse_starlark

RULES_FILE = "deploy/bazel/millrace.bzl"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes",
            "-Wunused-value", "-Wvla", "-Werror", "-std=c17")
NATIVE = {"cc_library": "mr_library", "cc_binary": "mr_binary", "cc_test": "mr_test"}


def calls(module):
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            yield node, name


def texts(module):
    return [node.value for node in ast.walk(module)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def check_rules(tree):
    for file in tree.of_kind("build"):
        for node, name in calls(parse_starlark(file)):
            if name == "glob":
                yield file.at(node.lineno, "glob", "glob(): list the files by name, the"
                              " BUILD file is the folder's index")
            if name in NATIVE and not file.path.endswith(".bzl"):
                yield file.at(node.lineno, "native-rule", "%s: use %s of //%s, which has all"
                              " warnings" % (name, NATIVE[name], RULES_FILE), name)


def check_warnings(tree):
    rules = tree.files.get(RULES_FILE)
    given = texts(parse_starlark(rules)) if rules else []
    for warning in WARNINGS:
        if warning not in given:
            yield Finding(RULES_FILE, 1, "warnings", "%s is missing from COPTS" % warning, warning)
    for file in tree.of_kind("build"):
        for text in texts(parse_starlark(file)):
            if text.startswith("-Wno-") or text == "-w":
                line = next(n for n, t in enumerate(file.lines, 1) if text in t)
                yield file.at(line, "warnings", "%s switches a warning off: change the code"
                              % text, text)


def check_index(tree):
    """Each C file is named by the BUILD file of its own folder."""
    named = {}
    for file in tree.of_kind("build"):
        if file.name == "BUILD":
            named[file.folder] = set(texts(parse_starlark(file)))
    for file in tree.of_kind("c"):
        if file.folder not in named:
            yield file.at(1, "index", "its folder has no BUILD file: one package per folder")
        elif file.name not in named[file.folder]:
            yield file.at(1, "index", "no target of %s/BUILD names it: add it there or"
                          " delete it" % file.folder)


CHECKS = (check_rules, check_warnings, check_index)
