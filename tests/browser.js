// What tests/browser.py asks of an open page.
"use strict";
globalThis.checks = {
  // Each chart: its state, how many points its visible traces have, how many shapes are drawn.
  charts() {
    const neutral = ["ink", "muted", "faint"];
    const points = (trace) => {
      const values = trace.type === "surface" ? [...trace.z].flatMap((row) => [...row]) : [...(trace.y || trace.x || [])];
      return values.filter((value) => value !== null && !Number.isNaN(value)).length;
    };
    const hasSize = (shape) => {
      const box = shape.getBoundingClientRect();
      return box.width + box.height > 0;
    };
    return [...document.querySelectorAll("figure.chart")].map((figure) => {
      const plot = figure.querySelector(".plot");
      const traces = (plot._fullData || []).filter((trace) => trace.visible === true && !neutral.includes(trace.meta));
      const shapes = [...plot.querySelectorAll(".trace path, .bars path, .point, .js-line, .heatmaplayer image")];
      const canvas = plot.querySelector("canvas"); // of a chart in three dimensions
      return {
        name: figure.querySelector("h3").textContent,
        state: figure.dataset.state,
        points: traces.map(points),
        drawn: shapes.filter(hasSize).length + (canvas && canvas.width > 1 ? 1 : 0),
      };
    });
  },

  // What sticks out of the window, which text is too small, which controls are too low for a finger.
  layout() {
    const width = document.documentElement.clientWidth;
    const seen = (element) => {
      const box = element.getBoundingClientRect();
      return box.width > 0 && box.height > 0;
    };
    const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
    const start = (element) => element.outerHTML.slice(0, 100);
    const outside = all("button, input, select, h1, h2, h3, p, .plot, figcaption").filter((element) => {
      const box = element.getBoundingClientRect();
      return box.left < -0.5 || box.right > width + 0.5;
    });
    const small = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const {parentElement: parent, textContent: text} = texts.currentNode;
      if (!text.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(parent.tagName)) continue;
      // An exponent is smaller than its base by right.
      if (parent.tagName === "tspan" && parent.style.fontSize === "70%") continue;
      const size = parseFloat(getComputedStyle(parent).fontSize);
      if (seen(parent) && size < 12) small.push([size, text.slice(0, 40)]);
    }
    const low = all("main button, main input, main select")
      .filter((element) => element.getBoundingClientRect().height < 43.5);
    return {
      overflow: Math.max(0, document.documentElement.scrollWidth - width),
      outside: outside.map(start), small, low: low.map(start),
    };
  },

  // Where the points of an animation are, and where its trajectories end: x, y and z of each.
  heads(figure) {
    const trace = figure.querySelector(".plot").data.find(({meta}) => meta === "heads");
    const numbers = (values) => values.map((value) => (value === null ? null : Number(value)));
    return [numbers(trace.x), numbers(trace.y), numbers(trace.z || [])];
  },
  ends(figure) {
    const {tracks} = JSON.parse(figure.querySelector("script").textContent);
    const last = (axis) => tracks.filter((track) => track[axis]).map((track) => track[axis].at(-1));
    return [last("x"), last("y"), last("z")];
  },

  // Moves the slider as a user does.
  scrub([figure, to]) {
    const slider = figure.querySelector(".scrub");
    slider.value = to === "end" ? slider.max : to;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
  },
};
