/* SPDX-License-Identifier: Apache-2.0 */
/* The millrace.profile/v1 text: the key, the class of each layer, and for each device the cost of
 * each class. All times are seconds, numbers with nine digits. Reading is strict: it comes from a
 * user's file. */
#include "daemon/plan/profile.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { PROFILE_DIGITS = 9, VALUE_TEXT_BYTES = 64 };
#define PROFILE_SCHEMA "millrace.profile/v1"

/* ---- write ----------------------------------------------------------------------------------- */

static json_t *json_layers(const mr_profile *profile) {
    json_t *list = json_array();
    for (size_t i = 0; i < profile->layer_count; i++)
        (void)json_array_append_new(list, json_integer(profile->layer_class[i])); /* counted */
    if (json_array_size(list) != profile->layer_count) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *json_classes(const mr_profile *profile) {
    json_t *list = json_array();
    for (size_t i = 0; i < profile->class_count; i++) {
        const mr_profile_class *class = &profile->classes[i];
        json_t *item = json_pack("{s:s, s:I, s:I}", "type", class->type, "layer",
                                 (json_int_t)class->layer, "layers",
                                 (json_int_t)class->layer_count);
        (void)json_array_append_new(list, item); /* counted below */
    }
    if (json_array_size(list) != profile->class_count) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *json_costs(const mr_profile_device *device) {
    json_t *list = json_array();
    for (size_t i = 0; i < device->class_count; i++) {
        const mr_profile_cost *cost = &device->costs[i];
        json_t *item = json_pack("{s:f, s:f, s:f, s:I}", "forward", cost->forward,
                                 "backward_input", cost->backward_input, "backward_weight",
                                 cost->backward_weight, "saved_bytes",
                                 (json_int_t)cost->saved_bytes);
        (void)json_array_append_new(list, item); /* counted below */
    }
    if (json_array_size(list) != device->class_count) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* json_pack frees the objects given to it and returns NULL when one of them is NULL. */
static json_t *json_device(const mr_profile_device *device) {
    return json_pack("{s:s, s:I, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "device",
                     device->device, "threads", (json_int_t)device->threads, "address",
                     device->address, "memory_bytes", (json_int_t)device->memory_bytes, "loss",
                     device->loss, "zero", device->zero, "norm", device->norm, "optimizer",
                     device->optimizer, "link", device->link, "link_byte", device->link_byte,
                     "costs", json_costs(device));
}

static json_t *json_devices(const mr_profile *profile) {
    json_t *list = json_array();
    for (size_t i = 0; i < profile->device_count; i++)
        (void)json_array_append_new(list, json_device(profile->devices[i])); /* counted below */
    if (json_array_size(list) != profile->device_count) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static mr_status json_text(const json_t *root, char **out_json) {
    size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(PROFILE_DIGITS);
    size_t length = root == NULL ? 0 : json_dumpb(root, NULL, 0, flags);
    char *text = length == 0 ? NULL : mr_alloc(length + 1);
    if (text == NULL || json_dumpb(root, text, length, flags) != length) {
        mr_free(text);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the text of a profile");
    }
    if (length >= MR_PROFILE_BYTES_MAX) {
        mr_free(text);
        return MR_ERROR(RESOURCE_EXHAUSTED, "the profile's text has %zu bytes; at most %d", length,
                        MR_PROFILE_BYTES_MAX - 1);
    }
    *out_json = text;
    return MR_OK;
}

mr_status mr_profile_json(const mr_profile *profile, char **out_json) {
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:s, s:s, s:o, s:o, s:o}", "schema", PROFILE_SCHEMA, "model_hash",
        profile->model_hash, "micro_batch_size", (json_int_t)profile->micro_batch_size,
        "sequence_length", (json_int_t)profile->sequence_length, "precision", profile->precision,
        "optimizer", profile->optimizer, "layers", json_layers(profile), "classes",
        json_classes(profile), "devices", json_devices(profile));
    mr_status status = json_text(root, out_json);
    json_decref(root);
    return status;
}

/* ---- read ------------------------------------------------------------------------------------ */

/* An object whose keys are read one by one; where: "devices[2]." or "". The first error stays. */
typedef struct json_source {
    const json_t *object;
    char where[64];
    mr_status status;
} json_source;

static const json_t *source_get(json_source *source, const char *key) {
    return mr_status_is_ok(source->status) ? json_object_get(source->object, key) : NULL;
}

/* Names key, value and what it must be. */
static void source_fail(json_source *source, const char *key, const char *wanted) {
    if (!mr_status_is_ok(source->status))
        return;
    const json_t *value = json_object_get(source->object, key);
    char text[VALUE_TEXT_BYTES] = "missing";
    size_t bytes = json_dumpb(value, NULL, 0, JSON_ENCODE_ANY | JSON_COMPACT);
    if (bytes >= sizeof(text))
        (void)snprintf(text, sizeof(text), "%s", json_is_string(value) ? "a long text" : "a list");
    else if (bytes > 0)
        text[json_dumpb(value, text, bytes, JSON_ENCODE_ANY | JSON_COMPACT)] = '\0';
    source->status = MR_ERROR(INVALID_ARGUMENT, "profile: %s%s is %s; it must be %s",
                              source->where, key, text, wanted);
}

static void source_text(json_source *source, const char *key, char *out, size_t capacity) {
    const json_t *value = source_get(source, key);
    if (!json_is_string(value) || json_string_length(value) >= capacity)
        source_fail(source, key, "a short text");
    else
        memcpy(out, json_string_value(value), json_string_length(value) + 1);
}

static uint64_t source_count(json_source *source, const char *key, uint64_t least, uint64_t most) {
    const json_t *value = source_get(source, key);
    json_int_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= 0 && (uint64_t)number >= least &&
        (uint64_t)number <= most)
        return (uint64_t)number;
    char wanted[VALUE_TEXT_BYTES];
    (void)snprintf(wanted, sizeof(wanted), "%" PRIu64 " to %" PRIu64, least, most); /* fits */
    source_fail(source, key, wanted);
    return 0;
}

static double source_seconds(json_source *source, const char *key) {
    const json_t *value = source_get(source, key);
    double seconds = json_number_value(value);
    if (json_is_number(value) && isfinite(seconds) && seconds >= 0)
        return seconds;
    source_fail(source, key, "a number of seconds, at least 0");
    return 0;
}

static const json_t *source_list(json_source *source, const char *key, size_t least, size_t most) {
    const json_t *value = source_get(source, key);
    if (json_is_array(value) && json_array_size(value) >= least && json_array_size(value) <= most)
        return value;
    char wanted[VALUE_TEXT_BYTES];
    (void)snprintf(wanted, sizeof(wanted), "a list of %zu to %zu", least, most); /* fits */
    source_fail(source, key, wanted);
    return NULL;
}

static json_source source_item(const json_source *parent, const char *list, size_t index,
                               const json_t *items) {
    json_source item = {.object = json_array_get(items, index), .status = parent->status};
    (void)snprintf(item.where, sizeof(item.where), "%.24s%s[%zu].", parent->where, list, index);
    return item;
}

static mr_status read_classes(json_source *root, mr_profile *profile) {
    const json_t *classes = source_list(root, "classes", 1, MR_LAYERS_MAX);
    const json_t *layers = source_list(root, "layers", 1, MR_LAYERS_MAX);
    MR_TRY(root->status);
    profile->class_count = json_array_size(classes);
    profile->layer_count = json_array_size(layers);
    profile->classes = mr_alloc_array(profile->class_count, sizeof(*profile->classes));
    profile->layer_class = mr_alloc_array(profile->layer_count, sizeof(*profile->layer_class));
    if (profile->classes == NULL || profile->layer_class == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a profile of %zu layers",
                        profile->layer_count);
    for (size_t i = 0; i < profile->class_count; i++) {
        json_source item = source_item(root, "classes", i, classes);
        mr_profile_class *class = &profile->classes[i];
        source_text(&item, "type", class->type, sizeof(class->type));
        class->layer = (uint32_t)source_count(&item, "layer", 0, profile->layer_count - 1);
        class->layer_count = (uint32_t)source_count(&item, "layers", 1, profile->layer_count);
        MR_TRY(item.status);
    }
    for (size_t i = 0; i < profile->layer_count; i++) {
        const json_t *value = json_array_get(layers, i);
        json_int_t class = json_integer_value(value);
        if (!json_is_integer(value) || class < 0 || (size_t)class >= profile->class_count)
            return MR_ERROR(INVALID_ARGUMENT,
                            "profile: layers[%zu] must be a class, 0 to %zu", i,
                            profile->class_count - 1);
        profile->layer_class[i] = (uint32_t)class;
    }
    return MR_OK;
}

static mr_status read_costs(json_source *item, mr_profile_device *device) {
    const json_t *costs = source_list(item, "costs", device->class_count, device->class_count);
    MR_TRY(item->status);
    for (size_t i = 0; i < device->class_count; i++) {
        json_source one = source_item(item, "costs", i, costs);
        mr_profile_cost *cost = &device->costs[i];
        cost->forward = source_seconds(&one, "forward");
        cost->backward_input = source_seconds(&one, "backward_input");
        cost->backward_weight = source_seconds(&one, "backward_weight");
        cost->saved_bytes = source_count(&one, "saved_bytes", 0, INT64_MAX);
        MR_TRY(one.status);
    }
    return MR_OK;
}

static mr_status read_device(json_source *item, mr_profile_device *device) {
    source_text(item, "device", device->device, sizeof(device->device));
    source_text(item, "address", device->address, sizeof(device->address));
    device->threads = (uint32_t)source_count(item, "threads", 0, UINT32_MAX);
    device->memory_bytes = source_count(item, "memory_bytes", 0, INT64_MAX);
    device->loss = source_seconds(item, "loss");
    device->zero = source_seconds(item, "zero");
    device->norm = source_seconds(item, "norm");
    device->optimizer = source_seconds(item, "optimizer");
    device->link = source_seconds(item, "link");
    device->link_byte = source_seconds(item, "link_byte");
    MR_TRY(item->status);
    return read_costs(item, device);
}

static mr_status read_devices(json_source *root, mr_profile *profile) {
    const json_t *devices = source_list(root, "devices", 1, MR_RANKS_MAX);
    MR_TRY(root->status);
    for (size_t i = 0; i < json_array_size(devices); i++) {
        json_source item = source_item(root, "devices", i, devices);
        mr_profile_device *device = NULL;
        MR_TRY(mr_profile_device_create(profile->class_count, &device));
        mr_status status = read_device(&item, device);
        if (!mr_status_is_ok(status)) {
            mr_profile_device_destroy(device);
            return status;
        }
        MR_TRY(mr_profile_add(profile, device));
    }
    return MR_OK;
}

static mr_status read_profile(json_source *root, mr_profile *profile) {
    char schema[sizeof(PROFILE_SCHEMA)] = "";
    source_text(root, "schema", schema, sizeof(schema));
    if (strcmp(schema, PROFILE_SCHEMA) != 0)
        return MR_ERROR(INVALID_ARGUMENT, "profile: schema must be " PROFILE_SCHEMA);
    source_text(root, "model_hash", profile->model_hash, sizeof(profile->model_hash));
    source_text(root, "precision", profile->precision, sizeof(profile->precision));
    source_text(root, "optimizer", profile->optimizer, sizeof(profile->optimizer));
    profile->micro_batch_size = source_count(root, "micro_batch_size", 1, MR_DIMENSION_MAX);
    profile->sequence_length = source_count(root, "sequence_length", 1, MR_DIMENSION_MAX);
    MR_TRY(read_classes(root, profile));
    return read_devices(root, profile);
}

mr_status mr_profile_parse(const char *text, size_t bytes, mr_profile **out_profile) {
    json_error_t error;
    if (bytes >= MR_PROFILE_BYTES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "profile: the text has %zu bytes; at most %d", bytes,
                        MR_PROFILE_BYTES_MAX - 1);
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "profile: line %d: %.80s", error.line, error.text);
    mr_profile *profile = mr_alloc(sizeof(*profile));
    mr_status status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a profile");
    if (profile != NULL) {
        json_source root = {.object = object, .status = MR_OK};
        status = read_profile(&root, profile);
    }
    json_decref(object);
    if (mr_status_is_ok(status))
        *out_profile = profile;
    else
        mr_profile_destroy(profile);
    return status;
}
