/* SPDX-License-Identifier: Apache-2.0 */
/* credentials.h: how a server or a channel proves itself. Plain text is for loopback and Unix
 * sockets; any other address needs TLS, or insecure said aloud.
 * Owner: rpc. Plain data. */
#ifndef MR_RPC_CREDENTIALS_H
#define MR_RPC_CREDENTIALS_H

#include <stdbool.h>

/* Paths of PEM files; all NULL: plain text. With a CA a server demands client certificates. */
typedef struct mr_rpc_credentials {
    const char *ca_file;
    const char *certificate_file;
    const char *key_file;
    bool insecure; /* plain text off loopback is wanted */
} mr_rpc_credentials;

#endif
