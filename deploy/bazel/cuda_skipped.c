/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_skipped.c: what a test of CUDA code is in a build without it (cuda.bzl). */
#include <stdio.h>

int main(void) {
    puts("skipped: built without --config=cuda");
    return 0;
}
