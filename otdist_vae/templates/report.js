"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

// image number k of a sheet, drawn on a canvas of just its size; the style sheet enlarges it
function paint(canvas, name, k) {
  const sheet = data.sheets[name];
  canvas.width = sheet.width;
  canvas.height = sheet.height;
  const left = (k % sheet.columns) * sheet.width, top = Math.floor(k / sheet.columns) * sheet.height;
  canvas.getContext("2d").drawImage(find("sheet-" + name), left, top, sheet.width, sheet.height, 0, 0, sheet.width, sheet.height);
  canvas.dataset.shown = k;
}

// row number k of a decoded table: a bar and a number for each feature
function list(table, name, k) {
  const features = data.features;
  table.replaceChildren(...features.map((feature, j) => {
    const row = document.createElement("tr"), bar = document.createElement("meter");
    const cells = [feature.name, bar, String(data.rows[name][k][j])].map((content) => {
      const cell = document.createElement("td");
      cell.append(content);
      return cell;
    });
    [bar.min, bar.max, bar.value] = [feature.low, feature.high, data.rows[name][k][j] ?? feature.low];
    row.append(...cells);
    return row;
  }));
  table.dataset.shown = k;
}

function show(id, name, k) {
  (data.sheets[name] ? paint : list)(find(id), name, k);
}

let active = document.querySelector("[data-coordinate]");  // the slider that was moved last

function walk() {
  const { start, sliders, steps } = controls(), middle = (steps - 1) / 2;
  for (const slider of sliders) {
    if (slider !== active) slider.value = middle;  // the decodings differ from the start in one coordinate
    const at = data.walk.values[start][Number(slider.dataset.coordinate)][Number(slider.value)];
    slider.nextElementSibling.value = at.toFixed(2);
  }
  const j = Number(active.dataset.coordinate);
  show("walk-shown", "walk", (start * sliders.length + j) * steps + Number(active.value));
}

function plane() {
  const { start } = controls(), n = data.walk.plane;
  const [across, down] = ["plane-0", "plane-1"].map((id) => Number(find(id).value));
  for (const id of ["plane-0", "plane-1"]) {
    find(id).nextElementSibling.value = (data.walk.reach * (2 * find(id).value / (n - 1) - 1)).toFixed(2);
  }
  show("plane-shown", "plane", (start * n + down) * n + across);
}

function controls() {
  return { start: Number(find("start").value), sliders: [...document.querySelectorAll("[data-coordinate]")], steps: data.walk.steps };
}

function hover(event) {
  const tip = find("tip"), k = event.target.dataset ? event.target.dataset.k : undefined;
  tip.hidden = k === undefined;
  if (tip.hidden) return;
  const canvas = document.createElement("canvas"), text = document.createElement("div");
  if (data.sheets.map) paint(canvas, "map", Number(k));
  text.textContent = data.map[k];
  tip.replaceChildren(...(data.sheets.map ? [canvas] : []), text);
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)) + "px";
}

addEventListener("load", () => {
  for (const slider of controls().sliders) slider.addEventListener("input", () => { active = slider; walk(); });
  for (const id of ["plane-0", "plane-1"]) find(id).addEventListener("input", plane);
  find("start").addEventListener("input", () => { walk(); plane(); });
  document.addEventListener("pointerover", hover);
  document.addEventListener("pointerdown", hover);
  walk();
  plane();
});
