/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/admission.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/log.h"
#include "daemon/checkpoint/catalog.h"
#include "daemon/checkpoint/load_report.h"

/* The checkpoint of that tag can be loaded by this job; its step and path go to the admission. */
static mr_status admission_take_tag(mr_admission *admission, const char *tag) {
    const mr_job_spec *spec = admission->spec;
    MR_TRY(mr_layout_tag_check(tag));
    MR_TRY(mr_layout_join(spec->checkpoint_dir, tag, admission->checkpoint_path,
                          sizeof(admission->checkpoint_path)));
    mr_manifest manifest = {0};
    MR_TRY(mr_manifest_read(admission->checkpoint_path, &manifest));
    const char *optimizer = mr_optimizer_name(spec->job->optimizer);
    mr_status status = MR_OK;
    if (strcmp(manifest.model_hash, spec->model_hash) != 0)
        status = MR_ERROR(FAILED_PRECONDITION,
                          "E_CKPT_MODEL want=%.16s have=%.16s: checkpoint %s is of a model with "
                          "other layers or another loss",
                          spec->model_hash, manifest.model_hash, tag);
    else if (mr_job_mode_trains(spec->mode) && strcmp(manifest.optimizer.type, optimizer) != 0)
        status = MR_ERROR(FAILED_PRECONDITION,
                          "optimizer.type is %s but checkpoint %s has the state of %s", optimizer,
                          tag, manifest.optimizer.type);
    admission->start_step = manifest.step;
    mr_manifest_deinit(&manifest);
    return status;
}

static mr_status admission_take_newest(mr_admission *admission) {
    const mr_job_spec *spec = admission->spec;
    mr_catalog_entry newest;
    mr_status status = mr_catalog_newest(spec->checkpoint_dir, spec->name, NULL, NULL, &newest);
    if (status.code == MR_CODE_NOT_FOUND && mr_job_mode_trains(spec->mode))
        return MR_OK; /* from step 0 */
    MR_TRY(status);
    return admission_take_tag(admission, newest.tag);
}

/* ---- checkpoint.load ---- */

/* path is no checkpoint; the newest one in it is named where there is one. */
static mr_status load_missing(const char *path) {
    mr_catalog_entry newest;
    mr_status found = mr_catalog_newest(path, NULL, NULL, NULL, &newest);
    return MR_ERROR(NOT_FOUND,
                    "checkpoint.load.path is %.110s; it must be a committed checkpoint%s%s", path,
                    mr_status_is_ok(found) ? ", such as its newest, " : "",
                    mr_status_is_ok(found) ? newest.tag : "");
}

static mr_status load_check_strict(const mr_job_spec *spec, const mr_manifest *manifest,
                                   const mr_load_report *report) {
    const char *optimizer = mr_optimizer_name(spec->job->optimizer);
    MR_TRY(mr_load_report_strict(report));
    if (strcmp(manifest->model_hash, spec->model_hash) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "E_CKPT_MODEL want=%.16s have=%.16s: the parameters are the job's, but the "
                        "layers compute otherwise (heads, eps, activation, ties); "
                        "checkpoint.load.strict: false loads them",
                        spec->model_hash, manifest->model_hash);
    if (spec->job->load_optimizer && strcmp(manifest->optimizer.type, optimizer) != 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "optimizer.type is %s but the checkpoint has the state of %s; "
                        "checkpoint.load.optimizer: false leaves it out",
                        optimizer, manifest->optimizer.type);
    return MR_OK;
}

static mr_status load_compare(mr_admission *admission, const mr_manifest *manifest) {
    const mr_job_spec *spec = admission->spec;
    mr_load_report *report = NULL;
    mr_status status = MR_OK;
    MR_TRY(mr_load_report_make(admission->checkpoint_path, manifest, spec->job, &report));
    if (spec->job->load_strict)
        status = load_check_strict(spec, manifest, report);
    for (size_t i = 0; !spec->job->load_strict && i < report->finding_count; i++)
        MR_LOG(WARN, "parameter not loaded", MR_S("job", spec->name),
               MR_S("checkpoint", admission->checkpoint_path),
               MR_S("what", report->findings[i].text));
    mr_load_report_text(report, admission->note, sizeof(admission->note));
    mr_free(report);
    return status;
}

/* The job starts from what checkpoint.load names, unless it goes on from an own checkpoint. */
static mr_status admission_load(mr_admission *admission) {
    const mr_job_spec *spec = admission->spec;
    mr_manifest manifest = {0};
    if (admission->checkpoint_path[0] != '\0' || spec->job->load_path[0] == '\0' ||
        !mr_job_mode_trains(spec->mode))
        return MR_OK;
    MR_TRY(mr_job_resolve_path(spec->base_directory, spec->job->load_path,
                               admission->checkpoint_path));
    mr_status status = mr_manifest_read(admission->checkpoint_path, &manifest);
    if (status.code == MR_CODE_NOT_FOUND)
        return load_missing(admission->checkpoint_path);
    if (mr_status_is_ok(status))
        status = load_compare(admission, &manifest);
    admission->start_step = spec->job->load_optimizer ? manifest.step : 0;
    mr_manifest_deinit(&manifest);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "checkpoint.load.path");
}

static mr_status admission_resume(const mr_admission_request *request, mr_admission *admission) {
    const char *dir = admission->spec->checkpoint_dir;
    bool resume = request->resume_tag[0] != '\0' || request->resume_newest;
    if (resume && dir[0] == '\0')
        return MR_ERROR(INVALID_ARGUMENT,
                        "the job continues from a checkpoint, but checkpoint.dir is not set");
    if (dir[0] == '\0')
        return MR_OK;
    MR_TRY(mr_catalog_epoch(dir, &admission->epoch_floor));
    if (request->resume_tag[0] != '\0')
        return admission_take_tag(admission, request->resume_tag);
    return request->resume_newest ? admission_take_newest(admission) : MR_OK;
}

/* A job file that names a profile is sent with it. */
static mr_status admission_check_profile(const mr_admission *admission) {
    const mr_job_spec *spec = admission->spec;
    if (!mr_job_mode_trains(spec->mode) || spec->job->profile_path[0] == '\0' ||
        spec->profile != NULL)
        return MR_OK;
    return MR_ERROR(INVALID_ARGUMENT,
                    "pipeline.profile is %.80s, but the request has no profile: the client reads "
                    "that file and sends it along",
                    spec->job->profile_path);
}

mr_status mr_admission_make(const mr_admission_request *request, mr_admission *out_admission) {
    mr_admission admission = {0};
    const mr_spec_source source = {
        .job_file = request->job_file,
        .base_directory = request->base_directory,
        .mode = request->mode,
        .profile = request->profile,
    };
    MR_TRY(mr_job_spec_read(&source, &admission.spec));
    mr_status status = admission_check_profile(&admission);
    if (mr_status_is_ok(status))
        status = admission_resume(request, &admission);
    if (mr_status_is_ok(status))
        status = admission_load(&admission);
    if (!mr_status_is_ok(status)) {
        mr_job_spec_destroy(admission.spec);
        return status;
    }
    *out_admission = admission;
    return MR_OK;
}
