/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/arena.h"

#include <stdint.h>
#include <sys/mman.h>

#include "daemon/base/alloc.h"

enum { ARENA_PAGE = 4096, ARENA_HUGE_PAGE = 2 << 20 };

mr_status mr_arena_init(mr_arena *arena, size_t bytes) {
    size_t page = bytes >= ARENA_HUGE_PAGE ? ARENA_HUGE_PAGE : ARENA_PAGE;
    size_t mapped;
    if (!mr_size_add(bytes == 0 ? 1 : bytes, page - 1, &mapped))
        return MR_ERROR(RESOURCE_EXHAUSTED, "an arena of %zu bytes is impossible", bytes);
    mapped -= mapped % page;
    void *base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an arena of %zu bytes", bytes);
    if (page == ARENA_HUGE_PAGE)
        (void)madvise(base, mapped, MADV_HUGEPAGE); /* only a wish */
    for (size_t at = 0; at < mapped; at += ARENA_PAGE)
        ((volatile unsigned char *)base)[at] = 0;
    *arena = (mr_arena){.base = base, .bytes = bytes, .mapped = mapped};
    return MR_OK;
}

void mr_arena_deinit(mr_arena *arena) {
    if (arena->base != NULL)
        (void)munmap(arena->base, arena->mapped); /* our own mapping */
    *arena = (mr_arena){0};
}

size_t mr_arena_rounded(size_t bytes) {
    return (bytes + MR_ARENA_ALIGN - 1) / MR_ARENA_ALIGN * MR_ARENA_ALIGN;
}

void *mr_arena_take(mr_arena *arena, size_t bytes) {
    size_t rounded = mr_arena_rounded(bytes);
    if (rounded < bytes || rounded > arena->mapped - arena->used)
        return NULL;
    void *memory = arena->base + arena->used;
    arena->used += rounded;
    return memory;
}

size_t mr_arena_mark(const mr_arena *arena) {
    return arena->used;
}

void mr_arena_reset(mr_arena *arena, size_t mark) {
    MR_ASSERT(mark <= arena->used);
    arena->used = mark;
}
