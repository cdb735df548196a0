/* SPDX-License-Identifier: Apache-2.0 */
/* limits.h: every maximum of the system, by name. A limit that we do not choose is chosen by
 * production. Grouped by the folder that enforces it.
 * Owner: base. Plain data. */
#ifndef MR_BASE_LIMITS_H
#define MR_BASE_LIMITS_H

#include <assert.h>

enum {
    /* model */
    MR_LAYERS_MAX = 16384,       /* entries of model.layers after repeat */
    MR_DIMENSION_MAX = 1 << 24,  /* any single size in a job file */
    MR_NAME_BYTES = 64,          /* job names, tie keys, tags: bytes with the terminator */
    MR_JOB_FILE_BYTES_MAX = 1 << 20,
    MR_LAYER_PARAMETERS_MAX = 16, /* parameters of one layer */
    MR_ASIDES_MAX = 32,           /* tensors that layers of one model put aside */
    MR_ASIDES_CROSSING_MAX = 8,   /* of them between any two layers: they share messages */
    MR_SIDE_LOSSES_MAX = 8,       /* names of side losses of one model */
    MR_SIDE_LOSS_NAME_BYTES = 32, /* of one, with the terminator */
    /* plan */
    MR_STAGES_MAX = 1024,
    MR_MICRO_BATCHES_MAX = 4096,
    MR_RANKS_MAX = 4096,
    MR_CHUNKS_MAX = 16,                /* parts of the model on one stage */
    MR_PLAN_INSTRUCTIONS_MAX = 8 << 20, /* instructions of all stages of one pipeline */
    MR_PLAN_GROUPS_MAX = 1 << 16,      /* groups of one plan, of all kinds together */
    MR_GROUP_IDS_MAX = 1 << 14,        /* communicators of one epoch, see plan/group_ids.h */
    MR_PROFILE_BYTES_MAX = 2 << 20,    /* a profile as text */
    /* tensors and messages */
    MR_TENSOR_DIMS_MAX = 6,
    MR_MESSAGE_TENSORS_MAX = 16, /* tensors in one link message */
    /* rpc */
    MR_RPC_MESSAGE_BYTES_MAX = 64 << 20, /* one gRPC message on Link, Group and Feed */
    MR_RPC_HEADER_BYTES_MAX = 64 << 10,  /* its protobuf part, before the raw bytes */
    MR_RPC_CONTROL_BYTES_MAX = 4 << 20,  /* one message on Jobs and Control */
    MR_RPC_SEND_QUEUE_MAX = 64,          /* messages waiting on one stream */
    /* device */
    MR_DEVICE_THREADS_MAX = 256,  /* of one CPU device */
    MR_DEVICE_PLANS_MAX = 256,    /* matrix product shapes kept */
    MR_DEVICE_SPIN_NS = 20000,    /* a thread without work looks for some this long, then sleeps */
    /* links */
    MR_LINK_IPC_SLOTS_MAX = 256, /* of a CUDA IPC link: their handles fit one header */
    MR_LINK_CHUNK_BYTES_MAX = 16 << 20, /* a tensor is cut into frames of at most this */
    /* stage */
    MR_TIED_USES_MAX = 64,         /* layers of one stage that share a tied parameter */
    MR_FEED_LOGITS_BYTES_MAX = 32 << 20, /* of one evaluated step, in one answer */
    MR_FEED_WINDOW_STEPS = 2,      /* steps whose microbatches may be here: one runs, one waits */
    MR_EXECUTOR_EVENTS_MAX = 256,  /* orders and reports between LOOP and EXEC */
    MR_STEP_SCHEDULES_MAX = 8,     /* lists kept for steps with fewer microbatches */
    /* coordinator */
    MR_JOBS_MAX = 1024,
    MR_MEMBERS_MAX = 4096,
    MR_WATCHERS_MAX = 256,
    MR_WATCHER_WAITING_MAX = 64, /* changes of a job that wait for one slow watcher */
    MR_REQUESTS_MAX = 1024,      /* client requests without an answer */
    MR_JOB_SAVES_MAX = 8,        /* checkpoints of one job that are gathered at once */
    MR_JOB_WAITERS_MAX = 8,      /* requests that wait for one job */
    MR_OUTBOX_ITEMS_MAX = 16384, /* orders and answers that wait for the store */
    MR_DISK_TASKS_MAX = 1024,    /* tasks that wait for one disk thread */
    /* checkpoint */
    MR_CHECKPOINT_PATH_BYTES = 4096,     /* a path with the terminator */
    MR_CHECKPOINT_SAVE_NAME_BYTES = 128, /* name of a save's folder with the terminator */
    MR_CHECKPOINT_FILES_MAX = 1 << 17,   /* files that one manifest lists */
    MR_MANIFEST_BYTES_MAX = 32 << 20,
    MR_CATALOG_ENTRIES_MAX = 65536, /* checkpoints in one folder */
    MR_SAFETENSORS_HEADER_BYTES_MAX = 16 << 20,
    MR_SAFETENSORS_TENSORS_MAX = 65536,   /* in one file */
    MR_SAFETENSORS_NAME_BYTES_MAX = 1024, /* one tensor's name */
    /* observe */
    MR_METRICS_SERIES_MAX = 2048, /* of one daemon */
    MR_METRICS_LABELS_MAX = 5,    /* of one metric */
    MR_METRICS_LABEL_BYTES = 64,  /* one label's value with the terminator */
    MR_SERIES_AFTER_MS = 60000, /* one scrape interval: a job's series stay so long after it */
    MR_TENSORBOARD_SCALARS_MAX = 16, /* of one event */
    MR_TRACE_TRACKS_MAX = 16,
    MR_TRACE_SPANS_MAX = 1 << 20, /* of one track */
    MR_STATUS_CONNECTIONS_MAX = 64,
    MR_STATUS_CONNECTION_BYTES_MAX = 16 << 10, /* a request's line and headers, and the answer's */
    MR_STATUS_PAGE_BYTES_MAX = 4 << 20,
    MR_STATUS_HEADER_BYTES_MAX = 8 << 10, /* a request's line and headers */
    MR_STATUS_LISTENERS_MAX = 16,         /* connections that follow /events */
    MR_STATUS_CHECKS_MAX = 8,             /* lines of /readyz?verbose that a role adds */
    MR_HISTORY_JOBS_MAX = 64,
    MR_HISTORY_STEPS_MAX = 4096, /* newest steps of one job */
    MR_EVENTS_HELD_MAX = 512,    /* newest events that a listener may still read */
    MR_EVENT_BYTES_MAX = 1024,   /* one event's JSON */
    MR_TIMELINE_JOBS_MAX = 16,
    MR_TIMELINE_STAGES_MAX = 64,  /* of one job */
    MR_TIMELINE_SPANS_MAX = 2048, /* of one stage's step */
    /* node */
    MR_NODE_STAGES_MAX = 64,          /* of one node */
    MR_DRAIN_SECONDS_MAX = 3600,      /* an option's bound, of stages too */
    /* queues */
    MR_QUEUE_LOOP_MAX = 4096, /* events waiting for LOOP */
};

/* model: too large for an enum. */
#define MR_PARAMETER_ELEMENTS_MAX (1ULL << 44)  /* of a model, and so of any parameter */
#define MR_ACTIVATION_BYTES_MAX (1ULL << 50) /* of all layers for one microbatch */

#define MR_DEVICE_BYTES_MAX (1ULL << 50)     /* of one kind, that a rank says it holds */

/* Every wait has a bound. Milliseconds. */
enum {
    MR_CONNECT_TIMEOUT_MS = 10000,
    MR_PREPARE_TIMEOUT_MS = 120000,  /* building and loading a stage's layers */
    MR_PROFILE_AIM_MS = 8000,        /* what a stage spends on timing a job's layers, if it can */
    MR_PROFILE_TIMEOUT_MS = 120000,  /* a stage that cannot time them all in this gives up */
    MR_STEP_WAIT_TIMEOUT_MS = 60000, /* one wait for a neighbour inside a step */
    MR_HEARTBEAT_PERIOD_MS = 500,
    MR_HEARTBEAT_TIMEOUT_MS = 5000, /* a silent member is lost */
    MR_ABORT_TIMEOUT_MS = 4000,
    MR_SAVE_TIMEOUT_MS = 300000,
    MR_FEED_IDLE_TIMEOUT_MS = 60000, /* a running job without a feed fails after this */
    MR_STATUS_LIVE_TIMEOUT_MS = 10000, /* a loop silent for longer is not alive */
    MR_STATUS_IDLE_TIMEOUT_MS = 5000,  /* a silent connection to the status port is closed */
    MR_STATUS_HEADER_TIMEOUT_MS = 1000, /* from the connection to the end of its first headers */
    MR_EVENTS_KEEPALIVE_MS = 10000,     /* a comment to a listener that heard nothing for so long */
    MR_TIMELINE_PERIOD_MS = 1000,       /* stages are asked for a step's spans this often at most */
    MR_SHUTDOWN_TIMEOUT_MS = 4000,   /* from SIGTERM to exit, with room below five seconds */
    MR_NOTIFY_SEND_TIMEOUT_MS = 500, /* for a service manager that does not read */
    MR_EXECUTOR_STUCK_MS = 2 * MR_STEP_WAIT_TIMEOUT_MS, /* one instruction, or letting go */
    MR_NODE_PROBE_TIMEOUT_MS = 20000, /* asking the driver how many cards there are */
    MR_NODE_START_TIMEOUT_MS = MR_PREPARE_TIMEOUT_MS + 10000, /* a stage's process, to READY */
    MR_NODE_SILENCE_MS = 30000,       /* a stage without a sign of life is killed */
    MR_NODE_BACKOFF_FIRST_MS = 500,
    MR_NODE_BACKOFF_LAST_MS = 60000,
    MR_NODE_STABLE_MS = 60000, /* ready for so long, a stage's earlier failures are forgotten */
};

static_assert(MR_ASIDES_CROSSING_MAX + 4 <= MR_MESSAGE_TENSORS_MAX,
              "a message has room for the activation, what the feed sent along, and these");
static_assert(MR_LINK_CHUNK_BYTES_MAX + MR_RPC_HEADER_BYTES_MAX <= MR_RPC_MESSAGE_BYTES_MAX,
              "a frame with its header fits one message");
static_assert(MR_GROUP_IDS_MAX * 240 <= MR_RPC_CONTROL_BYTES_MAX,
              "the ids of all communicators fit one order");
static_assert(MR_HEARTBEAT_PERIOD_MS * 4 <= MR_HEARTBEAT_TIMEOUT_MS,
              "one late heartbeat does not lose a member");
static_assert(MR_HEARTBEAT_TIMEOUT_MS + MR_ABORT_TIMEOUT_MS < 10000,
              "a killed stage fails its job within ten seconds");

static_assert(MR_JOB_FILE_BYTES_MAX + MR_PROFILE_BYTES_MAX <= MR_RPC_CONTROL_BYTES_MAX / 4 * 3,
              "a job file and its profile fit one request, with room for the rest of it");
static_assert(MR_PROFILE_AIM_MS * 4 <= MR_PROFILE_TIMEOUT_MS,
              "profiling has room when the machine is busy");
static_assert(MR_STATUS_LISTENERS_MAX * 2 <= MR_STATUS_CONNECTIONS_MAX,
              "listeners leave room for probes and scrapes");
static_assert(MR_STATUS_HEADER_BYTES_MAX * 2 <= MR_STATUS_CONNECTION_BYTES_MAX,
              "headers of the most bytes leave room for the answer");
static_assert(MR_TIMELINE_SPANS_MAX * 64 <= MR_RPC_CONTROL_BYTES_MAX / 4,
              "the spans of a step fit one report");
static_assert(MR_EXECUTOR_STUCK_MS > MR_STEP_WAIT_TIMEOUT_MS + MR_ABORT_TIMEOUT_MS,
              "a wait that reaches its own bound is not taken for a stuck thread");

static_assert(MR_CHECKPOINT_FILES_MAX * 200 <= MR_MANIFEST_BYTES_MAX,
              "a manifest of the most files fits its own limit");

#endif
