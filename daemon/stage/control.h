/* SPDX-License-Identifier: Apache-2.0 */
/* control.h: the stage's stream to the coordinator: attaches, registers, hands orders to LOOP and
 * carries reports. When the stream ends it says so once; attaching again is asked for by the stage,
 * because it must hold no job then, and waits longer after each failure, up to a bound.
 * Owner: stage. Thread: LOOP; the stream's own events come on RPC threads and are posted.
 * Not here: what an order means (stage.c). */
#ifndef MR_STAGE_CONTROL_H
#define MR_STAGE_CONTROL_H

#include "daemon/base/loop.h"
#include "daemon/rpc/channel.h"
#include "millrace/v1/control.pb-c.h"

typedef struct mr_control mr_control;

typedef struct mr_control_events {
    /* One order; freed after the call. */
    void (*order)(void *context, const Millrace__V1__StageOrder *order);
    /* The stream has ended, or could not be opened. */
    void (*detached)(void *context, mr_status why);
    void *context;
} mr_control_events;

typedef struct mr_control_options {
    mr_loop *loop;
    const char *coordinator; /* address; borrowed until destroy */
    const mr_rpc_credentials *credentials;
    const Millrace__V1__Register *identity; /* borrowed until destroy */
    mr_control_events events;
} mr_control_options;

/* Takes a copy of options; opens nothing yet. RESOURCE_EXHAUSTED: no memory; INVALID_ARGUMENT: the
 * address or the credentials. Owner destroys it. */
MR_MUST_CHECK mr_status mr_control_create(const mr_control_options *options,
                                          mr_control **out_control);
/* Opens the stream and registers, after the back-off that past failures have earned. Not while a
 * stream is open or an attempt waits. */
void mr_control_attach(mr_control *control);
/* Sends a report; without a stream it is dropped, because the coordinator has written this stage
 * off. */
void mr_control_send(mr_control *control, const Millrace__V1__StageReport *report);
/* Registered and not ended. */
bool mr_control_attached(const mr_control *control);
/* Ends the stream. NULL is fine. No event follows. */
void mr_control_destroy(mr_control *control);

#endif
