/* SPDX-License-Identifier: Apache-2.0 */
/* status.h: the one error type, passed by value. No heap, no thread-local.
 * Owner: base. Thread: any. Limits: MR_STATUS_TEXT_BYTES.
 * Not here: logging. Library folders return a status; only a role's root object logs it. */
#ifndef MR_BASE_STATUS_H
#define MR_BASE_STATUS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

/* The canonical gRPC codes: number, name, meaning, may the same call be tried again.
 * The wire, the log and the client's exit code agree because all three read this table. */
#define MR_CODES(X)                                                                                \
    X(0, OK, "success", false)                                                                     \
    X(1, CANCELLED, "the caller gave up", false)                                                   \
    X(2, UNKNOWN, "an error without a better name", false)                                         \
    X(3, INVALID_ARGUMENT, "the request is wrong whatever the state", false)                       \
    X(4, DEADLINE_EXCEEDED, "not finished in time", true)                                          \
    X(5, NOT_FOUND, "no such thing", false)                                                        \
    X(6, ALREADY_EXISTS, "the name is taken", false)                                               \
    X(7, PERMISSION_DENIED, "not allowed", false)                                                  \
    X(8, RESOURCE_EXHAUSTED, "a limit is reached", true)                                           \
    X(9, FAILED_PRECONDITION, "not in this state", false)                                          \
    X(10, ABORTED, "lost against something newer", true)                                           \
    X(11, OUT_OF_RANGE, "past the end", false)                                                     \
    X(12, UNIMPLEMENTED, "this build or role cannot do it", false)                                 \
    X(13, INTERNAL, "our bug", false)                                                              \
    X(14, UNAVAILABLE, "not reachable now", true)                                                  \
    X(15, DATA_LOSS, "stored or sent bytes are damaged", false)                                    \
    X(16, UNAUTHENTICATED, "no valid identity", false)

typedef enum mr_code {
#define MR_CODE_ENUM(number, name, meaning, retry) MR_CODE_##name = number,
    MR_CODES(MR_CODE_ENUM)
#undef MR_CODE_ENUM
        MR_CODE_COUNT
} mr_code;

enum { MR_STATUS_TEXT_BYTES = 240 };

/* code: MR_CODE_OK or what went wrong. text: one sentence that names the field, the value and the
 * bound; always terminated. file and line: where it was made. */
typedef struct mr_status {
    mr_code code;
    uint32_t line;
    const char *file;
    char text[MR_STATUS_TEXT_BYTES];
} mr_status;
static_assert(sizeof(mr_status) == 256, "a status is copied by value on every fallible call");

#define MR_MUST_CHECK __attribute__((warn_unused_result))
#define MR_PRINTF(format_index, first_index)                                                       \
    __attribute__((format(printf, format_index, first_index)))

#define MR_OK ((mr_status){.code = MR_CODE_OK})

/* MR_ERROR(INVALID_ARGUMENT, "batch.micro_batches is %d; it must be at least 1", n): a status. */
#define MR_ERROR(name, ...) mr_status_make(MR_CODE_##name, __FILE__, __LINE__, __VA_ARGS__)

/* The three control-flow macros of the tree (STYLE 17). */
#define MR_TRY(expression)                                                                         \
    do {                                                                                           \
        mr_status mr_try_status_ = (expression);                                                   \
        if (mr_try_status_.code != MR_CODE_OK)                                                     \
            return mr_try_status_;                                                                 \
    } while (0)
#define MR_TRY_GOTO(status, expression, label)                                                     \
    do {                                                                                           \
        (status) = (expression);                                                                   \
        if ((status).code != MR_CODE_OK)                                                           \
            goto label;                                                                            \
    } while (0)
/* Our bug, in release builds too: prints where, the role and the thread, then aborts. */
#define MR_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            mr_assert_failed(#condition, __FILE__, __LINE__);                                      \
    } while (0)

/* Makes a status; text is cut at MR_STATUS_TEXT_BYTES. Any thread. */
MR_MUST_CHECK mr_status mr_status_make(mr_code code, const char *file, uint32_t line,
                                       const char *format, ...) MR_PRINTF(4, 5);
static inline bool mr_status_is_ok(mr_status status) {
    return status.code == MR_CODE_OK;
}
/* The code's name as on the wire ("INVALID_ARGUMENT"); "UNKNOWN" for a number outside the table. */
const char *mr_code_name(mr_code code);
/* May the same call be tried again? */
bool mr_code_retry(mr_code code);
/* The same error with "prefix: " before its text, for a caller that knows more (a file's name). */
MR_MUST_CHECK mr_status mr_status_prefix(mr_status status, const char *format, ...) MR_PRINTF(2, 3);
_Noreturn void mr_assert_failed(const char *condition, const char *file, int line);

#endif
