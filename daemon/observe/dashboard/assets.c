/* SPDX-License-Identifier: Apache-2.0 */
/* The page's files, put into the program by a rule of this folder's BUILD. */
#include "daemon/observe/dashboard/dashboard.h"
#include "daemon/observe/dashboard/page_html.h"

static const unsigned char css[] = {
#include "daemon/observe/dashboard/dashboard.css.inc"
};

static const unsigned char js[] = {
#include "daemon/observe/dashboard/dashboard.js.inc"
};

static const unsigned char icon[] = {
#include "daemon/observe/dashboard/icon.svg.inc"
};

static const unsigned char html[] = {
#include "daemon/observe/dashboard/page.html.inc"
};

const mr_dashboard_asset mr_dashboard_css = {
    .type = "text/css; charset=utf-8",
    .bytes = (const char *)css,
    .byte_count = sizeof(css),
};
const mr_dashboard_asset mr_dashboard_js = {
    .type = "text/javascript; charset=utf-8",
    .bytes = (const char *)js,
    .byte_count = sizeof(js),
};
const mr_dashboard_asset mr_dashboard_icon = {
    .type = "image/svg+xml",
    .bytes = (const char *)icon,
    .byte_count = sizeof(icon),
};
const mr_dashboard_asset mr_dashboard_html = {
    .type = "text/html; charset=utf-8",
    .bytes = (const char *)html,
    .byte_count = sizeof(html),
};
