/* SPDX-License-Identifier: Apache-2.0 */
/* options.def.h: the table of millraced's options.
 * X(FIELD, "name", roles, type, "default", "value's name", "help"); default NULL: none.
 * roles: C coordinator, S stage, N node, SN both, ALL. type: TEXT, COUNT (0 to 4096), FLAG, LEVEL.
 * Owner: main. */
#ifndef MR_OPTIONS_DEF_H
#define MR_OPTIONS_DEF_H

/* clang-format off */
#define MR_OPTIONS(X)                                                                              \
    X(LISTEN, "listen", ALL, TEXT, NULL, "HOST:PORT",                                              \
      "where to serve gRPC (coordinator 127.0.0.1:9700, stage 127.0.0.1:0; port 0: a free one; "   \
      "a node's first stage there, the others at the next ports)")                                 \
    X(STATUS, "status", ALL, TEXT, NULL, "HOST:PORT",                                              \
      "where to serve the status pages (coordinator 127.0.0.1:9780, node 127.0.0.1:9790 and its "  \
      "stages at the next ports, stage 127.0.0.1:0)")                                              \
    X(STATE, "state", C, TEXT, "millrace-state", "DIR", "folder of the coordinator's state")       \
    X(COORDINATOR, "coordinator", SN, TEXT, "127.0.0.1:9700", "HOST:PORT",                         \
      "the coordinator to attach to")                                                              \
    X(ADVERTISE, "advertise", SN, TEXT, NULL, "HOST:PORT",                                         \
      "the address that peers and clients reach the stage by (the one in use)")                    \
    X(DEVICE, "device", S, TEXT, "cpu", "cpu|cuda:N", "the device that computes")                  \
    X(DEVICES, "devices", N, TEXT, "auto", "auto|cpu:N|LIST",                                      \
      "one stage for each: every CUDA card, or else one CPU device; N CPU devices that share the " \
      "processors; or as listed: cuda:0,cuda:2,cpu")                                               \
    X(FABRIC, "fabric", S, TEXT, "auto", "auto|links|none",                                        \
      "what a cuda device's tensors travel by: NCCL and CUDA IPC; links: those, but sums pass "    \
      "through the host, as several stages on one card need; none: all passes through the host")   \
    X(THREADS, "threads", SN, COUNT, "0", "N",                                                     \
      "compute threads of a cpu device (0: one a processor; node: its share of them)")             \
    X(PIN, "pin", SN, FLAG, NULL, NULL, "bind the compute threads to processors")                  \
    X(DRAIN, "drain", SN, COUNT, NULL, "SECONDS",                                                  \
      "from SIGTERM on so long for the job to be saved (stage 0: it stops at once); node 25, and " \
      "then its stages are killed (1 to 3600)")                                                    \
    X(TLS_CA, "tls-ca", ALL, TEXT, NULL, "FILE", "certificates that peers must be signed by")      \
    X(TLS_CERT, "tls-cert", ALL, TEXT, NULL, "FILE", "this daemon's certificate")                  \
    X(TLS_KEY, "tls-key", ALL, TEXT, NULL, "FILE", "its key")                                      \
    X(TLS_DIR, "tls-dir", ALL, TEXT, NULL, "DIR",                                                  \
      "takes ca.crt, tls.crt and tls.key from there, those that are there and not empty")          \
    X(INSECURE, "insecure", ALL, FLAG, NULL, NULL, "allow plain text beyond loopback")             \
    X(LOG_LEVEL, "log-level", ALL, LEVEL, "info", "debug|info|warn|error", "lowest level written")
/* clang-format on */

#endif
