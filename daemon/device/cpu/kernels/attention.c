/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c: one head of one sequence, in blocks of queries. With S = scale Q K^T, P its masked
 * row softmax and M the dropout factors:
 *   out = (P M) V,  lse = log of the row's sum of exp(S)
 *   dV = (P M)^T dout,  dP = M (dout V^T),  dS = scale P (dP - D),  D = row sums of dout out,
 *   dQ = dS K,  dK = dS^T Q.
 * (D = sum of P dP per row, as in arXiv:2205.14135; P is recomputed from lse.) A block holds whole
 * rows of P: they fit L2 for the lengths that a CPU trains on, and no sum is ever rescaled. Tiles
 * above the diagonal are skipped. K and V are turned once per head into panels. */
#include <math.h>

#include "daemon/device/cpu/kernels/declare.h"
#include "daemon/device/cpu/kernels/mask.h"
#include "daemon/device/cpu/kernels/scratch.h"
#include "daemon/device/cpu/kernels/tile.h"

/* The parts of attention->scratch. */
typedef struct attention_space {
    size_t row;   /* floats between rows of p and ds */
    float *turned_k;
    float *turned_v;
    float *p;  /* [ATTENTION_QUERIES, row] */
    float *ds; /* the same */
} attention_space;

static attention_space attention_space_cut(const mr_cpu_attention *attention) {
    size_t columns = (attention->T + ATTENTION_PAD - 1) / ATTENTION_PAD * ATTENTION_PAD;
    attention_space space = {.row = columns + ATTENTION_SKEW};
    space.turned_k = attention->scratch;
    space.turned_v = space.turned_k + columns * attention->D;
    space.p = space.turned_v + columns * attention->D;
    space.ds = space.p + ATTENTION_QUERIES * space.row;
    return space;
}

/* Queries [first, first + rows) and the keys [0, keys) that they see. */
typedef struct attention_block {
    size_t first;
    size_t rows;
    size_t keys;
} attention_block;

static attention_block attention_block_at(const mr_cpu_attention *attention, size_t first) {
    size_t left = attention->T - first;
    size_t rows = left < ATTENTION_QUERIES ? left : ATTENTION_QUERIES;
    return (attention_block){
        .first = first,
        .rows = rows,
        .keys = attention->causal ? first + rows : attention->T,
    };
}

/* out [rows, keys] = x turned, x being rows of queries or of dout. */
static void attention_scores(const mr_cpu_attention *attention, const attention_block *block,
                             const float *x, size_t stride, const float *turned, size_t row,
                             float *out) {
    tile_multiply(&(tile_product){
        .m = block->rows,
        .n = (block->keys + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS,
        .k = attention->D,
        .a = x + block->first * stride,
        .a_row = stride,
        .a_step = 1,
        .b = turned,
        .b_step = TILE_COLUMNS,
        .b_panel = TILE_COLUMNS * attention->D,
        .c = out,
        .c_row = row,
        .part = attention->causal ? TILE_COLUMNS_BELOW : TILE_ALL,
        .first = block->first,
    });
}

/* c [rows, D] = weights [rows, keys] x, x being rows of V or K. */
static void attention_gather(const mr_cpu_attention *attention, const attention_block *block,
                             const float *weights, size_t row, const float *x, float *c,
                             size_t c_row) {
    tile_multiply(&(tile_product){
        .m = block->rows,
        .n = attention->D,
        .k = block->keys,
        .a = weights,
        .a_row = row,
        .a_step = 1,
        .b = x,
        .b_step = attention->stride,
        .b_panel = TILE_COLUMNS,
        .c = c + block->first * c_row,
        .c_row = c_row,
        .part = attention->causal ? TILE_STEPS_BELOW : TILE_ALL,
        .first = block->first,
    });
}

/* c [keys, D] (+)= weights^T [keys, rows] x, x being rows of dout or Q. Keys that an earlier block
 * reached are added to; under the causal mask those of this block are new. */
static void attention_scatter(const mr_cpu_attention *attention, const attention_block *block,
                              const float *weights, size_t row, const float *x, size_t stride,
                              float *c) {
    size_t old = attention->causal ? block->first : block->keys;
    tile_product product = {
        .m = old,
        .n = attention->D,
        .k = block->rows,
        .a = weights,
        .a_row = 1,
        .a_step = row,
        .b = x + block->first * stride,
        .b_step = stride,
        .b_panel = TILE_COLUMNS,
        .c = c,
        .c_row = attention->stride,
        .accumulate = block->first > 0,
        .part = TILE_ALL,
    };
    tile_multiply(&product);
    if (old == block->keys)
        return;
    product.m = block->rows;
    product.a = weights + old;
    product.c = c + old * attention->stride;
    product.accumulate = false;
    product.part = TILE_STEPS_FROM;
    tile_multiply(&product);
}

static float attention_row_max(const float *x, size_t n) {
    vf top = v_set(-INFINITY);
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        top = v_max(v_load(x + i), top);
    float max = v_max_lane(top);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* x = exp(scale x - shift) over n elements; returns their sum. Rows are padded, so whole vectors
 * may be read and written; lanes past n are set to zero. */
static float attention_row_exp(float *x, size_t n, float scale, float shift) {
    vf sums[2] = {{0}, {0}};
    const vf factor = v_set(scale);
    const vf minus = v_set(-shift);
    size_t i = 0;
    for (size_t k = 0; i + V_LANES <= n; i += V_LANES, k ^= 1) {
        vf e = v_exp(v_fma(v_load(x + i), factor, minus));
        v_store(x + i, e);
        sums[k] += e;
    }
    if (i < n) {
        float last[V_LANES] = {0};
        v_store_n(last, v_exp(v_fma(v_load_n(x + i, n - i), factor, minus)), n - i);
        v_store(x + i, v_load(last));
        sums[0] += v_load(last);
    }
    return v_sum(sums[0] + sums[1]);
}

/* What row i of the whole sees: keys [0, count). */
static size_t attention_count(const mr_cpu_attention *attention, size_t i) {
    return attention->causal ? i + 1 : attention->T;
}

static void attention_row_scale(float *x, size_t n, float factor) {
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(x + i, v_load(x + i) * factor);
    if (i < n)
        v_store_n(x + i, v_load_n(x + i, n - i) * factor, n - i);
}

static uint64_t attention_mask_first(const mr_cpu_attention *attention, size_t i) {
    return attention->dropout_first + (uint64_t)i * attention->T;
}

void MR_KERNEL(attention_forward)(const mr_cpu_attention *attention) {
    attention_space space = attention_space_cut(attention);
    tile_pack_transposed(attention->k, attention->T, attention->D, attention->stride,
                         space.turned_k);
    for (size_t first = 0; first < attention->T; first += ATTENTION_QUERIES) {
        attention_block block = attention_block_at(attention, first);
        float inverse[ATTENTION_QUERIES];
        attention_scores(attention, &block, attention->q, attention->stride, space.turned_k,
                         space.row, space.p);
        for (size_t r = 0; r < block.rows; r++) {
            float *p = space.p + r * space.row;
            size_t count = attention_count(attention, first + r);
            float max = attention_row_max(p, count) * attention->scale;
            float sum = attention_row_exp(p, count, attention->scale, max);
            memset(p + count, 0, (block.keys - count) * sizeof(float));
            attention->lse[first + r] = (float)((double)max + log((double)sum));
            inverse[r] = 1.0f / sum;
            if (mask_is_needed(attention->dropout))
                MR_KERNEL(dropout)(p, attention->dropout,
                                   attention_mask_first(attention, first + r), p, count);
        }
        attention_gather(attention, &block, space.p, space.row, attention->v, attention->out,
                         attention->out_stride);
        for (size_t r = 0; r < block.rows; r++)
            attention_row_scale(attention->out + (first + r) * attention->out_stride, attention->D,
                                inverse[r]);
    }
}

static float attention_dot(const float *a, const float *b, size_t n) {
    vf sum = {0};
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        sum = v_fma(v_load(a + i), v_load(b + i), sum);
    if (i < n)
        sum = v_fma(v_load_n(a + i, n - i), v_load_n(b + i, n - i), sum);
    return v_sum(sum);
}

/* ds = scale p (ds - D), rows padded as above. */
static void attention_row_gradient(const float *p, float *ds, size_t n, float D, float scale) {
    for (size_t i = 0; i < n; i += V_LANES)
        v_store(ds + i, v_load(p + i) * (v_load(ds + i) - D) * scale);
}

/* Row r of a block: from scores in p and dout V^T in ds to P M and dS. */
static void attention_row_backward(const mr_cpu_attention *attention, size_t i, float *p,
                                   float *ds, size_t keys) {
    size_t count = attention_count(attention, i);
    size_t at = i * attention->out_stride;
    float D = attention_dot(attention->dout + at, attention->out + at, attention->D);
    (void)attention_row_exp(p, count, attention->scale, attention->lse[i]); /* the sum is 1 */
    if (mask_is_needed(attention->dropout))
        MR_KERNEL(dropout)(ds, attention->dropout, attention_mask_first(attention, i), ds, count);
    attention_row_gradient(p, ds, count, D, attention->scale);
    memset(ds + count, 0, (keys - count) * sizeof(float));
    if (mask_is_needed(attention->dropout))
        MR_KERNEL(dropout)(p, attention->dropout, attention_mask_first(attention, i), p, count);
    memset(p + count, 0, (keys - count) * sizeof(float));
}

void MR_KERNEL(attention_backward)(const mr_cpu_attention *attention) {
    attention_space space = attention_space_cut(attention);
    size_t stride = attention->stride;
    tile_pack_transposed(attention->k, attention->T, attention->D, stride, space.turned_k);
    tile_pack_transposed(attention->v, attention->T, attention->D, stride, space.turned_v);
    for (size_t first = 0; first < attention->T; first += ATTENTION_QUERIES) {
        attention_block block = attention_block_at(attention, first);
        attention_scores(attention, &block, attention->q, stride, space.turned_k, space.row,
                         space.p);
        attention_scores(attention, &block, attention->dout, attention->out_stride,
                         space.turned_v, space.row, space.ds);
        for (size_t r = 0; r < block.rows; r++)
            attention_row_backward(attention, first + r, space.p + r * space.row,
                                   space.ds + r * space.row, block.keys);
        attention_scatter(attention, &block, space.p, space.row, attention->dout,
                          attention->out_stride, attention->dv);
        attention_scatter(attention, &block, space.ds, space.row, attention->q, stride,
                          attention->dk);
        attention_gather(attention, &block, space.ds, space.row, attention->k, attention->dq,
                         stride);
    }
}
