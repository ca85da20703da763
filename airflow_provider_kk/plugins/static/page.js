"use strict";

// The light or dark theme of Airflow's UI, if the page is in a frame of it.
const frame = window.parent !== window ? window.parent.document.documentElement : null;
function takeTheme() {
  document.documentElement.dataset.theme = frame.classList.contains("dark") ? "dark" : "light";
}
if (frame) {
  takeTheme();
  new MutationObserver(takeTheme).observe(frame, { attributes: true, attributeFilter: ["class"] });
}

// On a phone, unused filters stay closed, so that the orders are near the top.
for (const one of document.querySelectorAll("details[data-wide]:not([open])")) {
  one.open = window.matchMedia("(min-width: 641px)").matches;
}

// Inside of a frame, browsers do not follow autofocus; a screen reader reads what has the focus.
document.querySelector("[autofocus]")?.focus();

// Without scripts this checkbox does nothing, so it is hidden until here.
for (const all of document.querySelectorAll("[data-all]")) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const one of all.closest("table").querySelectorAll("input[name=row]")) one.checked = all.checked;
  });
}

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    return navigator.clipboard.writeText(text);
  }
  // With plain http this is the only way to copy.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("not copied");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const told = document.getElementById("told");
    try {
      await copy(button.dataset.copy);
      told.textContent = "Copied";
    } catch {
      told.textContent = "The browser does not allow this page to copy. Select the command and copy it yourself";
    }
    button.focus();
    return;
  }
  const link = event.target.closest("a[data-top]");
  if (link && frame) {
    // The frame may not change its parent's address, but a link in the parent may.
    event.preventDefault();
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    window.parent.document.body.append(outer);
    outer.click();
    outer.remove();
  }
});
