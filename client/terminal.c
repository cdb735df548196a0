/* SPDX-License-Identifier: Apache-2.0 */
#include "client/terminal.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/environment.h"

enum { TERMINAL_COLUMNS = 80, TERMINAL_ROWS = 24 }; /* of a terminal that does not say */

static bool terminal_plain; /* no colours */
static char terminal_live_text[MR_TERMINAL_LINE_BYTES]; /* what stands on the live line */

bool mr_terminal_live(void) {
    return isatty(STDERR_FILENO) == 1 && mr_environment_terminal();
}

static bool terminal_size(int fd, struct winsize *size) {
    *size = (struct winsize){0};
    return isatty(fd) == 1 && ioctl(fd, TIOCGWINSZ, size) == 0;
}

size_t mr_terminal_columns(void) {
    struct winsize size;
    if (!terminal_size(STDOUT_FILENO, &size))
        return 0;
    return size.ws_col > 0 ? size.ws_col : TERMINAL_COLUMNS;
}

size_t mr_terminal_rows(void) {
    struct winsize size;
    if (!terminal_size(STDOUT_FILENO, &size))
        return 0;
    return size.ws_row > 0 ? size.ws_row : TERMINAL_ROWS;
}

bool mr_terminal_screen(void) {
    return isatty(STDOUT_FILENO) == 1 && mr_environment_terminal();
}

void mr_terminal_plain(void) {
    terminal_plain = true;
}

bool mr_terminal_colour(void) {
    return !terminal_plain && isatty(STDOUT_FILENO) == 1 && mr_environment_colour();
}

void mr_terminal_clean(const char *text, char *out, size_t bytes) {
    MR_ASSERT(bytes >= 1);
    size_t n = 0;
    for (; text[n] != '\0' && n + 1 < bytes; n++) {
        unsigned char c = (unsigned char)text[n];
        out[n] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    out[n] = '\0';
}

static size_t terminal_width(void) {
    struct winsize size;
    if (!terminal_size(STDERR_FILENO, &size) || size.ws_col < 20)
        return TERMINAL_COLUMNS;
    return size.ws_col;
}

static void terminal_live_draw(void) {
    fprintf(stderr, "\r%s\033[K", terminal_live_text);
    fflush(stderr);
}

void mr_terminal_line(const char *format, va_list arguments) {
    char text[MR_TERMINAL_LINE_BYTES];
    char clean[MR_TERMINAL_LINE_BYTES];
    int length = vsnprintf(text, sizeof(text), format, arguments);
    if (length < 0)
        return;
    mr_terminal_clean(text, clean, sizeof(clean));
    bool live = terminal_live_text[0] != '\0';
    fprintf(stderr, "%s%s%s\n", live ? "\r" : "", clean, live ? "\033[K" : "");
    if (live)
        terminal_live_draw();
}

/* Makes runs of blanks one, where a line would not fit. */
static void terminal_squeeze(char *text) {
    size_t n = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        if (text[i] != ' ' || text[i + 1] != ' ')
            text[n++] = text[i];
    }
    text[n] = '\0';
}

void mr_terminal_live_set(const char *text) {
    if (!mr_terminal_live())
        return;
    char clean[MR_TERMINAL_LINE_BYTES];
    size_t width = terminal_width();
    size_t room = width < sizeof(clean) ? width : sizeof(clean);
    mr_terminal_clean(text, clean, sizeof(clean));
    if (strlen(clean) >= room)
        terminal_squeeze(clean);
    memcpy(terminal_live_text, clean, room);
    terminal_live_text[room - 1] = '\0';
    terminal_live_draw();
}

void mr_terminal_live_end(void) {
    if (terminal_live_text[0] == '\0')
        return;
    terminal_live_text[0] = '\0';
    fputc('\n', stderr);
    fflush(stderr);
}
