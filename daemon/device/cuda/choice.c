/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cuda/choice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/crc32c.h"
#include "daemon/base/limits.h"

enum { CHOICE_PATH_BYTES = 4096, CHOICE_LINE_BYTES = 384 };

typedef struct choice {
    char key[MR_CHOICE_KEY_BYTES];
    uint64_t words[MR_CHOICE_WORDS];
} choice;

struct mr_choices {
    char path[CHOICE_PATH_BYTES]; /* "": none */
    size_t count;
    choice entries[MR_DEVICE_PLANS_MAX];
};

static uint32_t choice_checksum(const choice *entry) {
    uint32_t sum = mr_crc32c(0, entry->key, strlen(entry->key));
    return mr_crc32c(sum, entry->words, sizeof(entry->words));
}

/* "key w0 w1 ... w7 checksum"; false for a line that is not whole. */
static bool choice_parse(const char *line, choice *out_entry) {
    choice entry = {0};
    uint32_t checksum;
    int used = 0;
    if (sscanf(line, "%95s%n", entry.key, &used) != 1)
        return false;
    for (int i = 0; i < MR_CHOICE_WORDS; i++) {
        int length = 0;
        if (sscanf(line + used, " %" SCNx64 "%n", &entry.words[i], &length) != 1)
            return false;
        used += length;
    }
    if (sscanf(line + used, " %" SCNx32, &checksum) != 1 || checksum != choice_checksum(&entry))
        return false;
    *out_entry = entry;
    return true;
}

static void choices_read(mr_choices *choices) {
    char line[CHOICE_LINE_BYTES];
    FILE *file = fopen(choices->path, "re");
    if (file == NULL)
        return;
    while (choices->count < MR_DEVICE_PLANS_MAX && fgets(line, sizeof(line), file) != NULL)
        if (choice_parse(line, &choices->entries[choices->count]))
            choices->count++;
    (void)fclose(file); /* it was only read */
}

static bool choices_print(const mr_choices *choices, FILE *file) {
    for (size_t i = 0; i < choices->count; i++) {
        const choice *entry = &choices->entries[i];
        fprintf(file, "%s", entry->key);
        for (int w = 0; w < MR_CHOICE_WORDS; w++)
            fprintf(file, " %016" PRIx64, entry->words[w]);
        fprintf(file, " %08" PRIx32 "\n", choice_checksum(entry));
    }
    return ferror(file) == 0;
}

/* Renamed into place, so that a reader sees the old file or the new one. */
static mr_status choices_write(const mr_choices *choices) {
    char path[CHOICE_PATH_BYTES + 32];
    if (choices->path[0] == '\0')
        return MR_OK;
    snprintf(path, sizeof(path), "%s.%ld", choices->path, (long)getpid());
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return MR_ERROR(UNAVAILABLE, "%s: %s", path, strerror(errno));
    bool good = choices_print(choices, file);
    good = fclose(file) == 0 && good;
    if (good && rename(path, choices->path) == 0)
        return MR_OK;
    mr_status status = MR_ERROR(UNAVAILABLE, "%s: %s", path, strerror(errno));
    (void)unlink(path); /* it may be gone */
    return status;
}

mr_status mr_choices_open(const char *folder, const char *file, mr_choices **out_choices) {
    mr_choices *choices = mr_alloc(sizeof(*choices));
    if (choices == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a table of choices");
    if (folder != NULL) {
        (void)mkdir(folder, 0777); /* it may exist; if it cannot be, writing says so */
        int length = snprintf(choices->path, sizeof(choices->path), "%s/%s", folder, file);
        if (length < 0 || (size_t)length >= sizeof(choices->path))
            choices->path[0] = '\0'; /* no file has such a path */
        else
            choices_read(choices);
    }
    *out_choices = choices;
    return MR_OK;
}

void mr_choices_close(mr_choices *choices) {
    mr_free(choices);
}

const uint64_t *mr_choices_find(const mr_choices *choices, const char *key) {
    for (size_t i = 0; i < choices->count; i++)
        if (strcmp(choices->entries[i].key, key) == 0)
            return choices->entries[i].words;
    return NULL;
}

mr_status mr_choices_put(mr_choices *choices, const char *key,
                         const uint64_t words[MR_CHOICE_WORDS]) {
    MR_ASSERT(strlen(key) < MR_CHOICE_KEY_BYTES && strchr(key, ' ') == NULL);
    size_t at = 0;
    while (at < choices->count && strcmp(choices->entries[at].key, key) != 0)
        at++;
    if (at == MR_DEVICE_PLANS_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%d choices are kept at most", MR_DEVICE_PLANS_MAX);
    choice *entry = &choices->entries[at];
    snprintf(entry->key, sizeof(entry->key), "%s", key);
    memcpy(entry->words, words, sizeof(entry->words));
    choices->count += at == choices->count;
    return choices_write(choices);
}
