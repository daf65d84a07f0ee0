// SPDX-License-Identifier: ZPL-2.1
// Keeps a "working on it" page up to date: asks the page's own address for JSON, and loads the
// page anew when the call has ended.  Without this script the page refreshes itself.
"use strict";
(function () {
  const LONGEST_WAIT = 60; // seconds, after errors
  const place = document.querySelector("[data-zasync-watch]");
  if (!place) {
    return;
  }
  const bar = place.querySelector("progress");
  const line = place.querySelector("[data-zasync-line]");
  const state = place.querySelector("[data-zasync-state]");
  let pause = Number(place.dataset.zasyncWatch) || 5;
  let failures = 0;
  const NAMES = { new: "waiting", accepted: "running" }; // as the page has them

  function show(told) {
    const progress = told.progress || {};
    line.textContent = progress.text || "";
    state.textContent = NAMES[told.state] || "";
    state.className = "state state-" + (told.state in NAMES ? told.state : "unknown");
    if (progress.total > 0) {
      bar.max = progress.total;
      bar.value = Math.min(progress.done, progress.total);
    } else {
      bar.removeAttribute("value");
    }
  }

  async function look() {
    try {
      const answer = await fetch(window.location.origin + window.location.pathname, {
        headers: { Accept: "application/json" },
        credentials: "same-origin",
        cache: "no-store",
      });
      if (answer.status === 202) {
        failures = 0;
        pause = Number(answer.headers.get("Retry-After")) || pause;
        show(await answer.json());
      } else if (answer.ok || answer.status === 404) {
        window.location.reload();
        return;
      } else {
        failures += 1;
      }
    } catch (error) {
      failures += 1; // the server is away for a moment
    }
    window.setTimeout(look, 1000 * Math.min(LONGEST_WAIT, pause * 2 ** failures));
  }

  window.setTimeout(look, 1000 * pause);
})();
