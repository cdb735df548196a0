/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STEP_PREFIX "step-"

enum { STEP_DIGITS = 12, DECIMAL_DIGITS_MAX = 20 };

static bool layout_is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool layout_is_word(char c) {
    return layout_is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Reads the digits at text; returns their end, NULL where there is none or they pass 64 bits. */
static const char *layout_number(const char *text, uint64_t *out_value) {
    size_t digits = 0;
    while (layout_is_digit(text[digits]))
        digits++;
    if (digits == 0 || digits > DECIMAL_DIGITS_MAX)
        return NULL;
    errno = 0;
    unsigned long long value = strtoull(text, NULL, 10);
    if (errno == ERANGE)
        return NULL;
    *out_value = value;
    return text + digits;
}

void mr_layout_step_tag(uint64_t step, char out[MR_NAME_BYTES]) {
    (void)snprintf(out, MR_NAME_BYTES, STEP_PREFIX "%0*" PRIu64, STEP_DIGITS, step);
}

bool mr_layout_step_parse(const char *tag, uint64_t *out_step) {
    size_t prefix = strlen(STEP_PREFIX);
    uint64_t step;
    if (strncmp(tag, STEP_PREFIX, prefix) != 0 || layout_number(tag + prefix, &step) == NULL)
        return false;
    /* One number, one spelling: whatever else says the same step is not ours. */
    char again[MR_NAME_BYTES];
    mr_layout_step_tag(step, again);
    if (strcmp(tag, again) != 0)
        return false;
    if (out_step != NULL)
        *out_step = step;
    return true;
}

/* Everything but the step-* rule. */
static mr_status layout_tag_form(const char *tag) {
    size_t bytes = strlen(tag);
    if (bytes == 0)
        return MR_ERROR(INVALID_ARGUMENT, "E_TAG reason=empty off=0: a tag has at least one byte");
    if (bytes >= MR_NAME_BYTES)
        return MR_ERROR(INVALID_ARGUMENT,
                        "E_TAG reason=len off=%d: a tag has at most %d bytes, "
                        "this one has %zu",
                        MR_NAME_BYTES - 1, MR_NAME_BYTES - 1, bytes);
    for (size_t i = 0; i < bytes; i++) {
        bool fits = layout_is_word(tag[i]) || (i > 0 && strchr("._-", tag[i]) != NULL);
        if (!fits)
            return MR_ERROR(INVALID_ARGUMENT,
                            "E_TAG reason=char off=%zu: a tag is letters, digits "
                            "and, after the first, any of . _ -",
                            i);
    }
    const char *dots = strstr(tag, "..");
    if (dots != NULL)
        return MR_ERROR(INVALID_ARGUMENT, "E_TAG reason=dotdot off=%td: a tag has no ..",
                        dots - tag);
    static const char *const names[] = {MR_LAYOUT_LATEST, MR_LAYOUT_MANIFEST, "manifest"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(tag, names[i]) == 0)
            return MR_ERROR(INVALID_ARGUMENT,
                            "E_TAG reason=reserved off=0: %s is a name of the "
                            "folder itself",
                            tag);
    static const char *const prefixes[] = {MR_LAYOUT_TRASH_PREFIX, "corrupt-"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncasecmp(tag, prefixes[i], strlen(prefixes[i])) == 0)
            return MR_ERROR(INVALID_ARGUMENT, "E_TAG reason=reserved off=0: %s* is reserved",
                            prefixes[i]);
    return MR_OK;
}

mr_status mr_layout_tag_check(const char *tag) {
    MR_TRY(layout_tag_form(tag));
    if (strncasecmp(tag, STEP_PREFIX, strlen(STEP_PREFIX)) == 0 && !mr_layout_step_parse(tag, NULL))
        return MR_ERROR(INVALID_ARGUMENT,
                        "E_TAG reason=reserved off=0: " STEP_PREFIX
                        "* is followed by the step in %d digits",
                        STEP_DIGITS);
    return MR_OK;
}

mr_status mr_layout_user_tag_check(const char *tag) {
    MR_TRY(layout_tag_form(tag));
    if (strncasecmp(tag, STEP_PREFIX, strlen(STEP_PREFIX)) == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "E_TAG reason=reserved off=0: " STEP_PREFIX "* is for checkpoints by step");
    return MR_OK;
}

static const char *const layer_suffixes[MR_LAYER_FILE_COUNT] = {
    [MR_LAYER_FILE_MODEL] = "-model_states.safetensors",
    [MR_LAYER_FILE_OPTIM] = "-optim_states.safetensors",
};

void mr_layout_layer_name(uint32_t layer, uint32_t model_rank, uint32_t model_ranks,
                          mr_layer_file kind, char out[MR_NAME_BYTES]) {
    MR_ASSERT(kind < MR_LAYER_FILE_COUNT);
    MR_ASSERT(model_rank < model_ranks || model_ranks == 0);
    char infix[MR_NAME_BYTES / 2] = "";
    if (model_ranks > 1)
        (void)snprintf(infix, sizeof(infix), "-model_%02" PRIu32, model_rank);
    (void)snprintf(out, MR_NAME_BYTES, "layer_%02" PRIu32 "%s%s", layer, infix,
                   layer_suffixes[kind]);
}

bool mr_layout_layer_parse(const char *name, uint32_t *out_layer, bool *out_has_model,
                           uint32_t *out_model_rank, mr_layer_file *out_kind) {
    uint64_t layer = 0;
    uint64_t model_rank = 0;
    if (strncmp(name, "layer_", 6) != 0)
        return false;
    const char *rest = layout_number(name + 6, &layer);
    if (rest == NULL || layer > UINT32_MAX)
        return false;
    /* "-model_states" and "-model_01" share a beginning; only the second goes on with a digit. */
    bool has_model = strncmp(rest, "-model_", 7) == 0 && layout_is_digit(rest[7]);
    if (has_model)
        rest = layout_number(rest + 7, &model_rank);
    if (rest == NULL || model_rank >= UINT32_MAX)
        return false;
    mr_layer_file kind = MR_LAYER_FILE_MODEL;
    while (kind < MR_LAYER_FILE_COUNT && strcmp(rest, layer_suffixes[kind]) != 0)
        kind++;
    if (kind == MR_LAYER_FILE_COUNT)
        return false;
    char again[MR_NAME_BYTES];
    mr_layout_layer_name((uint32_t)layer, (uint32_t)model_rank, has_model ? UINT32_MAX : 1, kind,
                         again);
    if (strcmp(name, again) != 0)
        return false;
    if (out_layer != NULL)
        *out_layer = (uint32_t)layer;
    if (out_has_model != NULL)
        *out_has_model = has_model;
    if (out_model_rank != NULL)
        *out_model_rank = (uint32_t)model_rank;
    if (out_kind != NULL)
        *out_kind = kind;
    return true;
}

bool mr_layout_file_name_valid(const char *name) {
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes >= MR_NAME_BYTES || !layout_is_word(name[0]))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!layout_is_word(name[i]) && strchr("._-", name[i]) == NULL)
            return false;
    return strstr(name, "..") == NULL && strcmp(name, MR_LAYOUT_MANIFEST) != 0;
}

mr_status mr_layout_join(const char *folder, const char *name, char *out, size_t capacity) {
    size_t folder_bytes = strlen(folder);
    size_t name_bytes = strlen(name);
    if (folder_bytes == 0 || name_bytes == 0)
        return MR_ERROR(INVALID_ARGUMENT, "a path has an empty part: folder '%s', name '%s'",
                        folder, name);
    bool slash = folder[folder_bytes - 1] != '/';
    if (folder_bytes >= capacity || name_bytes >= capacity ||
        folder_bytes + slash + name_bytes >= capacity)
        return MR_ERROR(INVALID_ARGUMENT, "a path of %zu bytes is too long; the most is %zu: %s",
                        folder_bytes + slash + name_bytes, capacity - 1, name);
    memmove(out, folder, folder_bytes);
    if (slash)
        out[folder_bytes] = '/';
    memcpy(out + folder_bytes + slash, name, name_bytes + 1);
    return MR_OK;
}

mr_status mr_layout_save_name(const char *tag, uint64_t epoch, uint64_t step, char *out) {
    MR_TRY(mr_layout_tag_check(tag));
    (void)snprintf(out, MR_CHECKPOINT_SAVE_NAME_BYTES,
                   MR_LAYOUT_SAVE_PREFIX "%010" PRIu64 "-s%012" PRIu64 "-%s", epoch, step, tag);
    return MR_OK;
}

mr_status mr_layout_save_path(const char *dir, const char *tag, uint64_t epoch, uint64_t step,
                              char *out, size_t capacity) {
    char name[MR_CHECKPOINT_SAVE_NAME_BYTES];
    MR_TRY(mr_layout_save_name(tag, epoch, step, name));
    return mr_layout_join(dir, name, out, capacity);
}

bool mr_layout_save_parse(const char *name, uint64_t *out_epoch, uint64_t *out_step) {
    size_t prefix = strlen(MR_LAYOUT_SAVE_PREFIX);
    uint64_t epoch;
    uint64_t step;
    if (strncmp(name, MR_LAYOUT_SAVE_PREFIX, prefix) != 0)
        return false;
    const char *rest = layout_number(name + prefix, &epoch);
    if (rest == NULL || strncmp(rest, "-s", 2) != 0)
        return false;
    rest = layout_number(rest + 2, &step);
    if (rest == NULL || rest[0] != '-' || !mr_status_is_ok(mr_layout_tag_check(rest + 1)))
        return false;
    *out_epoch = epoch;
    *out_step = step;
    return true;
}
