/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan/grid.h"

#include <stdio.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { GIVEN_TEXT_BYTES = 80 };

/* "pipe 2 x model 2": the given axes of more than one rank; returns their product. */
static size_t grid_given(const mr_grid *grid, char out_text[GIVEN_TEXT_BYTES]) {
    const struct {
        const char *name;
        size_t size;
    } axes[] = {{"pipe", grid->pipe}, {"data", grid->data}, {"model", grid->model}};
    size_t product = 1;
    size_t used = 0;
    out_text[0] = '\0';
    for (size_t i = 0; i < sizeof(axes) / sizeof(axes[0]); i++) {
        if (axes[i].size < 2)
            continue;
        int wrote = snprintf(out_text + used, GIVEN_TEXT_BYTES - used, "%s%s %zu",
                             used == 0 ? "" : " x ", axes[i].name, axes[i].size);
        used += (size_t)wrote; /* three names and three numbers fit */
        if (!mr_size_mul(product, axes[i].size, &product))
            product = SIZE_MAX;
    }
    return product;
}

/* The prime factors of ranks, ascending, by turns to pipe and to data. */
static void grid_deal(size_t ranks, mr_grid *grid) {
    bool to_pipe = true;
    grid->pipe = 1;
    grid->data = 1;
    for (size_t factor = 2; ranks > 1; factor++)
        for (; ranks % factor == 0; ranks /= factor, to_pipe = !to_pipe)
            *(to_pipe ? &grid->pipe : &grid->data) *= factor;
}

mr_status mr_grid_fit(size_t world, mr_grid *grid) {
    char given[GIVEN_TEXT_BYTES];
    size_t product = grid_given(grid, given);
    if (world < 1 || world > MR_RANKS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu ranks; it must be 1 to %d", world, MR_RANKS_MAX);
    if (grid->pipe > 0 && grid->data > 0)
        return product == world ? MR_OK
                                : MR_ERROR(INVALID_ARGUMENT,
                                           "%zu ranks do not fit %s; it must be %zu", world,
                                           given[0] == '\0' ? "one rank" : given, product);
    if (world % product != 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%zu ranks do not divide over %s; a multiple of %zu does", world, given,
                        product);
    if (grid->pipe > 0)
        grid->data = world / product;
    else if (grid->data > 0)
        grid->pipe = world / product;
    else
        grid_deal(world / product, grid);
    return MR_OK;
}
