/* SPDX-License-Identifier: Apache-2.0 */
/* page_html.h: the frame of the page, in which {{NAME}} stands for what a panel writes.
 * Owner: observe; private to this folder. Plain data. */
#ifndef MR_OBSERVE_DASHBOARD_PAGE_HTML_H
#define MR_OBSERVE_DASHBOARD_PAGE_HTML_H

#include "daemon/observe/dashboard/dashboard.h"

extern const mr_dashboard_asset mr_dashboard_html;

#endif
