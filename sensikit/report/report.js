"use strict";
// All that is here is an extra: the page says and shows the same without it.

const tip = document.body.appendChild(document.createElement("div"));
tip.className = "tip";
tip.hidden = true;
for (const image of document.querySelectorAll("img[data-spots]")) {
  const spots = JSON.parse(image.dataset.spots);
  const show = event => {
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * 1000, y = (event.clientY - box.top) / box.height * 1000;
    let text = "", least = 14; // pixels
    for (const [left, top, width, height, told] of spots) {
      const across = Math.max(left - x, 0, x - left - width) * box.width / 1000;
      const down = Math.max(top - y, 0, y - top - height) * box.height / 1000;
      if (Math.hypot(across, down) < least) [least, text] = [Math.hypot(across, down), told];
    }
    tip.textContent = text;
    tip.hidden = !text;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 16}px`;
  };
  image.addEventListener("pointermove", show);
  image.addEventListener("pointerdown", show);
  image.addEventListener("pointerleave", () => { tip.hidden = true; });
}

const number = text => parseFloat(text.replaceAll("−", "-").replaceAll(",", ""));
const compared = (a, b) => {
  const [x, y] = [number(a), number(b)];
  return isNaN(x) && isNaN(y) ? a.localeCompare(b) : isNaN(x) - isNaN(y) || x - y;
};
const ofLanguages = [];
for (const table of document.querySelectorAll("main table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (head.textContent === "Language") ofLanguages.push([body, column]);
    const sort = () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach(each => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const text = row => row.cells[column].textContent;
      const rows = [...body.rows].sort((one, other) => compared(text(one), text(other)));
      body.append(...(order === "ascending" ? rows : rows.reverse()));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}

if (ofLanguages.length) {
  const label = document.createElement("label"), field = document.createElement("input");
  field.type = "search";
  field.placeholder = "all";
  label.append("Languages in tables ", field);
  document.querySelector("nav").prepend(label);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/[\s,;]+/).filter(Boolean);
    for (const [body, column] of ofLanguages) {
      for (const row of body.rows) {
        const name = row.cells[column].textContent.toLowerCase();
        row.hidden = wanted.length > 0 && !wanted.some(each => name.startsWith(each));
      }
    }
  });
}
