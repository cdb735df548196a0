# SPDX-License-Identifier: Apache-2.0
"""Every header compiles alone, as C11 and without a warning: its user needs to know nothing."""

import concurrent.futures
import os
import re
import subprocess
import tempfile

from tree import Finding

BATCH = 24
# MR_ISA_PLAIN: the kernels' headers are compiled once per instruction set, which the build names.
COMPILE = ["gcc", "-fsyntax-only", "-std=c11", "-D_GNU_SOURCE", "-DMR_ISA_PLAIN", "-Wall",
           "-Wextra", "-Wpedantic", "-Werror", "-fmax-errors=1"]


def generate_messages(root, folder):
    """The protobuf-c headers of proto/, as the build makes them, into folder."""
    protos = os.path.join(root, "proto")
    sources = [os.path.join(at, name) for at, _, names in os.walk(protos) for name in names
               if name.endswith(".proto")]
    subprocess.run(["protoc-c", "--proto_path=" + protos, "--c_out=" + folder] + sorted(sources),
                   check=True, timeout=120)


def compile_batch(root, generated, units):
    """units: paths of C files that each include one header. What the compiler says of them."""
    result = subprocess.run(COMPILE + ["-I", root, "-I", generated] + units, timeout=300,
                            stderr=subprocess.PIPE, text=True, check=False,
                            env=dict(os.environ, LC_ALL="C"))
    return result.stderr


# Headers of an optional library: where it is not installed, what includes them cannot be checked.
OPTIONAL = re.compile(r"(nccl|cuda\w*)\.h: No such file")


def parse_errors(root, text):
    """A finding for each error; a header that others include may be found through several."""
    seen = set()
    for path, line, what in re.findall(r"(?m)^(\S+?):(\d+):\d+: (?:fatal )?error: (.*)$", text):
        if OPTIONAL.match(what):
            continue
        path = os.path.relpath(path, root) if path.startswith(root + os.sep) else path
        if (path, line) not in seen:
            seen.add((path, line))
            yield Finding(path, int(line), "header-alone", "does not compile on its own (%s):"
                          " include what it uses" % what)


def check_headers(tree, root):
    headers = sorted(file.path for file in tree.headers())
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as folder:
        generate_messages(root, folder)
        units = []
        for number, header in enumerate(headers):
            unit = os.path.join(folder, "unit_%03d.c" % number)
            with open(unit, "w", encoding="utf-8") as source:
                source.write('#include "%s"\ntypedef int tidy_%d;\n' % (header, number))
            units.append(unit)
        batches = [units[at:at + BATCH] for at in range(0, len(units), BATCH)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            texts = list(pool.map(lambda batch: compile_batch(root, folder, batch), batches))
    return list(parse_errors(root, "".join(texts)))
