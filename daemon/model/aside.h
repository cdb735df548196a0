/* SPDX-License-Identifier: Apache-2.0 */
/* aside.h: tensors that by-pass layers. A layer entry with put: NAME puts its output aside; a later
 * one with take: NAME reads it besides its own input, whatever stages lie between, and gradients
 * come back the same way. A name is put once and taken any number of times.
 * Owner: model. Pure, any thread. Limits: MR_ASIDES_MAX, MR_ASIDES_CROSSING_MAX. */
#ifndef MR_MODEL_ASIDE_H
#define MR_MODEL_ASIDE_H

#include "daemon/model/description.h"

typedef struct mr_aside {
    char name[MR_ASIDE_NAME_BYTES];
    size_t put;       /* index of the layer whose output it is */
    size_t last_take; /* of the last layer that reads it */
} mr_aside;

/* All of a model, ascending by put; takes that name nothing are passed over. Returns how many, at
 * most MR_ASIDES_MAX. */
size_t mr_asides_of(const mr_layer_spec *layers, size_t count, mr_aside out[MR_ASIDES_MAX]);
/* Does it cross from the layers before layer to it and those behind? */
bool mr_aside_crosses(const mr_aside *aside, size_t layer);
/* Index of a name; count where it is not there. */
size_t mr_aside_find(const mr_aside *asides, size_t count, const char *name);
/* May the model's puts and takes be? descriptions: of all layers. INVALID_ARGUMENT names the key
 * and the two layers; *out_layer: whose entry it is. */
MR_MUST_CHECK mr_status mr_asides_check(const mr_layer_spec *layers,
                                        const mr_layer_description *descriptions, size_t count,
                                        size_t *out_layer);

#endif
