# SPDX-License-Identifier: Apache-2.0
"""What may stay as it is. Each entry is needed: one that nothing needs any more is an error.

ALLOWED holds what is right as it is, with the reason. The ratchets hold what is not: their entries
go away with their causes, and none comes in."""

FAKE_CARD = "a card's memory is not the host's: mr_alloc does not count it"
JANSSON = "json_dumps gives memory of the C library"
# (rule, path, key): why it is right. key: what the finding is about (a call, a header).
ALLOWED = {
    ("call", "client/environment.c", "getenv"):
        "the one place where the client reads MILLRACE_*, TERM, NO_COLOR and the XDG folders",
    ("call", "client/job_file.c", "free"): "realpath gives memory of the C library",
    ("call", "client/render.c", "free"): JANSSON,
    ("call", "daemon/base/log.c", "getenv"):
        "the journal says through the environment which stream is its own: systemd.exec(5)",
    ("call", "daemon/base/notify.c", "getenv"):
        "a service manager speaks through the environment: sd_notify(3), sd_watchdog_enabled(3)",
    ("call", "daemon/checkpoint/manifest.c", "free"): JANSSON,
    ("call", "daemon/coordinator/disk.c", "nanosleep"):
        "a full queue of LOOP has no event for room; LOOP drains it all the time",
    ("call", "daemon/coordinator/status_board.c", "free"): JANSSON,
    ("call", "daemon/model/yaml_edit.c", "free"): "libfyaml emits into memory of the C library",
    ("call", "daemon/group/fake_nccl/engine.c", "free"): FAKE_CARD,
    ("call", "daemon/group/fake_nccl/fake_cuda.c", "free"): FAKE_CARD,
    ("call", "daemon/group/fake_nccl/fake_cuda.c", "posix_memalign"): FAKE_CARD,
    ("call", "daemon/node/node_status.c", "free"): JANSSON,
    ("call", "daemon/rpc/codec.c", "free"): "the other half of malloc",
    ("call", "daemon/rpc/codec.c", "malloc"):
        "messages are freed by protobuf-c's own allocator, which is the C library's",
    ("call", "daemon/rpc/runtime.c", "nanosleep"):
        "gRPC's core offers no event for its own end; the wait is bounded",
    ("call", "daemon/stage/stage_status.c", "free"): JANSSON,
    ("warnings", "deploy/bazel/millrace.bzl", "-Wno-format-truncation"):
        "texts of errors are cut at a fixed size on purpose",
}

# Functions over the limit: (path, name): lines now. They may become shorter, never longer.
LONG_FUNCTIONS = {
}

# Public functions without a comment: (path, name).
UNCOMMENTED = set()
