"use strict";

// Airflow's own switch between light and dark, where the page is inside of Airflow's UI.
const frame = window.parent !== window ? window.parent.document.documentElement : null;
function takeTheme() {
  document.documentElement.dataset.theme = frame.classList.contains("dark") ? "dark" : "light";
}
if (frame) {
  takeTheme();
  new MutationObserver(takeTheme).observe(frame, { attributes: true, attributeFilter: ["class"] });
}

// On a phone, what is not in use would stand between the reader and the orders.
for (const one of document.querySelectorAll("details[data-wide]:not([open])")) {
  one.open = window.matchMedia("(min-width: 641px)").matches;
}

// Inside of a frame, browsers do not follow autofocus; a screen reader reads what has the focus.
document.querySelector("[autofocus]")?.focus();

// Without scripts there is nothing that chooses all, so it is hidden until here.
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
  // Plain http has no clipboard but this.
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
      told.textContent = "The browser does not let this page copy: select the command instead";
    }
    button.focus();
    return;
  }
  const link = event.target.closest("a[data-top]");
  if (link && frame) {
    // The frame may not lead its parent elsewhere, a link of the parent may.
    event.preventDefault();
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    window.parent.document.body.append(outer);
    outer.click();
    outer.remove();
  }
});
