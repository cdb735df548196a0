/* SPDX-License-Identifier: Apache-2.0 */
/* create.h: the way into the CPU device. The folder in short:
 *   create.c      options, the vtable, errors that latch, memory
 *   pool, processors   threads of a device, and which processors they are bound to
 *   onednn        matrix products of one thread, behind one pair of files
 *   linear, attention, norm, pointwise, cast, loss, embedding, optimizer   one operation family
 *                 each: cut the work into tasks whose borders depend on shapes alone, and run them;
 *                 a task on bf16 brings its rows through a buffer of floats
 *   kernels/      what one task does, in vectors; compiled once for each instruction set
 * Law 1 (the same bits for any number of threads) holds by construction: a task never knows how
 * many threads there are, sums over tasks are stored per task and added in task order, and oneDNN
 * is only ever asked for single-threaded primitives on blocks of fixed size. Loads are unaligned,
 * and the tail of a row goes through the same vector code as its body, so addresses do not matter
 * either. What may differ in the last bits is the instruction set: plain, AVX2 and AVX-512 builds
 * of the kernels add rows in different numbers of lanes, and oneDNN picks other kernels, too; in
 * bf16 products also depend on whether the processor multiplies bf16 by itself (AVX512_BF16). A job
 * is bit-reproducible among machines of one such class.
 * Owner: device. Thread: EXEC. */
#ifndef MR_DEVICE_CPU_CREATE_H
#define MR_DEVICE_CPU_CREATE_H

#include "daemon/device/device.h"

/* options->kind is "cpu". Binds the calling thread, too, when options->pin is set and enough
 * processors are free (processors.h); threads that it starts later inherit that, so start none.
 * INVALID_ARGUMENT: threads outside [0, MR_DEVICE_THREADS_MAX]. UNAVAILABLE: oneDNN refuses. */
MR_MUST_CHECK mr_status mr_device_cpu_create(const mr_device_options *options,
                                             mr_device **out_device);
/* For tests: with the kernels of one instruction set, "plain", "avx2" or "avx512", in place of the
 * best. UNAVAILABLE: this processor or build does not have it. */
MR_MUST_CHECK mr_status mr_device_cpu_create_with(const mr_device_options *options,
                                                  const char *instruction_set,
                                                  mr_device **out_device);

#endif
