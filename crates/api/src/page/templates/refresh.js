"use strict";
// Brings the live parts of the page up to date every few seconds. Without it the page reloads itself, more seldom.
(() => {
  const EVERY_MS = 2000;
  const parts = (root) => [...root.querySelectorAll("[data-live]")];
  const key = (root) => root.querySelector("[data-key]")?.dataset.key;
  const busy = () => document.hidden || parts(document).some((p) => p.contains(document.activeElement)) ||
    !document.getSelection().isCollapsed;
  // Somebody is filling in a form: it is not taken out of their hands.
  const typing = () => [...document.querySelectorAll(".forms input:not([type=hidden])")]
    .some((e) => e.value !== "" || e === document.activeElement);
  const update = async () => {
    if (busy()) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const [shown, fresh] = [parts(document), parts(next)];
      if (busy()) return;
      if (shown.length !== fresh.length) return location.reload();
      // The forms that fit to it are others now.
      if (key(document) !== key(next)) {
        if (!typing()) return location.reload();
        document.querySelector("#changed")?.removeAttribute("hidden");
      }
      shown.forEach((old, i) => {
        for (const now of old.querySelectorAll("details[id]")) {
          const then = fresh[i].querySelector("#" + now.id);
          if (then) then.open = now.open;
        }
        old.replaceChildren(...fresh[i].childNodes);
      });
      document.title = next.title;
      for (const part of ["#banner", ".top .pills", ".counts"]) {
        const [old, now] = [document.querySelector(part), next.querySelector(part)];
        if (old && now) old.replaceWith(now);
      }
    } catch {
      // The server is away: what is shown stays, the next turn tries again.
    }
  };
  setInterval(update, EVERY_MS);
})();
