/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/layer_tensors.h"

#include <stdio.h>
#include <string.h>

/* prefix: of a state tensor; NULL for a weight. */
static void tensors_add(mr_layer_tensors *list, const char *prefix, const char *name,
                        const mr_stage_parameter *parameter, const mr_tensor *held) {
    size_t at = list->count++;
    const mr_shape *shape = &parameter->weight.shape;
    (void)snprintf(list->names[at], MR_LAYER_TENSOR_NAME_BYTES, "%s%s%s",
                   prefix == NULL ? "" : prefix, prefix == NULL ? "" : ".", name);
    mr_slice_text(parameter->description, list->cuts[at]);
    list->tensors[at] = (mr_safetensors_tensor){
        .name = list->names[at],
        .cut = list->cuts[at],
        .dtype = MR_SAFETENSORS_F32,
        .dims = (uint32_t)shape->dim_count,
        .data = held->data,
    };
    for (size_t i = 0; i < shape->dim_count; i++)
        list->tensors[at].shape[i] = shape->dims[i];
    list->parameters[at] = parameter;
    list->held[at] = held;
}

void mr_layer_tensors_fill(mr_layer_tensors *list, const mr_parameters *parameters, size_t layer,
                           mr_layer_file kind) {
    const mr_layer_description *description = mr_parameters_layer(parameters, layer)->description;
    mr_optimizer_states states = mr_parameters_states(parameters);
    size_t passes = kind == MR_LAYER_FILE_MODEL ? 1 : states.count;
    list->count = 0;
    for (size_t pass = 0; pass < passes; pass++)
        for (size_t i = 0; i < description->parameter_count; i++) {
            const char *name = description->parameters[i].name;
            const mr_stage_parameter *held = mr_parameters_of_layer(parameters, layer, i);
            if (kind == MR_LAYER_FILE_MODEL)
                tensors_add(list, NULL, name, held, &held->weight);
            else if (!held->description->frozen)
                tensors_add(list, states.names[pass], name, held, &held->states[pass]);
        }
}

void mr_layer_tensors_drop_excluded(mr_layer_tensors *list, const mr_job *job) {
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (!mr_job_saves_parameter(job, list->parameters[i]->description))
            continue;
        if (kept < i) {
            memcpy(list->names[kept], list->names[i], sizeof(list->names[i]));
            memcpy(list->cuts[kept], list->cuts[i], sizeof(list->cuts[i]));
            list->tensors[kept] = list->tensors[i];
            list->tensors[kept].name = list->names[kept];
            list->tensors[kept].cut = list->cuts[kept];
            list->parameters[kept] = list->parameters[i];
            list->held[kept] = list->held[i];
        }
        kept++;
    }
    list->count = kept;
}

size_t mr_layer_tensors_bytes(const mr_layer_tensors *list, size_t index) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&list->parameters[index]->weight.shape, &bytes));
    return bytes;
}
