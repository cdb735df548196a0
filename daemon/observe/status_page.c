/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/status_page.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

typedef struct page_check {
    char name[MR_NAME_BYTES];
    char wrong[MR_STATUS_TEXT_BYTES]; /* "": nothing */
} page_check;

struct mr_status_page {
    pthread_mutex_t lock; /* json, ready, reason and checks */
    page_check checks[MR_STATUS_CHECKS_MAX];
    size_t check_count;
    char *json;
    size_t json_bytes;
    bool ready;
    char reason[MR_STATUS_TEXT_BYTES];
    _Atomic bool started;
    _Atomic int64_t beat_ms; /* 0: never */
};

static void page_lock(mr_status_page *page) {
    MR_ASSERT(pthread_mutex_lock(&page->lock) == 0);
}

static void page_unlock(mr_status_page *page) {
    MR_ASSERT(pthread_mutex_unlock(&page->lock) == 0);
}

mr_status mr_status_page_create(mr_status_page **out_page) {
    mr_status_page *page = mr_alloc(sizeof(*page));
    if (page == NULL || pthread_mutex_init(&page->lock, NULL) != 0) {
        mr_free(page);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a status page");
    }
    (void)snprintf(page->reason, sizeof(page->reason), "starting");
    *out_page = page;
    return MR_OK;
}

void mr_status_page_destroy(mr_status_page *page) {
    if (page == NULL)
        return;
    (void)pthread_mutex_destroy(&page->lock); /* nobody holds it any more */
    mr_free(page->json);
    mr_free(page);
}

mr_status mr_status_page_publish(mr_status_page *page, const char *json) {
    size_t bytes = strlen(json);
    if (bytes > MR_STATUS_PAGE_BYTES_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "a status of %zu bytes; the most is %d", bytes,
                        MR_STATUS_PAGE_BYTES_MAX);
    char *copy = mr_strdup(json);
    if (copy == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a status of %zu bytes", bytes);
    page_lock(page);
    char *old = page->json;
    page->json = copy;
    page->json_bytes = bytes;
    page_unlock(page);
    mr_free(old);
    return MR_OK;
}

void mr_status_page_started_set(mr_status_page *page, bool started) {
    atomic_store_explicit(&page->started, started, memory_order_relaxed);
}

void mr_status_page_ready_set(mr_status_page *page, bool ready, const char *reason) {
    page_lock(page);
    page->ready = ready;
    (void)snprintf(page->reason, sizeof(page->reason), "%s", reason == NULL ? "" : reason);
    page_unlock(page);
}

void mr_status_page_check_set(mr_status_page *page, const char *name, const char *wrong) {
    page_lock(page);
    size_t i = 0;
    while (i < page->check_count && strcmp(page->checks[i].name, name) != 0)
        i++;
    MR_ASSERT(i < MR_STATUS_CHECKS_MAX); /* roles have a few, by name */
    if (i == page->check_count)
        page->check_count++;
    page_check *check = &page->checks[i];
    (void)snprintf(check->name, sizeof(check->name), "%s", name);
    (void)snprintf(check->wrong, sizeof(check->wrong), "%s", wrong == NULL ? "" : wrong);
    page_unlock(page);
}

void mr_status_page_beat(mr_status_page *page) {
    atomic_store_explicit(&page->beat_ms, mr_clock_now_ms(), memory_order_relaxed);
}

mr_status mr_status_page_copy(mr_status_page *page, char **out_json, size_t *out_bytes) {
    page_lock(page);
    size_t bytes = page->json == NULL ? 2 : page->json_bytes;
    char *copy = mr_strdup(page->json == NULL ? "{}" : page->json);
    page_unlock(page);
    if (copy == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a status of %zu bytes", bytes);
    *out_json = copy;
    *out_bytes = bytes;
    return MR_OK;
}

bool mr_status_page_is_started(mr_status_page *page) {
    return atomic_load_explicit(&page->started, memory_order_relaxed);
}

bool mr_status_page_is_ready(mr_status_page *page, char reason[MR_STATUS_TEXT_BYTES]) {
    page_lock(page);
    bool ready = page->ready;
    memcpy(reason, page->reason, MR_STATUS_TEXT_BYTES);
    for (size_t i = 0; i < page->check_count && ready; i++) {
        ready = page->checks[i].wrong[0] == '\0';
        (void)snprintf(reason, MR_STATUS_TEXT_BYTES, "%s", page->checks[i].wrong);
    }
    page_unlock(page);
    return ready;
}

static bool page_add_check(mr_text *text, const char *name, const char *wrong) {
    if (wrong[0] == '\0')
        mr_text_add(text, "[+]%s ok\n", name);
    else
        mr_text_add(text, "[-]%s failed: %s\n", name, wrong);
    return wrong[0] == '\0';
}

bool mr_status_page_add_checks(mr_status_page *page, mr_text *text) {
    char silence[MR_STATUS_TEXT_BYTES] = "";
    int64_t age_ms = 0;
    if (!mr_status_page_is_live(page, &age_ms))
        (void)snprintf(silence, sizeof(silence), "silent for %lld ms", (long long)age_ms);
    bool ready = page_add_check(text, "loop", silence);
    page_lock(page);
    ready = page_add_check(text, "role", page->ready ? "" : page->reason) && ready;
    for (size_t i = 0; i < page->check_count; i++)
        ready = page_add_check(text, page->checks[i].name, page->checks[i].wrong) && ready;
    page_unlock(page);
    return ready;
}

bool mr_status_page_is_live(mr_status_page *page, int64_t *out_age_ms) {
    int64_t beat_ms = atomic_load_explicit(&page->beat_ms, memory_order_relaxed);
    *out_age_ms = beat_ms == 0 ? 0 : mr_clock_now_ms() - beat_ms;
    return *out_age_ms <= MR_STATUS_LIVE_TIMEOUT_MS;
}
