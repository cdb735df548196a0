/* SPDX-License-Identifier: Apache-2.0 */
/* Classes are found by a hash table over the bytes of specs, with what is no matter of cost (name,
 * tie, put, line) cleared. Two equal specs that differ in padding would only be measured twice. */
#include "daemon/plan/profile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/crc32c.h"
#include "daemon/base/dtype.h"
#include "daemon/base/limits.h"

/* ---- classes --------------------------------------------------------------------------------- */

/* What a layer's cost follows from. */
typedef struct class_key {
    mr_layer_spec spec;
    mr_shape input;
} class_key;

static void class_key_make(const mr_job *job, const mr_layer_description *layers, size_t layer,
                           class_key *out_key) {
    memset(out_key, 0, sizeof(*out_key));
    memcpy(&out_key->spec, &job->layers[layer], sizeof(out_key->spec));
    memset(out_key->spec.name, 0, sizeof(out_key->spec.name));
    memset(out_key->spec.tie, 0, sizeof(out_key->spec.tie));
    memset(out_key->spec.tie_names, 0, sizeof(out_key->spec.tie_names));
    memset(out_key->spec.put, 0, sizeof(out_key->spec.put));
    out_key->spec.line = 0;
    if (layer == 0)
        return; /* its zero input is nobody else's */
    const mr_shape *input = &layers[layer - 1].output;
    out_key->input.dtype = input->dtype;
    out_key->input.dim_count = input->dim_count;
    out_key->input.needs_gradient = input->needs_gradient;
    for (size_t i = 0; i < input->dim_count; i++)
        out_key->input.dims[i] = input->dims[i];
}

typedef struct class_table {
    size_t mask;
    uint32_t *classes; /* by hash; class + 1, 0: free */
} class_table;

/* The class of layer; a new one where no layer before it is equal. */
static uint32_t class_find(const class_table *table, mr_profile *profile, const mr_job *job,
                           const mr_layer_description *layers, size_t layer) {
    class_key key;
    class_key other;
    class_key_make(job, layers, layer, &key);
    size_t at = mr_crc32c(0, &key, sizeof(key)) & table->mask;
    for (; table->classes[at] != 0; at = (at + 1) & table->mask) {
        uint32_t found = table->classes[at] - 1;
        class_key_make(job, layers, profile->classes[found].layer, &other);
        if (memcmp(&key, &other, sizeof(key)) == 0)
            return found;
    }
    uint32_t found = (uint32_t)profile->class_count++;
    table->classes[at] = found + 1;
    profile->classes[found].layer = (uint32_t)layer;
    (void)snprintf(profile->classes[found].type, MR_PROFILE_WORD_BYTES, "%s",
                   mr_layer_type_name(job->layers[layer].type)); /* short */
    return found;
}

static mr_status profile_find_classes(mr_profile *profile, const mr_job *job,
                                      const mr_layer_description *layers) {
    class_table table = {.mask = 1};
    while (table.mask < 2 * job->layer_count)
        table.mask *= 2;
    table.classes = mr_alloc_array(table.mask, sizeof(*table.classes));
    table.mask--;
    profile->layer_class = mr_alloc_array(job->layer_count, sizeof(*profile->layer_class));
    profile->classes = mr_alloc_array(job->layer_count, sizeof(*profile->classes));
    if (table.classes == NULL || profile->layer_class == NULL || profile->classes == NULL) {
        mr_free(table.classes);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to profile %zu layers", job->layer_count);
    }
    for (size_t layer = 0; layer < job->layer_count; layer++) {
        uint32_t found = class_find(&table, profile, job, layers, layer);
        profile->layer_class[layer] = found;
        profile->classes[found].layer_count++;
    }
    mr_free(table.classes);
    return MR_OK;
}

/* ---- a profile ------------------------------------------------------------------------------- */

/* As a job file says it. */
static const char *precision_name(mr_dtype precision) {
    switch (precision) {
    case MR_DTYPE_BF16:
        return "bf16";
    case MR_DTYPE_F16:
        return "fp16";
    default:
        return "fp32";
    }
}

static void profile_take_key(mr_profile *profile, const mr_job *job) {
    memcpy(profile->model_hash, job->model_hash, sizeof(profile->model_hash));
    profile->micro_batch_size = job->micro_batch_size;
    profile->sequence_length = job->sequence_length;
    profile->layer_count = job->layer_count;
    (void)snprintf(profile->precision, sizeof(profile->precision), "%s",
                   precision_name(job->precision)); /* short words */
    (void)snprintf(profile->optimizer, sizeof(profile->optimizer), "%s",
                   mr_optimizer_name(job->optimizer));
}

mr_status mr_profile_create(const mr_job *job, const mr_layer_description *layers,
                            mr_profile **out_profile) {
    mr_profile *profile = mr_alloc(sizeof(*profile));
    if (profile == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a profile");
    profile_take_key(profile, job);
    mr_status status = profile_find_classes(profile, job, layers);
    if (mr_status_is_ok(status))
        *out_profile = profile;
    else
        mr_profile_destroy(profile);
    return status;
}

void mr_profile_destroy(mr_profile *profile) {
    if (profile == NULL)
        return;
    for (size_t i = 0; i < profile->device_count; i++)
        mr_profile_device_destroy(profile->devices[i]);
    mr_free(profile->devices);
    mr_free(profile->classes);
    mr_free(profile->layer_class);
    mr_free(profile);
}

/* Asks one part of the key; both values are texts. */
static mr_status key_check(const char *part, const char *profiled, const char *wanted) {
    if (strcmp(profiled, wanted) == 0)
        return MR_OK;
    return MR_ERROR(FAILED_PRECONDITION, "the profile's %s is %.64s; the job's is %.64s", part,
                    profiled, wanted);
}

static mr_status key_check_size(const char *part, size_t profiled, size_t wanted) {
    if (profiled == wanted)
        return MR_OK;
    return MR_ERROR(FAILED_PRECONDITION, "the profile's %s is %zu; the job's is %zu", part,
                    profiled, wanted);
}

mr_status mr_profile_check(const mr_profile *profile, const mr_job *job) {
    MR_TRY(key_check("model_hash", profile->model_hash, job->model_hash));
    MR_TRY(key_check_size("number of layers", profile->layer_count, job->layer_count));
    MR_TRY(key_check_size("micro_batch_size", profile->micro_batch_size, job->micro_batch_size));
    MR_TRY(key_check_size("sequence_length", profile->sequence_length, job->sequence_length));
    MR_TRY(key_check("precision", profile->precision, precision_name(job->precision)));
    MR_TRY(key_check("optimizer", profile->optimizer, mr_optimizer_name(job->optimizer)));
    if (profile->device_count == 0)
        return MR_ERROR(FAILED_PRECONDITION, "the profile has no device");
    return MR_OK;
}

/* ---- devices --------------------------------------------------------------------------------- */

mr_status mr_profile_device_create(size_t class_count, mr_profile_device **out_device) {
    mr_profile_device *device = mr_alloc(sizeof(*device));
    mr_profile_cost *costs = mr_alloc_array(class_count, sizeof(*costs));
    if (device == NULL || costs == NULL) {
        mr_free(costs);
        mr_free(device);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the costs of %zu layers", class_count);
    }
    device->class_count = class_count;
    device->costs = costs;
    *out_device = device;
    return MR_OK;
}

mr_status mr_profile_device_copy(const mr_profile_device *device, mr_profile_device **out_copy) {
    mr_profile_device *copy = NULL;
    MR_TRY(mr_profile_device_create(device->class_count, &copy));
    mr_profile_cost *costs = copy->costs;
    memcpy(costs, device->costs, device->class_count * sizeof(*costs));
    *copy = *device;
    copy->costs = costs;
    *out_copy = copy;
    return MR_OK;
}

void mr_profile_device_destroy(mr_profile_device *device) {
    if (device == NULL)
        return;
    mr_free(device->costs);
    mr_free(device);
}

static mr_status seconds_check(const char *what, double seconds) {
    if (isfinite(seconds) && seconds >= 0)
        return MR_OK;
    return MR_ERROR(INVALID_ARGUMENT, "%s is %g; it must be a number of seconds, at least 0", what,
                    seconds);
}

mr_status mr_profile_device_check(const mr_profile_device *device) {
    MR_TRY(seconds_check("loss", device->loss));
    MR_TRY(seconds_check("zero", device->zero));
    MR_TRY(seconds_check("norm", device->norm));
    MR_TRY(seconds_check("optimizer", device->optimizer));
    MR_TRY(seconds_check("link", device->link));
    MR_TRY(seconds_check("link_byte", device->link_byte));
    for (size_t i = 0; i < device->class_count; i++) {
        MR_TRY(seconds_check("forward", device->costs[i].forward));
        MR_TRY(seconds_check("backward_input", device->costs[i].backward_input));
        MR_TRY(seconds_check("backward_weight", device->costs[i].backward_weight));
    }
    return MR_OK;
}

mr_status mr_profile_add(mr_profile *profile, mr_profile_device *owned_device) {
    mr_status status = mr_profile_device_check(owned_device);
    if (mr_status_is_ok(status) && owned_device->class_count != profile->class_count)
        status = MR_ERROR(INVALID_ARGUMENT, "a device has costs of %zu layers; the profile has %zu",
                          owned_device->class_count, profile->class_count);
    if (mr_status_is_ok(status) && profile->device_count == MR_RANKS_MAX)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "a profile has at most %d devices", MR_RANKS_MAX);
    if (!mr_status_is_ok(status)) {
        mr_profile_device_destroy(owned_device);
        return status;
    }
    mr_profile_device **devices = mr_alloc_array(profile->device_count + 1, sizeof(*devices));
    if (devices == NULL) {
        mr_profile_device_destroy(owned_device);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more device");
    }
    if (profile->device_count > 0)
        memcpy(devices, profile->devices, profile->device_count * sizeof(*devices));
    mr_free(profile->devices);
    profile->devices = devices;
    profile->devices[profile->device_count++] = owned_device;
    return MR_OK;
}

const mr_profile_device *mr_profile_of_rank(const mr_profile *profile, size_t rank) {
    MR_ASSERT(profile->device_count > 0);
    size_t last = profile->device_count - 1;
    return profile->devices[rank < last ? rank : last];
}

/* "cuda:0" and "cuda:1" are of one kind: a number tells cards of one machine apart. */
static bool device_is_like(const char *one, const char *other) {
    size_t kind = strcspn(one, ":");
    return kind == strcspn(other, ":") && strncmp(one, other, kind) == 0;
}

size_t mr_profile_match(const mr_profile *profile, const char *device, uint32_t threads,
                        const char *address) {
    size_t found = profile->device_count;
    for (size_t i = 0; i < profile->device_count; i++) {
        const mr_profile_device *entry = profile->devices[i];
        if (!device_is_like(entry->device, device) || entry->threads != threads)
            continue;
        if (strcmp(entry->address, address) == 0)
            return i;
        if (found == profile->device_count)
            found = i;
    }
    return found;
}
