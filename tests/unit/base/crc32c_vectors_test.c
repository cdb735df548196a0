/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the checksum is CRC-32C, however the bytes lie and wherever they are cut. Method: the known
 * vectors (the check value of "123456789"; RFC 3720 B.4), and every length, alignment and cut of a
 * stretch against the definition, one bit at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/crc32c.h"

/* Division by the polynomial 1EDC6F41, bits reversed. */
static uint32_t crc_by_bits(const unsigned char *data, size_t bytes) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_known_vectors_give_known_sums(void **state) {
    unsigned char bytes[32];
    (void)state;
    assert_int_equal(mr_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(mr_crc32c(0, "", 0), 0);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(mr_crc32c(0, bytes, sizeof(bytes)), 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof(bytes));
    assert_int_equal(mr_crc32c(0, bytes, sizeof(bytes)), 0x62A8AB43u);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(mr_crc32c(0, bytes, sizeof(bytes)), 0x46DD794Eu);
}

static void test_any_length_alignment_and_cut_agrees_with_the_definition(void **state) {
    unsigned char bytes[160];
    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 167 + 13);
    for (size_t first = 0; first < 9; first++) {
        for (size_t length = 0; first + length <= sizeof(bytes); length++) {
            uint32_t want = crc_by_bits(bytes + first, length);
            assert_int_equal(mr_crc32c(0, bytes + first, length), want);
            assert_int_equal(mr_crc32c_portable(0, bytes + first, length), want);
            size_t cut = length / 3;
            uint32_t part = mr_crc32c(0, bytes + first, cut);
            assert_int_equal(mr_crc32c(part, bytes + first + cut, length - cut), want);
            part = mr_crc32c_portable(0, bytes + first, cut);
            assert_int_equal(mr_crc32c_portable(part, bytes + first + cut, length - cut), want);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_vectors_give_known_sums),
        cmocka_unit_test(test_any_length_alignment_and_cut_agrees_with_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
