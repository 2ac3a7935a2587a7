// Charts: what plotly.js is told beside the figure itself.

const coarse = matchMedia("(pointer: coarse)").matches;
const config = {responsive: true, displayModeBar: false, displaylogo: false, doubleClick: "reset"};

// Plotly writes numpy's arrays in base64.
const KINDS = {f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array, i2: Int16Array, u2: Uint16Array, i1: Int8Array, u1: Uint8Array};

function numbers(values) {
  if (!values?.bdata) return Array.isArray(values) ? values : [];
  const bytes = Uint8Array.from(atob(values.bdata), (letter) => letter.charCodeAt(0));
  return new KINDS[values.dtype](bytes.buffer);
}

const groupOf = (trace) => trace.legendgroup || trace.name;

// Every trace gets its colour here, so that the legend knows it.
function colourTraces(chart) {
  const groups = new Map();
  for (const trace of chart.data) {
    if (trace.meta || ["heatmap", "contour", "surface"].includes(trace.type)) continue;
    const key = groupOf(trace) || trace;
    if (!groups.has(key)) groups.set(key, chart.palette[groups.size % chart.palette.length]);
    const own = trace.line?.color || (typeof trace.marker?.color === "string" && trace.marker.color);
    trace.swatch = own || groups.get(key);
    if (trace.type === "bar") trace.marker = {...trace.marker, color: trace.marker?.color || trace.swatch};
    else if (!own) {
      trace.line = {...trace.line, color: trace.swatch};
      trace.marker = {...trace.marker, color: trace.marker?.color || trace.swatch};
    }
  }
}

function prepare(chart) {
  const narrow = chart.plot.clientWidth < 560;
  const {layout} = chart;
  chart.ownShapes = (layout.shapes || []).map((shape) => Boolean(shape.line?.color));
  delete layout.title; // It is a heading of the page.
  delete layout.width;
  delete layout.height;
  layout.showlegend = false;
  layout.autosize = true;
  layout.margin ??= narrow ? {l: 44, r: 8, t: 8, b: 44} : {l: 60, r: 16, t: 10, b: 52};
  layout.font = {size: narrow ? 12 : 13, family: getComputedStyle(chart.plot).fontFamily, ...layout.font};
  layout.hoverlabel = {font: {size: 13}, ...layout.hoverlabel};
  if (coarse) layout.dragmode = false; // A finger on a chart scrolls the page.
  const {flat, scenes} = axesOf(chart);
  for (const axis of flat) {
    layout[axis] = {automargin: true, zeroline: false, ticks: "outside", ticklen: 4, showline: true, ...layout[axis]};
  }
  for (const scene of scenes) {
    layout[scene] ??= {};
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      layout[scene][axis] = {...layout[scene][axis], tickfont: {size: 12}};
    }
  }
  fit(chart, layout);
  takeFill(chart);
  tickDecades(chart, flat);
  colourTraces(chart);
  assign(layout, themeOf(chart));
  chart.data.forEach((trace) => assign(trace, traceTheme(trace) || {}));
}

// Replaces the heatmap that stands for the shading.
function takeFill(chart) {
  const index = chart.data.findIndex((trace) => trace.meta === "fill");
  if (index < 0) return;
  const [{x, y, z}] = chart.data.splice(index, 1);
  chart.fill = {x: numbers(x), y: numbers(y), z: Array.from(numbers(z))};
  const [left, right, bottom, top] = [x, y].flatMap((axis) => [numbers(axis)[0], numbers(axis).at(-1)]);
  chart.layout.images = [{
    xref: "x", yref: "y", x: left, y: top, sizex: right - left, sizey: top - bottom,
    sizing: "stretch", layer: "below",
  }];
}

// A map whose axes have one scale, or a box in space, needs no more height than its width asks for.
function fit({plot}, {xaxis, yaxis, scene}) {
  if (scene && plot.clientWidth < plot.clientHeight) {
    plot.style.height = `${plot.clientWidth}px`;
    // Numbers on axes do not get smaller: they need more of the room.
    for (const axis of Object.keys(scene.camera?.eye || {})) scene.camera.eye[axis] *= 1.15;
    delete scene.zaxis?.title; // It would leave the picture; the caption says what the height is.
  }
  if (!yaxis?.scaleanchor || !xaxis?.range || !yaxis.range) return;
  const ratio = (yaxis.range[1] - yaxis.range[0]) / (xaxis.range[1] - xaxis.range[0]);
  const wanted = (plot.clientWidth - 60) * ratio + 60;
  if (wanted < plot.clientHeight) plot.style.height = `${Math.round(wanted)}px`;
}

// A number in few characters.
const format = (value) => {
  if (value == null) return "";
  const size = Math.abs(value);
  const digits = size && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return digits.replace("e+", "e").replaceAll("-", "−");
};

// Over more than two decades only powers of ten are labelled, over fewer 1, 2 and 5 times these, in
// full: plotly writes the 2 and 5 alone, and small.
function tickDecades({data, layout}, axes) {
  for (const axis of axes) {
    const {type, dtick} = layout[axis];
    if (type !== "log" || dtick) continue;
    const letter = axis[0];
    const own = data.filter((trace) => (trace[`${letter}axis`] || letter).replace(letter, `${letter}axis`) === axis);
    const values = own.flatMap((trace) => Array.from(numbers(trace[letter]))).filter((value) => value > 0);
    const span = Math.log10(values.reduce((a, b) => Math.max(a, b), 0) / values.reduce((a, b) => Math.min(a, b), Infinity));
    if (span > 2) Object.assign(layout[axis], {dtick: Math.ceil(span / 8), exponentformat: "power"});
    else if (span > 0.3) {
      const tickvals = [];
      for (let power = -30; power <= 30; power++) tickvals.push(...[1, 2, 5].map((k) => Number(`${k}e${power}`)));
      Object.assign(layout[axis], {tickvals, ticktext: tickvals.map(format)});
    }
  }
}
