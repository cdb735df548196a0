"""Where the CUDA Toolkit is: CUDA_PATH, else /usr/local/cuda, else where nvcc on PATH is."""

_EMPTY = """package(default_visibility = ["//visibility:public"])
cc_library(name = "headers")
cc_library(name = "runtime")
cc_library(name = "libraries")
filegroup(name = "stub_driver")
"""

_FOUND = """package(default_visibility = ["//visibility:public"])
cc_library(
    name = "headers",
    hdrs = glob(["include/*.h", "include/*.hpp", "include/crt/*"]),
    includes = ["include"],
)
cc_library(
    name = "libraries",
    deps = [":headers"],
    linkopts = [
        "-L{lib}",
        "-lcudart",
        "-lcublasLt",
        "-lcudnn",
        "-Wl,-rpath,$$ORIGIN",
        "-Wl,-rpath,{lib}",
    ],
)
cc_library(
    name = "runtime",
    deps = [":headers"],
    linkopts = ["-L{lib}", "-lcudart", "-Wl,-rpath,{lib}"],
)
# The toolkit's driver without a driver: every call gives 34.
filegroup(name = "stub_driver", srcs = ["libcuda.so.1"])
"""

def _root(ctx):
    places = [ctx.os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    nvcc = ctx.which("nvcc")
    if nvcc != None:
        places.append(str(nvcc.dirname.dirname))
    for place in places:
        if place and ctx.path(place + "/bin/nvcc").exists:
            return place
    return ""

def _cuda_toolkit(ctx):
    root = _root(ctx)
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("defs.bzl", "CUDA_ROOT = \"%s\"\n" % root)
    if not root:
        ctx.file("BUILD", _EMPTY)
        return
    ctx.symlink(root + "/include", "include")
    stub = root + "/lib64/stubs/libcuda.so"
    if ctx.path(stub).exists:
        ctx.symlink(stub, "libcuda.so.1")
    else:
        ctx.file("libcuda.so.1", "")
    ctx.file("BUILD", _FOUND.format(lib = root + "/lib64"))

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit,
    local = True,
    environ = ["CUDA_PATH", "PATH"],
    doc = "Empty libraries where there is no toolkit; --config=cuda then says what is missing.",
)
