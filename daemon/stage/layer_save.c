/* SPDX-License-Identifier: Apache-2.0 */
/* With split state the replicas go through rounds: in round r each writer's layer number r is
 * brought together, one writer after the other, and then all write at the same time. Every replica
 * takes part in every round, whether its own files succeed or not, so that one full disk does not
 * leave the others waiting. A tensor that lies whole with its writer is not sent. */
#include "daemon/stage/layer_save.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/partition.h"
#include "daemon/stage/layer_tensors.h"

typedef struct save_work {
    const mr_layer_save_options *options;
    char folder[MR_PATH_BYTES];
    size_t width;
    size_t index; /* own place among the replicas */
    size_t layer_count;
    bool split;
    size_t bytes[MR_STAGES_MAX]; /* what each replica gives to one gather */
    unsigned char *state;        /* of the own layer in work: its whole state */
    unsigned char *scratch;      /* of another's */
    unsigned char *copies; /* of a file's tensors, where the device's memory is not the host's */
    mr_layer_tensors list;
    mr_layer_save_files files;
    mr_status status; /* of the own files */
} save_work;

/* ---- bringing a layer's state together ---- */

/* Bytes of all tensors of the largest of the stage's files of a kind. */
static size_t save_bytes(save_work *work, mr_layer_file kind) {
    size_t largest = 0;
    for (size_t layer = 0; layer < work->layer_count; layer++) {
        size_t bytes = 0;
        mr_layer_tensors_fill(&work->list, work->options->parameters, layer, kind);
        for (size_t i = 0; i < work->list.count; i++)
            bytes += mr_layer_tensors_bytes(&work->list, i);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* What is at from on the device, where the host can read it: there, or copied to place. */
static const void *save_host(const save_work *work, const void *from, size_t bytes,
                             unsigned char *place) {
    mr_device *device = mr_parameters_device(work->options->parameters);
    if (device->ops->host_memory || bytes == 0)
        return from;
    device->ops->copy_out(device, place, from, bytes);
    return place;
}

/* Tensor index of the list, whole, at writer's memory out. */
static mr_status save_gather(save_work *work, size_t index, size_t writer, unsigned char *out) {
    const mr_layer_tensors *list = &work->list;
    const mr_parameters *parameters = work->options->parameters;
    size_t total = mr_layer_tensors_bytes(list, index);
    for (size_t i = 0; i < work->width; i++)
        work->bytes[i] =
            mr_parameters_part(parameters, list->parameters[index], i).count * sizeof(float);
    const void *mine =
        save_host(work, list->held[index]->data, work->bytes[work->index], work->copies);
    if (work->bytes[writer] == total) {
        if (work->index == writer)
            memcpy(out, mine, total);
        return MR_OK;
    }
    mr_status status = mr_group_gather(work->options->replicas, mine == NULL ? out : mine,
                                       work->bytes, out, MR_SAVE_TIMEOUT_MS);
    return mr_status_is_ok(status)
               ? status
               : mr_status_prefix(status, "layer %zu, %s", list->parameters[index]->layer,
                                  list->names[index]);
}

/* The state of writer's layer; at the writer it goes to work->state, in the list's order. */
static mr_status save_gather_layer(save_work *work, size_t layer, size_t writer) {
    unsigned char *out = writer == work->index ? work->state : work->scratch;
    mr_layer_tensors_fill(&work->list, work->options->parameters, layer, MR_LAYER_FILE_OPTIM);
    for (size_t i = 0; i < work->list.count; i++) {
        MR_TRY(save_gather(work, i, writer, out));
        out += mr_layer_tensors_bytes(&work->list, i);
    }
    return MR_OK;
}

/* ---- files ---- */

/* What was copied out is right only if the device is. */
static mr_status save_check_device(const save_work *work) {
    mr_device *device = mr_parameters_device(work->options->parameters);
    return work->copies == NULL ? MR_OK : device->ops->check(device);
}

static mr_status save_write_file(save_work *work, size_t layer, mr_layer_file kind) {
    char name[MR_NAME_BYTES];
    mr_layer_tensors *list = &work->list;
    const unsigned char *state = work->state;
    const mr_assignment *assignment = work->options->assignment;
    mr_layout_layer_name((uint32_t)mr_parameters_layer(work->options->parameters, layer)->index,
                         assignment->model_rank, (uint32_t)assignment->job->model, kind, name);
    mr_layer_tensors_fill(list, work->options->parameters, layer, kind);
    mr_layer_tensors_drop_excluded(list, assignment->job);
    if (list->count == 0)
        return MR_OK; /* an optimizer without state */
    unsigned char *copies = work->copies;
    for (size_t i = 0; i < list->count; i++) {
        size_t bytes = mr_layer_tensors_bytes(list, i);
        bool gathered = work->split && kind == MR_LAYER_FILE_OPTIM;
        list->tensors[i].data =
            gathered ? state : save_host(work, list->tensors[i].data, bytes, copies);
        state += gathered ? bytes : 0;
        copies += work->copies == NULL ? 0 : bytes;
    }
    MR_TRY(save_check_device(work));
    MR_TRY(mr_safetensors_write(work->folder, name, list->tensors, list->count,
                                &work->files.files[work->files.count]));
    work->files.count++;
    return MR_OK;
}

/* Writes both files of an own layer; after the first error nothing more is written. */
static void save_write_layer(save_work *work, size_t layer) {
    const mr_layer *one = mr_parameters_layer(work->options->parameters, layer);
    if (*work->options->stop && mr_status_is_ok(work->status))
        work->status =
            MR_ERROR(CANCELLED, "the save was abandoned before layer %zu", one->index);
    for (int kind = 0; kind < MR_LAYER_FILE_COUNT && mr_status_is_ok(work->status); kind++)
        work->status = save_write_file(work, layer, (mr_layer_file)kind);
}

static bool save_layer_has_files(const save_work *work, size_t layer) {
    const mr_parameters *parameters = work->options->parameters;
    return mr_job_saves_layer(work->options->assignment->job,
                              mr_parameters_layer(parameters, layer)->description);
}

/* Layer number round of a writer's run; false: its run is shorter. */
static bool save_layer_of(const save_work *work, size_t writer, size_t round, size_t *out_layer) {
    *out_layer = mr_partition_start(work->layer_count, work->width, writer) + round;
    return *out_layer < mr_partition_start(work->layer_count, work->width, writer + 1) &&
           save_layer_has_files(work, *out_layer);
}

static mr_status save_rounds(save_work *work) {
    size_t layer = 0;
    for (size_t round = 0; round < work->layer_count; round++) {
        for (size_t writer = 0; work->split && writer < work->width; writer++)
            if (save_layer_of(work, writer, round, &layer))
                MR_TRY(save_gather_layer(work, layer, writer));
        if (save_layer_of(work, work->index, round, &layer))
            save_write_layer(work, layer);
    }
    return work->status;
}

/* ---- a whole save ---- */

static mr_status save_allocate(save_work *work) {
    work->files.files = mr_alloc_array(MR_LAYER_FILE_COUNT * work->layer_count,
                                       sizeof(*work->files.files));
    size_t state = work->split ? save_bytes(work, MR_LAYER_FILE_OPTIM) : 0;
    size_t copies = 0;
    for (int kind = 0; kind < MR_LAYER_FILE_COUNT; kind++) {
        size_t bytes = save_bytes(work, (mr_layer_file)kind);
        copies = bytes > copies ? bytes : copies;
    }
    if (mr_parameters_device(work->options->parameters)->ops->host_memory)
        copies = 0;
    if (copies > 0)
        work->copies = mr_alloc(copies);
    if (work->split && state > 0) {
        work->state = mr_alloc(state);
        work->scratch = mr_alloc(state);
    }
    if (work->files.files == NULL || (copies > 0 && work->copies == NULL) ||
        (work->split && state > 0 && (work->state == NULL || work->scratch == NULL)))
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "no memory to save %zu layers and bring %zu bytes of state together",
                        work->layer_count, state);
    return MR_OK;
}

static mr_status save_run(save_work *work) {
    const mr_layer_save_options *options = work->options;
    const mr_assignment *assignment = options->assignment;
    MR_TRY(mr_layout_save_path(assignment->checkpoint_dir, options->tag, assignment->epoch,
                               options->step, work->folder, sizeof(work->folder)));
    MR_TRY(save_allocate(work));
    return save_rounds(work);
}

mr_status mr_layer_save(const mr_layer_save_options *options, mr_layer_save_files *out_files) {
    save_work *work = mr_alloc(sizeof(*work));
    if (work == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a save");
    work->options = options;
    work->layer_count = mr_parameters_layer_count(options->parameters);
    work->width = options->replicas == NULL ? 1 : options->replicas->member_count;
    work->index = options->replicas == NULL ? 0 : options->replicas->member_index;
    work->split = mr_parameters_state_width(options->parameters) > 1;
    MR_ASSERT(!work->split || mr_parameters_state_width(options->parameters) == work->width);
    mr_status status = save_run(work);
    if (mr_status_is_ok(status))
        *out_files = work->files;
    else
        mr_free(work->files.files);
    mr_free(work->copies);
    mr_free(work->scratch);
    mr_free(work->state);
    mr_free(work);
    return status;
}
