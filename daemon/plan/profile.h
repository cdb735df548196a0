/* SPDX-License-Identifier: Apache-2.0 */
/* profile.h: what the layers of one job really cost on the devices that will run them, as stages
 * measured it: seconds of forward, backward-input and backward-weight, bytes that stay for the
 * backward, the loss, the optimizer, a link. A profile is of one key: model, microbatch, precision
 * and optimizer; it fits every job with the same one, whatever the rest of that job's file says.
 *
 * Equal layers (same spec and input) cost the same and are a class, measured once; layer 0 is a
 * class of its own, because nobody asks it for the gradient of its input. Each device has a cost
 * for each class, so devices of unequal speed need nothing special.
 * Owner: plan. Plain data and pure functions, any thread.
 * Not here: measuring (stage/profiler.h), cutting (profile_cut.h). */
#ifndef MR_PLAN_PROFILE_H
#define MR_PLAN_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

enum { MR_PROFILE_TEXT_BYTES = 128, MR_PROFILE_WORD_BYTES = 32 };

/* One microbatch of one layer of a class. Seconds are medians. */
typedef struct mr_profile_cost {
    double forward;
    double backward_input;
    double backward_weight;
    uint64_t saved_bytes; /* what forward really wrote for its backward */
} mr_profile_cost;

/* One member. Seconds. */
typedef struct mr_profile_device {
    char device[MR_PROFILE_TEXT_BYTES]; /* as it registers: "cpu", "cuda:0" */
    uint32_t threads;
    char address[MR_PROFILE_TEXT_BYTES];
    uint64_t memory_bytes; /* 0: not known */
    double loss;           /* of one microbatch, with its gradient */
    double zero;           /* of one element: gradients become zero */
    double norm;           /* of one element: sum of squares */
    double optimizer;      /* of one element */
    double link;           /* of one message, besides its bytes */
    double link_byte;
    size_t class_count;
    mr_profile_cost *costs; /* [class_count] */
} mr_profile_device;

typedef struct mr_profile_class {
    char type[MR_PROFILE_WORD_BYTES]; /* for people */
    uint32_t layer;                   /* its first; the one that is measured */
    uint32_t layer_count;
} mr_profile_class;

typedef struct mr_profile {
    /* the key */
    char model_hash[65];
    size_t micro_batch_size;
    size_t sequence_length;
    char precision[MR_PROFILE_WORD_BYTES];
    char optimizer[MR_PROFILE_WORD_BYTES];
    size_t layer_count;
    uint32_t *layer_class; /* [layer_count] */
    size_t class_count;
    mr_profile_class *classes;
    size_t device_count;
    mr_profile_device **devices; /* in rank order where a job's members measured it */
} mr_profile;

/* The key and the classes of a job, without a device. layers: its descriptions (mr_job_describe).
 * RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_profile_create(const mr_job *job, const mr_layer_description *layers,
                                          mr_profile **out_profile);
/* NULL is fine. */
void mr_profile_destroy(mr_profile *profile);

/* All zero. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_profile_device_create(size_t class_count,
                                                 mr_profile_device **out_device);
MR_MUST_CHECK mr_status mr_profile_device_copy(const mr_profile_device *device,
                                               mr_profile_device **out_copy);
/* NULL is fine. */
void mr_profile_device_destroy(mr_profile_device *device);
/* Is every number of it one that a clock can give: finite and not negative? INVALID_ARGUMENT names
 * the first that is not. */
MR_MUST_CHECK mr_status mr_profile_device_check(const mr_profile_device *device);

/* Appends a device (consumed in every outcome). INVALID_ARGUMENT: another number of classes, or
 * mr_profile_device_check; RESOURCE_EXHAUSTED: more than MR_RANKS_MAX, or no memory. */
MR_MUST_CHECK mr_status mr_profile_add(mr_profile *profile, mr_profile_device *owned_device);

/* Does the profile fit a job? FAILED_PRECONDITION names the part of the key that differs, with both
 * values; or: it has no device. */
MR_MUST_CHECK mr_status mr_profile_check(const mr_profile *profile, const mr_job *job);

/* What rank is reckoned with before members are known: entry rank, or the last one where there are
 * fewer. There is at least one. */
const mr_profile_device *mr_profile_of_rank(const mr_profile *profile, size_t rank);
/* The entry that was measured on this member, or else on one with the same kind of device ("cpu",
 * "cuda") and as many threads; device_count where there is none. */
size_t mr_profile_match(const mr_profile *profile, const char *device, uint32_t threads,
                        const char *address);

/* The millrace.profile/v1 JSON; owner frees with mr_free. RESOURCE_EXHAUSTED: no memory, or more
 * than MR_PROFILE_BYTES_MAX. */
MR_MUST_CHECK mr_status mr_profile_json(const mr_profile *profile, char **out_json);
/* Reads it. INVALID_ARGUMENT names the key, the value and what it must be. */
MR_MUST_CHECK mr_status mr_profile_parse(const char *text, size_t bytes, mr_profile **out_profile);

#endif
