/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c.h: the Castagnoli checksum (RFC 3720 appendix B.4), by the processor's own instruction
 * where it has one.
 * Owner: base. Thread: any. */
#ifndef MR_BASE_CRC32C_H
#define MR_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0, or the checksum of the bytes before these. */
uint32_t mr_crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same by tables, as on processors without the instruction; for the test that both agree. */
uint32_t mr_crc32c_portable(uint32_t crc, const void *data, size_t bytes);

#endif
