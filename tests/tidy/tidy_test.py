#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the tree keeps its own rules: the layers that it is built in, and what of its style a
program can see. Method: reads every text file of the working tree, found from this file's own
place, so that a new file is seen before any BUILD file names it; compiles every header alone. The
rules are in the *_rules.py beside this file, what is excepted in exceptions.py.

By hand, from anywhere: tests/tidy/tidy_test.py"""

import os
import sys

sys.dont_write_bytecode = True  # it runs in the source tree itself
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import build_rules  # noqa: E402
import c_rules  # noqa: E402
import exceptions  # noqa: E402
import header_compile  # noqa: E402
import include_rules  # noqa: E402
import link_rules  # noqa: E402
import text_rules  # noqa: E402
from tree import Finding, Tree  # noqa: E402

OWN = "tests/tidy/exceptions.py"


def find_root():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    if not os.path.isfile(os.path.join(root, "WORKSPACE")):
        sys.exit("tidy_test.py: %s is not the top of the tree" % root)
    return root


def collect(tree):
    findings = []
    for rules in (include_rules, c_rules, text_rules, build_rules, link_rules):
        for check in rules.CHECKS:
            findings += check(tree)
    return findings


def excepted(finding, used):
    """Is there an entry for it? Notes in used which."""
    if finding.rule == "function-length":
        name, lines = finding.key
        entry = (finding.path, name)
        if exceptions.LONG_FUNCTIONS.get(entry, 0) >= lines:
            used[entry] = lines
            return True
        return False
    if finding.rule == "comment" and (finding.path, finding.key) in exceptions.UNCOMMENTED:
        used[finding.path, finding.key] = True
        return True
    entry = (finding.rule, finding.path, finding.key)
    if entry in exceptions.ALLOWED:
        used[entry] = True
        return True
    return False


def unneeded(used):
    """The ratchet: entries that nothing needs, or that allow more lines than there are."""
    for entry in list(exceptions.ALLOWED) + sorted(exceptions.UNCOMMENTED):
        if entry not in used:
            yield Finding(OWN, 1, "ratchet", "nothing needs the entry %s: delete it" % (entry,))
    for entry, lines in exceptions.LONG_FUNCTIONS.items():
        if entry not in used:
            yield Finding(OWN, 1, "ratchet", "nothing needs the entry %s: delete it" % (entry,))
        elif used[entry] < lines:
            yield Finding(OWN, 1, "ratchet", "%s has %d lines now: write that in place of %d"
                          % (entry, used[entry], lines))


def main():
    root = find_root()
    tree = Tree.read(root)
    if len(tree.files) < 100:
        sys.exit("tidy_test.py: only %d files under %s" % (len(tree.files), root))
    used = {}
    findings = [f for f in collect(tree) if not excepted(f, used)]
    findings += header_compile.check_headers(tree, root)
    findings += unneeded(used)
    for finding in sorted(findings, key=lambda f: (f.path, f.line)):
        print(finding)
    print("tidy: %d files, %d findings" % (len(tree.files), len(findings)))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
