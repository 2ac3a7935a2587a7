// Legends: lists of switches below charts.

const DASHES = {solid: "", dash: "7 4", dot: "2 3", dashdot: "8 3 2 3", longdash: "10 4"};

const MARKS = {
  circle: '<circle cx="14" cy="6" r="5"/>',
  square: '<rect x="9" y="1" width="10" height="10"/>',
  diamond: '<path d="M14 0l6 6-6 6-6-6z"/>',
  cross: '<path d="M12 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>',
  x: '<path d="M10 0l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z"/>',
  "triangle-up": '<path d="M14 0l6 11h-12z"/>',
};

// What stands for a trace in the legend.
function swatch(trace, colour) {
  const mode = trace.mode || "lines";
  let shape = "";
  if (trace.type === "bar") shape = `<g>${MARKS.square}</g>`;
  else {
    if (mode.includes("lines")) shape += `<line x1="1" y1="6" x2="27" y2="6" stroke-dasharray="${DASHES[trace.line?.dash] ?? ""}"/>`;
    if (mode.includes("markers")) {
      const symbol = typeof trace.marker?.symbol === "string" ? trace.marker.symbol : "circle";
      const open = symbol.endsWith("-open") ? ' class="open"' : "";
      shape += `<g${open}>${MARKS[symbol.replace("-open", "")] || MARKS.circle}</g>`;
    }
  }
  const span = document.createElement("span");
  span.className = "swatch";
  span.style.color = colour;
  span.innerHTML = `<svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">${shape}</svg>`;
  return span;
}

// A list of switches: {label, mark, on, toggle(on)}. Shift or a double click leaves one alone on,
// or all if it is alone already. Returns the elements of the labels.
function switches(list, entries) {
  const buttons = [];
  const isOn = (button) => button.getAttribute("aria-pressed") === "true";
  const turn = (i, on) => {
    if (isOn(buttons[i]) === on) return;
    buttons[i].setAttribute("aria-pressed", String(on));
    entries[i].toggle(on);
  };
  const alone = (i) => {
    const all = buttons.every((button, k) => isOn(button) === (k === i));
    buttons.forEach((_, k) => turn(k, all || k === i));
  };
  const labels = entries.map(({label, mark, on}, i) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Show or hide; double-click: only this one";
    button.setAttribute("aria-pressed", String(on));
    const text = document.createElement("span");
    text.className = "label";
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = label;
    text.append(name);
    button.append(mark, text);
    button.addEventListener("click", (event) => (event.shiftKey ? alone(i) : turn(i, !isOn(button))));
    button.addEventListener("dblclick", (event) => event.shiftKey || alone(i));
    item.append(button);
    list.append(item);
    buttons.push(button);
    return text;
  });
  list.hidden = !entries.length;
  return labels;
}

function legend(chart) {
  const groups = new Map();
  chart.data.forEach((trace, i) => {
    const key = groupOf(trace);
    if (!key) return;
    if (!groups.has(key)) groups.set(key, {indices: []});
    const group = groups.get(key);
    group.indices.push(i);
    if (trace.name && trace.showlegend !== false) group.first ??= trace;
  });
  const named = [...groups.values()].filter((group) => group.first);
  if (named.length < 2) return;
  switches(chart.legend, named.map(({indices, first}) => ({
    label: first.name,
    mark: swatch(first, NEUTRAL.includes(first.meta) ? `var(--${first.meta})` : first.swatch),
    on: first.visible !== "legendonly",
    toggle: (on) => Plotly.restyle(chart.plot, {visible: on ? true : "legendonly"}, indices),
  })));
}
