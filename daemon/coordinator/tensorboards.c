/* SPDX-License-Identifier: Apache-2.0 */
/* The event files of jobs with observe.tensorboard_dir: LOOP keeps a job's steps in a bounded
 * list, and every few seconds, and at its end, hands the list to DISK, which appends it to the
 * file. At most one task of a job is with DISK; while it hangs, the list fills and then the newest
 * steps are lost, counted, and told in the log. Training never waits for any of it, and never fails
 * by it: a folder that cannot be written costs one line in the log.
 * A new epoch of a job, after a restart or a resume, begins a new file. */
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/coordinator/runtime.h"
#include "daemon/observe/tensorboard.h"

enum { BOARD_POINTS_MAX = 1024, BOARD_FLUSH_MS = 2000 };

typedef struct board_point {
    double wall_seconds;
    mr_job_step step;
} board_point;

typedef struct board_points {
    board_point points[BOARD_POINTS_MAX];
    size_t count;
} board_points;

/* One epoch of one job. */
struct mr_job_board {
    mr_job_board *next;
    mr_coordinator *coordinator;
    uint64_t job; /* its number */
    uint64_t epoch;
    char job_id[MR_COORDINATOR_ID_BYTES];
    char directory[MR_PATH_BYTES];
    /* LOOP's */
    board_points *filling;
    int64_t flushed_ms;
    uint64_t lost;
    bool writing; /* DISK has the rest */
    bool ending;  /* no step comes any more */
    bool failed;  /* it is not written any more */
    /* DISK's while writing */
    board_points *given;
    mr_tensorboard *file;
    mr_status status;
};

static void board_destroy(mr_job_board *board) {
    if (board == NULL)
        return;
    mr_tensorboard_close(board->file);
    mr_free(board->filling);
    mr_free(board->given);
    mr_free(board);
}

static mr_job_board *board_make(mr_coordinator *coordinator, const mr_job_record *job) {
    mr_job_board *board = mr_alloc(sizeof(*board));
    if (board == NULL)
        return NULL;
    board->coordinator = coordinator;
    board->job = job->facts.number;
    board->epoch = job->facts.epoch;
    memcpy(board->job_id, job->facts.id, sizeof(board->job_id));
    memcpy(board->directory, job->spec->tensorboard_dir, sizeof(board->directory));
    board->flushed_ms = mr_clock_now_ms();
    board->filling = mr_alloc(sizeof(*board->filling));
    board->given = mr_alloc(sizeof(*board->given));
    if (board->filling == NULL || board->given == NULL) {
        board_destroy(board);
        return NULL;
    }
    board->next = coordinator->boards;
    coordinator->boards = board;
    return board;
}

static mr_job_board *board_find(mr_coordinator *coordinator, const mr_job_record *job) {
    for (mr_job_board *board = coordinator->boards; board != NULL; board = board->next)
        if (board->job == job->facts.number && board->epoch == job->facts.epoch && !board->ending)
            return board;
    return NULL;
}

static void board_unlink(mr_job_board *board) {
    mr_job_board **at = &board->coordinator->boards;
    while (*at != board)
        at = &(*at)->next;
    *at = board->next;
}

/* ---- DISK ---- */

static mr_status board_write_point(mr_tensorboard *file, const board_point *point) {
    const mr_job_step *step = &point->step;
    const mr_tensorboard_scalar scalars[] = {
        {"train/loss", (float)step->loss},
        {"train/grad_norm", (float)step->gradient_norm},
        {"train/lr", (float)step->learning_rate},
        {"train/tokens_per_second", (float)step->tokens_per_second},
        {"train/bubble", (float)step->bubble},
        {"train/loss_scale", (float)step->loss_scale}, /* of fp16 alone */
    };
    size_t count = sizeof(scalars) / sizeof(scalars[0]) - (step->loss_scale > 0 ? 0 : 1);
    return mr_tensorboard_add(file, point->wall_seconds, step->step, scalars, count);
}

static void board_work(void *context) {
    mr_job_board *board = context;
    const board_points *given = board->given;
    board->status = MR_OK;
    if (given->count > 0 && board->file == NULL)
        board->status = mr_tensorboard_open(board->directory, given->points[0].wall_seconds,
                                            given->points[0].step.step, &board->file);
    for (size_t i = 0; i < given->count && mr_status_is_ok(board->status); i++)
        board->status = board_write_point(board->file, &given->points[i]);
    if (mr_status_is_ok(board->status) && board->file != NULL)
        board->status = mr_tensorboard_flush(board->file);
}

/* ---- LOOP ---- */

static void board_done(void *context) {
    mr_job_board *board = context;
    board->writing = false;
    board->given->count = 0;
    if (!mr_status_is_ok(board->status) && !board->failed) {
        board->failed = true;
        MR_LOG(WARN, "event file not written any more", MR_S("job", board->job_id),
               MR_S("tensorboard_dir", board->directory), MR_S("why", board->status.text));
    }
    bool empty = board->failed || board->filling->count == 0;
    if (board->coordinator->stopping || (board->ending && empty)) {
        board_unlink(board);
        board_destroy(board);
    }
}

static void board_flush(mr_job_board *board, int64_t now_ms) {
    board_points *points = board->filling;
    if (board->writing)
        return;
    board->filling = board->given;
    board->given = points;
    board->flushed_ms = now_ms;
    board->writing = true;
    if (mr_status_is_ok(
            mr_disk_post(board->coordinator->file_disk, board_work, board_done, board)))
        return;
    board->given = board->filling; /* DISK is behind: they wait for the next time */
    board->filling = points;
    board->writing = false;
}

void mr_tensorboards_step(mr_coordinator *coordinator, const mr_job_record *job) {
    if (job->spec->tensorboard_dir[0] == '\0')
        return;
    mr_job_board *board = board_find(coordinator, job);
    if (board == NULL)
        board = board_make(coordinator, job);
    if (board == NULL || board->failed)
        return;
    board_points *points = board->filling;
    if (points->count == BOARD_POINTS_MAX) {
        if (board->lost++ == 0)
            MR_LOG(WARN, "steps are lost to the event file: its disk is behind",
                   MR_S("job", board->job_id), MR_S("tensorboard_dir", board->directory),
                   MR_I("step", job->facts.result.step));
        return;
    }
    points->points[points->count++] = (board_point){
        .wall_seconds = (double)mr_clock_wall_ms() / 1000, .step = job->facts.result};
}

/* Has this epoch of the job seen its last step? */
static bool board_is_over(const mr_job_board *board) {
    const mr_job_record *job =
        mr_jobs_resolve(&board->coordinator->state.jobs, board->job_id);
    return job == NULL || job->facts.epoch != board->epoch ||
           mr_job_state_is_final(job->facts.state);
}

void mr_tensorboards_tick(mr_coordinator *coordinator, int64_t now_ms) {
    mr_job_board *next = NULL;
    for (mr_job_board *board = coordinator->boards; board != NULL; board = next) {
        next = board->next;
        bool waits = board->filling->count > 0 && !board->failed;
        board->ending = board->ending || board_is_over(board);
        if (waits && (board->ending || now_ms - board->flushed_ms >= BOARD_FLUSH_MS)) {
            board_flush(board, now_ms);
        } else if (board->ending && !waits && !board->writing) {
            board_unlink(board);
            board_destroy(board);
        }
    }
}

void mr_tensorboards_stop(mr_coordinator *coordinator) {
    mr_job_board *next = NULL;
    for (mr_job_board *board = coordinator->boards; board != NULL; board = next) {
        next = board->next;
        board->ending = true;
        bool waits = board->filling->count > 0 && !board->failed;
        if (waits)
            board_flush(board, mr_clock_now_ms());
        if (!board->writing) {
            board_unlink(board);
            board_destroy(board);
        }
    }
}
