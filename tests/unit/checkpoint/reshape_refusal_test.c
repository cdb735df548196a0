/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a reshape refuses what it cannot do right, by name, and leaves nothing behind; layers and
 * model ranks are counted as numbers, and no layer is expected by its number.
 * Method: small checkpoints written tensor by tensor, each with one fault. The field's defects
 * named here, by their numbers in deepspeed.md: 105 (files looked for under another name that is
 * never tried), 110 (a checkpoint half written), 112 (rank 100 sorted before rank 11), 113 (a wrong
 * count of files taken for another width), 119 (a folder without layer 1 refused, the width guessed
 * from it). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/layer_reader.h"
#include "daemon/checkpoint/reshape.h"
#include "tests/unit/checkpoint/fixture.h"

enum { MADE_MAX = 512, ROWS = 240 };

/* A checkpoint in the making: dir/from. */
typedef struct maker {
    char dir[FIXTURE_PATH_BYTES];
    char folder[FIXTURE_PATH_BYTES];
    mr_checkpoint_file files[MADE_MAX];
    size_t count;
} maker;

static void maker_open(maker *m) {
    memset(m, 0, sizeof *m);
    fixture_make(m->dir);
    fixture_ok(mr_layout_save_path(m->dir, "from", 1, 5, m->folder, sizeof m->folder));
}

/* The file of one rank: a weight of ROWS rows cut over the ranks, and a bias that all hold. */
static void maker_add(maker *m, uint32_t layer, uint32_t rank, uint32_t ranks, const char *cut,
                      float bias) {
    static float values[ROWS];
    char name[MR_NAME_BYTES];
    for (uint32_t i = 0; i < ROWS; i++)
        values[i] = (float)(layer * 1000 + i);
    const mr_safetensors_tensor tensors[] = {
        {.name = "weight",
         .dtype = MR_SAFETENSORS_F32,
         .dims = 2,
         .shape = {ROWS / ranks, 1},
         .data = values + rank * (ROWS / ranks),
         .cut = cut},
        {.name = "bias",
         .dtype = MR_SAFETENSORS_F32,
         .dims = 1,
         .shape = {1},
         .data = &bias,
         .cut = cut == NULL ? NULL : "whole"},
    };
    mr_layout_layer_name(layer, rank, ranks, MR_LAYER_FILE_MODEL, name);
    fixture_ok(mr_safetensors_write(m->folder, name, tensors, 2, &m->files[m->count++]));
}

static void maker_commit(maker *m) {
    const mr_manifest manifest = {.job = "tiny",
                                  .step = 5,
                                  .epoch = 1,
                                  .model_hash = "00ff",
                                  .optimizer = {.type = "sgd", .steps = 5, .lr = 1e-3},
                                  .files = m->files,
                                  .file_count = m->count};
    fixture_ok(mr_manifest_commit(m->dir, "from", &manifest, NULL));
}

static mr_status reshape(const maker *m, const char *tag, size_t width) {
    char source[FIXTURE_PATH_BYTES];
    mr_reshape_result result;
    fixture_path(source, m->dir, "from", NULL);
    const mr_reshape_options options = {
        .source = source, .dir = m->dir, .tag = tag, .width = width};
    return mr_reshape(&options, &result);
}

/* Refused, and nothing but the source stands in the folder. */
static void expect_refused(maker *m, size_t width, mr_code code, const char *text) {
    fixture_fails(reshape(m, "to", width), code, text);
    assert_int_equal(fixture_count(m->dir, "to"), 0);
    assert_int_equal(fixture_count(m->dir, ".save"), 0);
    assert_int_equal(fixture_count(m->dir, "trash"), 0);
    fixture_remove(m->dir);
}

static void
test_a_hundred_and_twenty_ranks_merge_in_order_of_their_numbers_defect_112(void **state) {
    (void)state;
    static maker m;
    char path[FIXTURE_PATH_BYTES];
    float weight[ROWS];
    maker_open(&m);
    for (uint32_t rank = 0; rank < 120; rank++) {
        maker_add(&m, 7, rank, 120, "rows 240", 1);
        maker_add(&m, 123, rank, 120, "rows 240", 1);
    }
    maker_commit(&m);
    fixture_ok(reshape(&m, "to", 1));
    fixture_path(path, m.dir, "to", "layer_123-model_states.safetensors");
    mr_safetensors_reader *reader = NULL;
    fixture_ok(mr_safetensors_open(path, &reader));
    const mr_safetensors_tensor wanted = {
        .name = "weight", .dtype = MR_SAFETENSORS_F32, .dims = 2, .shape = {ROWS, 1}};
    fixture_ok(mr_safetensors_load(reader, &wanted, weight));
    for (uint32_t i = 0; i < ROWS; i++)
        assert_true(weight[i] == (float)(123000 + i));
    mr_safetensors_close(reader);
    fixture_remove(m.dir);
}

/* There is no layer 1, and the width is told by every layer. */
static void test_no_layer_is_expected_by_its_number_defect_119(void **state) {
    (void)state;
    static maker m;
    char path[FIXTURE_PATH_BYTES];
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_add(&m, 2, 0, 1, "rows 240", 2);
    maker_commit(&m);
    fixture_ok(reshape(&m, "to", 4));
    fixture_path(path, m.dir, "to", NULL);
    mr_catalog_verdict verdict;
    fixture_ok(mr_catalog_verify(path, NULL, NULL, &verdict));
    assert_int_equal(verdict.files, 8);
    fixture_remove(m.dir);
}

static void test_a_lacking_rank_is_named_defect_113(void **state) {
    (void)state;
    static maker m;
    char path[FIXTURE_PATH_BYTES];
    maker_open(&m);
    maker_add(&m, 3, 0, 4, "rows 240", 1);
    maker_add(&m, 3, 2, 4, "rows 240", 1);
    maker_add(&m, 3, 3, 4, "rows 240", 1);
    maker_commit(&m);
    fixture_path(path, m.dir, "from", NULL);
    fixture_fails(mr_catalog_verify(path, NULL, NULL, NULL), MR_CODE_DATA_LOSS,
                  "E_CKPT_RANKS layer=3");
    expect_refused(&m, 1, MR_CODE_DATA_LOSS,
                   "E_CKPT_RANKS layer=3: "
                   "layer_03-model_02-model_states.safetensors is there, but "
                   "no file of model rank 1");
}

/* Rank 3 of 4 is lacking; what is left looks like three ranks, but its rows do not. */
static void test_a_lacking_last_rank_is_no_other_width_defect_113(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    for (uint32_t rank = 0; rank < 3; rank++)
        maker_add(&m, 3, rank, 4, "rows 240", 1);
    maker_commit(&m);
    expect_refused(&m, 1, MR_CODE_DATA_LOSS,
                   "E_CKPT_SHAPE tensor=weight want=f32 [80, 1] have=f32 [60, 1]");
}

static void test_layers_of_other_widths_are_named_defect_119(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_add(&m, 1, 0, 2, "rows 240", 1);
    maker_add(&m, 1, 1, 2, "rows 240", 1);
    maker_commit(&m);
    expect_refused(&m, 1, MR_CODE_DATA_LOSS,
                   "E_CKPT_RANKS layer=1: 2 model ranks; the layers before it have 1");
}

static void test_a_file_of_all_ranks_beside_single_ones_is_named(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_add(&m, 0, 0, 2, "rows 240", 1);
    maker_commit(&m);
    expect_refused(&m, 1, MR_CODE_DATA_LOSS,
                   "E_CKPT_RANKS layer=0: layer_00-model_states.safetensors "
                   "stands beside files of "
                   "single ranks");
}

static void test_what_ranks_should_share_is_compared(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 2, "rows 240", 1);
    maker_add(&m, 0, 1, 2, "rows 240", 2);
    maker_commit(&m);
    expect_refused(&m, 1, MR_CODE_DATA_LOSS,
                   "E_CKPT_REPLICA tensor=bias: model ranks 0 and 1 hold "
                   "different values of it");
}

static void test_a_tensor_of_unknown_cut_is_named(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, NULL, 1);
    maker_commit(&m);
    expect_refused(&m, 2, MR_CODE_FAILED_PRECONDITION,
                   "the file does not say how weight is cut over model ranks");
}

/* The job's word for it is enough. */
static void test_a_description_tells_an_unknown_cut(void **state) {
    (void)state;
    static maker m;
    static mr_layer_description layer = {
        .parameter_count = 2,
        .parameters = {
            {.name = "weight",
             .whole = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {ROWS, 1}},
             .cut = MR_MODEL_CUT_ROWS},
            {.name = "bias", .whole = {.dtype = MR_DTYPE_F32, .dim_count = 1, .dims = {1}}}}};
    char source[FIXTURE_PATH_BYTES];
    mr_reshape_result result;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, NULL, 1);
    maker_commit(&m);
    fixture_path(source, m.dir, "from", NULL);
    const mr_reshape_options options = {.source = source,
                                        .dir = m.dir,
                                        .tag = "to",
                                        .width = 3,
                                        .descriptions = &layer,
                                        .layer_count = 1};
    fixture_ok(mr_reshape(&options, &result));
    assert_int_equal(result.file_count, 3);
    fixture_remove(m.dir);
}

static void test_a_width_without_rows_is_named(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_commit(&m);
    expect_refused(&m, 241, MR_CODE_INVALID_ARGUMENT,
                   "weight has 240 blocks of 1 rows; each of the 241 model ranks needs one");
}

static void test_a_width_out_of_bounds_is_named(void **state) {
    (void)state;
    static maker m;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_commit(&m);
    fixture_fails(reshape(&m, "to", 0), MR_CODE_INVALID_ARGUMENT, "0 model ranks; it must be 1");
    expect_refused(&m, 4097, MR_CODE_INVALID_ARGUMENT, "4097 model ranks; it must be 1 to 4096");
}

static void test_a_target_that_stands_is_not_replaced(void **state) {
    (void)state;
    static maker m;
    char path[FIXTURE_PATH_BYTES];
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_commit(&m);
    fixture_ok(reshape(&m, "to", 2));
    fixture_fails(reshape(&m, "to", 3), MR_CODE_ALREADY_EXISTS, "to stands already");
    fixture_path(path, m.dir, "to", NULL);
    fixture_ok(mr_catalog_verify(path, NULL, NULL, NULL));
    fixture_path(path, m.dir, "note", NULL);
    fixture_put(path, "x", 1);
    fixture_fails(reshape(&m, "note", 3), MR_CODE_ALREADY_EXISTS, "note stands already");
    fixture_remove(m.dir);
}

/* Bytes damaged after the commit are found before anything is committed from them. */
static void test_a_damaged_source_leaves_nothing_defect_110(void **state) {
    (void)state;
    static maker m;
    char path[FIXTURE_PATH_BYTES];
    size_t bytes = 0;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_add(&m, 1, 0, 1, "rows 240", 1);
    maker_commit(&m);
    fixture_path(path, m.dir, "from", "layer_01-model_states.safetensors");
    unsigned char *file = fixture_get(path, &bytes);
    file[bytes - 1] ^= 1;
    fixture_put(path, file, bytes);
    free(file);
    expect_refused(&m, 2, MR_CODE_DATA_LOSS,
                   "E_CKPT_SHA256 file=layer_01-model_states.safetensors");
}

/* The state has one name, whatever the precision; what is not there is said, not looked for. */
static void test_lacking_state_is_named_defect_105(void **state) {
    (void)state;
    static maker m;
    char source[FIXTURE_PATH_BYTES];
    mr_manifest manifest;
    mr_layer_files files;
    mr_layer_reader *reader = NULL;
    maker_open(&m);
    maker_add(&m, 0, 0, 1, "rows 240", 1);
    maker_commit(&m);
    fixture_path(source, m.dir, "from", NULL);
    fixture_ok(mr_manifest_read(source, &manifest));
    fixture_ok(mr_layer_files_list(&manifest, &files));
    const mr_layer_reader_options options = {.path = source,
                                             .manifest = &manifest,
                                             .files = &files,
                                             .layer = 0,
                                             .kind = MR_LAYER_FILE_OPTIM};
    fixture_fails(mr_layer_reader_open(&options, &reader), MR_CODE_FAILED_PRECONDITION,
                  "E_CKPT_MISSING layer=0: the checkpoint has no file of its "
                  "optimizer state");
    mr_layer_files_deinit(&files);
    mr_manifest_deinit(&manifest);
    fixture_remove(m.dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_a_hundred_and_twenty_ranks_merge_in_order_of_their_numbers_defect_112),
        cmocka_unit_test(test_no_layer_is_expected_by_its_number_defect_119),
        cmocka_unit_test(test_a_lacking_rank_is_named_defect_113),
        cmocka_unit_test(test_a_lacking_last_rank_is_no_other_width_defect_113),
        cmocka_unit_test(test_layers_of_other_widths_are_named_defect_119),
        cmocka_unit_test(test_a_file_of_all_ranks_beside_single_ones_is_named),
        cmocka_unit_test(test_what_ranks_should_share_is_compared),
        cmocka_unit_test(test_a_tensor_of_unknown_cut_is_named),
        cmocka_unit_test(test_a_description_tells_an_unknown_cut),
        cmocka_unit_test(test_a_width_without_rows_is_named),
        cmocka_unit_test(test_a_width_out_of_bounds_is_named),
        cmocka_unit_test(test_a_target_that_stands_is_not_replaced),
        cmocka_unit_test(test_a_damaged_source_leaves_nothing_defect_110),
        cmocka_unit_test(test_lacking_state_is_named_defect_105),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
