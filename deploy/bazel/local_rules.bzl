"""Repositories that Bazel 4.2.3 expects by name, written here so that no network is needed."""

def _local_cc_rules(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"rules_cc\")\n")
    ctx.file("BUILD", "")
    ctx.file("cc/BUILD", "exports_files([\"defs.bzl\"])\n")
    rules = [
        "cc_binary",
        "cc_import",
        "cc_library",
        "cc_proto_library",
        "cc_test",
        "cc_toolchain",
        "cc_toolchain_suite",
        "fdo_prefetch_hints",
        "fdo_profile",
        "objc_import",
        "objc_library",
    ]
    ctx.file("cc/defs.bzl", "".join(["%s = native.%s\n" % (rule, rule) for rule in rules]))

local_cc_rules = repository_rule(
    implementation = _local_cc_rules,
    doc = "rules_cc as Bazel's own native rules.",
)

def _local_coverage_tools(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"remote_coverage_tools\")\n")
    ctx.file("nothing.sh", "#!/bin/sh\nexit 0\n", executable = True)
    ctx.file("BUILD", "package(default_visibility = [\"//visibility:public\"])\n" + "".join([
        "sh_binary(name = \"%s\", srcs = [\"nothing.sh\"])\n" % name
        for name in ["coverage_report_generator", "lcov_merger"]
    ]))

local_coverage_tools = repository_rule(
    implementation = _local_coverage_tools,
    doc = "The two tools that every test rule names; coverage is not collected through them.",
)
