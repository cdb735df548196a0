/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/side_loss.h"

#include <math.h>
#include <string.h>

bool mr_layer_description_has_side(const mr_layer_description *description) {
    return description->side.name[0] != '\0';
}

size_t mr_side_loss_find(const mr_side_loss_names *names, const char *name) {
    size_t i = 0;
    while (i < names->count && strcmp(names->names[i], name) != 0)
        i++;
    return i;
}

static mr_status side_check(const mr_side_loss *side, size_t layer) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    if (memchr(side->name, '\0', sizeof(side->name)) == NULL ||
        strspn(side->name, letters) != strlen(side->name))
        return MR_ERROR(INVALID_ARGUMENT,
                        "layer %zu: the side loss %.31s must be at most %d letters, digits, '_', "
                        "'.' and '-'",
                        layer, side->name, MR_SIDE_LOSS_NAME_BYTES - 1);
    if (!isfinite(side->weight) || !isfinite(side->terms) || side->terms < 1)
        return MR_ERROR(INVALID_ARGUMENT,
                        "layer %zu: the side loss %s has weight %g and %g terms; it must be finite "
                        "and have at least 1",
                        layer, side->name, side->weight, side->terms);
    return MR_OK;
}

mr_status mr_side_loss_names_of(const mr_layer_description *descriptions, size_t count,
                                mr_side_loss_names *out_names) {
    mr_side_loss_names names = {0};
    for (size_t i = 0; i < count; i++) {
        const mr_side_loss *side = &descriptions[i].side;
        if (!mr_layer_description_has_side(&descriptions[i]))
            continue;
        MR_TRY(side_check(side, i));
        if (mr_side_loss_find(&names, side->name) < names.count)
            continue;
        if (names.count == MR_SIDE_LOSSES_MAX)
            return MR_ERROR(INVALID_ARGUMENT,
                            "layer %zu: the side loss %s is one name too many; at most %d", i,
                            side->name, MR_SIDE_LOSSES_MAX);
        memcpy(names.names[names.count++], side->name, sizeof(side->name));
    }
    *out_names = names;
    return MR_OK;
}
