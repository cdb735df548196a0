"""protobuf-c code for a set of .proto files, and their descriptor set for reflection."""

def protobuf_c_library(name, srcs, visibility):
    """A cc_library NAME with NAME's generated headers, and NAME_descriptors, a FileDescriptorSet.

    Paths are relative to this package: millrace/v1/jobs.proto gives "millrace/v1/jobs.pb-c.h".
    """
    stems = [src[:-len(".proto")] for src in srcs]
    native.genrule(
        name = name + "_sources",
        srcs = srcs,
        outs = [stem + ".pb-c.c" for stem in stems] + [stem + ".pb-c.h" for stem in stems],
        cmd = "protoc-c --proto_path=proto --c_out=$(RULEDIR) $(SRCS)",
    )
    native.genrule(
        name = name + "_descriptors",
        srcs = srcs,
        outs = [name + ".binpb"],
        cmd = "protoc-c --proto_path=proto --include_imports --descriptor_set_out=$@ $(SRCS)",
        visibility = visibility,
    )

    # Generated code: our warnings do not apply.
    native.cc_library(
        name = name,
        srcs = [stem + ".pb-c.c" for stem in stems],
        hdrs = [stem + ".pb-c.h" for stem in stems],
        includes = ["."],
        visibility = visibility,
        deps = ["@system//:protobuf_c"],
    )
