/* SPDX-License-Identifier: Apache-2.0 */
/* load_report.h: what a job finds, and does not find, in a checkpoint that it starts from: its
 * parameters against the checkpoint's, by layer, name and whole shape, at any model width of
 * either. Made from manifest and headers before anything runs, so that a strict load is refused
 * with names and a lenient one says what it leaves as drawn and what it ignores.
 *
 * A tied parameter is its tie's first layer's: a lenient load takes it from there alone, so that it
 * does not matter which stage holds which of the layers.
 * Owner: checkpoint. Thread: any (DISK in the coordinator). Limits: MR_LOAD_FINDINGS_MAX.
 * Not here: the load itself (stage/layer_store.h). */
#ifndef MR_CHECKPOINT_LOAD_REPORT_H
#define MR_CHECKPOINT_LOAD_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/checkpoint/manifest.h"
#include "daemon/model/job.h"

typedef enum mr_load_kind {
    MR_LOAD_MISSING,    /* the job has it, the checkpoint does not: as drawn */
    MR_LOAD_SHAPE,      /* both have it, in other shapes: as drawn */
    MR_LOAD_UNEXPECTED, /* the checkpoint has it, the job does not: ignored */
    MR_LOAD_KIND_COUNT
} mr_load_kind;

enum { MR_LOAD_FINDINGS_MAX = 1024, MR_LOAD_TEXT_BYTES = 160 };

/* One parameter that does not fit. text: "layer 3: ln_1.weight is missing", or with both shapes, or
 * "layer 9: its file is not used". */
typedef struct mr_load_finding {
    mr_load_kind kind;
    char text[MR_LOAD_TEXT_BYTES];
} mr_load_finding;

typedef struct mr_load_report {
    size_t parameters; /* of the job, a tied one once */
    size_t loaded;     /* of them */
    size_t counts[MR_LOAD_KIND_COUNT];
    size_t finding_count; /* the first of all, in layer order */
    mr_load_finding findings[MR_LOAD_FINDINGS_MAX];
} mr_load_report;

/* Compares the checkpoint at path with the job's layers. *out_report is freed with mr_free.
 * DATA_LOSS: a file that is damaged or lacking; RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_load_report_make(const char *path, const mr_manifest *manifest,
                                            const mr_job *job, mr_load_report **out_report);

/* OK where every parameter is there and nothing else. FAILED_PRECONDITION "E_CKPT_STRICT": how many
 * are missing, of another shape, unexpected, and the first ones by name. */
MR_MUST_CHECK mr_status mr_load_report_strict(const mr_load_report *report);

/* One line: "loads 12 of 14 parameters; left as drawn: ...; ignored: ...", cut at bytes. */
void mr_load_report_text(const mr_load_report *report, char *out, size_t bytes);

#endif
