/* SPDX-License-Identifier: Apache-2.0 */
/* options.def.h: the table of millraced's options.
 * X(FIELD, "name", roles, type, "default", "value's name", "help"); default NULL: none.
 * roles: C coordinator, S stage, B both. type: TEXT, COUNT (0 to 4096), FLAG, LEVEL.
 * Owner: main. */
#ifndef MR_OPTIONS_DEF_H
#define MR_OPTIONS_DEF_H

/* clang-format off */
#define MR_OPTIONS(X)                                                                              \
    X(LISTEN, "listen", B, TEXT, NULL, "HOST:PORT",                                                \
      "where to serve gRPC (coordinator 127.0.0.1:9700, stage 127.0.0.1:0; port 0: a free one)")   \
    X(STATUS, "status", B, TEXT, NULL, "HOST:PORT",                                                \
      "where to serve the status pages (coordinator 127.0.0.1:9780, stage 127.0.0.1:0)")           \
    X(STATE, "state", C, TEXT, "millrace-state", "DIR", "folder of the coordinator's state")       \
    X(COORDINATOR, "coordinator", S, TEXT, "127.0.0.1:9700", "HOST:PORT",                          \
      "the coordinator to attach to")                                                              \
    X(ADVERTISE, "advertise", S, TEXT, NULL, "HOST:PORT",                                          \
      "the address that peers and clients reach this stage by (the one in use)")                   \
    X(DEVICE, "device", S, TEXT, "cpu", "cpu|cuda:N", "the device that computes")                  \
    X(THREADS, "threads", S, COUNT, "0", "N",                                                      \
      "compute threads of a cpu device (0: one a processor)")                                      \
    X(PIN, "pin", S, FLAG, NULL, NULL, "bind the compute threads to processors")                   \
    X(DRAIN, "drain", S, COUNT, "0", "SECONDS",                                                    \
      "from SIGTERM on so long for the job to be saved (0: stop at once)")                         \
    X(TLS_CA, "tls-ca", B, TEXT, NULL, "FILE", "certificates that peers must be signed by")        \
    X(TLS_CERT, "tls-cert", B, TEXT, NULL, "FILE", "this daemon's certificate")                    \
    X(TLS_KEY, "tls-key", B, TEXT, NULL, "FILE", "its key")                                        \
    X(INSECURE, "insecure", B, FLAG, NULL, NULL, "allow plain text beyond loopback")               \
    X(LOG_LEVEL, "log-level", B, LEVEL, "info", "debug|info|warn|error", "lowest level written")
/* clang-format on */

#endif
