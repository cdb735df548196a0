/* SPDX-License-Identifier: Apache-2.0 */
#include "client/suggest.h"

#include <stdint.h>
#include <string.h>

static size_t suggest_least(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t mr_suggest_distance(const char *a, const char *b) {
    size_t m = strlen(a);
    size_t n = strlen(b);
    if (m > MR_SUGGEST_BYTES_MAX || n > MR_SUGGEST_BYTES_MAX)
        return SIZE_MAX;
    size_t d[MR_SUGGEST_BYTES_MAX + 1][MR_SUGGEST_BYTES_MAX + 1];
    for (size_t i = 0; i <= m; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= n; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= m; i++) {
        for (size_t j = 1; j <= n; j++) {
            size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
            size_t least = suggest_least(d[i - 1][j] + 1, d[i][j - 1] + 1);
            least = suggest_least(least, d[i - 1][j - 1] + change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                least = suggest_least(least, d[i - 2][j - 2] + 1);
            d[i][j] = least;
        }
    }
    return d[m][n];
}

bool mr_suggest_better(const char *word, const char *candidate, size_t *best) {
    size_t distance = mr_suggest_distance(word, candidate);
    size_t letters = strlen(candidate);
    size_t limit = suggest_least(letters / 3 + 1, 3);
    bool begins = strlen(word) >= 3 && strncmp(word, candidate, strlen(word)) == 0;
    if (begins)
        distance = suggest_least(distance, 1);
    if (distance > limit || distance >= letters || distance >= *best)
        return false;
    *best = distance;
    return true;
}
