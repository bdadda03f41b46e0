"use strict";
// Live updates, questions before what cannot be undone, and uploads. Every page works without.
const place = document.body.dataset.live;
if (place) {
  const source = new EventSource(place);
  source.addEventListener("update", (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      const element = document.getElementById(id);
      if (!element) continue;
      const fresh = document.createElement("template");
      fresh.innerHTML = html;
      if (fresh.innerHTML === element.innerHTML) continue; // else what one is about to click, or has marked, would be lost
      const chosen = new Set([...element.querySelectorAll("input:checked")].map((box) => box.value));
      const scrolled = [...element.querySelectorAll("[data-tail]")].map((tail) =>
        tail.scrollTop + tail.clientHeight < tail.scrollHeight - 4 ? tail.scrollTop : null);
      const looked = [...element.querySelectorAll("figure")].map((figure) =>
        figure.scrollLeft + figure.clientWidth < figure.scrollWidth - 4 ? figure.scrollLeft : null);
      const focused = element.contains(document.activeElement) && document.activeElement.getAttribute("href");
      element.innerHTML = html;
      for (const box of element.querySelectorAll("input[type=checkbox]")) box.checked = chosen.has(box.value);
      element.querySelectorAll("[data-tail]").forEach((tail, i) => {
        tail.scrollTop = scrolled[i] ?? tail.scrollHeight;
      });
      element.querySelectorAll("figure").forEach((figure, i) => {
        figure.scrollLeft = looked[i] ?? figure.scrollWidth;
      });
      if (focused) element.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    }
  });
  source.addEventListener("done", () => {
    source.close();
    document.querySelectorAll("[data-sure]").forEach((form) => { if (form.action.endsWith("/stop")) form.hidden = true; });
  });
  source.addEventListener("trouble", (event) => {
    source.close();
    const line = document.getElementById("trouble");
    line.textContent = JSON.parse(event.data).sentence;
    line.hidden = false;
  });
}
document.addEventListener("submit", (event) => { // of forms too that come with an update
  const form = event.target.closest("form[data-sure]");
  if (form && !confirm(form.dataset.sure)) event.preventDefault();
});
for (const tail of document.querySelectorAll("[data-tail]")) tail.scrollTop = tail.scrollHeight;
for (const figure of document.querySelectorAll("figure")) figure.scrollLeft = figure.scrollWidth; // what is new is on the right
for (const form of document.querySelectorAll("form[data-upload]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = form.querySelector("[role=status]");
    try {
      for (const file of form.elements.file.files) {
        said.textContent = `Uploading ${file.name} ...`;
        const fields = new URLSearchParams({ token: form.elements.token.value, key: form.dataset.prefix + file.name });
        const asked = await fetch(form.dataset.upload, { method: "POST", body: fields });
        if (!asked.ok) throw new Error(`the server refused (${asked.status})`);
        const put = await fetch((await asked.json()).url, { method: "PUT", body: file });
        if (!put.ok) throw new Error(`S3 refused (${put.status})`);
      }
      location.reload();
    } catch (error) {
      said.textContent = `The upload failed: ${error.message}`;
    }
  });
}
