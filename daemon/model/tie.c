/* SPDX-License-Identifier: Apache-2.0 */
/* The ties of a job: which layers share a parameter, by key, in bytewise order of the keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/model/job.h"

static int tie_compare(const void *a, const void *b) {
    return strcmp(((const mr_tie *)a)->key, ((const mr_tie *)b)->key);
}

/* The tie with this key among the first count, or the next free one. */
static mr_tie *tie_find(mr_tie *ties, size_t count, const char *key) {
    size_t i = 0;
    while (i < count && strcmp(ties[i].key, key) != 0)
        i++;
    return &ties[i];
}

/* Puts a layer into its tie; opens the tie at its first layer, with room for all that follow. */
static mr_status tie_add(const mr_job *job, size_t layer, size_t room, mr_tie *ties,
                         size_t *count) {
    mr_tie *tie = tie_find(ties, *count, job->layers[layer].tie);
    if (tie == &ties[*count]) {
        tie->layers = mr_alloc_array(room, sizeof(*tie->layers));
        if (tie->layers == NULL)
            return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the ties of %zu layers", room);
        (void)snprintf(tie->key, sizeof(tie->key), "%s", job->layers[layer].tie);
        (*count)++;
    }
    tie->layers[tie->layer_count++] = layer;
    return MR_OK;
}

mr_status mr_job_ties(const mr_job *job, mr_tie **out_ties, size_t *out_count) {
    size_t tied = 0;
    for (size_t i = 0; i < job->layer_count; i++)
        tied += job->layers[i].tie[0] != '\0';
    mr_tie *ties = mr_alloc_array(tied + 1, sizeof(*ties)); /* one past the last is looked at */
    size_t count = 0;
    if (ties == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the ties of %zu layers", tied);
    for (size_t i = 0, left = tied; i < job->layer_count; i++) {
        if (job->layers[i].tie[0] == '\0')
            continue;
        mr_status status = tie_add(job, i, left--, ties, &count);
        if (!mr_status_is_ok(status)) {
            mr_job_ties_free(ties, count);
            return status;
        }
    }
    qsort(ties, count, sizeof(*ties), tie_compare);
    *out_ties = ties;
    *out_count = count;
    return MR_OK;
}

void mr_job_ties_free(mr_tie *ties, size_t count) {
    if (ties == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        mr_free(ties[i].layers);
    mr_free(ties);
}
