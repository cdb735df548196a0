/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/certificate.h"

#include <time.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

mr_status mr_rpc_certificate_end(const char *path, int64_t *out_seconds) {
    struct tm end;
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL)
        return MR_ERROR(NOT_FOUND, "cannot read certificate %.150s", path);
    X509 *certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
    (void)BIO_free(file); /* opened for reading */
    if (certificate == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "%.150s holds no certificate", path);
    int good = ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end);
    X509_free(certificate);
    if (good != 1)
        return MR_ERROR(INVALID_ARGUMENT, "the certificate of %.120s has no end", path);
    *out_seconds = timegm(&end);
    return MR_OK;
}
