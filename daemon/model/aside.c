/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/aside.h"

#include <stdio.h>
#include <string.h>

#include "daemon/model/layer_type.h"

size_t mr_aside_find(const mr_aside *asides, size_t count, const char *name) {
    size_t i = 0;
    while (i < count && strcmp(asides[i].name, name) != 0)
        i++;
    return i;
}

bool mr_aside_crosses(const mr_aside *aside, size_t layer) {
    return aside->put < layer && aside->last_take >= layer;
}

/* Takes a layer into what was found before it. */
static size_t aside_add_layer(const mr_layer_spec *layers, size_t layer, mr_aside *asides,
                              size_t found) {
    const mr_layer_spec *spec = &layers[layer];
    size_t taken = spec->take[0] == '\0' ? found : mr_aside_find(asides, found, spec->take);
    if (taken < found)
        asides[taken].last_take = layer;
    if (spec->put[0] == '\0' || found == MR_ASIDES_MAX)
        return found;
    asides[found] = (mr_aside){.put = layer, .last_take = layer};
    (void)snprintf(asides[found].name, sizeof(asides[found].name), "%s", spec->put);
    return found + 1;
}

size_t mr_asides_of(const mr_layer_spec *layers, size_t count, mr_aside out[MR_ASIDES_MAX]) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found = aside_add_layer(layers, i, out, found);
    return found;
}

static mr_status aside_check_take(const mr_layer_spec *spec, const mr_layer_description *before,
                                  const mr_layer_description *descriptions,
                                  const mr_aside *asides, size_t count) {
    char shapes[2][MR_SHAPE_TEXT_BYTES];
    bool takes = mr_layer_type_row_of(spec->type)->takes;
    if (!takes && spec->take[0] != '\0')
        return MR_ERROR(INVALID_ARGUMENT, "take is given, but a layer of type %.20s takes nothing",
                        mr_layer_type_name(spec->type));
    if (!takes)
        return MR_OK;
    size_t index = mr_aside_find(asides, count, spec->take);
    if (spec->take[0] == '\0' || index == count)
        return MR_ERROR(INVALID_ARGUMENT, "take is %.24s; it must be what an earlier layer puts",
                        spec->take[0] == '\0' ? "missing" : spec->take);
    const mr_shape *put = &descriptions[asides[index].put].output;
    if (!mr_shape_equal(put, &before->output))
        return MR_ERROR(INVALID_ARGUMENT, "take %.24s is %.32s, but the input is %.32s",
                        spec->take, mr_shape_text(put, shapes[0]),
                        mr_shape_text(&before->output, shapes[1]));
    return MR_OK;
}

static mr_status aside_check_put(const mr_layer_spec *spec, const mr_aside *asides, size_t count) {
    if (spec->put[0] == '\0')
        return MR_OK;
    size_t index = mr_aside_find(asides, count, spec->put);
    if (index < count)
        return MR_ERROR(INVALID_ARGUMENT, "put %.24s is already put by layer %zu", spec->put,
                        asides[index].put);
    if (count == MR_ASIDES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "put %.24s is one too many; at most %d", spec->put,
                        MR_ASIDES_MAX);
    return MR_OK;
}

/* How many are between the layers before layer and those from it on. */
static size_t asides_crossing(const mr_aside *asides, size_t count, size_t layer) {
    size_t crossing = 0;
    for (size_t i = 0; i < count; i++)
        crossing += mr_aside_crosses(&asides[i], layer);
    return crossing;
}

static mr_status asides_check_taken(const mr_layer_spec *layers, const mr_aside *asides,
                                    size_t count, size_t *out_layer) {
    for (size_t i = 0; i < count; i++) {
        *out_layer = asides[i].put;
        if (asides[i].last_take == asides[i].put)
            return MR_ERROR(INVALID_ARGUMENT, "put %.24s is taken by no later layer",
                            layers[asides[i].put].put);
        if (asides_crossing(asides, count, asides[i].put + 1) > MR_ASIDES_CROSSING_MAX)
            return MR_ERROR(INVALID_ARGUMENT, "put %.24s makes more than %d tensors aside at once",
                            layers[asides[i].put].put, MR_ASIDES_CROSSING_MAX);
        if (layers[asides[i].put].model_width > 1)
            return MR_ERROR(INVALID_ARGUMENT,
                            "put %.24s cannot stand where pipeline.topology.model is %zu; it must "
                            "be 1",
                            layers[asides[i].put].put, layers[asides[i].put].model_width);
    }
    return MR_OK;
}

mr_status mr_asides_check(const mr_layer_spec *layers, const mr_layer_description *descriptions,
                          size_t count, size_t *out_layer) {
    mr_aside asides[MR_ASIDES_MAX];
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        *out_layer = i;
        /* The first layer has no one before it: whatever it would take is missing. */
        MR_TRY(aside_check_take(&layers[i], &descriptions[i > 0 ? i - 1 : 0], descriptions, asides,
                                found));
        MR_TRY(aside_check_put(&layers[i], asides, found));
        found = aside_add_layer(layers, i, asides, found);
    }
    return asides_check_taken(layers, asides, found, out_layer);
}
