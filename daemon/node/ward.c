/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/ward.h"

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

/* The exit codes that speak to a supervisor (sysexits.h; deploy/CLIENT.md). */
enum {
    EXIT_GOOD = 0,
    EXIT_USAGE = 64,
    EXIT_DATA = 65,
    EXIT_AGAIN = 75,
    EXIT_PERMISSION = 77,
    EXIT_CONFIG = 78,
};

static const char *const ward_state_names[MR_WARD_STATE_COUNT] = {
    [MR_WARD_WAITING] = "waiting", [MR_WARD_STARTING] = "starting", [MR_WARD_READY] = "ready",
    [MR_WARD_STOPPING] = "stopping", [MR_WARD_KILLING] = "killing", [MR_WARD_REFUSED] = "refused",
    [MR_WARD_ENDED] = "ended", [MR_WARD_STOPPED] = "stopped",
};

const char *mr_ward_state_name(mr_ward_state state) {
    MR_ASSERT(state < MR_WARD_STATE_COUNT);
    return ward_state_names[state];
}

bool mr_ward_lives(const mr_ward *ward) {
    return ward->state == MR_WARD_STARTING || ward->state == MR_WARD_READY ||
           ward->state == MR_WARD_STOPPING || ward->state == MR_WARD_KILLING;
}

int64_t mr_ward_pause_ms(uint32_t failures, uint32_t draw) {
    int64_t most = MR_NODE_BACKOFF_FIRST_MS;
    for (uint32_t i = 1; i < failures && most < MR_NODE_BACKOFF_LAST_MS; i++)
        most *= 2;
    if (most > MR_NODE_BACKOFF_LAST_MS)
        most = MR_NODE_BACKOFF_LAST_MS;
    return most - most / 2 * (int64_t)draw / UINT32_MAX;
}

mr_ward mr_ward_make(int64_t now_ms) {
    return (mr_ward){.state = MR_WARD_WAITING,
                     .last_exit = -1,
                     .since_ms = now_ms,
                     .deadline_ms = now_ms};
}

static void ward_enter(mr_ward *ward, mr_ward_state state, int64_t now_ms, int64_t deadline_ms) {
    ward->state = state;
    ward->since_ms = now_ms;
    ward->deadline_ms = deadline_ms;
}

static mr_ward_action ward_start(mr_ward *ward, int64_t now_ms) {
    ward->starts++;
    ward_enter(ward, MR_WARD_STARTING, now_ms, now_ms + MR_NODE_START_TIMEOUT_MS);
    return MR_WARD_START;
}

static mr_ward_action ward_kill(mr_ward *ward, int64_t now_ms) {
    ward_enter(ward, MR_WARD_KILLING, now_ms, INT64_MAX);
    return MR_WARD_KILL;
}

/* The state's own end has come. */
static mr_ward_action ward_expire(mr_ward *ward, int64_t now_ms) {
    switch (ward->state) {
    case MR_WARD_WAITING:
        return ward_start(ward, now_ms);
    case MR_WARD_STARTING:
        ward->reason = MR_WARD_REASON_LATE;
        return ward_kill(ward, now_ms);
    case MR_WARD_READY:
        ward->reason = MR_WARD_REASON_SILENT;
        return ward_kill(ward, now_ms);
    case MR_WARD_STOPPING:
        ward->reason = MR_WARD_REASON_LATE;
        return ward_kill(ward, now_ms);
    default:
        return MR_WARD_NOTHING;
    }
}

static bool exit_forbids_start(int code) {
    return code == EXIT_USAGE || code == EXIT_DATA || code == EXIT_PERMISSION ||
           code == EXIT_CONFIG;
}

static void ward_wait(mr_ward *ward, const mr_ward_event *event) {
    ward->failures++;
    ward_enter(ward, MR_WARD_WAITING, event->now_ms,
               event->now_ms + mr_ward_pause_ms(ward->failures, event->draw));
}

/* The process is gone. A kill of ours keeps its reason. */
static void ward_exited(mr_ward *ward, const mr_ward_event *event) {
    bool killed = ward->state == MR_WARD_KILLING;
    ward->last_exit = event->exit_code;
    ward->last_signal = event->signal_number;
    if (!killed)
        ward->reason = MR_WARD_REASON_EXIT;
    if (ward->draining) {
        ward_enter(ward, MR_WARD_STOPPED, event->now_ms, INT64_MAX);
    } else if (!killed && event->exit_code == EXIT_GOOD) {
        ward_enter(ward, MR_WARD_ENDED, event->now_ms, INT64_MAX);
    } else if (!killed && exit_forbids_start(event->exit_code)) {
        ward_enter(ward, MR_WARD_REFUSED, event->now_ms, INT64_MAX);
    } else if (!killed && event->exit_code == EXIT_AGAIN) {
        ward->failures = 0;
        ward_enter(ward, MR_WARD_WAITING, event->now_ms,
                   event->now_ms + mr_ward_pause_ms(1, event->draw));
    } else {
        ward_wait(ward, event);
    }
}

static mr_ward_action ward_drain(mr_ward *ward, const mr_ward_event *event) {
    if (ward->draining)
        return MR_WARD_NOTHING;
    ward->draining = true;
    if (ward->state == MR_WARD_STARTING || ward->state == MR_WARD_READY) {
        ward_enter(ward, MR_WARD_STOPPING, event->now_ms, event->now_ms + event->drain_ms);
        return MR_WARD_TERMINATE;
    }
    if (!mr_ward_lives(ward))
        ward_enter(ward, MR_WARD_STOPPED, event->now_ms, INT64_MAX);
    return MR_WARD_NOTHING;
}

/* Longer for a start, as asked; a stop is never longer than the whole drain. */
static void ward_extend(mr_ward *ward, const mr_ward_event *event) {
    int64_t extended_ms = event->now_ms + event->extend_ms;
    if (ward->state == MR_WARD_STARTING && extended_ms > ward->deadline_ms)
        ward->deadline_ms = extended_ms;
}

static mr_ward_action ward_reload(mr_ward *ward, int64_t now_ms) {
    bool idle = ward->state == MR_WARD_WAITING || ward->state == MR_WARD_REFUSED ||
                ward->state == MR_WARD_ENDED;
    if (!idle)
        return MR_WARD_NOTHING;
    ward->failures = 0;
    return ward_start(ward, now_ms);
}

mr_ward_decision mr_ward_decide(mr_ward ward, const mr_ward_event *event) {
    mr_ward_action action = MR_WARD_NOTHING;
    if (ward.state == MR_WARD_READY && event->now_ms - ward.since_ms >= MR_NODE_STABLE_MS)
        ward.failures = 0;
    switch (event->kind) {
    case MR_WARD_TICK:
        if (event->now_ms >= ward.deadline_ms)
            action = ward_expire(&ward, event->now_ms);
        break;
    case MR_WARD_ALIVE:
        if (ward.state == MR_WARD_READY)
            ward.deadline_ms = event->now_ms + MR_NODE_SILENCE_MS;
        break;
    case MR_WARD_SERVES:
        if (ward.state == MR_WARD_STARTING)
            ward_enter(&ward, MR_WARD_READY, event->now_ms, event->now_ms + MR_NODE_SILENCE_MS);
        break;
    case MR_WARD_EXTEND:
        ward_extend(&ward, event);
        break;
    case MR_WARD_EXITED:
        if (mr_ward_lives(&ward))
            ward_exited(&ward, event);
        break;
    case MR_WARD_UNBORN:
        if (ward.state == MR_WARD_STARTING) {
            ward.reason = MR_WARD_REASON_SPAWN;
            ward_wait(&ward, event);
        }
        break;
    case MR_WARD_DRAIN:
        action = ward_drain(&ward, event);
        break;
    case MR_WARD_DROP:
        ward.draining = true;
        if (mr_ward_lives(&ward))
            action = ward_kill(&ward, event->now_ms);
        else
            ward_enter(&ward, MR_WARD_STOPPED, event->now_ms, INT64_MAX);
        break;
    case MR_WARD_RELOAD:
        if (!ward.draining)
            action = ward_reload(&ward, event->now_ms);
        break;
    }
    return (mr_ward_decision){.ward = ward, .action = action};
}
