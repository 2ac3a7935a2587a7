// Animations: paths that grow over a chart, and the buttons that play them.

const still = matchMedia("(prefers-reduced-motion: reduce)");

const NOW = {mode: "immediate", frame: {duration: 0, redraw: false}, transition: {duration: 0}};
const DURATION = 8000; // ms from the first step to the last at normal speed

// Adds the lines and their heads to the figure; returns what moves them.
function animate(chart) {
  const {tracks} = chart;
  const solid = tracks.some((track) => track.z);
  const type = solid ? "scatter3d" : "scatter";
  const base = chart.data.length;
  const last = Math.max(...tracks.map((track) => track.x.length)) - 1;
  const steps = chart.steps.length ? chart.steps : Array.from({length: last + 1}, (_, i) => i);
  const shown = tracks.map(() => true);
  const axes = solid ? ["x", "y", "z"] : ["x", "y"];
  const at = (track, step) => Math.min(step, track.x.length - 1);

  // What stands beside a name: the value, or why there is none any more.
  const valueOf = (track, step) =>
    (step >= track.x.length - 1 && track.note) || format(track.values[at(track, step)]);

  function linesAt(step) {
    return Object.fromEntries(axes.map((axis) => [
      axis, tracks.map((track) => track[axis].slice(0, at(track, step) + 1)),
    ]));
  }
  function headsAt(step) {
    const seen = tracks.filter((_, i) => shown[i]);
    const heads = Object.fromEntries(axes.map((axis) => [axis, seen.map((t) => t[axis][at(t, step)])]));
    const text = seen.map((t) => `${t.name}${t.values.length ? ` ${format(t.values[at(t, step)])}` : ""}`);
    return {...heads, text, "marker.color": seen.map((t) => t.colour)};
  }

  const lines = linesAt(last);
  tracks.forEach((track, i) => chart.data.push({
    type, mode: "lines", hoverinfo: "skip", meta: "track", name: track.name,
    line: {color: track.colour, dash: track.dash, width: solid ? 5 : 2.25},
    ...Object.fromEntries(axes.map((axis) => [axis, lines[axis][i]])),
  }));
  const heads = {
    type, mode: "markers", meta: "heads", hoverinfo: "text", cliponaxis: true,
    marker: {size: solid ? 5 : 11, line: {width: solid ? 0 : 1.5}, opacity: 1},
  };
  assign(heads, {...headsAt(last), ...traceTheme(heads)});
  chart.data.push(heads);
  const indices = [...tracks.map((_, i) => base + i), base + tracks.length];

  const play = chart.figure.querySelector(".play");
  const scrub = chart.figure.querySelector(".scrub");
  const readout = chart.figure.querySelector(".step");
  const speed = chart.figure.querySelector("select");
  let step = last;
  let timer = null;

  function show(next) {
    step = Math.max(0, Math.min(last, next));
    const whole = Math.floor(step);
    scrub.value = String(whole);
    readout.textContent = `step ${steps[whole]} of ${steps[last]}`;
    scrub.setAttribute("aria-valuetext", readout.textContent);
    tracks.forEach((track, i) => {
      values[i].textContent = valueOf(track, whole);
    });
    const both = {};
    const [grown, moved] = [linesAt(whole), headsAt(whole)];
    for (const axis of axes) both[axis] = [...grown[axis], moved[axis]];
    both.text = [...tracks.map(() => undefined), moved.text];
    if (solid) return Plotly.restyle(chart.plot, both, indices);
    // In two dimensions the background need not be drawn again.
    const data = indices.map((_, i) => ({x: both.x[i], y: both.y[i], text: both.text[i]}));
    // The promise is broken when the next frame comes before this one is drawn: no matter.
    return Plotly.animate(chart.plot, {data, traces: indices}, NOW).catch(() => {});
  }
  function stop() {
    cancelAnimationFrame(timer);
    timer = null;
    play.textContent = "Play";
  }
  function start() {
    if (step >= last) step = 0;
    play.textContent = "Pause";
    let before = performance.now();
    const frame = (now) => {
      const gap = still.matches ? 250 : 30;
      if (now - before >= gap) {
        // A tab that was hidden goes on where it was.
        const moved = Math.min(now - before, 2 * gap + 200) / DURATION;
        before = now;
        show(step + moved * last * Number(speed.value));
      }
      if (step >= last) stop();
      else timer = requestAnimationFrame(frame);
    };
    timer = requestAnimationFrame(frame);
  }

  const labels = switches(chart.legend, tracks.map((track, i) => ({
    label: track.name,
    mark: swatch({line: {dash: track.dash}}, track.colour),
    on: true,
    toggle: (on) => {
      shown[i] = on;
      Plotly.restyle(chart.plot, {visible: on}, [base + i]);
      const moved = headsAt(Math.floor(step));
      Plotly.restyle(chart.plot, Object.fromEntries(Object.entries(moved).map(([k, v]) => [k, [v]])), [base + tracks.length]);
    },
  })));
  const values = tracks.map((track, i) => {
    const value = document.createElement("span");
    value.className = "value";
    value.textContent = valueOf(track, last);
    labels[i].append(value);
    return value;
  });
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  scrub.addEventListener("input", () => {
    stop();
    show(Number(scrub.value));
  });
}
