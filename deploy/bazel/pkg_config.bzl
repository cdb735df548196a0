"""One repository with a cc_library for each system library, from pkg-config."""

def _flags(ctx, package, option):
    result = ctx.execute(["pkg-config", option, package])
    if result.return_code != 0:
        fail("pkg-config knows no %s: run deploy/setup (%s)" % (package, result.stderr.strip()))
    return [flag for flag in result.stdout.strip().split(" ") if flag]

def _library(name, cflags, libs):
    # System headers lie in /usr/include, which the compiler searches anyway; only defines matter.
    defines = [flag[2:] for flag in cflags if flag.startswith("-D")]
    return """cc_library(
    name = "%s",
    defines = %s,
    linkopts = %s,
    visibility = ["//visibility:public"],
)
""" % (name, repr(defines), repr(libs))

def _pkg_config_libraries(ctx):
    text = ""
    for name, package in ctx.attr.libraries.items():
        # Only -lNAME of the library itself: what it needs in turn, the shared library records.
        libs = [flag for flag in _flags(ctx, package, "--libs") if flag.startswith("-l")][:1]
        text += _library(
            name,
            _flags(ctx, package, "--cflags"),
            libs + ctx.attr.extra.get(name, []),
        )
    for name, option in ctx.attr.plain_libraries.items():
        text += _library(name, [], [option])
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("BUILD", text)

pkg_config_libraries = repository_rule(
    implementation = _pkg_config_libraries,
    attrs = {
        "extra": attr.string_list_dict(default = {"grpc": ["-lgpr"]}),
        "libraries": attr.string_dict(mandatory = True),
        "plain_libraries": attr.string_dict(),
    },
    local = True,
    environ = ["PKG_CONFIG_PATH"],
)
