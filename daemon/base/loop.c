/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/loop.h"

#include <uv.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/base/queue.h"

/* One piece of posted work. */
typedef struct loop_post {
    mr_loop_fn fn;
    void *context;
} loop_post;

/* A watched signal; the list is freed with the loop. */
typedef struct loop_signal {
    uv_signal_t handle;
    mr_loop_signal_fn fn;
    void *context;
    struct loop_signal *next;
} loop_signal;

/* A watched descriptor; likewise. */
typedef struct loop_readable {
    uv_poll_t handle;
    mr_loop_readable_fn fn;
    void *context;
    int fd;
    struct loop_readable *next;
} loop_readable;

struct mr_loop {
    uv_loop_t uv;
    uv_async_t wake;
    mr_queue *posts;
    loop_signal *signals;
    loop_readable *readables;
    _Atomic bool stopping;
};

struct mr_loop_timer {
    uv_timer_t handle;
    mr_loop_fn fn;
    void *context;
};

/* Sends coalesce (libuv's uv_async_send), so one wake drains the whole queue. */
static void loop_drain(mr_loop *loop) {
    loop_post post;
    while (mr_status_is_ok(mr_queue_pop(loop->posts, &post, 0)))
        post.fn(post.context);
}

static void loop_woken(uv_async_t *wake) {
    mr_loop *loop = wake->data;
    loop_drain(loop);
    if (loop->stopping)
        uv_stop(&loop->uv);
}

mr_status mr_loop_create(mr_loop **out_loop) {
    mr_loop *loop = mr_alloc(sizeof(*loop));
    if (loop == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the event loop");
    mr_status status = mr_queue_create(sizeof(loop_post), MR_QUEUE_LOOP_MAX, &loop->posts);
    if (!mr_status_is_ok(status)) {
        mr_free(loop);
        return status;
    }
    int error = uv_loop_init(&loop->uv);
    if (error == 0)
        error = uv_async_init(&loop->uv, &loop->wake, loop_woken);
    if (error != 0) {
        mr_queue_destroy(loop->posts);
        mr_free(loop);
        return MR_ERROR(INTERNAL, "the event loop does not start: %s", uv_strerror(error));
    }
    loop->wake.data = loop;
    *out_loop = loop;
    return MR_OK;
}

static void loop_close_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void mr_loop_destroy(mr_loop *loop) {
    if (loop == NULL)
        return;
    loop_drain(loop);
    mr_queue_close(loop->posts);
    uv_walk(&loop->uv, loop_close_handle, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT); /* runs the close callbacks */
    MR_ASSERT(uv_loop_close(&loop->uv) == 0);
    while (loop->signals != NULL) {
        loop_signal *next = loop->signals->next;
        mr_free(loop->signals);
        loop->signals = next;
    }
    while (loop->readables != NULL) {
        loop_readable *next = loop->readables->next;
        mr_free(loop->readables);
        loop->readables = next;
    }
    mr_queue_destroy(loop->posts);
    mr_free(loop);
}

void mr_loop_run(mr_loop *loop) {
    while (!loop->stopping)
        (void)uv_run(&loop->uv, UV_RUN_DEFAULT); /* returns on uv_stop */
    loop_drain(loop);
}

void mr_loop_stop(mr_loop *loop) {
    loop->stopping = true;
    (void)uv_async_send(&loop->wake);
}

mr_status mr_loop_post(mr_loop *loop, mr_loop_fn fn, void *context) {
    MR_TRY(mr_queue_push(loop->posts, &(loop_post){.fn = fn, .context = context}));
    (void)uv_async_send(&loop->wake);
    return MR_OK;
}

static void timer_ticked(uv_timer_t *handle) {
    mr_loop_timer *timer = handle->data;
    timer->fn(timer->context);
}

mr_status mr_loop_timer_start(mr_loop *loop, uint64_t delay_ms, uint64_t period_ms, mr_loop_fn fn,
                              void *context, mr_loop_timer **out_timer) {
    mr_loop_timer *timer = mr_alloc(sizeof(*timer));
    if (timer == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a timer");
    timer->fn = fn;
    timer->context = context;
    (void)uv_timer_init(&loop->uv, &timer->handle);
    timer->handle.data = timer;
    (void)uv_timer_start(&timer->handle, timer_ticked, delay_ms, period_ms); /* fn is not NULL */
    *out_timer = timer;
    return MR_OK;
}

static void timer_closed(uv_handle_t *handle) {
    mr_free(handle->data);
}

void mr_loop_timer_stop(mr_loop_timer *timer) {
    if (timer != NULL)
        uv_close((uv_handle_t *)&timer->handle, timer_closed);
}

static void signal_arrived(uv_signal_t *handle, int signal_number) {
    loop_signal *watch = handle->data;
    watch->fn(watch->context, signal_number);
}

mr_status mr_loop_signal_watch(mr_loop *loop, int signal_number, mr_loop_signal_fn fn,
                               void *context) {
    loop_signal *watch = mr_alloc(sizeof(*watch));
    if (watch == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to watch signal %d", signal_number);
    watch->fn = fn;
    watch->context = context;
    (void)uv_signal_init(&loop->uv, &watch->handle); /* cannot fail once the loop stands */
    watch->handle.data = watch;
    int error = uv_signal_start(&watch->handle, signal_arrived, signal_number);
    watch->next = loop->signals;
    loop->signals = watch;
    if (error != 0)
        return MR_ERROR(INTERNAL, "signal %d cannot be watched: %s", signal_number,
                        uv_strerror(error));
    return MR_OK;
}

static void readable_arrived(uv_poll_t *handle, int error, int events) {
    loop_readable *watch = handle->data;
    if (error == 0 && (events & UV_READABLE) != 0)
        watch->fn(watch->context, watch->fd);
}

mr_status mr_loop_readable_watch(mr_loop *loop, int fd, mr_loop_readable_fn fn, void *context) {
    loop_readable *watch = mr_alloc(sizeof(*watch));
    if (watch == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to watch a descriptor");
    int error = uv_poll_init(&loop->uv, &watch->handle, fd);
    if (error != 0) {
        mr_free(watch);
        return MR_ERROR(INTERNAL, "descriptor %d cannot be watched: %s", fd, uv_strerror(error));
    }
    watch->fn = fn;
    watch->context = context;
    watch->fd = fd;
    watch->handle.data = watch;
    watch->next = loop->readables;
    loop->readables = watch;
    (void)uv_poll_start(&watch->handle, UV_READABLE, readable_arrived); /* it was just made */
    return MR_OK;
}
