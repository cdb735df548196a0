/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/model/nearest.h"

#include <string.h>

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Edit distance with swaps of neighbours (Damerau, restricted): row i of the table needs only the
 * two rows before it. */
static size_t word_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    size_t rows[3][MR_NEAREST_WORD_BYTES + 1];
    for (size_t j = 0; j <= b_bytes; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = smaller(row[j], smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[a_bytes % 3][b_bytes];
}

mr_nearest mr_nearest_start(const char *word) {
    return (mr_nearest){.word = word};
}

void mr_nearest_offer(mr_nearest *nearest, const char *known, size_t bytes) {
    size_t word_bytes = strlen(nearest->word);
    if (word_bytes > MR_NEAREST_WORD_BYTES || bytes > MR_NEAREST_WORD_BYTES)
        return;
    size_t longer = word_bytes > bytes ? word_bytes : bytes;
    size_t allowed = longer <= 3 ? 1 : longer < 9 ? 2 : longer / 3;
    size_t distance = word_distance(nearest->word, word_bytes, known, bytes);
    if (distance > allowed)
        return;
    if (nearest->best != NULL && distance >= nearest->best_distance)
        return;
    nearest->best = known;
    nearest->best_bytes = bytes;
    nearest->best_distance = distance;
}
