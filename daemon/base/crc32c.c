/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/crc32c.h"

#include <pthread.h>
#include <string.h>

/* The polynomial 1EDC6F41 with its bits reversed. */
#define CRC32C_POLYNOMIAL 0x82f63b78u

/* Eight bytes at a time: table k is table 0 applied k more times. */
static uint32_t crc_table[8][256];
static pthread_once_t crc_table_once = PTHREAD_ONCE_INIT;

static void crc_table_fill(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? CRC32C_POLYNOMIAL : 0);
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] =
                (crc_table[k - 1][i] >> 8) ^ crc_table[0][crc_table[k - 1][i] & 0xff];
}

uint32_t mr_crc32c_portable(uint32_t crc, const void *data, size_t bytes) {
    const unsigned char *p = data;
    (void)pthread_once(&crc_table_once, crc_table_fill);
    crc = ~crc;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint32_t next = 0;
        for (int i = 0; i < 4; i++)
            next ^= crc_table[7 - i][p[i] ^ ((crc >> (8 * i)) & 0xff)];
        for (int i = 4; i < 8; i++)
            next ^= crc_table[7 - i][p[i]];
        crc = next;
    }
    for (; bytes > 0; p++, bytes--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc,
                                                                     const unsigned char *data,
                                                                     size_t bytes) {
    uint64_t wide = crc;
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof(word));
        wide = __builtin_ia32_crc32di(wide, word);
    }
    uint32_t narrow = (uint32_t)wide;
    for (; bytes > 0; data++, bytes--)
        narrow = __builtin_ia32_crc32qi(narrow, *data);
    return narrow;
}

uint32_t mr_crc32c(uint32_t crc, const void *data, size_t bytes) {
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_by_instruction(~crc, data, bytes);
    return mr_crc32c_portable(crc, data, bytes);
}
#else
uint32_t mr_crc32c(uint32_t crc, const void *data, size_t bytes) {
    return mr_crc32c_portable(crc, data, bytes);
}
#endif
