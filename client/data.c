/* SPDX-License-Identifier: Apache-2.0 */
#include "client/data.h"

#include <string.h>

#include "client/order.h"
#include "client/path_text.h"
#include "client/token_files.h"
#include "daemon/base/alloc.h"

struct mr_data {
    mr_token_files *files;
    mr_order order;
    uint32_t vocab;
    size_t T;
    int32_t *sample; /* T + 1 tokens */
};

/* The width of the scores: the last layer that has one of its own decides. */
static size_t data_output_width(const mr_job *job) {
    for (size_t i = job->layer_count; i > 0; i--) {
        const mr_layer_spec *layer = &job->layers[i - 1];
        if (layer->type == MR_LAYER_TYPE_LM_HEAD)
            return layer->vocab;
        if (layer->type == MR_LAYER_TYPE_LINEAR)
            return layer->out;
        if (layer->dim != 0)
            return layer->dim;
    }
    return 0;
}

mr_status mr_data_vocabulary(const mr_job *job, uint32_t *out_vocab) {
    MR_ASSERT(job->layer_count >= 1);
    const mr_layer_spec *first = &job->layers[0];
    if (first->type != MR_LAYER_TYPE_EMBEDDING)
        return MR_ERROR(INVALID_ARGUMENT,
                        "model.layers[0] is %s; data of token ids needs an "
                        "embedding there",
                        mr_layer_type_name(first->type));
    size_t width = data_output_width(job);
    size_t vocab = first->vocab < width ? first->vocab : width;
    if (vocab < 1)
        return MR_ERROR(INVALID_ARGUMENT, "the model's vocabulary is 0; it must be at least 1");
    *out_vocab = (uint32_t)vocab; /* MR_DIMENSION_MAX fits */
    return MR_OK;
}

static mr_status data_open_files(const mr_job *job, const char *base_directory, mr_data *data) {
    char path[MR_PATH_BYTES];
    if (job->data_train[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT, "data.train is not set; training needs data");
    if (job->loss != MR_LOSS_CROSS_ENTROPY)
        return MR_ERROR(INVALID_ARGUMENT, "model.loss is not cross_entropy; data of token ids can "
                                          "train no other");
    MR_TRY(mr_data_vocabulary(job, &data->vocab));
    MR_TRY(mr_job_resolve_path(base_directory, job->data_train, path));
    MR_TRY(mr_status_prefix(mr_token_files_open(path, job->data_format, &data->files),
                            "data.train"));
    uint64_t tokens = mr_token_files_count(data->files);
    if (tokens < data->T + 1)
        return MR_ERROR(INVALID_ARGUMENT,
                        "data.train: %s has %llu tokens; with "
                        "batch.sequence_length %zu it must have at least %zu",
                        mr_path_shorten(path).text, (unsigned long long)tokens, data->T,
                        data->T + 1);
    data->order.samples = (tokens - 1) / data->T;
    return MR_OK;
}

mr_status mr_data_open(const mr_job *job, const char *base_directory, mr_data **out_data) {
    mr_data *data = mr_alloc(sizeof(*data));
    if (data == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to open the data");
    data->T = job->sequence_length;
    data->order = (mr_order){
        .seed = job->seed,
        .shuffle = job->data_shuffle,
        .replicas = job->data,
        .micro_batches = job->micro_batches,
        .micro_batch_size = job->micro_batch_size,
    };
    mr_status status = MR_OK;
    data->sample = mr_alloc_array(data->T + 1, sizeof(*data->sample));
    if (data->sample == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a sample of %zu tokens", data->T + 1);
    else
        status = data_open_files(job, base_directory, data);
    if (!mr_status_is_ok(status)) {
        mr_data_close(data);
        return status;
    }
    *out_data = data;
    return MR_OK;
}

void mr_data_close(mr_data *data) {
    if (data == NULL)
        return;
    mr_token_files_close(data->files);
    mr_free(data->sample);
    mr_free(data);
}

uint64_t mr_data_samples(const mr_data *data) {
    return data->order.samples;
}

size_t mr_data_micro_batch_tokens(const mr_data *data) {
    return data->order.micro_batch_size * data->T;
}

mr_status mr_data_read(mr_data *data, uint64_t step, size_t replica, size_t index, int32_t *inputs,
                       int32_t *labels) {
    const size_t T = data->T;
    for (size_t b = 0; b < data->order.micro_batch_size; b++) {
        uint64_t k = mr_order_sample(&data->order, step, replica, index, b);
        MR_TRY(mr_status_prefix(
            mr_token_files_read(data->files, k * T, T + 1, data->vocab, data->sample),
            "data.train"));
        memcpy(inputs + b * T, data->sample, T * sizeof(*inputs));
        memcpy(labels + b * T, data->sample + 1, T * sizeof(*labels));
    }
    return MR_OK;
}
