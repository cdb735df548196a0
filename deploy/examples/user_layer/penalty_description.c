/* SPDX-License-Identifier: Apache-2.0 */
/* The describing half of a layer with a side loss (daemon/model/side_loss.h): it names the loss,
 * its weight and over how many terms its sum runs. Linked into millraced and into millrace. */
#include <stdio.h>

#include "daemon/base/alloc.h"
#include "daemon/model/layer_type.h"
#include "deploy/examples/user_layer/penalty.h"

#define KEY(member) .offset = offsetof(penalty, member)

static const mr_field keys[] = {
    {.path = "weight",
     .kind = MR_FIELD_NUMBER,
     .required = true,
     .low = 0,
     .high = 1e6,
     KEY(weight),
     .help = "of the mean square in what is optimized"},
    {.path = "side_loss",
     .kind = MR_FIELD_NAME,
     .fallback = "penalty",
     .capacity = MR_SIDE_LOSS_NAME_BYTES,
     KEY(side_loss),
     .help = "the name under which steps report it; layers may share one"},
};

/* Scratch: zeros to measure from, f32 of the input's size, behind a sum that is not used. */
static mr_status penalty_describe(const mr_describe_input *in, mr_layer_description *out) {
    const penalty *p = mr_layer_spec_own(in->spec);
    size_t zeros = 0;
    MR_TRY(mr_describe_check_type(in));
    MR_TRY(mr_describe_output_shape(in, out, in->input));
    if (!mr_size_mul(in->elements, sizeof(float), &zeros) ||
        !mr_size_add(zeros, sizeof(double), &out->scratch_bytes))
        return MR_ERROR(INVALID_ARGUMENT, "an input of %zu elements is too large", in->elements);
    out->side.weight = p->weight;
    out->side.terms = (double)in->elements;
    (void)snprintf(out->side.name, sizeof(out->side.name), "%s", p->side_loss);
    out->flops_forward = (double)in->elements;
    out->flops_backward_input = (double)in->elements;
    return MR_OK;
}

static const mr_layer_type_row penalty_row = {
    .name = "penalty",
    .fields = keys,
    .field_count = sizeof(keys) / sizeof(keys[0]),
    .own_bytes = sizeof(penalty),
    .describe = penalty_describe,
};
MR_LAYER_TYPE_REGISTER(penalty_row)
