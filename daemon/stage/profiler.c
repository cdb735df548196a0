/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/profiler.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/base/clock.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/optimizer.h"
#include "daemon/stage/profiler_layer.h"
#include "daemon/stage/profiler_link.h"

enum {
    PROFILER_WARM_UP = 2,
    PROFILER_ROUNDS_MIN = 3,
    PROFILER_ROUNDS_MAX = 30,
    PROFILER_ROUND_NS = 500000, /* shorter operations are repeated within a round */
    PROFILER_REPEAT_MAX = 64,
    PROFILER_OPERATIONS_MAX = 3, /* timed by turns */
    PROFILER_EVICT_BYTES_MAX = 64 << 20, /* more than the caches of a processor's core */
    PROFILER_SUM_BYTES = 64,             /* one double, and the alignment of what follows */
};

/* ---- the order ------------------------------------------------------------------------------- */

mr_status mr_profiler_order_make(const Millrace__V1__Profile *message, const char *address,
                                 mr_profiler_order **out_order) {
    mr_profiler_order *order = mr_alloc(sizeof(*order));
    if (order == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an order");
    order->epoch = message->epoch;
    mr_status status = MR_OK;
    if (strlen(message->job_id) >= sizeof(order->job_id) ||
        strlen(address) >= sizeof(order->address))
        status = MR_ERROR(INVALID_ARGUMENT, "profile.job_id has %zu bytes; at most %zu fit",
                          strlen(message->job_id), sizeof(order->job_id) - 1);
    else
        status = mr_job_parse(message->job_file, strlen(message->job_file), &order->job, NULL);
    if (!mr_status_is_ok(status)) {
        mr_profiler_order_destroy(order);
        return status;
    }
    memcpy(order->job_id, message->job_id, strlen(message->job_id) + 1); /* checked */
    memcpy(order->address, address, strlen(address) + 1);
    *out_order = order;
    return MR_OK;
}

void mr_profiler_order_destroy(mr_profiler_order *order) {
    if (order == NULL)
        return;
    mr_job_destroy(order->job);
    mr_free(order);
}

/* ---- timing ---------------------------------------------------------------------------------- */

typedef struct profiler {
    const mr_profiler_options *options;
    const mr_job *job;
    mr_device *device;
    mr_layer_description *layers;
    mr_profile *profile;       /* the classes */
    mr_profile_device *result; /* until it is handed over */
    mr_status link;
    int64_t end_ns;
    int64_t share_ns;     /* for one class, or one other thing */
    double largest_held;  /* elements of the parameters that optimizer and zero were timed on */
    double largest_owned; /* that norm was timed on */
    double *sums;
    size_t sum_capacity;
    size_t stage_bytes;      /* that a stage of average size works on */
    mr_device_memory others; /* stands for them; a double at its start takes a sum */
} profiler;

/* Something that is timed. prepare, which may be NULL, is not: it comes before each round. */
typedef struct profiler_operation {
    void (*prepare)(void *context);
    void (*run)(void *context);
} profiler_operation;

/* Operations that are timed by turns, as in a step. */
typedef struct profiler_operations {
    profiler_operation list[PROFILER_OPERATIONS_MAX];
    size_t count;
    void *context;
} profiler_operations;

static mr_status profiler_may_go_on(const profiler *self) {
    if (atomic_load(self->options->stop))
        return MR_ERROR(CANCELLED, "profiling was abandoned");
    if (mr_clock_now_ns() >= self->end_ns)
        return MR_ERROR(DEADLINE_EXCEEDED, "timing the job's layers took longer than %d s",
                        MR_PROFILE_TIMEOUT_MS / 1000);
    return MR_OK;
}

/* One operation, repeat times, to its end on the device. */
static mr_status time_once(profiler *self, const profiler_operation *operation, void *context,
                           size_t repeat, double *out_seconds) {
    MR_TRY(profiler_may_go_on(self));
    if (operation->prepare != NULL)
        operation->prepare(context);
    MR_TRY(self->device->ops->check(self->device));
    int64_t start_ns = mr_clock_now_ns();
    for (size_t i = 0; i < repeat; i++)
        operation->run(context);
    MR_TRY(self->device->ops->check(self->device));
    *out_seconds = (double)(mr_clock_now_ns() - start_ns) * 1e-9 / (double)repeat;
    return MR_OK;
}

static size_t repeats_for(double seconds) {
    double wanted = PROFILER_ROUND_NS * 1e-9 / (seconds > 1e-9 ? seconds : 1e-9);
    if (wanted <= 1)
        return 1;
    return wanted < PROFILER_REPEAT_MAX ? (size_t)wanted : PROFILER_REPEAT_MAX;
}

static int double_order(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of all operations, in out [operations->count]. */
static mr_status time_operations(profiler *self, const profiler_operations *operations,
                                 double *out_medians) {
    double samples[PROFILER_OPERATIONS_MAX][PROFILER_ROUNDS_MAX];
    size_t repeats[PROFILER_OPERATIONS_MAX] = {1, 1, 1};
    for (int round = 0; round < PROFILER_WARM_UP; round++)
        for (size_t i = 0; i < operations->count; i++) {
            MR_TRY(time_once(self, &operations->list[i], operations->context, repeats[i],
                             &samples[i][0]));
            repeats[i] = repeats_for(samples[i][0]);
        }
    int64_t end_ns = mr_clock_now_ns() + self->share_ns;
    size_t rounds = 0;
    while (rounds < PROFILER_ROUNDS_MIN ||
           (rounds < PROFILER_ROUNDS_MAX && mr_clock_now_ns() < end_ns)) {
        for (size_t i = 0; i < operations->count; i++)
            MR_TRY(time_once(self, &operations->list[i], operations->context, repeats[i],
                             &samples[i][rounds]));
        rounds++;
    }
    for (size_t i = 0; i < operations->count; i++) {
        qsort(samples[i], rounds, sizeof(double), double_order);
        out_medians[i] = (samples[i][rounds / 2] + samples[i][(rounds - 1) / 2]) / 2;
    }
    return MR_OK;
}

/* ---- what else a stage works on -------------------------------------------------------------- */

/* Bytes that one microbatch's forward and backward touch of a layer: weights and gradients, and
 * what it gives and saves, written and read again. */
static size_t layer_bytes(const profiler *self, size_t layer) {
    const mr_layer_description *description = &self->layers[layer];
    size_t output = 0;
    (void)mr_shape_bytes(&description->output, &output); /* zero where it cannot be counted */
    return description->parameter_elements * 2 * sizeof(float) + description->saved_bytes + output;
}

static mr_status profiler_make_others(profiler *self) {
    double bytes = 0;
    for (size_t layer = 0; layer < self->job->layer_count; layer++)
        bytes += (double)layer_bytes(self, layer);
    bytes /= (double)self->job->pipe;
    self->stage_bytes =
        bytes < PROFILER_EVICT_BYTES_MAX ? (size_t)bytes : (size_t)PROFILER_EVICT_BYTES_MAX;
    return self->device->ops->memory_create(self->device, self->stage_bytes + PROFILER_SUM_BYTES,
                                            &self->others);
}

/* Reads what the rest of the stage works on, so that it takes its place in the caches. */
static void profiler_evict(profiler *self, size_t own_bytes) {
    if (own_bytes + sizeof(float) > self->stage_bytes)
        return;
    const mr_tensor others = {
        .data = (unsigned char *)self->others.base + PROFILER_SUM_BYTES,
        .shape = {.dtype = MR_DTYPE_F32,
                  .dim_count = 1,
                  .dims = {(self->stage_bytes - own_bytes) / sizeof(float)}},
    };
    self->device->ops->sum_of_squares(self->device, &others, self->others.base);
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* The layer that is timed, and the profiler that times it. */
typedef struct profiler_subject {
    profiler *self;
    mr_profiler_layer layer;
    size_t bytes;
} profiler_subject;

static void prepare_forward(void *context) {
    profiler_subject *subject = context;
    profiler_evict(subject->self, subject->bytes);
    mr_profiler_layer_touch_input(&subject->layer);
}
static void run_forward(void *context) {
    mr_profiler_layer_forward(&((profiler_subject *)context)->layer);
}
static void prepare_backward(void *context) {
    profiler_subject *subject = context;
    profiler_evict(subject->self, subject->bytes);
    mr_profiler_layer_touch_gradient(&subject->layer);
}
static void run_backward_input(void *context) {
    mr_profiler_layer_backward_input(&((profiler_subject *)context)->layer);
}
static void run_backward_weight(void *context) {
    mr_profiler_layer_backward_weight(&((profiler_subject *)context)->layer);
}

/* What the optimizer does with the parameters of a subject. */
static void prepare_update(void *context) {
    profiler_subject *subject = context;
    profiler_evict(subject->self, 0);
}
static void run_zero(void *context) {
    mr_parameters_zero_gradients(((profiler_subject *)context)->layer.parameters);
}
static void run_norm(void *context) {
    const profiler_subject *subject = context;
    mr_optimizer_sums(subject->layer.parameters, subject->self->sums);
}
static void run_optimizer(void *context) {
    mr_optimizer_step(((profiler_subject *)context)->layer.parameters, 1, 1.0);
}

static mr_status profiler_sums(profiler *self, size_t count) {
    if (count <= self->sum_capacity)
        return MR_OK;
    mr_free(self->sums);
    self->sums = mr_alloc_array(count, sizeof(*self->sums));
    self->sum_capacity = self->sums == NULL ? 0 : count;
    return self->sums == NULL ? MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu sums", count)
                              : MR_OK;
}

static void parameters_count_elements(const mr_parameters *parameters, double *out_held,
                                      double *out_owned) {
    *out_held = 0;
    *out_owned = 0;
    for (size_t i = 0; i < mr_parameters_count(parameters); i++) {
        const mr_stage_parameter *parameter = mr_parameters_at(parameters, i);
        size_t elements = 0;
        if (parameter->description->frozen)
            continue;
        MR_ASSERT(mr_shape_elements(&parameter->weight.shape, &elements));
        *out_held += (double)elements;
        *out_owned += parameter->owned ? (double)elements : 0;
    }
}

/* Times the optimizer on a layer's parameters where these are the largest so far: the more elements
 * the less the calls themselves count, as in a stage. */
static mr_status profiler_time_update(profiler *self, profiler_subject *subject) {
    double medians[PROFILER_OPERATIONS_MAX];
    double held = 0;
    double owned = 0;
    parameters_count_elements(subject->layer.parameters, &held, &owned);
    MR_TRY(profiler_sums(self, mr_parameters_owned_count(subject->layer.parameters)));
    if (held > self->largest_held) {
        const profiler_operations operations = {
            .list = {{prepare_update, run_zero}, {prepare_update, run_optimizer}},
            .count = 2,
            .context = subject,
        };
        MR_TRY(time_operations(self, &operations, medians));
        self->result->zero = medians[0] / held;
        self->result->optimizer = medians[1] / held;
        self->largest_held = held;
    }
    if (owned > self->largest_owned) {
        const profiler_operations operations = {
            .list = {{prepare_update, run_norm}}, .count = 1, .context = subject};
        MR_TRY(time_operations(self, &operations, medians));
        self->result->norm = medians[0] / owned;
        self->largest_owned = owned;
    }
    return MR_OK;
}

static mr_status profiler_time_layer(profiler *self, profiler_subject *subject,
                                     mr_profile_cost *cost) {
    const profiler_operations operations = {
        .list = {{prepare_forward, run_forward},
                 {prepare_backward, run_backward_input},
                 {NULL, run_backward_weight}},
        .count = 3,
        .context = subject,
    };
    double medians[PROFILER_OPERATIONS_MAX];
    MR_TRY(mr_profiler_layer_saved(&subject->layer, &cost->saved_bytes));
    MR_TRY(time_operations(self, &operations, medians));
    cost->forward = medians[0];
    cost->backward_input = medians[1];
    cost->backward_weight = medians[2];
    return profiler_time_update(self, subject);
}

static mr_status profiler_time_layers(profiler *self) {
    for (size_t i = 0; i < self->profile->class_count; i++) {
        size_t index = self->profile->classes[i].layer;
        profiler_subject subject = {.self = self, .bytes = layer_bytes(self, index)};
        MR_TRY(profiler_may_go_on(self));
        mr_status status =
            mr_profiler_layer_init(&subject.layer, self->device, self->job, self->layers, index);
        if (mr_status_is_ok(status))
            status = profiler_time_layer(self, &subject, &self->result->costs[i]);
        mr_profiler_layer_deinit(&subject.layer);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "layer %zu, %zu of %zu that differ", index, i + 1,
                                    self->profile->class_count);
    }
    return MR_OK;
}

/* ---- loss ------------------------------------------------------------------------------------ */

typedef struct profiler_loss {
    mr_device *device;
    mr_loss kind;
    mr_tensor output;
    mr_tensor labels;
    double *sum;
    float scale;
} profiler_loss;

static void run_loss(void *context) {
    profiler_loss *loss = context;
    mr_loss_run(loss->device, loss->kind, &loss->output, &loss->labels, loss->scale, &loss->output,
                loss->sum);
}

static mr_status loss_fill(profiler_loss *loss) {
    size_t classes = loss->output.shape.dims[loss->output.shape.dim_count - 1];
    MR_TRY(mr_profiler_fill(loss->device, &loss->output, 1.0f, 0));
    return mr_profiler_fill(loss->device, &loss->labels, 1.0f, classes);
}

static mr_status profiler_time_loss(profiler *self) {
    profiler_loss loss = {.device = self->device, .kind = self->job->loss, .scale = 1e-3f};
    size_t output_bytes = 0;
    size_t label_bytes = 0;
    mr_device_memory memory = {0};
    if (self->job->loss == MR_LOSS_NONE)
        return MR_OK;
    loss.output.shape = self->layers[self->job->layer_count - 1].output;
    MR_TRY(mr_job_label_shape(self->job, &loss.labels.shape));
    MR_ASSERT(mr_shape_bytes(&loss.output.shape, &output_bytes));
    MR_ASSERT(mr_shape_bytes(&loss.labels.shape, &label_bytes));
    output_bytes = mr_arena_rounded(output_bytes);
    label_bytes = mr_arena_rounded(label_bytes);
    MR_TRY(self->device->ops->memory_create(self->device,
                                            output_bytes + label_bytes + sizeof(double), &memory));
    loss.output.data = memory.base;
    loss.labels.data = (unsigned char *)memory.base + output_bytes;
    loss.sum = (double *)(void *)((unsigned char *)memory.base + output_bytes + label_bytes);
    const profiler_operations operations = {
        .list = {{NULL, run_loss}}, .count = 1, .context = &loss};
    mr_status status = loss_fill(&loss);
    if (mr_status_is_ok(status))
        status = time_operations(self, &operations, &self->result->loss);
    self->device->ops->memory_destroy(self->device, &memory);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "the loss");
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* The largest message between two layers. */
static size_t profiler_boundary_bytes(const profiler *self) {
    size_t largest = 0;
    for (size_t i = 0; i + 1 < self->job->layer_count; i++) {
        size_t bytes = 0;
        if (mr_shape_bytes(&self->layers[i].output, &bytes) && bytes > largest)
            largest = bytes;
    }
    return largest;
}

static mr_status profiler_measure(profiler *self) {
    const mr_profiler_options *options = self->options;
    size_t layers = self->job->layer_count;
    self->layers = mr_alloc_array(layers, sizeof(*self->layers));
    if (self->layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to profile %zu layers", layers);
    MR_TRY(mr_job_describe(self->job, self->layers));
    MR_TRY(mr_profile_create(self->job, self->layers, &self->profile));
    MR_TRY(mr_profile_device_create(self->profile->class_count, &self->result));
    self->share_ns =
        (int64_t)MR_PROFILE_AIM_MS * 1000000 / (int64_t)(self->profile->class_count + 3);
    MR_TRY(profiler_make_others(self));
    MR_TRY(profiler_time_layers(self));
    MR_TRY(profiler_time_loss(self));
    if (options->links != NULL)
        self->link = mr_profiler_link(options, profiler_boundary_bytes(self),
                                      &self->result->link, &self->result->link_byte);
    return MR_OK;
}

mr_status mr_profiler_run(const mr_profiler_options *options, mr_profile_device **out_device,
                          mr_status *out_link) {
    profiler self = {
        .options = options,
        .job = options->order->job,
        .device = options->device,
        .end_ns = mr_clock_now_ns() + (int64_t)MR_PROFILE_TIMEOUT_MS * 1000000,
    };
    mr_status status = profiler_measure(&self);
    if (mr_status_is_ok(status)) {
        *out_device = self.result;
        *out_link = self.link;
        self.result = NULL;
    }
    if (self.others.base != NULL)
        self.device->ops->memory_destroy(self.device, &self.others);
    mr_profile_device_destroy(self.result);
    mr_profile_destroy(self.profile);
    mr_free(self.sums);
    mr_free(self.layers);
    return status;
}
