# SPDX-License-Identifier: Apache-2.0
"""How C code reads here: form of files, calls that are not made, lengths, comments, vtables."""

import re

from tree import parse

FUNCTION_LINES_MAX = 70
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */"
POSIX_NAME = re.compile(r"\btypedef\b[^;{}]*\b(mr_\w+_t)\s*;|\}\s*(mr_\w+_t)\s*;")
NO_NAMES = ("common", "helper", "helpers", "misc", "util", "utils")

# (calls, where they may stand, what to do instead). Where: a pattern of paths, besides exceptions.
CALLS = (
    ("malloc calloc realloc reallocarray free strdup strndup asprintf vasprintf aligned_alloc"
     " posix_memalign memalign", r"daemon/base/alloc\.c$|tests/",
     "memory comes from mr_alloc and goes back by mr_free"),
    ("alloca strcpy strcat strncat stpcpy sprintf vsprintf gets", r"$^",
     "it knows no bound: use snprintf or memcpy"),
    ("atoi atol atoll atof", r"$^", "it hides errors: use strtol and look at where it ended"),
    ("rand srand drand48 rand_r", r"$^", "use base/random: the same bits everywhere"),
    ("getenv secure_getenv setenv putenv", r"tests/", "settings come from the command line"),
    ("system popen", r"tests/", "no shell is run"),
    ("sleep usleep nanosleep clock_nanosleep", r"tests/", "wait for the event, with a bound"),
    ("pthread_mutex_init pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock"
     " pthread_mutex_destroy pthread_rwlock_init pthread_spin_init mtx_init mtx_lock mtx_unlock",
     r"daemon/(base/queue\.c|base/monitor\.c|rpc/|link/|group/|observe/)|tests/",
     "threads exchange values through base/queue"),
)

# Folders that may tell people what happened; the others return a status.
LOGGING = re.compile(r"daemon/(main\.c|stage/|coordinator/|node/)|client/|tests/")
VTABLES = ("mr_device_ops", "mr_group_ops", "mr_link_ops", "mr_store_ops")


def check_calls(tree):
    for file in tree.of_kind("c"):
        for names, allowed, instead in CALLS:
            if re.match(allowed, file.path):
                continue
            pattern = r"(?<![\w.>])(%s)\s*\(" % names.replace(" ", "|")
            for match in re.finditer(pattern, file.code):
                name = match.group(1)
                yield file.at(file.line_of(match.start()), "call",
                              "%s() is not used here: %s" % (name, instead), name)


def check_goto(tree):
    for file in tree.of_kind("c"):
        for match in re.finditer(r"\bgoto\s+(\w+)", file.code):
            line = file.line_of(match.start())
            if match.group(1) != "out" and not file.lines[line - 1].rstrip().endswith("\\"):
                yield file.at(line, "goto", "goto %s: the one label is 'out', at the"
                              " function's end, where everything is cleaned up" % match.group(1))


def check_names(tree):
    for file in tree.of_kind("c"):
        stem = file.name.rsplit(".", 1)[0]
        if not re.fullmatch(r"[a-z][a-z0-9_]*(\.def)?", stem):
            yield file.at(1, "name", "file names are snake_case")
        if stem in NO_NAMES:
            yield file.at(1, "name", "'%s' says nothing: name the noun of it" % stem)
        for match in POSIX_NAME.finditer(file.code):
            yield file.at(file.line_of(match.start()), "name", "%s: names that end in _t"
                          " are POSIX's" % (match.group(1) or match.group(2)))


def guard_of(path):
    stem = re.sub(r"^daemon/", "", path)
    return "MR_" + re.sub(r"[^A-Za-z0-9]", "_", stem[:-2]).upper() + "_H"


def check_head(tree):
    """The licence first, the essay second; in headers its owner, then the guard."""
    for file in tree.of_kind("c"):
        if not file.lines or file.lines[0] != SPDX:
            yield file.at(1, "head", "the first line is: %s" % SPDX)
            continue
        own = file.path.rsplit(".", 1)[0] + ".h"
        essay = len(file.lines) > 1 and file.lines[1].startswith("/* ")
        if not essay and not (file.path.endswith(".c") and own in tree.files):
            yield file.at(2, "head", "the second line begins the essay: what the file is,"
                          " its owner and thread, what is not here")
        if file.is_header:
            yield from check_header(file, essay)


def check_header(file, essay):
    if essay:
        end = file.text.index("*/", len(SPDX)) if "*/" in file.text[len(SPDX):] else 0
        if "Owner:" not in file.text[len(SPDX):end]:
            yield file.at(2, "head", "a header's essay names its owner: 'Owner: FOLDER.'")
    guard = guard_of(file.path)
    code = [text for text in file.code.split("\n") if text.strip()]
    if code[:2] != ["#ifndef " + guard, "#define " + guard] or code[-1].strip() != "#endif":
        yield file.at(1, "guard", "the code stands between #ifndef %s, #define %s and #endif"
                      % (guard, guard))


def check_lengths(tree):
    for file in tree.of_kind("c"):
        for function in parse(file)[0]:
            lines = function.last - function.first + 1
            if lines > FUNCTION_LINES_MAX:
                yield file.at(function.first, "function-length", "%s has %d lines, the limit"
                              " is %d: let its parts have names" % (function.name, lines,
                                                                    FUNCTION_LINES_MAX),
                              (function.name, lines))


def public_name(text):
    """The name of the public function that a piece of a header declares or defines, or None."""
    if re.match(r"(typedef|static_assert|_Static_assert)\b", text) or "=" in text:
        return None
    match = re.search(r"\b(mr_\w+)\s*\(", text)
    return match.group(1) if match else None


def check_comments(tree):
    """A comment directly above, on the same line, or above the group that the function is in."""
    for file in tree.headers():
        functions, declarations = parse(file)
        # An inline wrapper of a vtable's slot has the slot's comment.
        places = [(f.first, f.last, public_name(f.head)) for f in functions
                  if not any("->ops->" in text for text in file.lines[f.first - 1:f.last])]
        places += [(d.first, d.last, public_name(d.text)) for d in declarations]
        said = {}  # last line of a declaration -> it has a comment
        for first, last, name in sorted(places, key=lambda place: place[:2]):
            said[last] = has_comment(file, first, last) or said.get(first - 1, False)
            if name and not said[last]:
                yield file.at(first, "comment", "%s has no comment: say its effect, units,"
                              " who owns what, its thread, its errors" % name, name)


def has_comment(file, first, last):
    """On its own lines or above them; the macro that calls it may stand in between."""
    above = first - 2
    while above > 0 and (file.lines[above].endswith("\\") or file.lines[above - 1].endswith("\\")):
        above -= 1
    return (file.lines[above].rstrip().endswith("*/")
            or any("/*" in text for text in file.lines[first - 1:last]))


def check_slots(tree):
    """Each slot of a table of functions has a comment, or shares one with the slots above it."""
    for file in tree.headers():
        for match in re.finditer(r"\bstruct mr_\w*ops\s*\{(.*?)\n\}", file.code, re.DOTALL):
            said = {}
            for slot in re.finditer(r"[^;{}]*\(\s*\*\s*(\w+)\s*\)\s*\([^;]*;", match.group(1)):
                start = match.start(1) + slot.end() - len(slot.group(0).lstrip())
                first, last = file.line_of(start), file.line_of(match.start(1) + slot.end() - 1)
                said[last] = has_comment(file, first, last) or said.get(first - 1, False)
                if not said[last]:
                    yield file.at(first, "comment", "slot %s has no comment: say required or"
                                  " optional, blocking or not, thread, errors" % slot.group(1),
                                  slot.group(1))


def check_vtables(tree):
    for file in tree.of_kind("c"):
        if file.in_tests:
            continue
        for match in re.finditer(r"\}\s*(mr_\w*ops)\s*;", file.code):
            if match.group(1) not in VTABLES:
                yield file.at(file.line_of(match.start()), "vtable", "%s: the four tables of"
                              " functions are %s; a switch or a plain call does here"
                              % (match.group(1), ", ".join(VTABLES)))
        for match in re.finditer(r"([^;{}]*)\bmr_\w*ops\s+\w+(?:\[\])?\s*=\s*\{\s*(\S)", file.code):
            line = file.line_of(match.end())
            if not re.search(r"\bconst\b", match.group(1)):
                yield file.at(line, "vtable", "a table of functions is const")
            if match.group(2) != ".":
                yield file.at(line, "vtable", "its slots are set by name: .slot = function")


def check_logs(tree):
    for file in tree.of_kind("c"):
        if LOGGING.match(file.path):
            continue
        for match in re.finditer(r"\bMR_LOG\s*\(\s*(INFO|WARN|ERROR)\b", file.code):
            yield file.at(file.line_of(match.start()), "log", "a library folder logs at most"
                          " DEBUG: return a status, and the role's root object logs it once")


CHECKS = (check_calls, check_goto, check_names, check_head, check_lengths, check_comments,
          check_slots, check_vtables, check_logs)
