#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: each rule of tidy_test finds what it is there for, at the right line, and leaves good code
alone. Method: small trees in memory, one with nothing to find and one for each mistake; headers on
disk for the compiler."""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import build_rules  # noqa: E402
import c_rules  # noqa: E402
import header_compile  # noqa: E402
import include_rules  # noqa: E402
import link_rules  # noqa: E402
import text_rules  # noqa: E402
from tree import File, Tree, blank_comments, parse  # noqa: E402

SPDX = c_rules.SPDX + "\n"
HEADER = SPDX + """/* pump.h: moves water.
 * Owner: stage. */
#ifndef MR_STAGE_PUMP_H
#define MR_STAGE_PUMP_H

#include <stddef.h>

#include "daemon/base/status.h"

/* Starts it. Cannot fail. */
void mr_pump_start(size_t speed);
void mr_pump_stop(void);

#endif
"""
SOURCE = SPDX + """#include "daemon/stage/pump.h"

#include <string.h>

#include <jansson.h>

#include "daemon/base/alloc.h"

/* Not malloc(1): "free(x) and getenv". */
void mr_pump_start(size_t speed) {
    void *memory = mr_alloc(speed);
    if (memory == NULL)
        goto out;
    strcpy_is_not_called("strcpy(");
out:
    mr_free(memory);
}
"""
BUILD = 'mr_library(name = "pump", srcs = ["pump.c"], hdrs = ["pump.h"])\n'
RULES = "COPTS = [\n%s]\n" % "".join('    "%s",\n' % name for name in build_rules.WARNINGS)
GOOD = {
    "daemon/stage/pump.h": HEADER,
    "daemon/stage/pump.c": SOURCE.replace("#include <jansson.h>\n\n", ""),
    "daemon/stage/BUILD": BUILD,
    build_rules.RULES_FILE: RULES,
}


def findings(texts, top=()):
    tree = Tree([File(path, text) for path, text in texts.items()], top)
    found = []
    for rules in (include_rules, c_rules, text_rules, build_rules):
        for check in rules.CHECKS:
            found += check(tree)
    return found


class Rules(unittest.TestCase):
    def expect(self, rule, line, path, old, new):
        """The good tree with old replaced by new in path has just this finding."""
        self.assertIn(old, GOOD[path])
        found = findings(dict(GOOD, **{path: GOOD[path].replace(old, new, 1)}))
        self.assertEqual([(f.path, f.rule, f.line) for f in found], [(path, rule, line)],
                         [str(f) for f in found])

    def expect_include(self, rule, path, include):
        """A file of that path that includes this is found by rule; rule None: by none."""
        text = SPDX + "/* An essay. */\n#include %s\n" % include
        tree = Tree([File(path, text)])
        found = [f for check in (include_rules.check_layers, include_rules.check_libraries,
                                 include_rules.check_pure) for f in check(tree)]
        self.assertEqual([(f.rule, f.line) for f in found], [(rule, 3)] if rule else [],
                         "%s includes %s" % (path, include))

    def test_good_tree_has_no_findings(self):
        self.assertEqual([str(f) for f in findings(GOOD, top=("daemon", "BUILD", ".ci"))], [])

    def test_layers_go_down_only(self):
        for path, include in (
                ("daemon/base/x.c", '"daemon/observe/metrics.h"'),
                ("daemon/link/x.c", '"daemon/group/group.h"'),
                ("daemon/coordinator/x.c", '"daemon/device/tensor.h"'),
                ("daemon/coordinator/x.c", '"daemon/stage/stage.h"'),
                ("daemon/checkpoint/x.c", '"daemon/plan/plan.h"'),
                ("daemon/model/x.c", '"daemon/observe/trace.h"'),
                ("daemon/rpc/x.c", '"daemon/plan/plan.h"'),
                ("client/x.c", '"daemon/stage/stage.h"'),
                ("daemon/new/x.c", '"daemon/base/status.h"'),
                ("daemon/base/x.c", '"tests/unit/rpc/rig.h"')):
            self.expect_include("layers", path, include)
        for path, include in (
                ("daemon/main.c", '"daemon/device/cpu/create.h"'),
                ("daemon/stage/x.c", '"daemon/checkpoint/file.h"'),
                ("daemon/stage/x.c", '"millrace/v1/jobs.pb-c.h"'),
                ("daemon/device/cpu/x.c", '"daemon/device/tensor.h"'),
                ("client/x.c", '"daemon/plan/plan.h"'),
                ("tests/unit/stage/x.c", '"daemon/stage/stage.h"')):
            self.expect_include(None, path, include)

    def test_libraries_stay_in_their_folders(self):
        for path, include in (
                ("daemon/stage/x.c", "<grpc/grpc.h>"), ("daemon/link/x.c", "<grpc/grpc.h>"),
                ("daemon/stage/x.c", "<cuda_runtime.h>"), ("daemon/device/cpu/x.c", "<nccl.h>"),
                ("daemon/layers/x.c", "<oneapi/dnnl/dnnl.h>"), ("daemon/base/queue.c", "<uv.h>"),
                ("daemon/coordinator/jobs.c", "<sqlite3.h>"),
                ("daemon/stage/x.c", "<microhttpd.h>"), ("daemon/stage/stage.c", "<jansson.h>"),
                ("client/x.c", "<libfyaml.h>"), ("daemon/stage/x.c", "<openssl/evp.h>")):
            self.expect_include("library", path, include)
        for path, include in (
                ("daemon/rpc/x.c", "<grpc/grpc.h>"), ("daemon/link/nccl.c", "<nccl.h>"),
                ("daemon/base/loop.c", "<uv.h>"), ("daemon/coordinator/store.c", "<sqlite3.h>"),
                ("daemon/rpc/x.c", '"grpc/health/v1/health.pb-c.h"'),
                ("client/x.c", "<jansson.h>"), ("tests/unit/x.c", "<jansson.h>")):
            self.expect_include(None, path, include)

    def test_model_and_plan_do_no_io(self):
        for include in ("<unistd.h>", "<sys/socket.h>", "<fcntl.h>", "<pthread.h>",
                        '"daemon/base/loop.h"', '"daemon/base/log.h"'):
            self.expect_include("pure", "daemon/plan/x.c", include)
        for include in ("<stdio.h>", "<string.h>", '"daemon/base/alloc.h"'):
            self.expect_include(None, "daemon/model/x.c", include)
        text = SPDX + "/* An essay. */\nint f(void) { return fopen(path) != snprintf(t, 1); }\n"
        found = list(include_rules.check_pure(Tree([File("daemon/model/x.c", text)])))
        self.assertEqual([(f.rule, f.line, f.key) for f in found], [("pure", 3, "fopen")])

    def test_include_order_is_own_standard_third_party_project(self):
        path = "daemon/stage/pump.c"
        own = '#include "daemon/stage/pump.h"\n\n'
        self.expect("include-order", 2, path, own, "")
        self.expect("include-order", 6, path, "#include <string.h>\n\n",
                    "#include <zlib.h>\n\n#include <string.h>\n\n")
        self.expect("include-order", 5, path, "#include <string.h>\n\n", "#include <string.h>\n")
        self.expect("include-order", 8, path, '#include "daemon/base/alloc.h"\n',
                    '#include "daemon/base/alloc.h"\n\n#include <stdio.h>\n')

    def test_calls_that_are_not_made(self):
        call = "strcpy_is_not_called"
        for name in ("free", "malloc", "strcpy", "sprintf", "alloca", "atoi", "rand", "getenv",
                     "usleep", "system", "pthread_mutex_lock", "mtx_lock", "strdup", "gets"):
            self.expect("call", 13, "daemon/stage/pump.c", call, name)
        for name in ("x->free", "ops.free", "json_free", "snprintf", "mr_free"):
            found = findings(dict(GOOD, **{"daemon/stage/pump.c": SOURCE.replace(
                call, name).replace("#include <jansson.h>\n\n", "")}))
            self.assertEqual([str(f) for f in found], [])
        text = SPDX + "/* An essay. */\nvoid f(void) { free(malloc(pthread_mutex_lock(m))); }\n"
        for path, count in (("tests/unit/x.c", 0), ("daemon/rpc/x.c", 2), ("client/x.c", 3)):
            found = list(c_rules.check_calls(Tree([File(path, text)])))
            self.assertEqual(len(found), count, path)

    def test_goto_goes_to_out(self):
        self.expect("goto", 12, "daemon/stage/pump.c", "goto out", "goto fail")

    def test_names_say_something(self):
        for path, name in (("daemon/stage/utils.c", 1), ("daemon/stage/helpers.h", 1),
                           ("daemon/stage/BigPump.c", 1), ("daemon/stage/pump_2.c", 0)):
            found = list(c_rules.check_names(Tree([File(path, "")])))
            self.assertEqual(len(found), name, path)
        self.expect("name", 11, "daemon/stage/pump.h", "/* Starts",
                    "typedef struct x mr_pump_t;\n/* Starts")

    def test_head_is_licence_essay_owner_and_guard(self):
        path = "daemon/stage/pump.h"
        self.expect("head", 1, path, "Apache-2.0", "MIT")
        self.expect("head", 2, path, " * Owner: stage. */", " */")
        self.expect("guard", 1, path, "#define MR_STAGE_PUMP_H", "#define MR_PUMP_H")
        self.expect("guard", 1, path, "#endif\n", "#endif\nint x;\n")
        self.assertEqual(c_rules.guard_of("daemon/options.def.h"), "MR_OPTIONS_DEF_H")
        self.assertEqual(c_rules.guard_of("client/data.h"), "MR_CLIENT_DATA_H")
        found = list(c_rules.check_head(Tree([File("daemon/main.c", SPDX + "#include <x.h>\n")])))
        self.assertEqual([(f.rule, f.line) for f in found], [("head", 2)])

    def test_public_functions_have_comments(self):
        path = "daemon/stage/pump.h"
        self.expect("comment", 14, path, "void mr_pump_stop", "\nvoid mr_pump_stop")
        self.expect("comment", 14, path, "void mr_pump_stop(void);",
                    "\n__attribute__((pure)) int mr_pump_stop(\n    void);")
        self.expect("comment", 15, path, "void mr_pump_stop(void);\n",
                    "void mr_pump_stop(void);\n\nstatic inline int mr_pump_is(void) {\n"
                    "    return 1;\n}\n")

    def test_comment_of_a_macro_is_that_of_the_function_that_it_calls(self):
        macro = "/* Says. */\n#define mr_pump_say(x) \\\n    mr_pump_say_it(x)\n"
        text = HEADER.replace("/* Starts", macro + "void mr_pump_say_it(int x);\n\n/* Starts")
        self.assertEqual(findings(dict(GOOD, **{"daemon/stage/pump.h": text})), [])
        text = text.replace("/* Says. */\n", "\n")
        found = findings(dict(GOOD, **{"daemon/stage/pump.h": text}))
        self.assertEqual([(f.rule, f.line) for f in found], [("comment", 14)])

    def test_slots_of_a_vtable_have_comments(self):
        slots = "typedef struct mr_link_ops {\n    /* Sends. */\n    int (*send)(int);\n%s" \
                "    int (*close)(int);\n} mr_link_ops;\n\n/* Starts"
        for between, lines in (("", []), ("\n", [15])):
            text = HEADER.replace("/* Starts", slots % between)
            found = findings(dict(GOOD, **{"daemon/stage/pump.h": text}))
            self.assertEqual([(f.rule, f.line) for f in found],
                             [("comment", line) for line in lines])

    def test_vtables_are_four_const_and_named(self):
        for text, count in (("typedef struct { int a; } mr_pump_ops;\n", 1),
                            ("typedef struct { int a; } mr_link_ops;\n", 0),
                            ("static mr_link_ops x = {.send = send};\n", 1),
                            ("static const mr_link_ops x = {send};\n", 1),
                            ("static const mr_link_ops x = {\n    .send = send};\n", 0)):
            found = list(c_rules.check_vtables(Tree([File("daemon/link/x.c", text)])))
            self.assertEqual(len(found), count, text)

    def test_library_folders_do_not_log(self):
        text = 'void f(void) {\n    MR_LOG(WARN, "x");\n    MR_LOG(DEBUG, "x");\n}\n'
        for path, lines in (("daemon/rpc/x.c", [2]), ("daemon/stage/x.c", [])):
            found = list(c_rules.check_logs(Tree([File(path, text)])))
            self.assertEqual([f.line for f in found], lines)

    def test_long_functions_and_files_are_found(self):
        text = "int g(void);\nstatic int f(int a,\n             int b) {\n%s}\n"
        for lines, count in ((67, 0), (68, 1)):
            tree = Tree([File("daemon/stage/x.c", text % ("    a++;\n" * lines))])
            found = list(c_rules.check_lengths(tree))
            self.assertEqual([(f.line, f.key) for f in found], [(2, ("f", 71))] * count)
        found = list(text_rules.check_files(Tree([File("client/x.c", "\n" * 801 + "x\n")])))
        self.assertEqual([f.rule for f in found], ["file-length"])
        text = "# x\ndef f():\n" + "    x()\n" * 70
        found = list(text_rules.check_python(File("tests/x.py", '"""Essay."""\n' + text)))
        self.assertEqual([f.key for f in found], [("f", 71)])

    def test_lines_are_clean(self):
        path, line = "daemon/stage/pump.c", "    mr_free(memory);"
        self.expect("width", 15, path, line, line + " " * 70 + "/* so far out */")
        self.expect("blanks", 15, path, line, line + " ")
        self.expect("tab", 15, path, line, "\tmr_free(memory);")
        self.expect("last-line", 16, path, "memory);\n}\n", "memory);\n}")
        self.expect("last-line", 17, path, "memory);\n}\n", "memory);\n}\n\n")
        self.expect("unfinished", 15, path, line, "    mr_free(memory); /* TO" "DO */")

    def test_places_of_one_machine_are_found(self):
        for text, count in (("x /ro" "ot/y", 1), ("see /tm" "p/x", 1), ("a /wo" "rk/ folder", 1),
                            ("$TMP/tm" "p/x", 0), ("net/wo" "rk/x", 0), ("/var/lib/millrace", 0)):
            found = list(text_rules.check_words(Tree([File("deploy/x", text)])))
            self.assertEqual(len(found), count, text)

    def test_scripts_have_licence_and_essay(self):
        for path, text, count in (("tests/x.py", "#!/usr/bin/python3\nimport os\n", 2),
                                  ("deploy/x.sh", "#!/bin/sh\ntrue\n", 1),
                                  ("deploy/x.sh", "#!/bin/sh\n" + text_rules.SPDX + "\n", 0)):
            found = list(text_rules.check_scripts(Tree([File(path, text)])))
            self.assertEqual([f.rule for f in found], ["head"] * count)

    def test_top_holds_what_the_design_names(self):
        found = findings(GOOD, top=("daemon", "notes.txt", "bazel-bin", ".ci"))
        self.assertEqual([(f.path, f.rule) for f in found], [("notes.txt", "top")])

    def test_build_files_are_the_index(self):
        path = "daemon/stage/BUILD"
        self.expect("glob", 1, path, '["pump.c"]', '["pump.c"] + glob(["*.c"])')
        self.expect("native-rule", 1, path, "mr_library", "cc_library")
        self.expect("warnings", 1, path, "hdrs", 'copts = ["-Wno-error"], hdrs')
        self.expect("warnings", 1, build_rules.RULES_FILE, '"-Wvla"', '"-Wall"')
        found = findings(dict(GOOD, **{path: BUILD.replace('"pump.c"', "")}))
        self.assertEqual([(f.path, f.rule) for f in found], [("daemon/stage/pump.c", "index")])

    def test_code_is_told_from_comments_and_texts(self):
        code = blank_comments('a /* b "c" */ "d /* e" f // g\n\'"\' h "\\"i" j')
        self.assertEqual("".join(code.split()), 'a""f\'\'h""j')
        functions, declarations = parse(File("x.c", (
            "#define F(x) { x\nenum { A = 1 };\nstatic const int t[] = {1, 2};\n"
            "MR_MUST_CHECK mr_status mr_x(int a) {\n    if (a) {\n    }\n}\n"
            "void MR_KERNEL(add)(void) { }\nint y(void) __attribute__((pure));\n")))
        self.assertEqual([(f.name, f.first, f.last) for f in functions],
                         [("mr_x", 4, 7), ("add", 8, 8)])
        self.assertEqual([d.first for d in declarations], [2, 3, 9])

    def test_links_lead_somewhere(self):
        page = ("# A page\n\n## Two `big` words\n\n## Again\n\n## Again\n\n```\n"
                "[x](nowhere)\n# no\n```\n[a](#two-big-words) [b](#again-1) [c](../pump.c#)\n"
                "[d](../docs) [e](more.md#here) [f](https://example.org/x)\n")
        good = {"docs/page.md": page, "docs/more.md": "# Here\n", "pump.c": "\n"}

        def links(path, text):
            texts = dict(good, **{path: text})
            tree = Tree([File(name, texts[name]) for name in sorted(texts)])
            return [(f.path, f.line, f.key) for f in link_rules.check_links(tree)]
        self.assertEqual(links("docs/page.md", page), [])
        for link in ("gone.md", "../pump.h", "#again-2", "#no", "more.md#there", "../pump.c#x"):
            text = page + "[z](%s)\n" % link
            self.assertEqual(links("docs/page.md", text), [("docs/page.md", 15, link)])


class Headers(unittest.TestCase):
    def test_header_that_needs_another_is_found(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as root:
            os.mkdir(os.path.join(root, "proto"))
            texts = {"good.h": "#include <stddef.h>\nsize_t f(void);\n",
                     "bad.h": "int g(void);\nsize_t f(void);\n"}
            for path, text in texts.items():
                with open(os.path.join(root, path), "w", encoding="utf-8") as header:
                    header.write(text)
            units = []
            for path in texts:
                units.append(os.path.join(root, path + ".c"))
                with open(units[-1], "w", encoding="utf-8") as unit:
                    unit.write('#include "%s"\nint x;\n' % path)
            text = header_compile.compile_batch(root, root, units)
        found = list(header_compile.parse_errors(root, text))
        self.assertEqual([(f.path, f.line, f.rule) for f in found],
                         [("bad.h", 2, "header-alone")])


if __name__ == "__main__":
    unittest.main()
