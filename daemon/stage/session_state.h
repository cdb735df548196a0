/* SPDX-License-Identifier: Apache-2.0 */
/* session_state.h: what a session holds, for the files that work on it: session.c makes and frees
 * it, session_step.c runs a step over it, session_result.c gives back what a step without training
 * found.
 * Owner: stage/executor. Thread: EXEC. Internal to these files. */
#ifndef MR_STAGE_SESSION_STATE_H
#define MR_STAGE_SESSION_STATE_H

#include "daemon/stage/gradient_reducer.h"
#include "daemon/stage/input_copies.h"
#include "daemon/stage/model_axis.h"
#include "daemon/stage/schedule_shelf.h"
#include "daemon/stage/session.h"
#include "daemon/stage/side_losses.h"

/* What each rank gives to the gather after a step, before the squares of its owned parameters:
 * the first two, then the sums of its layers' side losses. */
enum { GATHER_BUSY, GATHER_LOSS, GATHER_HEAD };

/* A microbatch under way. */
typedef struct session_slot {
    mr_message input; /* of the feed or of the link */
    mr_message gradient;
    mr_tensor output;
} session_slot;

/* What a session shares with the other ranks of its model axis (session_model.h); all zero where
 * there is none. */
typedef struct session_model {
    mr_model_axis *axis;           /* from connect on */
    mr_device_memory loss_scratch; /* last stage: for a loss over shares of logits */
    unsigned char *inputs;         /* first stage, not fed: [slots] of input_bytes */
    size_t input_bytes;
    size_t *squares_bytes; /* [width] */
    double *squares;       /* [width] of the owned parameters' squares */
    float *share;          /* without training, last stage: this rank's logits */
    float *shares;         /* and those of all ranks, one after the other */
} session_model;

struct mr_session {
    mr_session_options options;
    const mr_assignment *assignment;
    mr_parameters *parameters;
    mr_activations *activations;
    size_t interval; /* activation_checkpoint_interval in use */
    mr_connections connections;
    session_model model;
    mr_gradient_reducer *reducer; /* NULL with one replica */
    mr_schedule_shelf *shelf;
    mr_step_schedule schedule; /* of the step in work; while its last_backward runs, layers get
                                * ready */
    session_slot *slots; /* [mr_activations_slots] */
    mr_side_losses *sides;
    mr_input_copies *copies; /* first stage on a device with memory of its own; else NULL */
    mr_device_memory loss; /* one double: the step's loss sum */
    uint64_t next_step;
    uint64_t gradients_sent; /* chooses the outgoing buffer */
    double side_scale; /* of side losses' gradients: applied.loss_scale over step_parts */
    float loss_scale; /* of the loss's gradient: applied.loss_scale over step_terms */
    mr_applied applied;
    double micro_batch_terms; /* terms of the loss in one microbatch */
    double step_terms; /* the mean's denominator */
    double step_parts; /* that of a microbatch's mean: microbatches of all replicas */
    size_t *gather_bytes; /* [stage_count] */
    double *gathered;     /* all ranks' parts, in rank order */
    double *mine;
    size_t *replica_bytes;  /* [data]: the loss and the stage's side losses, each */
    double *replica_losses; /* [data] of those */
    size_t side_count;      /* layers of the stage that have a side loss */
    size_t *share_bytes; /* [data]: of the weights that each replica changes; split state only */
    float *logits;      /* without training: see session_result.h */
    size_t logit_count; /* of one step */
    bool wants_logits;  /* of the step in work */
    mr_tensor asides[MR_ASIDES_MAX];          /* of the pass in work, see pass.h */
    mr_tensor aside_gradients[MR_ASIDES_MAX]; /* likewise */
    /* of the step in work */
    int64_t busy_ns;
    int64_t schedule_start_ns;
    int64_t schedule_end_ns;
    int64_t transport_ns;
    mr_reduction_time reduction;
    mr_step_result result;
};

/* Is this the stage of the loss? */
static inline bool mr_session_is_last(const mr_session *session) {
    return session->assignment->stage + 1 == session->assignment->plan->stage_count;
}

/* Replicas that the optimizer's state is split over; 1: it is not. */
static inline size_t mr_session_state_width(const mr_assignment *assignment) {
    bool splits = assignment->job->zero_stage > 0 && !assignment->inference;
    return splits ? assignment->job->data : 1;
}

#endif
