/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the far device catches what it is for: a process that reads its memory directly dies, and
 * so does one that gives an operation an address of the host. Method: each in a child process;
 * beside them the way that must work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/far/far_device.h"

enum { BYTES = 4096 };

static mr_device *far_open(mr_device_memory *out_memory) {
    const mr_device_options options = {.kind = "far", .threads = 1};
    mr_device *device = NULL;
    assert_true(mr_status_is_ok(mr_device_create(&options, &device)));
    assert_true(mr_status_is_ok(device->ops->memory_create(device, BYTES, out_memory)));
    return device;
}

static void far_close(mr_device *device, mr_device_memory *memory) {
    device->ops->memory_destroy(device, memory);
    mr_device_destroy(device);
}

/* Did a child die that does this? */
static bool child_dies(void (*act)(mr_device *device, const mr_device_memory *memory),
                       mr_device *device, const mr_device_memory *memory) {
    int state = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it and end with a code */
        (void)signal(SIGBUS, SIG_DFL);
        (void)signal(SIGABRT, SIG_DFL);
        act(device, memory);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &state, 0), child);
    return WIFSIGNALED(state) || WEXITSTATUS(state) != 0;
}

static void act_nothing(mr_device *device, const mr_device_memory *memory) {
    device->ops->zero(device, memory->base, memory->bytes);
}

static void act_read(mr_device *device, const mr_device_memory *memory) {
    (void)device;
    volatile unsigned char byte = *(volatile unsigned char *)memory->base;
    (void)byte;
}

static void act_host_address(mr_device *device, const mr_device_memory *memory) {
    unsigned char host[BYTES] = {0};
    device->ops->copy(device, memory->base, host, sizeof(host));
}

static void test_direct_use_of_memory_ends_the_process(void **state) {
    (void)state;
    mr_device_memory memory = {0};
    mr_device *device = far_open(&memory);
    assert_false(child_dies(act_nothing, device, &memory));
    assert_true(child_dies(act_read, device, &memory));
    assert_true(child_dies(act_host_address, device, &memory));
    far_close(device, &memory);
}

static void test_bytes_copied_in_come_out(void **state) {
    (void)state;
    unsigned char host[BYTES];
    unsigned char back[BYTES] = {0};
    mr_device_memory memory = {0};
    mr_device *device = far_open(&memory);
    assert_false(device->ops->host_memory);
    for (size_t i = 0; i < BYTES; i++)
        host[i] = (unsigned char)(i * 7 + 3);
    device->ops->copy_in(device, memory.base, host, BYTES);
    device->ops->copy_out(device, back, memory.base, BYTES);
    assert_memory_equal(back, host, BYTES);
    far_close(device, &memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_use_of_memory_ends_the_process),
        cmocka_unit_test(test_bytes_copied_in_come_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
