/* SPDX-License-Identifier: Apache-2.0 */
/* version.h: the version of every binary of this tree. Owner: base. */
#ifndef MR_BASE_VERSION_H
#define MR_BASE_VERSION_H

#define MR_VERSION "0.1.0"

/* The commit, where the build was told one (--copt=-DMR_COMMIT=...). */
#ifndef MR_COMMIT
#define MR_COMMIT ""
#endif

#endif
