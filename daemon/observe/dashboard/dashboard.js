/* SPDX-License-Identifier: Apache-2.0 */
/* The page updates itself: it fetches itself again and puts the panels that changed in place of the
 * old ones, keeping what is open and where the focus is. /events says when; without it a timer. */
"use strict";

const PERIOD_MS = 4000; /* without events */
const LEAST_MS = 900; /* between two fetches */
let fetchedAt = Date.now();
let pending = 0;

function say(text) {
  document.getElementById("said").textContent = text;
}

function keep(panel) {
  const open = [...panel.querySelectorAll("details[open]")].map((e) => e.id);
  const scrolled = [...panel.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
  const focus = panel.contains(document.activeElement) ? document.activeElement : null;
  const regions = focus && focus.classList.contains("scroll")
    ? [...panel.querySelectorAll(".scroll")].indexOf(focus) : -1;
  return { open, scrolled, focus: focus ? focus.id : "", regions };
}

function restore(panel, kept) {
  for (const id of kept.open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  const areas = [...panel.querySelectorAll(".scroll")];
  areas.forEach((e, i) => { e.scrollLeft = kept.scrolled[i] || 0; });
  const again = kept.focus ? document.getElementById(kept.focus) : areas[kept.regions];
  if (again) again.focus({ preventScroll: true });
}

function replace(fresh) {
  for (const panel of fresh.querySelectorAll("[data-panel]")) {
    const old = document.querySelector(`[data-panel="${panel.dataset.panel}"]`);
    if (!old || old.dataset.raw === panel.innerHTML) continue;
    const kept = keep(old);
    old.dataset.raw = panel.innerHTML;
    old.innerHTML = panel.innerHTML;
    addCopyButtons(old);
    restore(old, kept);
  }
}

async function refresh() {
  pending = 0;
  fetchedAt = Date.now();
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    document.body.classList.remove("lost");
  } catch (error) {
    document.body.classList.add("lost");
    document.getElementById("age").textContent = "(no answer; trying again)";
  }
}

/* Many events are one fetch. */
function refreshSoon() {
  if (pending || document.hidden) return;
  pending = setTimeout(refresh, Math.max(0, fetchedAt + LEAST_MS - Date.now()));
}

/* ---- copying ---- */

async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied: " + code.textContent);
  } catch (error) { /* without a secure page: select it, and the user copies */
    getSelection().selectAllChildren(code);
    say("Selected; copy it with your keyboard");
  }
}

function addCopyButtons(root) {
  for (const command of root.querySelectorAll(".command")) {
    const code = command.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.id = "copy-" + code.id;
    button.textContent = "copy";
    button.setAttribute("aria-label", "copy: " + code.textContent);
    button.addEventListener("click", () => copy(code));
    command.append(button);
  }
}

/* ---- start ---- */

for (const panel of document.querySelectorAll("[data-panel]")) {
  panel.dataset.raw = panel.innerHTML;
  addCopyButtons(panel);
}
setInterval(() => {
  if (Date.now() - fetchedAt >= PERIOD_MS) refreshSoon();
}, 500);
document.addEventListener("visibilitychange", refreshSoon);
const events = new EventSource("/events");
for (const kind of ["job", "step", "member", "checkpoint"]) {
  events.addEventListener(kind, refreshSoon);
}
