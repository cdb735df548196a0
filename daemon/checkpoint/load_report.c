/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checkpoint/load_report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/checkpoint/layer_reader.h"

typedef struct report_work {
    const char *path;
    const mr_manifest *manifest;
    const mr_job *job;
    mr_layer_files files;
    mr_layer_description *layers; /* of the job, whole */
    mr_load_report *report;
} report_work;

static void report_add(mr_load_report *report, mr_load_kind kind, const char *format, ...)
    MR_PRINTF(3, 4);
static void report_add(mr_load_report *report, mr_load_kind kind, const char *format, ...) {
    va_list arguments;
    report->counts[kind]++;
    if (report->finding_count == MR_LOAD_FINDINGS_MAX)
        return;
    mr_load_finding *finding = &report->findings[report->finding_count++];
    finding->kind = kind;
    va_start(arguments, format);
    (void)vsnprintf(finding->text, sizeof(finding->text), format, arguments); /* cut on purpose */
    va_end(arguments);
}

/* Is the layer one that takes this parameter from its tie's first layer? */
static bool follows_tie(const mr_job *job, size_t layer, const mr_parameter *parameter) {
    if (!parameter->tied)
        return false;
    size_t first = 0;
    while (strcmp(job->layers[first].tie, job->layers[layer].tie) != 0)
        first++;
    return first != layer;
}

static const mr_parameter *layer_find(const mr_layer_description *layer, const char *name) {
    for (size_t i = 0; i < layer->parameter_count; i++)
        if (strcmp(layer->parameters[i].name, name) == 0)
            return &layer->parameters[i];
    return NULL;
}

static mr_status report_parameter(report_work *work, mr_layer_reader *reader, size_t layer,
                                  const mr_parameter *parameter) {
    mr_load_report *report = work->report;
    mr_layer_reader_match match = {0};
    char want[MR_SHAPE_TEXT_BYTES];
    char have[MR_SHAPE_TEXT_BYTES];
    if (follows_tie(work->job, layer, parameter))
        return MR_OK;
    report->parameters++;
    if (reader != NULL)
        MR_TRY(mr_layer_reader_compare(reader, parameter->name, parameter, 0, 1, &match));
    if (match.fits)
        report->loaded++;
    else if (!match.found)
        report_add(report, MR_LOAD_MISSING, "layer %zu: %s is missing", layer, parameter->name);
    else
        report_add(report, MR_LOAD_SHAPE, "layer %zu: %s is %s, the job's is %s", layer,
                   parameter->name, mr_shape_text(&match.have, have),
                   mr_shape_text(&parameter->whole, want));
    return MR_OK;
}

/* Tensors of the layer's file that the job's layer does not have. */
static mr_status report_unexpected(report_work *work, mr_layer_reader *reader, size_t layer) {
    const mr_safetensors_reader *file = NULL;
    MR_TRY(mr_layer_reader_file(reader, 0, &file));
    for (size_t i = 0; i < mr_safetensors_count(file); i++) {
        const char *name = mr_safetensors_at(file, i)->name;
        if (layer_find(&work->layers[layer], name) == NULL)
            report_add(work->report, MR_LOAD_UNEXPECTED, "layer %zu: %.60s is not the job's", layer,
                       name);
    }
    return MR_OK;
}

static mr_status report_layer(report_work *work, size_t layer) {
    const mr_layer_files_entry *first = NULL;
    mr_layer_reader *reader = NULL;
    size_t width = 0;
    mr_status status = MR_OK;
    const mr_layer_reader_options options = {
        .path = work->path,
        .manifest = work->manifest,
        .files = &work->files,
        .layer = (uint32_t)layer,
        .kind = MR_LAYER_FILE_MODEL,
        .headers_only = true,
    };
    MR_TRY(mr_layer_files_of(&work->files, (uint32_t)layer, MR_LAYER_FILE_MODEL, &first, &width));
    if (width > 0)
        MR_TRY(mr_layer_reader_open(&options, &reader));
    const mr_layer_description *description = &work->layers[layer];
    for (size_t i = 0; i < description->parameter_count && mr_status_is_ok(status); i++)
        status = report_parameter(work, reader, layer, &description->parameters[i]);
    if (mr_status_is_ok(status) && reader != NULL)
        status = report_unexpected(work, reader, layer);
    mr_layer_reader_close(reader);
    return status;
}

/* Files of layers that the job does not have. */
static void report_rest(report_work *work) {
    for (size_t i = 0; i < work->files.count; i++) {
        const mr_layer_files_entry *entry = &work->files.entries[i];
        if (entry->is_layer && entry->kind == MR_LAYER_FILE_MODEL && entry->model_rank == 0 &&
            entry->layer >= work->job->layer_count)
            report_add(work->report, MR_LOAD_UNEXPECTED, "layer %" PRIu32 " is not the job's",
                       entry->layer);
    }
}

static mr_status report_fill(report_work *work) {
    MR_TRY(mr_job_describe(work->job, work->layers));
    MR_TRY(mr_layer_files_list(work->manifest, &work->files));
    mr_status status = MR_OK;
    for (size_t i = 0; i < work->job->layer_count && mr_status_is_ok(status); i++)
        status = report_layer(work, i);
    if (mr_status_is_ok(status))
        report_rest(work);
    mr_layer_files_deinit(&work->files);
    return status;
}

mr_status mr_load_report_make(const char *path, const mr_manifest *manifest, const mr_job *job,
                              mr_load_report **out_report) {
    report_work work = {.path = path, .manifest = manifest, .job = job};
    mr_status status = MR_OK;
    work.report = mr_alloc(sizeof(*work.report));
    work.layers = mr_alloc_array(job->layer_count, sizeof(*work.layers));
    if (work.report == NULL || work.layers == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory to compare %zu layers", job->layer_count);
    else
        status = report_fill(&work);
    mr_free(work.layers);
    if (!mr_status_is_ok(status)) {
        mr_free(work.report);
        return status;
    }
    *out_report = work.report;
    return MR_OK;
}

/* The findings of the kinds from first to last, with commas between; returns the bytes used. */
static size_t text_findings(const mr_load_report *report, mr_load_kind first, mr_load_kind last,
                            const char *head, char *out, size_t bytes) {
    size_t used = 0;
    for (size_t i = 0; i < report->finding_count && used < bytes; i++) {
        const mr_load_finding *finding = &report->findings[i];
        if (finding->kind < first || finding->kind > last)
            continue;
        used += (size_t)snprintf(out + used, bytes - used, "%s%s", used == 0 ? head : ", ",
                                 finding->text);
    }
    return used < bytes ? used : bytes - 1;
}

mr_status mr_load_report_strict(const mr_load_report *report) {
    char text[MR_STATUS_TEXT_BYTES] = "";
    const size_t *counts = report->counts;
    if (counts[MR_LOAD_MISSING] + counts[MR_LOAD_SHAPE] + counts[MR_LOAD_UNEXPECTED] == 0)
        return MR_OK;
    (void)text_findings(report, MR_LOAD_MISSING, MR_LOAD_UNEXPECTED, ": ", text, sizeof(text));
    return MR_ERROR(FAILED_PRECONDITION,
                    "E_CKPT_STRICT %zu missing, %zu of another shape, %zu not the job's%s",
                    counts[MR_LOAD_MISSING], counts[MR_LOAD_SHAPE], counts[MR_LOAD_UNEXPECTED],
                    text);
}

void mr_load_report_text(const mr_load_report *report, char *out, size_t bytes) {
    size_t used = (size_t)snprintf(out, bytes, "loads %zu of %zu parameters", report->loaded,
                                   report->parameters);
    if (used >= bytes)
        return;
    used += text_findings(report, MR_LOAD_MISSING, MR_LOAD_SHAPE, "; left as drawn: ", out + used,
                          bytes - used);
    (void)text_findings(report, MR_LOAD_UNEXPECTED, MR_LOAD_UNEXPECTED, "; ignored: ", out + used,
                        bytes - used);
}
