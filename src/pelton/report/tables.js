/* Tables of the report: sorted by a click on a column's head, searched, turned page by page, saved as CSV.
   Without scripts each table stands as it was written. */
"use strict";
(() => {
  const PAGE = 200;
  const collator = new Intl.Collator("en", { numeric: true });

  // The number that a cell begins with; NaN where it holds words or nothing.
  const number = (text) => {
    const found = text.replace(/,/g, "").replace(/−/g, "-").match(/^\s*([<>]?)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(k|M|bn)?/i);
    if (!found) return NaN;
    const scale = { k: 1e3, M: 1e6, bn: 1e9 }[found[3]] || 1;
    const nudge = found[1] === "<" ? 1 - 1e-3 : found[1] === ">" ? 1 + 1e-3 : 1;
    return Number(found[2]) * scale * nudge;
  };

  const element = (name, properties) => Object.assign(document.createElement(name), properties);

  class Sheet {
    constructor(table) {
      this.table = table;
      this.body = table.tBodies[0];
      this.heads = [...table.tHead.rows[0].cells];
      this.source = document.getElementById(table.dataset.rows || "");
      this.total = Number(table.dataset.total) || this.body.rows.length;
      this.page = 0;
      this.build();
    }

    // Every row as texts, read when first wanted: a table of 100,000 units opens as fast as one of 200.
    get rows() {
      if (!this.all) {
        this.all = this.source
          ? JSON.parse(this.source.textContent)
          : [...this.body.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
        this.shown = this.all.map((_, at) => at);
      }
      return this.all;
    }

    build() {
      const bar = element("div", { className: "tools" });
      if (this.total > 10) {
        const label = element("label", { textContent: "Search " });
        this.input = element("input", { type: "search", spellcheck: false, autocomplete: "off" });
        this.input.addEventListener("input", () => this.refresh());
        label.append(this.input);
        bar.append(label);
      }
      const save = element("button", { type: "button", textContent: "Save as CSV" });
      save.addEventListener("click", () => this.save());
      this.state = element("span", { className: "muted" });
      this.state.setAttribute("role", "status");
      this.back = element("button", { type: "button", textContent: "Previous", hidden: true });
      this.next = element("button", { type: "button", textContent: "Next", hidden: true });
      this.back.addEventListener("click", () => this.turn(-1));
      this.next.addEventListener("click", () => this.turn(1));
      bar.append(save, this.back, this.next, this.state);
      this.table.parentElement.before(bar);
      this.heads.forEach((head, column) => {
        const button = element("button", { type: "button", className: "sort", textContent: head.textContent });
        button.title = "Sort by " + head.textContent;
        button.addEventListener("click", () => this.sort(column));
        head.replaceChildren(button);
      });
      if (this.total > this.body.rows.length) {
        this.next.hidden = false;
        this.say(0, this.body.rows.length, this.total);
      }
    }

    say(from, to, of) {
      const format = (value) => value.toLocaleString("en");
      this.state.textContent = of ? `${format(from + 1)} to ${format(to)} of ${format(of)}` : "nothing found";
    }

    sort(column) {
      const head = this.heads[column];
      const descending = head.getAttribute("aria-sort") === (column ? "descending" : "ascending") ? !column : !!column;
      this.heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      this.order = { column, descending };
      this.refresh();
    }

    refresh() {
      const rows = this.rows;
      const wanted = (this.input ? this.input.value : "").trim().toLowerCase();
      this.shown = [];
      rows.forEach((row, at) => {
        if (!wanted || row[0].toLowerCase().includes(wanted)) this.shown.push(at);
      });
      if (this.order) {
        const { column, descending } = this.order;
        const keys = rows.map((row) => (column ? number(row[column]) : row[0]));
        const sign = descending ? -1 : 1;
        this.shown.sort((a, b) => {
          if (!column) return sign * collator.compare(keys[a], keys[b]);
          const lost = Number.isNaN(keys[a]) - Number.isNaN(keys[b]);
          return lost || sign * (keys[a] - keys[b]) || a - b;
        });
      }
      this.page = 0;
      this.draw();
    }

    turn(step) {
      void this.rows;
      this.page += step;
      this.draw();
    }

    draw() {
      const start = this.page * PAGE;
      const end = Math.min(start + PAGE, this.shown.length);
      const lines = this.shown.slice(start, end).map((at) => {
        const line = element("tr");
        this.all[at].forEach((text, column) => {
          const cell = element(column ? "td" : "th");
          if (column) cell.textContent = text;
          else {
            cell.scope = "row";
            cell.append(element("bdi", { textContent: text }));
          }
          line.append(cell);
        });
        return line;
      });
      this.body.replaceChildren(...lines);
      this.back.hidden = start === 0;
      this.next.hidden = end >= this.shown.length;
      this.say(start, end, this.shown.length);
    }

    save() {
      const quote = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
      const rows = this.rows;
      const lines = [this.heads.map((head) => head.textContent), ...this.shown.map((at) => rows[at])];
      const text = "\ufeff" + lines.map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
      const link = element("a", {
        href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })),
        download: (this.table.dataset.name || "table") + ".csv",
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
  }

  document.querySelectorAll("table.data").forEach((table) => new Sheet(table));
})();
