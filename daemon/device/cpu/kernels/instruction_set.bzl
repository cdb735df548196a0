"""The same kernel sources, once for each instruction set."""

load("//deploy/bazel:millrace.bzl", "mr_library")

def kernel_build(name, srcs, copts):
    """copts: one -DMR_ISA_ and the compiler's options for that set."""
    mr_library(
        name = name,
        srcs = srcs,
        copts = copts,
        deps = [
            ":contract",
            "@system//:m",
        ],
    )
