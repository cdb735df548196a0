"""Our own C code: C17, every warning an error. Use these in place of the native rules."""

load("@nccl//:present.bzl", "NCCL_PRESENT")

COPTS = [
    "-std=c17",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wunused-value",
    "-Wvla",
    "-Werror",
    # Texts of errors are cut at a fixed size on purpose (daemon/base/status.h).
    "-Wno-format-truncation",
]

def mr_library(name, copts = [], **kwargs):
    native.cc_library(name = name, copts = COPTS + copts, **kwargs)

# What a --config=tsan build links into each program (see the file).
TSAN_SRCS = select({
    "//deploy/bazel:tsan": ["//deploy/bazel:tsan_suppressions.c"],
    "//conditions:default": [],
})

# Programs look for shared libraries in ../lib first, for all levels of dependency (DT_RPATH), so
# that the release archive works wherever it is unpacked (deploy/release.sh).
RELEASE_LINKOPTS = [
    "-Wl,-rpath,\\$$ORIGIN/../lib",
    "-Wl,--disable-new-dtags",
]

def mr_binary(name, srcs = [], copts = [], linkopts = [], **kwargs):
    native.cc_binary(
        name = name,
        srcs = srcs + TSAN_SRCS,
        copts = COPTS + copts,
        linkopts = linkopts + RELEASE_LINKOPTS,
        **kwargs
    )

def mr_test(name, srcs = [], copts = [], deps = [], size = "small", **kwargs):
    """A cmocka test: one process, Bazel's timeout for its size."""
    native.cc_test(
        name = name,
        srcs = srcs + TSAN_SRCS,
        size = size,
        copts = COPTS + copts,
        deps = deps + ["@system//:cmocka"],
        **kwargs
    )

def mr_nccl_test(name, srcs, deps = [], **kwargs):
    """A test of what is compiled against NCCL's headers; without them it says so and passes."""
    if NCCL_PRESENT:
        mr_test(name = name, srcs = srcs, deps = deps, **kwargs)
    else:
        mr_test(name = name, srcs = ["//deploy/bazel:nccl_missing_test.c"], **kwargs)

def mr_python_test(name, size = "medium", data = [], **kwargs):
    """NAME.py as a test over the real binaries, with Debian's python3."""
    native.sh_test(
        name = name,
        size = size,
        srcs = ["//tests/e2e:python.sh"],
        args = ["$(location %s.py)" % name],
        data = data + [
            name + ".py",
            "//client:millrace",
            "//daemon:millraced",
            "//tests/e2e:cluster.py",
        ],
        **kwargs
    )
