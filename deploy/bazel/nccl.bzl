"""The headers of an installed CUDA Toolkit and NCCL, where the machine has both.

@nccl//:headers is a library of headers, empty where there are none; @nccl//:present.bzl says which
by NCCL_PRESENT, so that BUILD files leave out what could not compile. Nothing of CUDA is linked
here: the libraries are opened at run time (daemon/device/cuda/nccl/library.h)."""

_BUILD = """
cc_library(
    name = "headers",
    hdrs = glob(
        [
            "include/*.h",
            "include/*.hpp",
            "include/crt/*",
        ],
        allow_empty = True,
    ),
    includes = ["include"],
    visibility = ["//visibility:public"],
)
"""

def _find(ctx):
    for home in [ctx.os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]:
        folder = ctx.path(home + "/include") if home else None
        if folder and folder.get_child("nccl.h").exists and \
           folder.get_child("cuda_runtime_api.h").exists:
            return folder
    return None

def _nccl_headers(ctx):
    folder = _find(ctx)
    if folder:
        ctx.symlink(folder, "include")
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("BUILD", _BUILD)
    ctx.file("present.bzl", "NCCL_PRESENT = %s\n" % bool(folder))

nccl_headers = repository_rule(
    implementation = _nccl_headers,
    local = True,
    environ = ["CUDA_PATH"],
)
