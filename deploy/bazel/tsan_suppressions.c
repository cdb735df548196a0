/* SPDX-License-Identifier: Apache-2.0 */
/* tsan_suppressions.c: linked into every test and binary of a --config=tsan build (millrace.bzl).
 * The thread sanitizer sees what Debian's libraries do to memory through its interceptors (memcpy,
 * sendmsg), but not their own locks: those are atomics and futexes in code that was not
 * instrumented. So accesses made from inside these libraries are ignored. What our own code does,
 * callbacks from such a library included, is still checked.
 * Each line must match one library only: the slash keeps out our own, such as
 * libdaemon_Slink_Slibgrpc.so. Add a line for a new dependency with threads of its own. */
#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "called_from_lib:/libgrpc.so\n"
           "called_from_lib:/libgpr.so\n"
           "called_from_lib:/libupb.so\n"
           "called_from_lib:/libaddress_sorting.so\n"
           "called_from_lib:/libcares.so\n"
           "called_from_lib:/libre2.so\n"
           "called_from_lib:/libssl.so\n"
           "called_from_lib:/libcrypto.so\n"
           "called_from_lib:/libdnnl.so\n"
           "called_from_lib:/libz.so\n"
           "called_from_lib:/libstdc++.so\n"
           "called_from_lib:/libabsl_base.so\n"
           "called_from_lib:/libabsl_cord.so\n"
           "called_from_lib:/libabsl_cord_internal.so\n"
           "called_from_lib:/libabsl_cordz_handle.so\n"
           "called_from_lib:/libabsl_cordz_info.so\n"
           "called_from_lib:/libabsl_graphcycles_internal.so\n"
           "called_from_lib:/libabsl_hash.so\n"
           "called_from_lib:/libabsl_malloc_internal.so\n"
           "called_from_lib:/libabsl_random_internal_pool_urbg.so\n"
           "called_from_lib:/libabsl_raw_hash_set.so\n"
           "called_from_lib:/libabsl_status.so\n"
           "called_from_lib:/libabsl_statusor.so\n"
           "called_from_lib:/libabsl_str_format_internal.so\n"
           "called_from_lib:/libabsl_strings.so\n"
           "called_from_lib:/libabsl_strings_internal.so\n"
           "called_from_lib:/libabsl_synchronization.so\n"
           "called_from_lib:/libabsl_time.so\n"
           "called_from_lib:/libabsl_time_zone.so\n";
}
#else
typedef int mr_tsan_suppressions; /* a file of C is not empty */
#endif
