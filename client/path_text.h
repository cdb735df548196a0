/* SPDX-License-Identifier: Apache-2.0 */
/* path_text.h: a path as an error names it. A status holds 240 letters; a long path must not push
 * out what is wrong with its file. Owner: client. Pure, any thread. */
#ifndef MR_CLIENT_PATH_TEXT_H
#define MR_CLIENT_PATH_TEXT_H

enum { MR_PATH_TEXT_BYTES = 84 };

typedef struct mr_path_text {
    char text[MR_PATH_TEXT_BYTES];
} mr_path_text;

/* The path, or "..." and its last letters. By value: mr_path_shorten(path).text lives to the end of
 * the expression. */
mr_path_text mr_path_shorten(const char *path);

#endif
