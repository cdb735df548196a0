/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a card computes what the CPU and double precision do, gives the same bits twice, and tells
 * wrong input: the whole device contract on cuda:0, in one program that travels to the machine.
 * Method: the contract tests themselves, each file's main under a name of its own (BUILD), over the
 * table of rows_cuda.c. Prints one line for each at the end; a machine without a card fails. */
#include <stdio.h>
#include <time.h>

#include "daemon/device/device.h"

int contract_attention_main(void);
int contract_bits_main(void);
int contract_frozen_main(void);
int contract_linear_main(void);
int contract_loss_main(void);
int contract_norm_main(void);
int contract_pointwise_main(void);

static const struct {
    const char *name;
    int (*run)(void);
} parts[] = {
    {"linear and embedding", contract_linear_main},
    {"gradients left out", contract_frozen_main},
    {"attention", contract_attention_main},
    {"norm", contract_norm_main},
    {"pointwise and copies", contract_pointwise_main},
    {"loss and optimizer", contract_loss_main},
    {"same bits again", contract_bits_main},
};
enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(void) {
    int failed[PARTS];
    double seconds[PARTS];
    int bad = 0;
    mr_device *device = NULL;
    mr_status status = mr_device_create(&(mr_device_options){.kind = "cuda:0"}, &device);
    if (!mr_status_is_ok(status)) {
        fprintf(stderr, "%s\n", status.text);
        return 2;
    }
    mr_device_destroy(device);
    for (int i = 0; i < PARTS; i++) {
        double start = seconds_now();
        failed[i] = parts[i].run();
        seconds[i] = seconds_now() - start;
        bad += failed[i] != 0;
    }
    printf("%-24s %-8s %s\n", "device contract, cuda:0", "failed", "seconds");
    for (int i = 0; i < PARTS; i++)
        printf("%-24s %-8d %.1f\n", parts[i].name, failed[i], seconds[i]);
    return bad == 0 ? 0 : 1;
}
