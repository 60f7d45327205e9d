"use strict";
// Brings the live part of the page up to date every few seconds. Without it the page reloads itself, more seldom.
(() => {
  const EVERY_MS = 5000;
  const live = document.getElementById("live");
  if (!live) return;
  const busy = () => document.hidden || live.contains(document.activeElement) ||
    !document.getSelection().isCollapsed;
  const update = async () => {
    if (busy()) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = next.getElementById("live");
      if (!fresh || busy()) return;
      for (const now of live.querySelectorAll("details[id]")) {
        const then = fresh.querySelector("#" + now.id);
        if (then) then.open = now.open;
      }
      live.replaceChildren(...fresh.childNodes);
      document.title = next.title;
      for (const part of [".top .pill", ".counts"]) {
        const [old, now] = [document.querySelector(part), next.querySelector(part)];
        if (old && now) old.replaceWith(now);
      }
    } catch {
      // The server is away: what is shown stays, the next turn tries again.
    }
  };
  setInterval(update, EVERY_MS);
})();
