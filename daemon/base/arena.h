/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h: memory sized once, by the plan, before step 0; handed out in order, freed as a whole.
 * Huge pages are asked for, and every page is touched at creation, so that the step path meets no
 * page fault.
 * Owner: base. Thread: one at a time.
 * Not here: device memory (device/). */
#ifndef MR_BASE_ARENA_H
#define MR_BASE_ARENA_H

#include <stddef.h>

#include "daemon/base/status.h"

enum { MR_ARENA_ALIGN = 64 };

typedef struct mr_arena {
    unsigned char *base;
    size_t bytes;
    size_t used;
    size_t mapped;
} mr_arena;

/* Maps bytes (rounded up to whole pages), zeroed. RESOURCE_EXHAUSTED names the size. */
MR_MUST_CHECK mr_status mr_arena_init(mr_arena *arena, size_t bytes);
/* Unmaps; a zeroed arena is fine. */
void mr_arena_deinit(mr_arena *arena);
/* The next bytes, aligned to MR_ARENA_ALIGN; NULL when the arena is full (a wrong plan). */
void *mr_arena_take(mr_arena *arena, size_t bytes);
/* Bytes that mr_arena_take(bytes) uses up. */
size_t mr_arena_rounded(size_t bytes);
/* A mark to go back to: everything taken after it is free again. */
size_t mr_arena_mark(const mr_arena *arena);
void mr_arena_reset(mr_arena *arena, size_t mark);

#endif
