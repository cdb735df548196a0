# SPDX-License-Identifier: Apache-2.0
"""Who may include what: the layers of the tree, and which folder owns which library."""

import re

# From the top down; a folder may include itself, every lower level, and nothing beside it.
LEVELS = (
    ("main",),
    ("client", "coordinator", "node", "stage"),
    ("group", "layers", "link"),
    ("device", "rpc"),
    ("checkpoint", "plan"),
    ("model",),
    ("observe", "proto"),
    ("base",),
)
# What a folder may include where the levels alone would allow more.
ONLY = {
    "client": ("rpc", "checkpoint", "plan", "model", "proto", "base"),
    "coordinator": ("rpc", "checkpoint", "plan", "model", "observe", "proto", "base"),
    "node": ("device", "rpc", "observe", "base"),
    "rpc": ("observe", "proto", "base"),
    "checkpoint": ("model", "base"),
    "model": ("base",),
    "plan": ("model", "base"),
}
ONLY_REASON = {
    "client": "it talks to daemons through rpc/ and reads files",
    "coordinator": "it never touches a tensor, a link or a group",
    "node": "it holds no device and speaks no gRPC: it starts processes that do",
    "rpc": "it knows nothing of jobs",
    "checkpoint": "it knows files and host memory only",
    "model": "it is pure: no I/O",
    "plan": "it is pure: no I/O",
}

# Library headers and where they may be included. tests/ may include all.
LIBRARIES = (
    ("gRPC", r"grpc(pp)?/(?!.*\.pb-c\.h)", r"daemon/rpc/"),
    ("CUDA", r"cuda|cublas|cudnn|nvml|nvrtc", r"daemon/(device/cuda|link|group)/"),
    ("NCCL", r"nccl", r"daemon/(device/cuda|link|group)/"),
    ("oneDNN", r"(oneapi/dnnl|dnnl)", r"daemon/device/cpu/"),
    ("OpenMP", r"omp\.h$", r"daemon/device/cpu/"),
    ("processor intrinsics", r"\w+intrin\.h$", r"daemon/device/cpu/kernels/"),
    ("libuv", r"uv(\.h$|/)", r"daemon/(base/loop\.c|rpc/bridge\w*\.c)$"),
    ("SQLite", r"sqlite3", r"daemon/coordinator/store\w*\.c$"),
    ("libmicrohttpd", r"microhttpd", r"daemon/observe/"),
    ("libfyaml", r"libfyaml", r"daemon/model/"),
    ("PCRE2", r"pcre2", r"daemon/model/layer_pattern\.c$"),
    ("OpenSSL", r"openssl/", r"daemon/(checkpoint|model|plan|rpc)/"),
    ("jansson", r"jansson",
     r"(daemon/(checkpoint|plan|observe|coordinator)/|daemon/(stage/stage|node/node)_status\.c$"
     r"|client/)"),
    ("cmocka", r"cmocka", r"tests/"),
)

# model/ and plan/ compute; who needs the world outside hands them its bytes.
PURE_FOLDERS = ("model", "plan")
IO_HEADERS = re.compile(
    r"(aio|dirent|fcntl|ftw|glob|netdb|poll|pthread|signal|spawn|termios|threads|time|unistd"
    r"|arpa/.*|linux/.*|netinet/.*|sys/(?!types).*)\.h$")
IO_CALLS = re.compile(
    r"(?<![\w.>])(fopen|fdopen|freopen|fclose|fread|fwrite|fgets|fgetc|getc|getchar|fputs|fputc"
    r"|putc|putchar|puts|printf|fprintf|vprintf|vfprintf|perror|scanf|fscanf|tmpfile|remove|rename"
    r"|open|openat|read|write|close|socket|getline|time|clock_gettime|fflush)\s*\(")
IO_PROJECT = ("daemon/base/clock.h", "daemon/base/log.h", "daemon/base/loop.h",
              "daemon/base/queue.h", "daemon/base/monitor.h")

STANDARD = frozenset((
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal"
    " stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath"
    " threads time uchar wchar wctype").split())
SYSTEM = re.compile(
    r"(aio|alloca|dirent|dlfcn|elf|endian|execinfo|fcntl|fnmatch|ftw|getopt|glob|grp|ifaddrs|libgen"
    r"|malloc|netdb|poll|pthread|pwd|regex|sched|semaphore|spawn|strings|syslog|termios|unistd"
    r"|arpa/.*|linux/.*|net/.*|netinet/.*|sys/.*)\.h$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
GROUPS = ("own header", "C standard and system", "third party", "project")


def includes(file):
    """(line, path, quoted) of each #include."""
    return [(file.line_of(match.start()), match.group(2), match.group(1) == '"')
            for match in INCLUDE.finditer(file.text)]


def layer_of(path):
    """The layer of a file or of an included path; None for what is outside the layers."""
    parts = path.split("/")
    if path.endswith(".pb-c.h"):
        return "proto"
    if parts[0] in ("client", "proto"):
        return parts[0]
    if parts[0] == "daemon":
        return "main" if len(parts) == 2 else parts[1]
    return None


def level_of(layer):
    for number, names in enumerate(LEVELS):
        if layer in names:
            return number
    return None


def check_layers(tree):
    for file in tree.of_kind("c"):
        if file.in_tests:
            continue
        own = layer_of(file.path)
        for line, path, quoted in includes(file):
            other = layer_of(path) if quoted else None
            if path.startswith("tests/"):
                yield file.at(line, "layers", "includes %s: only tests include tests"
                              % path, path)
            if own is None or other is None or own == other:
                continue
            wrong = edge_wrong(own, other)
            if wrong:
                yield file.at(line, "layers", "%s/ includes %s, but %s; move what is shared"
                              " to a lower folder or hand it in from above" % (own, path, wrong),
                              path)


def edge_wrong(own, other):
    """Why folder own may not include folder other; None where it may."""
    if level_of(own) is None:
        return "%s is in no layer: add it to LEVELS (DESIGN section 7)" % own
    if level_of(other) is None:
        return "%s is in no layer: add it to LEVELS (DESIGN section 7)" % other
    if own in ONLY and other not in ONLY[own]:
        return "%s may include only %s: %s" % (own, ", ".join(ONLY[own]), ONLY_REASON[own])
    if level_of(other) == level_of(own):
        return "the two are beside each other"
    if level_of(other) < level_of(own):
        return "%s is above %s" % (other, own)
    return None


def check_libraries(tree):
    for file in tree.of_kind("c"):
        if file.in_tests:
            continue
        for line, path, _ in includes(file):
            for name, pattern, allowed in LIBRARIES:
                if re.match(pattern, path) and not re.match(allowed, file.path):
                    yield file.at(line, "library", "%s headers belong to %s; call that"
                                  " folder instead" % (name, allowed), path)


def check_pure(tree):
    for file in tree.of_kind("c"):
        if layer_of(file.path) not in PURE_FOLDERS:
            continue
        for line, path, _ in includes(file):
            if IO_HEADERS.match(path) or path in IO_PROJECT:
                yield file.at(line, "pure", "%s/ does no I/O, has no thread and no clock:"
                              " let the caller of it use <%s>" % (layer_of(file.path), path), path)
        for match in IO_CALLS.finditer(file.code):
            yield file.at(file.line_of(match.start()), "pure", "%s/ does no I/O: let the"
                          " caller call %s" % (layer_of(file.path), match.group(1)), match.group(1))


def group_of(path, quoted, is_first):
    """A project header that comes first is the file's own, or the one whose half it is."""
    if quoted:
        return 0 if is_first else 3
    stem = path[:-2] if path.endswith(".h") else path
    return 1 if stem in STANDARD or SYSTEM.match(path) else 2


def check_own(tree):
    """What has a header of its own name includes it, or its private half, before all else."""
    for file in tree.of_kind("c"):
        own = file.path.rsplit(".", 1)[0] + ".h"
        if not file.path.endswith(".c") or own not in tree.files:
            continue
        found = includes(file)
        if not found or found[0][1].rpartition("/")[0] != file.folder:
            yield file.at(found[0][0] if found else 1, "include-order",
                          "the first #include is its own header, %s" % own)


def check_order(tree):
    """Own header, then standard and system, third party, project; groups parted by a blank line."""
    for file in tree.of_kind("c"):
        last_line, last_group = 0, 0
        for line, path, quoted in includes(file):
            is_first = not file.is_header and not last_line
            group = group_of(path, quoted, is_first)
            between = file.lines[last_line:line - 1]
            if any(text.lstrip().startswith("#") for text in between):
                last_group = group  # after a condition the order begins anew
            if group < last_group:
                yield file.at(line, "include-order", "%s (%s) comes after %s; the order is:"
                              " %s" % (path, GROUPS[group], GROUPS[last_group], ", ".join(GROUPS)))
            elif (group != last_group and last_line and (last_group, group) != (0, 3)
                  and all(text.strip() for text in between)):
                yield file.at(line, "include-order", "%s begins the group '%s': put a blank"
                              " line before it" % (path, GROUPS[group]))
            last_line, last_group = line, group


CHECKS = (check_layers, check_libraries, check_pure, check_own, check_order)
