/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/layer_check.h"

#include <stdio.h>
#include <string.h>

enum { KNOWN_TEXT_BYTES = 64 };

static bool layer_has(const mr_layer_description *description, const char *name) {
    for (size_t i = 0; i < description->parameter_count; i++)
        if (strcmp(description->parameters[i].name, name) == 0)
            return true;
    return false;
}

/* The first names that the layer has, as far as they fit. */
static const char *layer_known(const mr_layer_description *description,
                               char out_text[KNOWN_TEXT_BYTES]) {
    size_t used = 0;
    (void)snprintf(out_text, KNOWN_TEXT_BYTES, "none");
    for (size_t i = 0; i < description->parameter_count && used < KNOWN_TEXT_BYTES; i++) {
        int wrote = snprintf(out_text + used, KNOWN_TEXT_BYTES - used, "%s%s", i > 0 ? ", " : "",
                             description->parameters[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return out_text;
}

static mr_status names_check(const char *field, const char *names, const mr_layer_spec *spec,
                             const mr_layer_description *description) {
    for (size_t i = 0; i < mr_parameter_names_count(names); i++) {
        char name[MR_PARAMETER_NAME_BYTES];
        char known[KNOWN_TEXT_BYTES];
        (void)mr_parameter_names_at(names, i, name);
        if (!layer_has(description, name))
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s has %s, which is no parameter of %.20s; known: %s", field,
                            name, mr_layer_type_name(spec->type),
                            layer_known(description, known));
    }
    return MR_OK;
}

mr_status mr_layer_check_names(const mr_layer_spec *spec,
                               const mr_layer_description *description) {
    MR_TRY(names_check("frozen", spec->frozen_names, spec, description));
    if ((spec->tie[0] != '\0' || spec->frozen) && description->parameter_count == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s is given, but a layer of type %.20s has no parameters",
                        spec->tie[0] != '\0' ? "tie" : "frozen", mr_layer_type_name(spec->type));
    return names_check("tie.parameters", spec->tie_names, spec, description);
}

static mr_status tie_check_slot(const mr_layer_spec *specs,
                                const mr_layer_description *descriptions, size_t first,
                                size_t layer, size_t slot) {
    const mr_parameter *a = mr_layer_description_tied(&descriptions[first], slot);
    const mr_parameter *b = mr_layer_description_tied(&descriptions[layer], slot);
    char shapes[2][MR_SHAPE_TEXT_BYTES];
    if (!mr_shape_equal(&a->shape, &b->shape))
        return MR_ERROR(INVALID_ARGUMENT, "tie %.20s: %s is %.32s, but layer %zu's %s is %.32s",
                        specs[layer].tie, b->name, mr_shape_text(&b->shape, shapes[0]), first,
                        a->name, mr_shape_text(&a->shape, shapes[1]));
    if (a->frozen != b->frozen)
        return MR_ERROR(INVALID_ARGUMENT, "tie %.20s: %s is%s frozen, but layer %zu's %s is%s",
                        specs[layer].tie, b->name, b->frozen ? "" : " not", first, a->name,
                        a->frozen ? "" : " not");
    return MR_OK;
}

mr_status mr_layer_check_tie(const mr_layer_spec *specs, const mr_layer_description *descriptions,
                             size_t first, size_t layer) {
    size_t slots = descriptions[first].tied_count;
    if (descriptions[layer].tied_count != slots)
        return MR_ERROR(INVALID_ARGUMENT,
                        "tie %.20s shares %zu parameters of this layer but %zu of layer %zu; give "
                        "tie.parameters in both",
                        specs[layer].tie, descriptions[layer].tied_count, slots, first);
    for (size_t slot = 0; slot < slots; slot++)
        MR_TRY(tie_check_slot(specs, descriptions, first, layer, slot));
    return MR_OK;
}
