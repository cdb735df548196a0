/* SPDX-License-Identifier: Apache-2.0 */
/* metrics_process.c: the process_* series, under the names that every Prometheus client uses. Read
 * when asked for; where /proc does not tell, the old value stays. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "daemon/observe/metrics_internal.h"

static void process_set(mr_metrics *metrics, mr_metric metric, double value) {
    mr_series_set(mr_metrics_series_find(metrics, metric, NULL, 0), value);
}

static double process_clock(clockid_t clock) {
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail for these clocks */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Fields 14, 15, 22, 23 and 24 of /proc/self/stat, counted after the name in brackets. */
static void process_read_stat(mr_metrics *metrics) {
    char line[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL)
        return;
    size_t bytes = fread(line, 1, sizeof(line) - 1, file);
    (void)fclose(file); /* opened for reading */
    line[bytes] = '\0';
    const char *rest = strrchr(line, ')');
    uint64_t user = 0;
    uint64_t system_time = 0;
    uint64_t start = 0;
    uint64_t virtual_bytes = 0;
    uint64_t resident_pages = 0;
    if (rest == NULL || sscanf(rest + 1,
                               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                               " %*d %*d %*d %*d %*d %*d %" SCNu64 " %" SCNu64 " %" SCNu64,
                               &user, &system_time, &start, &virtual_bytes, &resident_pages) != 5)
        return;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    double age = process_clock(CLOCK_BOOTTIME) - (double)start / ticks;
    process_set(metrics, MR_METRIC_PROCESS_CPU, (double)(user + system_time) / ticks);
    process_set(metrics, MR_METRIC_PROCESS_VIRTUAL, (double)virtual_bytes);
    process_set(metrics, MR_METRIC_PROCESS_RESIDENT,
                (double)resident_pages * (double)sysconf(_SC_PAGESIZE));
    process_set(metrics, MR_METRIC_PROCESS_START, process_clock(CLOCK_REALTIME) - age);
}

static void process_count_fds(mr_metrics *metrics) {
    DIR *stream = opendir("/proc/self/fd");
    if (stream == NULL)
        return;
    int count = -3; /* . and .. and the stream itself */
    while (readdir(stream) != NULL)
        count++;
    (void)closedir(stream);
    process_set(metrics, MR_METRIC_PROCESS_OPEN_FDS, count);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        process_set(metrics, MR_METRIC_PROCESS_MAX_FDS, (double)limit.rlim_cur);
}

void mr_metrics_refresh_process(mr_metrics *metrics) {
    process_read_stat(metrics);
    process_count_fds(metrics);
}
