"""The CUDA part of the build: where the toolkit is, nvcc for our kernels, what is built with it.

Everything of it is reached only with --config=cuda; its targets are tagged manual, so that //... of
a machine without a toolkit never meets them."""

load("@cuda//:defs.bzl", "CUDA_ROOT")
load("//deploy/bazel:millrace.bzl", "mr_binary", "mr_library", "mr_test")

# Code for A100 (8.0) and H100, H200 (9.0); what is newer compiles the PTX at its first start.
ARCHITECTURES = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_90,code=compute_90",
]

# No --use_fast_math: its expf and division are good to fewer digits than the contract test asks.
NVCC_OPTIONS = [
    "-std=c++17",
    "-O3",
    "-lineinfo",
    "--Werror=all-warnings",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
]

def cuda_kernels(name, srcs, hdrs, deps_hdrs = [], **kwargs):
    """Our own .cu files as one library. deps_hdrs: headers of other folders that they include."""
    objects = []
    for src in srcs:
        object = src[:-len(".cu")] + ".pic.o"
        objects.append(object)
        native.genrule(
            name = object[:-len(".pic.o")] + "_object",
            srcs = [src] + hdrs + deps_hdrs,
            outs = [object],
            cmd = " ".join([
                "if [ -z '%s' ]; then echo 'no CUDA Toolkit: set CUDA_PATH' >&2; exit 1; fi;" %
                CUDA_ROOT,
                CUDA_ROOT + "/bin/nvcc",
            ] + ARCHITECTURES + NVCC_OPTIONS + ["-I. -c $(location %s) -o $@" % src]),
            tags = ["manual"],
        )
    mr_library(
        name = name,
        srcs = objects,
        hdrs = [hdr for hdr in hdrs if hdr.endswith(".h")],
        linkstatic = True,
        tags = ["manual"],
        **kwargs
    )

def cuda_mr_library(name, **kwargs):
    """C code that includes headers of the toolkit."""
    mr_library(name = name, tags = ["manual"], **kwargs)

def cuda_shared_library(name, exports, deps):
    """name: libX.so. exports: the linker's list of what it shows."""
    mr_binary(
        name = name,
        linkshared = True,
        linkopts = [
            "-Wl,--version-script=$(location %s)" % exports,
            "-Wl,--no-undefined",
        ],
        tags = ["manual"],
        deps = deps + [exports],
    )

def cuda_library_beside(name):
    """The CUDA library in this folder, too: programs look for it beside themselves."""
    native.genrule(
        name = name + "_beside",
        srcs = ["//daemon/device/cuda:libmillrace_cuda.so"],
        outs = [name],
        cmd = "cp $< $@",
        tags = ["manual"],
    )

def with_cuda(values):
    """values with --config=cuda, [] without."""
    return select({
        "//deploy/bazel:cuda": values,
        "//conditions:default": [],
    })

def cuda_test(name, srcs, deps, **kwargs):
    """A test of CUDA code that needs no card; without --config=cuda it says that it was skipped."""
    mr_test(
        name = name,
        srcs = select({
            "//deploy/bazel:cuda": srcs,
            "//conditions:default": ["//deploy/bazel:cuda_skipped.c"],
        }),
        deps = with_cuda(deps),
        **kwargs
    )
