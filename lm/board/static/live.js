// Keeping a page up to date: asks again every few seconds while the page is seen, and only acts on what changed.

const SHORTEST = 3000; // ms between two questions
const SHARE = 20; // a slow answer is asked for less often: the board takes a twentieth of a core at most

/** Calls `ask()` (a promise) now and then for ever; says in the page's corner when the last answer came. */
export async function live(ask) {
  const mark = document.querySelector("#live");
  for (;;) {
    const began = performance.now();
    let failed = null;
    try {
      await ask();
    } catch (error) {
      failed = error;
    }
    mark.className = failed ? "stale" : "fresh";
    mark.textContent = failed ? `not updating: ${failed.message}` : new Date().toLocaleTimeString("en-GB");
    await pause(Math.max(SHORTEST, SHARE * (performance.now() - began)));
  }
}

async function pause(ms) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  if (!document.hidden) return;
  await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

/** A question to one address: the JSON of a new answer, or null where it is the same as the last one. */
export function question() {
  let tag = null, asked = null;
  return async (url) => {
    const response = await get(url);
    const same = asked === url && tag !== null && tag === response.headers.get("ETag");
    [asked, tag] = [url, response.headers.get("ETag")];
    return same ? null : await response.json();
  };
}

/** Takes the parts marked `data-live` anew from this page's own address. */
export async function swap() {
  const response = await get(location.pathname + location.search);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const part = fresh.getElementById(old.id);
    if (part && part.innerHTML !== old.innerHTML) old.replaceChildren(...part.cloneNode(true).childNodes);
  }
}

async function get(url) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error("the board doesn't answer");
  }
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return response;
}
