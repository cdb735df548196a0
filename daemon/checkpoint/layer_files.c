/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/layer_files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"

static int compare_numbers(uint32_t x, uint32_t y) {
    return (x > y) - (x < y);
}

/* Layer and kind. */
static int compare_kinds(const mr_layer_files_entry *x, const mr_layer_files_entry *y) {
    int layers = compare_numbers(x->layer, y->layer);
    return layers != 0 ? layers : compare_numbers(x->kind, y->kind);
}

static int compare_entries(const void *a, const void *b) {
    const mr_layer_files_entry *x = a;
    const mr_layer_files_entry *y = b;
    if (x->is_layer != y->is_layer)
        return x->is_layer ? -1 : 1;
    int kinds = compare_kinds(x, y);
    if (kinds != 0)
        return kinds;
    if (x->has_model != y->has_model)
        return x->has_model ? 1 : -1;
    int ranks = compare_numbers(x->model_rank, y->model_rank);
    return ranks != 0 ? ranks : strcmp(x->listed->name, y->listed->name);
}

mr_status mr_layer_files_list(const mr_manifest *manifest, mr_layer_files *out_files) {
    mr_layer_files files = {.count = manifest->file_count};
    files.entries = mr_alloc_array(files.count, sizeof(*files.entries));
    if (files.entries == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu files", files.count);
    for (size_t i = 0; i < files.count; i++) {
        mr_layer_files_entry *entry = &files.entries[i];
        entry->listed = &manifest->files[i];
        entry->is_layer = mr_layout_layer_parse(entry->listed->name, &entry->layer,
                                                &entry->has_model, &entry->model_rank,
                                                &entry->kind);
    }
    if (files.count > 1)
        qsort(files.entries, files.count, sizeof(*files.entries), compare_entries);
    *out_files = files;
    return MR_OK;
}

void mr_layer_files_deinit(mr_layer_files *files) {
    mr_free(files->entries);
    *files = (mr_layer_files){0};
}

/* How many entries from first on are of first's layer and kind; their ranks count up from 0. */
static mr_status count_ranks(const mr_layer_files_entry *first, size_t left, size_t *out_width) {
    size_t width = 0;
    while (width < left && first[width].is_layer && compare_kinds(&first[width], first) == 0)
        width++;
    if (width > 1 && !first->has_model)
        return MR_ERROR(DATA_LOSS,
                        "E_CKPT_RANKS layer=%" PRIu32 ": %s stands beside files of single ranks",
                        first->layer, first->listed->name);
    for (size_t i = 0; i < width; i++)
        if (first[i].has_model && first[i].model_rank != i)
            return MR_ERROR(DATA_LOSS,
                            "E_CKPT_RANKS layer=%" PRIu32 ": %s is there, but no file of model "
                            "rank %zu",
                            first->layer, first[i].listed->name, i);
    *out_width = width;
    return MR_OK;
}

mr_status mr_layer_files_of(const mr_layer_files *files, uint32_t layer, mr_layer_file kind,
                            const mr_layer_files_entry **out_first, size_t *out_width) {
    const mr_layer_files_entry wanted = {.layer = layer, .kind = kind};
    size_t low = 0;
    size_t high = files->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const mr_layer_files_entry *entry = &files->entries[middle];
        if (entry->is_layer && compare_kinds(entry, &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    const mr_layer_files_entry *first = &files->entries[low];
    *out_first = first;
    *out_width = 0;
    if (low == files->count || !first->is_layer || compare_kinds(first, &wanted) != 0)
        return MR_OK;
    return count_ranks(first, files->count - low, out_width);
}

mr_status mr_layer_files_width(const mr_layer_files *files, size_t *out_width) {
    size_t common = 0;
    size_t width = 0;
    for (size_t i = 0; i < files->count && files->entries[i].is_layer; i += width) {
        MR_TRY(count_ranks(&files->entries[i], files->count - i, &width));
        if (common != 0 && width != common)
            return MR_ERROR(DATA_LOSS,
                            "E_CKPT_RANKS layer=%" PRIu32 ": %zu model ranks; the layers before it "
                            "have %zu",
                            files->entries[i].layer, width, common);
        common = width;
    }
    if (common == 0)
        return MR_ERROR(FAILED_PRECONDITION, "the checkpoint has no file of a layer");
    *out_width = common;
    return MR_OK;
}
