/* SPDX-License-Identifier: Apache-2.0 */
/* descriptors.h: the FileDescriptorSet of proto/, compiled in (a genrule writes descriptors.c).
 * Owner: rpc. Constant. Internal to this folder. */
#ifndef MR_RPC_DESCRIPTORS_H
#define MR_RPC_DESCRIPTORS_H

#include <stddef.h>

extern const unsigned char mr_rpc_descriptors[];
extern const size_t mr_rpc_descriptors_bytes;

#endif
