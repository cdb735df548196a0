/* SPDX-License-Identifier: Apache-2.0 */
/* The millrace.plan/v1 text of DESIGN section 5, a contract that programs outside this tree read:
 * keys may be added, never renamed. Order of keys is the order of the page.
 *
 * layer_files of a rank are the model-state files that it writes in a save: one for each layer with
 * parameters, tied or not, so that each file can be read without the others. The replicas of a
 * stage hold the same weights and share the layers out (partition.h; reference: deepspeed.md 38,
 * 39).
 *
 * memory_bytes.optimizer of a stage is that of the replica that holds the most; with zero_stage 1
 * zero_saved_bytes is what it is spared, and optimizer_bytes of a rank is its own share.
 *
 * Every function that makes a value returns NULL when memory runs out; jansson's *_new functions
 * accept NULL as an error and free what they were given, so one check at the end is enough. */
#include <math.h>

#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/group_plan.h"
#include "daemon/plan/layer_file.h"
#include "daemon/plan/partition.h"
#include "daemon/plan/plan.h"

/* An object or array under construction; good turns false when anything failed. */
typedef struct json_builder {
    json_t *value;
    bool good;
} json_builder;

static void json_put(json_builder *object, const char *key, json_t *value) {
    if (json_object_set_new(object->value, key, value) != 0)
        object->good = false;
}

static void json_add(json_builder *array, json_t *value) {
    if (json_array_append_new(array->value, value) != 0)
        array->good = false;
}

static json_t *json_finish(json_builder *builder) {
    if (builder->good)
        return builder->value;
    json_decref(builder->value);
    return NULL;
}

static json_t *json_size(size_t value) {
    return json_integer((json_int_t)value);
}

/* A whole number as an integer while doubles are exact, else as it is. */
static json_t *json_number(double value) {
    if (fabs(value) < 0x1p53 && trunc(value) == value)
        return json_integer((json_int_t)value);
    return json_real(value);
}

static json_t *json_range(size_t first, size_t end) {
    json_builder range = {json_array(), true};
    json_add(&range, json_size(first));
    json_add(&range, json_size(end));
    return json_finish(&range);
}

static json_t *json_stage(const mr_plan *plan, size_t index) {
    const mr_stage_plan *stage = &plan->stages[index];
    json_builder memory = {json_object(), true};
    json_put(&memory, "weights", json_size(stage->weights_bytes));
    json_put(&memory, "gradients", json_size(stage->gradients_bytes));
    json_put(&memory, "optimizer", json_size(stage->optimizer_bytes));
    json_put(&memory, "activations", json_size(stage->activations_bytes));
    json_builder object = {json_object(), true};
    json_put(&object, "stage", json_size(index));
    json_put(&object, "layers", json_range(stage->layer_first, stage->layer_end));
    json_put(&object, "params", json_size(stage->parameters));
    json_put(&object, "flops", json_number(stage->flops));
    json_put(&object, "memory_bytes", json_finish(&memory));
    json_put(&object, "zero_saved_bytes", json_size(stage->zero_saved_bytes));
    if (plan->step_seconds > 0)
        json_put(&object, "busy_seconds", json_real(stage->busy_seconds));
    return json_finish(&object);
}

static json_t *json_schedule(const mr_schedule *schedule) {
    json_builder list = {json_array(), true};
    for (size_t i = 0; i < schedule->count; i++) {
        char text[MR_INSTRUCTION_TEXT_BYTES];
        mr_instruction_text(&schedule->instructions[i], text);
        json_add(&list, json_string(text));
    }
    return json_finish(&list);
}

static json_t *json_layer_files(const mr_plan *plan, const mr_stage_plan *stage, size_t data,
                                size_t model) {
    json_builder files = {json_array(), true};
    size_t layers = stage->layer_end - stage->layer_first;
    size_t first = stage->layer_first + mr_partition_start(layers, plan->job->data, data);
    size_t end = stage->layer_first + mr_partition_start(layers, plan->job->data, data + 1);
    for (size_t layer = first; layer < end; layer++) {
        if (!mr_job_saves_layer(plan->job, &plan->layers[layer]))
            continue;
        char name[MR_NAME_BYTES];
        mr_layer_file_name(layer, model, plan->job->model, name);
        json_add(&files, json_string(name));
    }
    return json_finish(&files);
}

/* schedule: of the rank's stage; consumed. */
static json_t *json_rank(const mr_plan *plan, uint32_t rank, const size_t *coordinates,
                         json_t *schedule) {
    const mr_stage_plan *stage = &plan->stages[coordinates[0]];
    json_builder object = {json_object(), true};
    json_put(&object, "rank", json_size(rank));
    json_put(&object, "pipe", json_size(coordinates[0]));
    json_put(&object, "data", json_size(coordinates[1]));
    json_put(&object, "model", json_size(coordinates[2]));
    json_put(&object, "layers", json_range(stage->layer_first, stage->layer_end));
    json_put(&object, "layer_files", json_layer_files(plan, stage, coordinates[1], coordinates[2]));
    json_put(&object, "optimizer_bytes",
             json_size(mr_plan_optimizer_bytes(plan, coordinates[0], coordinates[1])));
    json_put(&object, "schedule", schedule);
    return json_finish(&object);
}

/* The ranks of one stage follow each other (the pipe axis is the first) and share one list. */
static json_t *json_ranks(const mr_plan *plan) {
    json_builder ranks = {json_array(), true};
    json_t *schedule = NULL;
    size_t schedule_stage = plan->stage_count;
    for (uint32_t rank = 0; rank < plan->topology.world_size; rank++) {
        size_t coordinates[MR_AXES_MAX];
        mr_status status = mr_topology_coordinates(&plan->topology, rank, coordinates);
        MR_ASSERT(mr_status_is_ok(status));
        if (coordinates[0] != schedule_stage) {
            json_decref(schedule);
            schedule_stage = coordinates[0];
            schedule = json_schedule(&plan->schedules[schedule_stage]);
        }
        json_add(&ranks, json_rank(plan, rank, coordinates, json_incref(schedule)));
    }
    json_decref(schedule);
    return json_finish(&ranks);
}

static json_t *json_group(const mr_group_plan *group) {
    json_builder ranks = {json_array(), true};
    for (size_t i = 0; i < group->rank_count; i++)
        json_add(&ranks, json_size(group->ranks[i]));
    json_builder object = {json_object(), true};
    json_put(&object, "kind", json_string(mr_group_kind_name(group->kind)));
    if (group->kind == MR_GROUP_TIED)
        json_put(&object, "key", json_string(group->key));
    json_put(&object, "ranks", json_finish(&ranks));
    return json_finish(&object);
}

static json_t *json_plan(const mr_plan *plan) {
    json_builder axes = {json_array(), true};
    json_builder dims = {json_array(), true};
    for (size_t axis = 0; axis < plan->topology.axis_count; axis++) {
        json_add(&axes, json_string(plan->topology.axes[axis]));
        json_add(&dims, json_size(plan->topology.dims[axis]));
    }
    json_builder bounds = {json_array(), true};
    for (size_t i = 0; i <= plan->stage_count; i++)
        json_add(&bounds, json_size(plan->bounds[i]));
    json_builder stages = {json_array(), true};
    json_builder peaks = {json_array(), true};
    for (size_t stage = 0; stage < plan->stage_count; stage++) {
        json_add(&stages, json_stage(plan, stage));
        json_add(&peaks, json_size(plan->stages[stage].peak_in_flight));
    }
    json_builder groups = {json_array(), true};
    for (size_t i = 0; i < plan->group_count; i++)
        json_add(&groups, json_group(&plan->groups[i]));
    json_builder bubble = {json_object(), true};
    json_put(&bubble, "predicted", json_real(plan->bubble_predicted));
    json_put(&bubble, "ideal", json_real(plan->bubble_ideal));
    json_builder object = {json_object(), true};
    json_put(&object, "schema", json_string("millrace.plan/v1"));
    json_put(&object, "world_size", json_size(plan->topology.world_size));
    json_put(&object, "axes", json_finish(&axes));
    json_put(&object, "dims", json_finish(&dims));
    json_put(&object, "bounds", json_finish(&bounds));
    json_put(&object, "stages", json_finish(&stages));
    json_put(&object, "ranks", json_ranks(plan));
    json_put(&object, "groups", json_finish(&groups));
    json_put(&object, "bubble", json_finish(&bubble));
    json_put(&object, "peak_in_flight", json_finish(&peaks));
    json_put(&object, "schedule_hash", json_string(plan->schedule_hash));
    if (plan->step_seconds > 0)
        json_put(&object, "step_seconds", json_real(plan->step_seconds));
    if (plan->provisional)
        json_put(&object, "provisional", json_true());
    return json_finish(&object);
}

/* The text goes straight into our own memory; a first pass without a buffer tells its length. */
mr_status mr_plan_json(const mr_plan *plan, char **out_json) {
    json_t *object = json_plan(plan);
    size_t length = object == NULL ? 0 : json_dumpb(object, NULL, 0, JSON_COMPACT);
    char *text = length == 0 ? NULL : mr_alloc(length + 1);
    bool good = text != NULL && json_dumpb(object, text, length, JSON_COMPACT) == length;
    json_decref(object);
    if (!good) {
        mr_free(text);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the JSON of a plan of %zu ranks",
                        plan->topology.world_size);
    }
    *out_json = text;
    return MR_OK;
}
