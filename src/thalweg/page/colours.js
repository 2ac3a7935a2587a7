// Light and dark: the colours of style.css in charts.

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const NEUTRAL = ["ink", "muted", "faint"]; // what a trace's meta may say for a colour of the page

function colours() {
  const style = getComputedStyle(root);
  const names = ["ink", "muted", "faint", "grid", "back", "low", "high", "deep", "top"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function axesOf(figure) {
  const found = {flat: new Set(), scenes: new Set()};
  for (const trace of figure.data) {
    if (trace.type === "surface" || trace.type === "scatter3d") {
      found.scenes.add(trace.scene || "scene");
    } else {
      found.flat.add((trace.xaxis || "x").replace("x", "xaxis"));
      found.flat.add((trace.yaxis || "y").replace("y", "yaxis"));
    }
  }
  return found;
}

// The shading of a map as an image: unlike a heatmap it is not computed again in every frame.
function shading({fill}) {
  const {low, high} = colours();
  const [first, last] = [low, high].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const [width, height] = [fill.x.length, fill.y.length];
  const canvas = Object.assign(document.createElement("canvas"), {width, height});
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const finite = fill.z.filter(Number.isFinite);
  const bottom = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const span = finite.reduce((a, b) => Math.max(a, b), -Infinity) - bottom || 1;
  fill.z.forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    // The first row of an image is its top.
    const at = 4 * ((height - 1 - Math.floor(i / width)) * width + (i % width));
    for (let k = 0; k < 3; k++) image.data[at + k] = first[k] + ((value - bottom) / span) * (last[k] - first[k]);
    image.data[at + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

// What light and dark differ in, as plotly's flat attribute names.
function themeOf(chart) {
  const c = colours();
  const changes = {
    paper_bgcolor: c.back, plot_bgcolor: c.back, "font.color": c.ink,
    "hoverlabel.bgcolor": c.back, "hoverlabel.bordercolor": c.faint, "hoverlabel.font.color": c.ink,
  };
  const {flat, scenes} = axesOf(chart);
  for (const axis of flat) {
    Object.assign(changes, {
      [`${axis}.gridcolor`]: c.grid, [`${axis}.zerolinecolor`]: c.grid,
      [`${axis}.linecolor`]: c.faint, [`${axis}.tickcolor`]: c.faint, [`${axis}.tickfont.color`]: c.muted,
    });
  }
  for (const scene of scenes) {
    for (const axis of ["xaxis", "yaxis", "zaxis"].map((name) => `${scene}.${name}`)) {
      Object.assign(changes, {
        [`${axis}.gridcolor`]: c.grid, [`${axis}.zerolinecolor`]: c.grid,
        [`${axis}.linecolor`]: c.faint, [`${axis}.tickfont.color`]: c.muted,
        [`${axis}.showbackground`]: false,
      });
    }
  }
  (chart.layout.shapes || []).forEach((shape, i) => {
    if (!chart.ownShapes[i]) changes[`shapes[${i}].line.color`] = c.muted;
  });
  if (chart.fill) changes["images[0].source"] = shading(chart);
  return changes;
}

function traceTheme(trace) {
  const c = colours();
  if (trace.meta === "relief") return {colorscale: [[0, c.deep], [1, c.top]]};
  if (trace.meta === "heads") return {"marker.line.color": c.back};
  if (!NEUTRAL.includes(trace.meta)) return null;
  const colour = c[trace.meta];
  const changes = {"line.color": colour, "marker.color": colour, "marker.line.color": c.back};
  if ((trace.mode || "").includes("text")) changes["textfont.color"] = colour;
  return changes;
}

// Sets {"a.b[0].c": value} in an object that plotly has not seen yet.
function assign(target, changes) {
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.replace(/\[(\d+)\]/g, ".$1").split(".");
    const last = keys.pop();
    keys.reduce((at, key) => (at[key] ??= {}), target)[last] = value;
  }
}

function repaint(chart) {
  chart.data.forEach((trace, i) => {
    const changes = traceTheme(trace);
    if (!changes) return;
    // A colour scale is one value, not one per trace.
    Plotly.restyle(chart.plot, Object.fromEntries(Object.entries(changes).map(([k, v]) => [k, [v]])), [i]);
  });
  return Plotly.relayout(chart.plot, themeOf(chart));
}
