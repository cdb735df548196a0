/* SPDX-License-Identifier: Apache-2.0 */
/* terminal.h: the screen as people see it. stderr: whole lines, and on a terminal one live line
 * below them that is rewritten in place; a dumb terminal and a file get whole lines only. stdout:
 * its width, and whether it takes colours (never in a file, on a dumb terminal, with NO_COLOR or
 * --no-color). Owner: client. Thread: main. */
#ifndef MR_CLIENT_TERMINAL_H
#define MR_CLIENT_TERMINAL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"

enum { MR_TERMINAL_LINE_BYTES = 1024 };

/* Is stderr a terminal that can rewrite a line? */
bool mr_terminal_live(void);
/* Letters of a line of stdout; 0: it is no terminal, and lines have no end. */
size_t mr_terminal_columns(void);
/* Lines of stdout's terminal; 0: it is none. */
size_t mr_terminal_rows(void);
/* Is stdout a terminal whose screen can be rewritten? */
bool mr_terminal_screen(void);
/* Switches colours off, whatever the terminal could do. */
void mr_terminal_plain(void);
/* May stdout have colours? */
bool mr_terminal_colour(void);
/* Writes one line; a live line stays below it. Control characters, which could come from another
 * machine, are shown as '?'. */
void mr_terminal_line(const char *format, va_list arguments) MR_PRINTF(1, 0);
/* Replaces the live line, cut to the terminal's width; does nothing where there is no live line. */
void mr_terminal_live_set(const char *text);
/* Ends the live line: the last text stays as an ordinary line. */
void mr_terminal_live_end(void);
/* Copies text with control characters as '?'; cut at bytes. UTF-8 passes. */
void mr_terminal_clean(const char *text, char *out, size_t bytes);

#endif
