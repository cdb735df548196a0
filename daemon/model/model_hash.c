/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/model_hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "daemon/model/layer_type.h"

enum { LAYER_LINE_BYTES = 8192, SHA256_BYTES = 32 };

/* The first layer of the same tie. */
static size_t tie_first(const mr_layer_spec *layers, size_t layer) {
    size_t i = 0;
    while (strcmp(layers[i].tie, layers[layer].tie) != 0)
        i++;
    return i;
}

/* One own key of a registered layer type, as its value prints. */
static int line_field(const mr_field *field, const unsigned char *own, char *out_text,
                      size_t capacity) {
    const void *value = own + field->offset;
    switch (field->kind) {
    case MR_FIELD_SIZE:
        return snprintf(out_text, capacity, " %s=%zu", field->path, *(const size_t *)value);
    case MR_FIELD_COUNTER:
        return snprintf(out_text, capacity, " %s=%" PRIu64, field->path, *(const uint64_t *)value);
    case MR_FIELD_NUMBER:
        return snprintf(out_text, capacity, " %s=%.17g", field->path, *(const double *)value);
    case MR_FIELD_BOOL:
        return snprintf(out_text, capacity, " %s=%d", field->path, *(const bool *)value);
    case MR_FIELD_CHOICE:
        return snprintf(out_text, capacity, " %s=%d", field->path, *(const int *)value);
    case MR_FIELD_TEXT:
    case MR_FIELD_NAME:
        return snprintf(out_text, capacity, " %s=%s", field->path, (const char *)value);
    case MR_FIELD_PAIR:
    case MR_FIELD_CUSTOM:
        break;
    }
    MR_ASSERT(false); /* no row has them */
    return 0;
}

/* All own keys of the layer's type: at most MR_LAYER_TYPE_FIELDS_MAX, each of which fits well. */
static size_t line_own(const mr_layer_spec *spec, char *out_text, size_t capacity) {
    const mr_layer_type_row *row = mr_layer_type_row_of(spec->type);
    size_t used = 0;
    for (size_t i = 0; i < row->field_count; i++) {
        int wrote =
            line_field(&row->fields[i], spec->own.bytes, out_text + used, capacity - used);
        MR_ASSERT(wrote >= 0 && (size_t)wrote < capacity - used);
        used += (size_t)wrote;
    }
    return used;
}

static size_t line_sizes(const mr_layer_spec *spec, char *out_text, size_t capacity) {
    int wrote = 0;
    switch (spec->type) {
    case MR_LAYER_TYPE_EMBEDDING:
        wrote = snprintf(out_text, capacity, " vocab=%zu dim=%zu positions=%zu", spec->vocab,
                         spec->dim, spec->positions);
        break;
    case MR_LAYER_TYPE_TRANSFORMER_BLOCK:
        wrote = snprintf(out_text, capacity,
                         " dim=%zu heads=%zu kv_heads=%zu ffn=%zu norm=%d activation=%d "
                         "position=%d bias=%d causal=%d eps=%.17g",
                         spec->dim, spec->heads, spec->kv_heads, spec->ffn, (int)spec->norm,
                         (int)spec->activation, (int)spec->position, spec->bias, spec->causal,
                         spec->eps);
        break;
    case MR_LAYER_TYPE_LAYERNORM:
    case MR_LAYER_TYPE_RMSNORM:
        wrote = snprintf(out_text, capacity, " dim=%zu eps=%.17g", spec->dim, spec->eps);
        break;
    case MR_LAYER_TYPE_LM_HEAD:
        wrote = snprintf(out_text, capacity, " vocab=%zu dim=%zu", spec->vocab, spec->dim);
        break;
    case MR_LAYER_TYPE_LINEAR:
        wrote = snprintf(out_text, capacity, " in=%zu out=%zu bias=%d", spec->in, spec->out,
                         spec->bias);
        break;
    default:
        return line_own(spec, out_text, capacity);
    }
    MR_ASSERT(wrote >= 0 && (size_t)wrote < capacity);
    return (size_t)wrote;
}

static size_t layer_line(const mr_layer_spec *layers, size_t layer,
                         char out_text[LAYER_LINE_BYTES]) {
    const mr_layer_spec *spec = &layers[layer];
    size_t used = (size_t)snprintf(out_text, LAYER_LINE_BYTES, "%zu %s", layer,
                                   mr_layer_type_name(spec->type));
    if (spec->tie[0] != '\0')
        used += (size_t)snprintf(out_text + used, LAYER_LINE_BYTES - used, " tie=%zu",
                                 tie_first(layers, layer));
    /* Names may be changed; who takes whose output may not. */
    size_t put = layer;
    while (spec->take[0] != '\0' && put > 0 && strcmp(layers[put].put, spec->take) != 0)
        put--;
    if (spec->take[0] != '\0')
        used += (size_t)snprintf(out_text + used, LAYER_LINE_BYTES - used, " take=%zu", put);
    if (spec->tie_names[0] != '\0')
        used += (size_t)snprintf(out_text + used, LAYER_LINE_BYTES - used, " tied=%s",
                                 spec->tie_names);
    used += line_sizes(spec, out_text + used, LAYER_LINE_BYTES - used - 1);
    out_text[used] = '\n';
    return used + 1;
}

mr_status mr_model_hash(const mr_layer_spec *layers, size_t layer_count, char out_hex[65]) {
    char line[LAYER_LINE_BYTES];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int digest_bytes = 0;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; good && i < layer_count; i++)
        good = EVP_DigestUpdate(context, line, layer_line(layers, i, line)) == 1;
    good = good && EVP_DigestFinal_ex(context, digest, &digest_bytes) == 1;
    EVP_MD_CTX_free(context); /* NULL is fine */
    if (!good || digest_bytes != SHA256_BYTES)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no SHA-256 of the model's %zu layers", layer_count);
    for (size_t i = 0; i < SHA256_BYTES; i++)
        (void)snprintf(out_hex + 2 * i, 3, "%02x", digest[i]);
    return MR_OK;
}
