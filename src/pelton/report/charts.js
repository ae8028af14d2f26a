/* Interactive charts in the place of pictures, on screen alone: drawn when they come near, in the theme's colours, side by
   side or, where there is little room, one below the other. Without scripts and on paper the pictures stand. */
"use strict";
(() => {
  const NARROW = 704;
  // What cannot be stacked keeps the width of a desk and is moved sideways.
  const SIDEWAYS = 900;
  const NEAR = "600px";
  const element = (name, properties, ...inside) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...inside);
    return made;
  };

  // Plotly, unpacked once and when first wanted.
  let unpacked;
  const library = () => {
    unpacked ||= (async () => {
      const packed = document.getElementById("plotly");
      const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      document.head.append(element("script", { textContent: await new Response(stream).text() }));
      packed.remove();
      return window.Plotly;
    })();
    return unpacked;
  };

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const roles = Object.fromEntries(Object.entries(themes.light).map(([role, colour]) => [colour, role]));

  // A copy in the theme's colours; names that look like colours stay as they are.
  const themed = (value, key = "") => {
    if (Array.isArray(value)) return value.map((one) => themed(one, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, themed(one, name)]));
    return /color$/.test(key) && value in roles ? themes[dark.matches ? "dark" : "light"][roles[value]] : value;
  };

  const merged = (one, other) => {
    const found = { ...one };
    for (const [key, value] of Object.entries(other || {}))
      found[key] = value && typeof value === "object" && !Array.isArray(value) ? merged(found[key] || {}, value) : value;
    return found;
  };

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.picture = figure.querySelector("img");
      this.source = JSON.parse(figure.querySelector("script").textContent);
      // Places that say something, in order, for those who go through them by keys.
      this.places = this.source.data.flatMap((trace, curve) =>
        (trace.hovertext || []).map((_, point) => ({ curve, point })));
      this.at = -1;
    }

    build() {
      this.plot = element("div", { className: "plot", tabIndex: 0 });
      this.plot.setAttribute("role", "application");
      this.plot.setAttribute("aria-label", this.picture.alt + " Interactive: arrow keys go from point to point.");
      this.told = element("span", { className: "muted" });
      this.told.setAttribute("role", "status");
      const button = (textContent, title, act) => {
        const made = element("button", { type: "button", textContent, title });
        made.setAttribute("aria-label", title);
        made.addEventListener("click", act);
        return made;
      };
      this.tools = element("div", { className: "tools" },
        button("+", "Zoom in", () => this.zoom(0.6)),
        button("−", "Zoom out", () => this.zoom(1 / 0.6)),
        button("Whole chart", "Show the whole chart", () => this.draw()),
        this.told);
      const title = element("p", { className: "title", textContent: this.figure.dataset.title });
      this.live = element("div", { className: "live" }, title, this.plot, this.tools);
      this.plot.addEventListener("keydown", (event) => this.key(event));
      this.plot.addEventListener("blur", () => this.leave());
      this.picture.before(this.live);
    }

    // Draws anew for the width and the theme, zoomed out.
    async draw() {
      const room = this.figure.clientWidth;
      const stacked = room < NARROW && this.source.narrow.height;
      const shape = stacked ? this.source.narrow : this.source.wide;
      const width = stacked || room >= NARROW ? room : SIDEWAYS;
      const layout = merged(merged(this.source.layout, shape.layout), {
        width,
        height: Math.round(shape.height || shape.ratio * width),
        // A finger moves the page; its charts are zoomed by the buttons.
        dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      });
      this.width = room;
      const settings = { displayModeBar: false, doubleClick: "reset", showTips: false };
      await Plotly.react(this.plot, themed(this.source.data), themed(layout), settings);
    }

    zoom(factor) {
      const changes = {};
      for (const [name, axis] of Object.entries(this.plot._fullLayout)) {
        if (!/^[xy]axis\d*$/.test(name) || axis.fixedrange || axis.matches) continue;
        const [low, high] = axis.range.map((end) => axis.r2l(end));
        const half = ((high - low) / 2) * factor, middle = (low + high) / 2;
        changes[name + ".range"] = [middle - half, middle + half].map((end) => axis.l2r(end));
      }
      Plotly.relayout(this.plot, changes);
    }

    key(event) {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const curve = (this.places[this.at] || {}).curve;
      const ends = { Home: 0, End: this.places.length - 1 };
      if (step) this.tell(Math.min(Math.max(this.at + step, 0), this.places.length - 1));
      else if (event.key in ends) this.tell(ends[event.key]);
      else if (event.key === "PageDown") this.tell(this.places.findIndex((place) => place.curve > (curve ?? -1)));
      else if (event.key === "PageUp") this.tell(this.places.findLastIndex((place) => place.curve < curve));
      else if (event.key === "+" || event.key === "=") this.zoom(0.6);
      else if (event.key === "-") this.zoom(1 / 0.6);
      else if (event.key === "0") this.draw();
      else if (event.key === "Escape") this.leave();
      else return;
      event.preventDefault();
    }

    tell(at) {
      if (at < 0) return;
      const { curve, point } = this.places[at], trace = this.source.data[curve];
      const entered = (this.places[this.at] || {}).curve !== curve && trace.name ? trace.name + ". " : "";
      this.at = at;
      Plotly.Fx.hover(this.plot, [{ curveNumber: curve, pointNumber: point }], trace.xaxis + trace.yaxis);
      const words = element("textarea");
      words.innerHTML = entered + trace.hovertext[point].replace(/<br>/g, "; ");
      this.told.textContent = words.value;
    }

    leave() {
      this.at = -1;
      this.told.textContent = "";
      Plotly.Fx.unhover(this.plot);
    }

    async show() {
      try {
        await library();
        this.build();
        this.figure.classList.add("drawn");
        await this.draw();
      } catch (error) {
        // An old browser, or one that refuses: the picture stays.
        console.warn(error);
        this.figure.classList.remove("drawn");
        if (this.live) this.live.remove();
        this.failed = true;
      }
      this.figure.dispatchEvent(new Event("drawn", { bubbles: true }));
    }

    again() {
      if (this.figure.classList.contains("drawn")) this.draw();
    }
  }

  const charts = new Map();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watch.unobserve(entry.target);
      const chart = new Chart(entry.target);
      charts.set(entry.target, chart);
      chart.show();
    }
  }, { rootMargin: NEAR });
  document.querySelectorAll("figure[data-title]").forEach((figure) => watch.observe(figure));
  dark.addEventListener("change", () => charts.forEach((chart) => chart.again()));
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.forEach((chart) => chart.figure.clientWidth !== chart.width && chart.again()), 150);
  });
})();
