"use strict";
// Everything is drawn without this script; it only adds hover values, a task picker and highlighting of one size.
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);

  // Native tooltips come late; take their text over, so that values show at once.
  const texts = new Map();
  for (const title of document.querySelectorAll("svg title")) {
    texts.set(title.parentNode, title.textContent);
    title.remove();
  }
  const place = (event) => {
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const y = event.clientY - box.height - 12;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${y < 8 ? event.clientY + 16 : y}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const text = texts.get(event.target);
    tip.hidden = text === undefined;
    if (text !== undefined) {
      tip.textContent = text;
      place(event);
    }
  });
  document.addEventListener("pointermove", (event) => {
    if (!tip.hidden) place(event);
  });

  const pick = document.getElementById("pick");
  if (pick) {
    pick.parentNode.parentNode.hidden = false;
    pick.addEventListener("change", () => {
      for (const panel of document.querySelectorAll("[data-kind]")) {
        panel.hidden = pick.value !== "" && panel.dataset.kind !== pick.value;
      }
    });
  }

  for (const entry of document.querySelectorAll("[data-size]")) {
    const figure = entry.closest("section");
    const others = () => figure.querySelectorAll(`svg [class*=" s"]:not(.${entry.dataset.size})`);
    entry.addEventListener("pointerenter", () => others().forEach((mark) => mark.classList.add("dim")));
    entry.addEventListener("pointerleave", () => others().forEach((mark) => mark.classList.remove("dim")));
  }
})();
