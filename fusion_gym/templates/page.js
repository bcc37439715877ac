"use strict";

// Pictures: two of a scene's images share the stage, one on each side of the line.
for (const scene of document.querySelectorAll(".scene")) {
  const stage = scene.querySelector(".stage");
  const images = [...stage.querySelectorAll("img")];
  for (const side of ["left", "right"]) {
    const select = scene.querySelector(`select.${side}`);
    const show = () => images.forEach((image, index) => image.classList.toggle(side, index === select.selectedIndex));
    select.addEventListener("change", show);
    show();
  }
  const range = stage.querySelector("input");
  const move = () => stage.style.setProperty("--at", `${range.value}%`);
  range.addEventListener("input", move);
  move();
  const zoom = scene.querySelector(".zoom");
  zoom.addEventListener("click", () => zoom.setAttribute("aria-pressed", stage.classList.toggle("full")));
}

// Tables: a click on a column's name sorts by it, numbers by size, a second click the other way round.
const figure = (text) => parseFloat(text.replace("−", "-").replaceAll(",", ""));
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = column === 0 ? head.ariaSort !== "ascending" : head.ariaSort === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.ariaSort = up ? "ascending" : "descending";
    const text = (row) => row.cells[column].textContent;
    const compare = (one, two) => {
      const [a, b] = [figure(text(one)), figure(text(two))];
      if (isNaN(a) || isNaN(b)) {
        if (column > 0 && isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1; // what has no number comes last
        return (up ? 1 : -1) * text(one).localeCompare(text(two));
      }
      return up ? a - b : b - a;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}

// Curves: drawn to the width that there is; the cursor's values stand in the legend.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 3"];
const MARGIN = { left: 52, right: 12, top: 8, bottom: 38 };

function element(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + 1e-9 * step; number++) found.push(number * step);
  return found.map((value) => [value, String(+value.toPrecision(10))]);
}

function span(values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (!isFinite(low)) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

class Chart {
  constructor(figure) {
    this.data = JSON.parse(figure.querySelector("script").textContent);
    this.plot = figure.querySelector(".plot");
    const { lines, marks } = this.data;
    const legend = figure.querySelector(".legend");
    const entry = (name, index, dash) => {
      const item = legend.appendChild(document.createElement("li"));
      const key = item.appendChild(document.createElement("span"));
      key.className = "key";
      key.style.borderColor = `var(--c${index % 8})`;
      key.style.borderTopStyle = dash ? "dashed" : "solid";
      item.append(name);
      const value = item.appendChild(document.createElement("span"));
      value.className = "value";
      return value;
    };
    this.values = lines.map((line, index) => entry(line.name, index, index >= 8));
    marks.forEach((mark, index) => { entry(mark.name, lines.length + index, true).textContent = mark.y.toPrecision(4); });
    this.xs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    this.plot.addEventListener("pointermove", (event) => {
      const share = (event.clientX - this.plot.getBoundingClientRect().left - MARGIN.left) / this.width;
      const at = this.low + share * (this.high - this.low);
      const near = (best, x) => (Math.abs(x - at) < Math.abs(best - at) ? x : best);
      this.group.forEach((chart) => chart.point(this.xs.reduce(near, this.xs[0])));
    });
    this.plot.addEventListener("pointerleave", () => this.group.forEach((chart) => chart.point(null)));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  draw() {
    const { lines, marks, xlabel } = this.data;
    const box = this.plot.getBoundingClientRect();
    this.width = box.width - MARGIN.left - MARGIN.right;
    const height = box.height - MARGIN.top - MARGIN.bottom;
    const all = this.group.flatMap((chart) => chart.xs);
    [this.low, this.high] = [Math.min(...all), Math.max(...all)];
    if (!(this.low < this.high)) [this.low, this.high] = span(all);
    const ys = [...lines.flatMap((line) => line.y.filter((y) => y !== null)), ...marks.map((mark) => mark.y)];
    const [bottom, top] = span(ys);
    this.x = (value) => MARGIN.left + (value - this.low) / (this.high - this.low) * this.width;
    const y = (value) => MARGIN.top + (top - value) / (top - bottom) * height;
    this.plot.replaceChildren();
    const svg = element(this.plot, "svg", {});
    for (const [value, text] of ticks(bottom, top, 5)) {
      element(svg, "line", { class: "grid", x1: MARGIN.left, x2: MARGIN.left + this.width, y1: y(value), y2: y(value) });
      element(svg, "text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, text);
    }
    for (const [value, text] of ticks(this.low, this.high, Math.max(2, this.width / 90))) {
      element(svg, "text", { x: this.x(value), y: MARGIN.top + height + 16, "text-anchor": "middle" }, text);
    }
    element(svg, "text", { x: MARGIN.left + this.width / 2, y: box.height - 4, "text-anchor": "middle" }, xlabel);
    marks.forEach((mark, index) => element(svg, "line", {
      class: "mark", x1: MARGIN.left, x2: MARGIN.left + this.width, y1: y(mark.y), y2: y(mark.y),
      style: `stroke: var(--c${(lines.length + index) % 8})`, "stroke-dasharray": "6 4", "stroke-width": 1.5,
    }));
    lines.forEach((line, index) => {
      const colour = `var(--c${index % 8})`;
      let path = "", open = false;
      line.x.forEach((x, place) => {
        if (line.y[place] !== null) path += `${open ? "L" : "M"}${this.x(x).toFixed(1)} ${y(line.y[place]).toFixed(1)}`;
        open = line.y[place] !== null;
        if (open && (line.dots || line.x.length < 40)) {
          const dot = { cx: this.x(x), cy: y(line.y[place]), r: line.dots ? 5 : 2.5, style: `fill: ${colour}` };
          element(svg, "circle", dot);
        }
      });
      const dash = DASHES[Math.floor(index / 8) % DASHES.length];
      if (!line.dots) element(svg, "path", { class: "curve", d: path, style: `stroke: ${colour}`, "stroke-dasharray": dash });
    });
    this.cursor = element(svg, "line", { class: "cursor", y1: MARGIN.top, y2: MARGIN.top + height, visibility: "hidden" });
  }

  point(at) {
    this.data.lines.forEach((line, index) => {
      const place = at === null ? -1 : line.x.indexOf(at);
      this.values[index].textContent = place < 0 ? "" : line.said[place];
    });
    this.cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) ["x1", "x2"].forEach((end) => this.cursor.setAttribute(end, this.x(at)));
  }
}

const charts = [...document.querySelectorAll(".chart")].map((figure) => new Chart(figure));
for (const chart of charts) chart.group = charts.filter((other) => other.data.xlabel === chart.data.xlabel);
