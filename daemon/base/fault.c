/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/fault.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic(mr_fault_hook) fault_hook;
static _Atomic(void *) fault_context;

void mr_fault_hook_set(mr_fault_hook hook, void *context) {
    atomic_store_explicit(&fault_context, context, memory_order_relaxed);
    atomic_store_explicit(&fault_hook, hook, memory_order_release);
}

mr_status mr_fault(const char *point) {
    mr_fault_hook hook = atomic_load_explicit(&fault_hook, memory_order_acquire);
    if (hook == NULL)
        return MR_OK;
    return hook(atomic_load_explicit(&fault_context, memory_order_relaxed), point);
}
