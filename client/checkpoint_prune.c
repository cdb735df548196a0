/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_prune.c: deletes old checkpoints of a folder. What goes is shown first and asked for;
 * what a user tagged, what is damaged and what is not committed stays (catalog.h). */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/confirm.h"
#include "client/job_view.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "daemon/base/alloc.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/manifest.h"

typedef struct prune {
    const char *dir;
    const char *job; /* NULL: all */
    size_t keep;
    json_t *doomed;  /* newest first */
    size_t kept;
} prune;

static json_t *prune_json(const prune *self, const mr_catalog_entry *entry) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    if (!mr_status_is_ok(mr_layout_join(self->dir, entry->tag, path, sizeof(path))))
        path[0] = '\0';
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:o}", "tag", mr_render_string(entry->tag), "path",
                     mr_render_string(path), "step", (json_int_t)entry->step, "created_ms",
                     (json_int_t)entry->committed_ms, "bytes", (json_int_t)entry->bytes, "job",
                     mr_render_string(entry->job));
}

/* Do all its files stand with their sizes? One that lacks something neither counts nor goes. */
static bool prune_whole(const char *path) {
    mr_manifest manifest = {0};
    bool whole = mr_status_is_ok(mr_manifest_read(path, &manifest));
    for (size_t i = 0; whole && i < manifest.file_count; i++) {
        char file[MR_CHECKPOINT_PATH_BYTES];
        struct stat info;
        whole = mr_status_is_ok(
                    mr_layout_join(path, manifest.files[i].name, file, sizeof(file))) &&
                stat(file, &info) == 0 && (uint64_t)info.st_size == manifest.files[i].bytes;
    }
    mr_manifest_deinit(&manifest);
    return whole;
}

/* Of the whole checkpoints with step-N tags the newest keep stay. */
static mr_status prune_choose(prune *self) {
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    MR_TRY(mr_catalog_list(self->dir, self->job, NULL, NULL, &entries, &count));
    for (size_t i = count; i > 0; i--) {
        const mr_catalog_entry *entry = &entries[i - 1];
        json_t *item = prune_json(self, entry);
        const char *path = json_string_value(json_object_get(item, "path"));
        bool counts = mr_layout_step_parse(entry->tag, NULL) && path != NULL && prune_whole(path);
        if (counts && self->kept >= self->keep)
            (void)json_array_append(self->doomed, item);
        else
            self->kept += counts;
        json_decref(item);
    }
    mr_free(entries);
    return MR_OK;
}

static mr_status prune_delete(mr_client *client, const prune *self) {
    const size_t doomed = json_array_size(self->doomed);
    MR_TRY(mr_confirm(client, "delete %zu of the checkpoints in %s, keeping the newest %zu", doomed,
                      mr_path_shorten(self->dir).text, self->kept));
    /* the oldest first: whatever stops this, what is left is the newest */
    for (size_t i = doomed; i > 0; i--) {
        const json_t *item = json_array_get(self->doomed, i - 1);
        MR_TRY(mr_catalog_delete(self->dir, json_string_value(json_object_get(item, "tag"))));
    }
    mr_client_say(client, "%zu deleted, %zu kept", doomed, self->kept);
    return MR_OK;
}

mr_status mr_command_checkpoint_prune(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    prune self = {
        .dir = invocation->arguments[0],
        .job = mr_invocation_text(invocation, "job"),
        .keep = (size_t)mr_invocation_integer(invocation, "keep"),
        .doomed = json_array(),
    };
    mr_status status = prune_choose(&self);
    if (mr_status_is_ok(status) && json_array_size(self.doomed) == 0)
        mr_client_say(client, "nothing to delete: %zu kept", self.kept);
    else if (mr_status_is_ok(status) && !mr_invocation_given(invocation, "dry-run"))
        status = prune_delete(client, &self);
    if (mr_status_is_ok(status))
        return mr_render_list(client, &mr_checkpoint_view, self.doomed);
    json_decref(self.doomed);
    return status;
}
