# SPDX-License-Identifier: Apache-2.0
"""Links of the pages (*.md): each names a file or a folder of the tree, or a heading of the page it
points into. What lies elsewhere (https://) is not asked for."""

import os
import re

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]*)\)")
HEADING = re.compile(r"#{1,6} +(.*)")
FENCE = "```"


def prose(file):
    """Lines with their numbers, but not those of code."""
    code = False
    for number, line in enumerate(file.lines, 1):
        if line.lstrip().startswith(FENCE):
            code = not code
        elif not code:
            yield number, line


def anchor(heading):
    """As GitHub makes it: small letters, digits, - and _; blanks become -."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(file):
    """Of all headings; one that comes again gets -1, -2."""
    seen = {}
    for _, line in prose(file):
        match = HEADING.match(line)
        if match:
            name = anchor(match.group(1))
            count = seen[name] = seen.get(name, -1) + 1
            yield name if count == 0 else "%s-%d" % (name, count)


def check_links(tree):
    folders = {os.path.dirname(path) for path in tree.files}
    folders |= {"/".join(folder.split("/")[:n]) for folder in folders
                for n in range(folder.count("/") + 1)}
    for file in tree.files.values():
        if not file.path.endswith(".md"):
            continue
        for number, line in prose(file):
            for target in LINK.findall(line):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, name = target.partition("#")
                path = os.path.normpath(os.path.join(file.folder, path)) if path else file.path
                page = tree.files.get(path)
                if page is None and path not in folders:
                    yield file.at(number, "link", "%s is no file of the tree" % path, target)
                elif name and (page is None or name not in anchors(page)):
                    yield file.at(number, "link", "%s has no heading #%s" % (path, name), target)


CHECKS = (check_links,)
