/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h: named points at which a test can make the program fail or die. In a daemon no hook is
 * ever set, and a point costs one load.
 *   MR_TRY(mr_fault("checkpoint.commit.before_rename"));
 * Names: folder.action.place, unique in the tree; tests enumerate the ones they meet.
 * Owner: base. Thread: points any; the hook is set before the threads start.
 * Not here: failing allocations (alloc.h). */
#ifndef MR_BASE_FAULT_H
#define MR_BASE_FAULT_H

#include "daemon/base/status.h"

/* Called at every point; a status other than OK makes the point fail with it. It may also end the
 * process. */
typedef mr_status (*mr_fault_hook)(void *context, const char *point);

/* Test seam: hook NULL switches all points off. */
void mr_fault_hook_set(mr_fault_hook hook, void *context);
/* OK unless a hook says otherwise. */
MR_MUST_CHECK mr_status mr_fault(const char *point);

#endif
