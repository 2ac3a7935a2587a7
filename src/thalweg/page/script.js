// The page itself: draws every chart in turn. page.py puts the other files in front of this one.

const charts = [];

function read(figure) {
  const {data, layout, tracks, steps, colours: palette} = JSON.parse(figure.querySelector("script").textContent);
  return {
    figure, data, layout, palette, tracks: tracks || [], steps: steps || [],
    plot: figure.querySelector(".plot"), legend: figure.querySelector(".legend"),
  };
}

function webgl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

async function draw(figure) {
  const chart = read(figure);
  if (axesOf(chart).scenes.size && !webgl()) {
    figure.dataset.state = "unsupported";
    chart.plot.textContent = "This picture in three dimensions needs WebGL, which this browser does not offer.";
    figure.querySelector(".controls")?.remove();
    return;
  }
  prepare(chart);
  if (chart.tracks.length) animate(chart);
  else legend(chart);
  await Plotly.newPlot(chart.plot, chart.data, chart.layout, config);
  charts.push(chart);
  figure.dataset.state = "drawn";
}

function theme() {
  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => (button.textContent = dark() ? "Light" : "Dark");
  const apply = () => {
    label();
    charts.forEach(repaint);
  };
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    apply();
  });
  system.addEventListener("change", apply);
  // Paper is light.
  let chosen;
  addEventListener("beforeprint", () => {
    chosen = root.dataset.theme;
    root.dataset.theme = "light";
    charts.forEach(repaint);
  });
  addEventListener("afterprint", () => {
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    charts.forEach(repaint);
  });
}

async function main() {
  theme();
  for (const figure of document.querySelectorAll("figure.chart")) {
    try {
      await draw(figure);
    } catch (error) {
      figure.dataset.state = "failed";
      console.error("chart not drawn:", figure.querySelector("h3")?.textContent, error);
    }
    // Lets the reader scroll between two charts.
    await new Promise((next) => setTimeout(next));
  }
  root.dataset.ready = "true";
}
main();
